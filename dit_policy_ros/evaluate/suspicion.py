"""What makes a replay look wrong: a robot description whose arms are exchanged, or a policy that does not belong."""

from __future__ import annotations

import numpy as np

from dit_policy_ros.data.proposal import side_of
from dit_policy_ros.evaluate.horizon_errors import ErrorSummary, counterpart
from dit_policy_ros.robot import RobotSpec

FAR = 1.5
"""An error this many times that of holding still is suspicious."""
_SWAPPED = 0.5
"""So much smaller must the error against the other arm be."""
LEAST_ERROR = 0.05
"""Of one joint, [rad]; smaller ones are not remarked on."""


def suspicions(errors: ErrorSummary, robot: RobotSpec) -> tuple[str, ...]:
    """Returns sentences, the plainest first; none for a replay that looks right."""
    return (*_misplaced(robot), *_exchanged(errors), *_worse_than_nothing(errors, robot))


def places_of(robot: RobotSpec) -> tuple[int, ...] | None:
    """Returns of each joint the index of the one whose value it gets if arms and slots are right and names wrong.

    None where names and places agree. A policy that goes by names would not notice such a description, and one that
    goes by slots would move the wrong arm.
    """
    wrong = _wrong_side(robot)
    if not wrong:
        return None
    names = robot.names
    return tuple(counterpart(name, names) if name in wrong else k for k, name in enumerate(names))


def _wrong_side(robot: RobotSpec) -> dict[str, str]:
    """Joints whose name says one arm and whose place or slot says the other, with what the description says."""
    return {
        joint.name: f"{joint.name} (arms.{joint.arm}, slot {joint.slot})"
        for joint in robot.joints
        if side_of(joint.name) and {side_of(joint.name)} != {joint.arm, side_of(joint.slot) or joint.arm}
    }


def _misplaced(robot: RobotSpec) -> list[str]:
    wrong = list(_wrong_side(robot).values())
    if not wrong:
        return []
    shown = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
    return [
        f"The robot description has joints of one arm on the other: {shown}. Are left and right exchanged? Names and "
        "places contradict each other; shown is the larger of the two errors that this can mean."
    ]


def _exchanged(errors: ErrorSummary) -> list[str]:
    both = np.isfinite(errors.mirrored)
    own, mirrored = errors.per_joint[0, both].sum(), errors.mirrored[both].sum()
    if not both.any() or not mirrored < _SWAPPED * own or own <= errors.per_joint[1, both].sum():
        return []
    return [
        f"What the policy says for one arm fits what was recorded of the other ({own / max(mirrored, 1e-9):.1f} times "
        "better than its own). Left and right are exchanged in the robot description, or the cameras are."
    ]


def _worse_than_nothing(errors: ErrorSummary, robot: RobotSpec) -> list[str]:
    policy, hold = errors.per_joint[0], errors.per_joint[1]
    found = []
    if policy.sum() > FAR * hold.sum():
        found.append(
            f"The policy is {policy.sum() / max(hold.sum(), 1e-9):.1f} times as far from the recording as holding "
            "still would be. Check names, slots and units of the joints, the cameras, and whether the policy is for "
            "this robot."
        )
    worse = [
        f"{joint.name} ({policy[k]:.2f} against {hold[k]:.2f})"
        for k, joint in enumerate(robot.joints)
        if policy[k] > FAR * hold[k] + LEAST_ERROR
    ]
    if worse:
        found.append(f"Farther from the recording than holding still: {', '.join(worse)}.")
    return found
