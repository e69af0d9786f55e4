"""Reads the reference directories of the repository and holds each case to its own tolerance."""

from pathlib import Path

import pytest

from dit_policy_ros.policy.references.case import load_cases
from dit_policy_ros.policy.references.methods import run

GOLDEN = Path(__file__).parents[1] / "golden"


def cases(*families):
    """Returns pytest parameters (family, case) for every case of these directories."""
    found = [(family, case) for family in families for case in load_cases(GOLDEN / family)]
    assert found
    return [pytest.param(family, case, id=f"{family}-{case.name}") for family, case in found]


def check(family, case):
    errors = case.errors(run(family, case))
    worst = max(errors, key=errors.get)
    assert errors[worst] <= case.tolerance, f"{worst} is off by {errors[worst]:.2e}; all: {errors}"
