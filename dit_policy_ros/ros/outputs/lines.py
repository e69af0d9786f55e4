"""The lines to all controllers of a robot, and who else talks to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.ros.outputs.choice import make_output
from dit_policy_ros.ros.outputs.output import Moment
from dit_policy_ros.types import Trajectory


class Lines:
    """Encodes what all controllers are told before any is told, with one stamp."""

    def __init__(self, node: ManagedNode, robot: RobotSpec) -> None:
        """Opens the lines.

        Raises:
            ConfigError: the messages of a controller are not installed.
        """
        self._node = node
        self._robot = robot
        self._columns = [[robot.names.index(joint) for joint in c.joints] for c in robot.controllers]
        self._outputs = [make_output(node, controller) for controller in robot.controllers]

    @property
    def stream(self) -> bool:
        """Whether a controller must be told something in every period."""
        return any(output.streams for output in self._outputs)

    def command(
        self,
        now_ns: int,
        period_ns: int,
        sent: Sequence[Trajectory],
        reference: Callable[[int], np.ndarray | None],
        moves: bool,
        mutes: Callable[[Sequence[str]], bool],
    ) -> None:
        """Tells the controllers what is new in this period.

        Args:
            sent: a trajectory for each controller in the robot's order, or none.
            reference: where the robot's joints are told to be at an instant, (J,).
            moves: see ``Moment``.
            mutes: whether controllers of these joints must not be told anything.
        """
        trajectories: Sequence[Trajectory | None] = sent or [None] * len(self._outputs)
        encoded = []
        for output, columns, trajectory in zip(self._outputs, self._columns, trajectories, strict=True):
            if mutes(output.controller.joints):
                continue
            moment = Moment(now_ns, period_ns, trajectory, _part(reference, columns), moves)
            encoded.append((output, output.encode(moment)))
        for output, message in encoded:
            if message is not None:
                output.send(message)

    def flush(self) -> None:
        """Waits until the controllers have the last word."""
        for output in self._outputs:
            output.flush()

    def close(self) -> None:
        """Lets go of what the node does not let go of itself."""
        for output in self._outputs:
            output.close()

    def others(self) -> str:
        """Returns '' while nobody else publishes on the controllers' topics, else who and where."""
        mine = (self._node.get_namespace(), self._node.get_name())
        for controller in self._robot.controllers:
            found = self._node.get_publishers_info_by_topic(controller.topic)
            names = [(info.node_namespace, info.node_name) for info in found]
            if mine in names:
                names.remove(mine)
            if names:
                namespace, name = names[0]
                return f"{namespace.rstrip('/')}/{name} publishes on {controller.topic} too; end it"
        return ""


def _part(reference: Callable[[int], np.ndarray | None], columns: list[int]) -> Callable[[int], np.ndarray | None]:
    def part(time_ns: int) -> np.ndarray | None:
        whole = reference(time_ns)
        return None if whole is None else whole[columns]

    return part
