"""The remaining reference directories without weights, and what the runner refuses."""

from dataclasses import replace

import pytest
import torch
from reference_cases import GOLDEN, cases, check

from dit_policy_ros.errors import CheckpointError, PolicyError
from dit_policy_ros.policy.references.case import load_cases, scaled_error
from dit_policy_ros.policy.references.methods import METHODS, run


@pytest.mark.parametrize(("family", "case"), cases("act_temporal_ensemble", "unified_rotation"))
def test_actions(family, case):
    check(family, case)


@pytest.fixture
def ddim():
    return next(case for case in load_cases(GOLDEN / "solvers") if case.name == "ddim10_epsilon")


def test_every_family_has_a_directory():
    assert {family for family in METHODS if not (GOLDEN / family / "reference.json").exists()} == set()


def test_unknown_families_operations_and_options_are_named(ddim):
    with pytest.raises(CheckpointError, match="Family 'rotary' does not exist"):
        run("rotary", ddim)
    with pytest.raises(CheckpointError, match="Operation of family 'solvers' 'guess' does not exist"):
        run("solvers", replace(ddim, operation="guess"))
    with pytest.raises(CheckpointError, match="lacks the parameter or input 'T'"):
        run("solvers", replace(ddim, parameters={}))
    with pytest.raises(PolicyError, match="Available: ddim, ddpm"):
        run("solvers", replace(ddim, parameters={**ddim.parameters, "solver": "magic"}))


@pytest.mark.parametrize("wrong", [None, torch.zeros(2), torch.full((3,), torch.nan)])
def test_what_cannot_be_compared_is_infinitely_wrong(wrong):
    assert scaled_error(wrong, torch.ones(3)) == float("inf")


def test_errors_are_scaled_by_large_values_only():
    assert scaled_error(torch.tensor([0.2]), torch.tensor([0.1])) == pytest.approx(0.1)
    assert scaled_error(torch.tensor([101.0, 0.0]), torch.tensor([100.0, 0.0])) == pytest.approx(0.01)


def test_a_damaged_directory_is_refused(tmp_path):
    with pytest.raises(CheckpointError):
        load_cases(tmp_path)
    (tmp_path / "reference.json").write_text('{"cases": [')
    with pytest.raises(CheckpointError):
        load_cases(tmp_path)


@pytest.mark.parametrize(
    ("family", "name", "changed"),
    [
        ("solvers", "ddim10_epsilon", {"set_alpha_to_one": False}),
        ("solvers", "ddim10_epsilon", {"timestep_spacing": "trailing"}),
        ("solvers", "ddpm10_epsilon", {"variance_type": "fixed_large"}),
        ("solvers", "flow_match_euler5_shift1.0", {"shift": 3.0}),
        ("solvers", "dpmpp5_sample_T1000", {"order": 1}),
        ("taylorseer", "diffusers_interval5_order1_warmup3", {"cooldown_from": 17}),
        ("rti_dp", "scale_factor10", {"branch": "reproduce"}),
    ],
)
def test_options_that_no_case_has_change_the_result(family, name, changed):
    case = next(case for case in load_cases(GOLDEN / family) if case.name == name)
    other = replace(case, parameters={**case.parameters, **changed})
    assert max(other.errors(run(family, other)).values()) > 10 * case.tolerance
