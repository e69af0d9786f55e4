"""Runs episodes on a live ``sim_node``: sets the seed, asks for a reset, waits for the outcome."""

from __future__ import annotations

import time
from collections.abc import Callable

import rclpy
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from dit_policy_ros.errors import WorldError
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.episode_state import EpisodeState

POLL_S = 0.05
SERVICE_TIMEOUT_S = 20.0
DISABLED = "holding: disabled"
"""How the executor's status begins while it is told not to move."""
STALL_TIMEOUT_S = 60.0
"""An episode whose state does not change for so long is given up."""


class EpisodeDriver:
    """Context manager: a small ROS client in a context of its own. Not thread-safe."""

    def __init__(
        self, sim_node: str = "/sim_node", executor_node: str = "/executor_node", domain_id: int | None = None
    ) -> None:
        self._name = sim_node
        self._executor_name = executor_node
        self._status = ""
        self._domain_id = domain_id
        self._newest: EpisodeState | None = None

    def __enter__(self) -> EpisodeDriver:
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context, domain_id=self._domain_id)
        self._node = rclpy.create_node("episode_driver", context=self._context, use_global_arguments=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._node.create_subscription(String, f"{self._name}/episode", self._store, qos.LATCHED)
        self._node.create_subscription(String, f"{self._executor_name}/status", self._store_status, qos.LATCHED)
        self._enable = self._node.create_publisher(Bool, "/enable", qos.COMMAND)
        self._parameters = self._node.create_client(SetParameters, f"{self._name}/set_parameters")
        self._reset = self._node.create_client(Trigger, f"{self._name}/reset")
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def run(self, seed: int, check: Callable[[], None] = lambda: None) -> EpisodeState:
        """Runs one episode to its end.

        Args:
            check: called while waiting; raises where waiting makes no sense any more.

        Returns:
            The final state.

        Raises:
            WorldError: the simulator refuses, does not answer, or stalls.
        """
        value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=seed)
        request = SetParameters.Request(parameters=[Parameter(name="seed", value=value)])
        answer = self._call(self._parameters, request, check)
        if not all(result.successful for result in answer.results):
            raise WorldError(f"{self._name} refused seed {seed}: {answer.results[0].reason}")
        # A reset puts the arms elsewhere, where a plan made before would tear them back.
        self._allow_motion(False, check)
        answer = self._call(self._reset, Trigger.Request(), check)
        if not answer.success:
            raise WorldError(f"{self._name} did not reset: {answer.message}")
        begun = EpisodeState.from_json(answer.message)
        self._allow_motion(True, check)
        deadline, before = time.monotonic() + STALL_TIMEOUT_S, None
        while not self._is_end_of(begun):
            check()
            self._executor.spin_once(timeout_sec=POLL_S)
            if self._newest != before:
                deadline, before = time.monotonic() + STALL_TIMEOUT_S, self._newest
            if time.monotonic() > deadline:
                raise WorldError(f"{self._name} made no progress for {STALL_TIMEOUT_S:g} s; see its log.")
        return self._newest

    def _allow_motion(self, allowed: bool, check: Callable[[], None]) -> None:
        deadline = time.monotonic() + SERVICE_TIMEOUT_S
        # Said again and again, since an executor that was found a moment ago may not listen yet.
        while not self._status or self._status.startswith(DISABLED) == allowed:
            check()
            if time.monotonic() > deadline:
                state = f"stays '{self._status}'" if self._status else "does not answer; is it running?"
                raise WorldError(f"{self._executor_name} {state}")
            self._enable.publish(Bool(data=allowed))
            self._executor.spin_once(timeout_sec=POLL_S)

    def _store_status(self, message: String) -> None:
        self._status = message.data

    def _store(self, message: String) -> None:
        self._newest = EpisodeState.from_json(message.data)

    def _is_end_of(self, begun: EpisodeState) -> bool:
        newest = self._newest
        return newest is not None and newest.start_ns == begun.start_ns and newest.is_done

    def _call(self, client, request, check: Callable[[], None]):
        deadline = time.monotonic() + SERVICE_TIMEOUT_S
        while not client.service_is_ready():
            check()
            if time.monotonic() > deadline:
                raise WorldError(f"{client.srv_name} is not there; is {self._name} running?")
            self._executor.spin_once(timeout_sec=POLL_S)
        future = client.call_async(request)
        while not future.done():
            check()
            if time.monotonic() > deadline:
                raise WorldError(f"{client.srv_name} did not answer within {SERVICE_TIMEOUT_S:g} s.")
            self._executor.spin_once(timeout_sec=POLL_S)
        return future.result()
