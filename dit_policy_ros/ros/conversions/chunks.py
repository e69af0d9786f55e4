"""Action chunks as trajectory messages; the provenance travels in the frame id, which joints do not need."""

from __future__ import annotations

import re

import numpy as np
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.errors import RobotError
from dit_policy_ros.ros.conversions.trajectories import message_to_trajectory, trajectory_to_message
from dit_policy_ros.types import ActionChunk, Trajectory

_PROVENANCE = re.compile(r"observation_ns=(\d+) context_ns=(\d+) epoch=(\d+) committed=(\d+)")


def chunk_to_message(chunk: ActionChunk) -> JointTrajectory:
    """Makes a message stamped with the time of the first action.

    Raises:
        RobotError: the chunk has fewer than two actions, so its step would be lost.
    """
    if len(chunk.actions) < 2:
        raise RobotError(f"A chunk of {len(chunk.actions)} actions cannot be sent; it needs at least two.")
    provenance = (
        f"observation_ns={chunk.observation_ns} context_ns={chunk.context_ns} "
        f"epoch={chunk.epoch} committed={chunk.committed}"
    )
    return trajectory_to_message(Trajectory(chunk.names, chunk.times_ns, chunk.actions), frame_id=provenance)


def message_to_chunk(message: JointTrajectory) -> ActionChunk:
    """Returns a chunk.

    Raises:
        RobotError: not a valid trajectory of equally spaced points, or without provenance.
    """
    found = _PROVENANCE.fullmatch(message.header.frame_id)
    if found is None:
        raise RobotError(
            f"A chunk's frame id is '{message.header.frame_id}'; it must read "
            "'observation_ns=N context_ns=N epoch=N committed=N'."
        )
    trajectory = message_to_trajectory(message)
    steps = np.diff(trajectory.times_ns)
    if len(steps) == 0 or (steps != steps[0]).any():
        raise RobotError("The actions of a chunk are not equally spaced in time; at least two, one step apart, are.")
    observation_ns, context_ns, epoch, committed = (int(group) for group in found.groups())
    if committed > len(trajectory.times_ns):
        raise RobotError(f"A chunk of {len(trajectory.times_ns)} actions claims {committed} committed ones.")
    return ActionChunk(
        names=trajectory.names,
        start_ns=int(trajectory.times_ns[0]),
        step_ns=int(steps[0]),
        actions=trajectory.positions,
        observation_ns=observation_ns,
        context_ns=context_ns,
        epoch=epoch,
        committed=committed,
    )
