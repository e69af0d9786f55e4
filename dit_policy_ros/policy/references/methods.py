"""Runs the cases of a reference directory without weights: samplers, chunk methods, caches and rotations."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dit_policy_ros.errors import CheckpointError, one_of
from dit_policy_ros.policy.references import (
    act_temporal_ensemble,
    bac,
    eadp,
    gpc,
    rtc,
    rti_dp,
    sdp,
    solvers,
    taylorseer,
    unified_rotation,
)
from dit_policy_ros.policy.references.case import Case, Outputs

Operation = Callable[[Case], Outputs]

METHODS: dict[str, Mapping[str, Operation]] = {
    "solvers": solvers.OPERATIONS,
    "act_temporal_ensemble": act_temporal_ensemble.OPERATIONS,
    "rtc": rtc.OPERATIONS,
    "sdp": sdp.OPERATIONS,
    "rti_dp": rti_dp.OPERATIONS,
    "gpc": gpc.OPERATIONS,
    "eadp": eadp.OPERATIONS,
    "taylorseer": taylorseer.OPERATIONS,
    "bac": bac.OPERATIONS,
    "unified_rotation": unified_rotation.OPERATIONS,
}
"""The ``family`` of a directory to its operations."""


def run(family: str, case: Case) -> Outputs:
    """Returns the outputs of one case.

    Raises:
        CheckpointError: the family or the operation is unknown, or the case lacks a parameter or input.
        DitPolicyError: a parameter has a value that the operation does not know.
    """
    if family not in METHODS:
        raise CheckpointError(one_of("Family", family, METHODS))
    if case.operation not in METHODS[family]:
        raise CheckpointError(one_of(f"Operation of family '{family}'", case.operation, METHODS[family]))
    try:
        return METHODS[family][case.operation](case)
    except KeyError as problem:
        raise CheckpointError(f"Case '{case.name}' lacks the parameter or input {problem}.") from problem
