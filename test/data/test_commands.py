"""Commands as plain numbers: what goes in comes out, and splicing is that of the definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dit_policy_ros.controllers import Controller
from dit_policy_ros.data import messages
from dit_policy_ros.data.commands import Command, CommandHistory, read_command, spliced
from dit_policy_ros.errors import BagError
from dit_policy_ros.types import Trajectory

COMMANDS = st.lists(
    st.tuples(st.integers(0, 50), st.lists(st.integers(1, 9), min_size=1, max_size=5)), min_size=1, max_size=12
)


def made(entries, speeds=False):
    commands = []
    for k, (start, steps) in enumerate(entries):
        times_ns = start + np.cumsum(steps).astype(np.int64)
        positions = np.stack([times_ns + 1000.0 * k, -times_ns], axis=1)
        commands.append(Command(start, Trajectory(("a", "b"), times_ns, positions, positions if speeds else None)))
    return commands


def in_history(commands):
    history = CommandHistory(("a", "b"))
    for command in commands:
        history.add(command)
    return history


@given(entries=COMMANDS)
def test_a_waypoint_stays_unless_a_later_command_begins_before_or_at_it(entries):
    commands = made(entries)
    expected = [
        (int(time_ns), row.tolist())
        for k, command in enumerate(commands)
        for time_ns, row in zip(command.trajectory.times_ns, command.trajectory.positions, strict=True)
        if all(time_ns < later.trajectory.times_ns[0] for later in commands[k + 1 :])
    ]
    for given_as in (commands, in_history(commands)):
        times_ns, positions = spliced(given_as)
        assert [*zip(times_ns.tolist(), positions.tolist(), strict=True)] == expected
        assert (np.diff(times_ns) > 0).all()


@given(entries=COMMANDS, speeds=st.booleans())
def test_commands_come_out_as_they_went_in(entries, speeds):
    commands = made(entries, speeds)
    history = in_history(commands)
    assert len(history) == len(commands)
    for found, known in zip(history, commands, strict=True):
        assert (found.sent_ns, found.trajectory.names) == (known.sent_ns, known.trajectory.names)
        np.testing.assert_array_equal(found.trajectory.times_ns, known.trajectory.times_ns)
        np.testing.assert_array_equal(found.trajectory.positions, known.trajectory.positions)
        assert (found.trajectory.velocities is None) == (not speeds)
        if speeds:
            np.testing.assert_array_equal(found.trajectory.velocities, known.trajectory.velocities)
    assert history[-1].sent_ns == commands[-1].sent_ns
    assert len(history[1:]) == len(commands) - 1
    with pytest.raises(IndexError):
        history[len(commands)]


def test_other_controllers_go_there_at_once():
    forward = Controller("arm", "forward_command", "/arm/commands", ("a", "b"))
    layout = messages._make("std_msgs/msg/MultiArrayLayout", [], 0)
    message = messages._make(messages.FLOAT64_ARRAY, layout, np.array([0.5, 0.25]))
    command = read_command(70, message, forward, "bag")
    assert (command.sent_ns, command.trajectory.times_ns.tolist()) == (70, [70])
    assert command.trajectory.positions.tolist() == [[0.5, 0.25]]
    message.data = np.array([0.5])
    with pytest.raises(BagError, match="has 1 values, but arm moves 2 joints"):
        read_command(70, message, forward, "bag")
    message.data = np.array([0.5, np.nan])
    with pytest.raises(BagError, match="not finite"):
        read_command(70, message, forward, "bag")
    poses = Controller("arm", "pose", "/arm/target_frame", tuple(f"c{k}" for k in range(9)))
    pose = messages.pose(30, "base", np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.0, 0.0, 1.0]))
    found = read_command(70, pose, poses, "bag").trajectory.positions[0]
    np.testing.assert_allclose(found, [1, 2, 3, 1, 0, 0, 0, 1, 0])
