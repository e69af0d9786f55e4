"""Takes lifecycle nodes of other processes through their transitions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.task import Future

from dit_policy_ros.errors import ConfigError

START_TIMEOUT_S = 120.0
POLL_S = 0.05
RETRY_S = 1.0

GOALS = {
    Transition.TRANSITION_CONFIGURE: "inactive",
    Transition.TRANSITION_ACTIVATE: "active",
    Transition.TRANSITION_DEACTIVATE: "inactive",
    Transition.TRANSITION_CLEANUP: "unconfigured",
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN: "finalized",
    Transition.TRANSITION_INACTIVE_SHUTDOWN: "finalized",
    Transition.TRANSITION_ACTIVE_SHUTDOWN: "finalized",
}
"""Transition to the label of the state it leads to."""


class Transitions:
    """A small ROS client in a context of its own. Not thread-safe."""

    def __init__(self, name: str = "launcher", domain_id: int | None = None) -> None:
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context, domain_id=domain_id)
        self._node = rclpy.create_node(name, context=self._context, use_global_arguments=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._clients: dict[str, tuple[Client, Client]] = {}

    def close(self) -> None:
        """Leaves the graph."""
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def bring_up(self, nodes: Sequence[str], timeout_s: float, check: Callable[[], None] = lambda: None) -> None:
        """Configures all nodes at once, since loading a model takes long, then activates them in order.

        Args:
            check: called while waiting; raises where waiting makes no sense any more.

        Raises:
            ConfigError: a node refuses, or does not answer in time.
        """
        deadline = time.monotonic() + timeout_s
        self.change(nodes, Transition.TRANSITION_CONFIGURE, deadline, check)
        for node in nodes:
            self.change([node], Transition.TRANSITION_ACTIVATE, deadline, check)

    def change(
        self, nodes: Sequence[str], transition: int, deadline: float, check: Callable[[], None] = lambda: None
    ) -> None:
        """Requests one transition of each node and waits until all are there.

        Args:
            transition: a constant of ``lifecycle_msgs/Transition``.
            deadline: on the monotonic clock, [s].

        Raises:
            ConfigError: see ``bring_up``.
        """
        waiting = [_Change(node, transition, *self._clients_of(node)) for node in nodes]
        while waiting:
            check()
            if time.monotonic() > deadline:
                names = ", ".join(change.node for change in waiting)
                raise ConfigError(f"{names} did not become '{GOALS[transition]}' in time; the log may say why.")
            waiting = [change for change in waiting if not change.is_done()]
            self._executor.spin_once(timeout_sec=POLL_S)

    def _clients_of(self, node: str) -> tuple[Client, Client]:
        if node not in self._clients:
            name = f"/{node.lstrip('/')}"
            self._clients[node] = (
                self._node.create_client(GetState, f"{name}/get_state"),
                self._node.create_client(ChangeState, f"{name}/change_state"),
            )
        return self._clients[node]


class _Change:
    """One transition of one node.

    A service that died a moment ago still looks alive, and takes requests that nobody answers. So the state is asked
    for first and again and again, which is harmless, and the transition only of a node that answered.
    """

    def __init__(self, node: str, transition: int, state: Client, change: Client) -> None:
        self.node = node
        self._transition = transition
        self._clients = {"state": state, "change": change}
        self._futures: dict[str, tuple[Future, float]] = {}

    def is_done(self) -> bool:
        """Advances; returns whether the goal is reached. Raises ConfigError where the node refuses."""
        answer = self._answer("change")
        if answer is not None:
            if not answer.success:
                raise ConfigError(f"{self.node} refused to become '{GOALS[self._transition]}'; its log says why.")
            return True
        answer = self._answer("state")
        if answer is not None:
            if answer.current_state.label == GOALS[self._transition]:
                return True
            if self._age_s("change") > RETRY_S:
                request = ChangeState.Request()
                request.transition.id = self._transition
                self._ask("change", request)
        if self._age_s("state") > RETRY_S:
            self._ask("state", GetState.Request())
        return False

    def _answer(self, which: str) -> object | None:
        if which not in self._futures or not self._futures[which][0].done():
            return None
        # The time stays, so that the next question is not asked at once.
        future, asked_s = self._futures[which]
        answer = future.result()
        self._futures[which] = (Future(), asked_s)
        return answer

    def _age_s(self, which: str) -> float:
        return time.monotonic() - self._futures[which][1] if which in self._futures else float("inf")

    def _ask(self, which: str, request: object) -> None:
        if self._clients[which].service_is_ready():
            self._futures[which] = (self._clients[which].call_async(request), time.monotonic())
