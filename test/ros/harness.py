"""Real nodes in a ROS context of their own, driven and watched by a client node."""

from __future__ import annotations

import array
import gc
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState

from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.chunks import chunk_to_message
from dit_policy_ros.ros.conversions.images import rgb_to_compressed
from dit_policy_ros.ros.conversions.stamps import ns_to_time
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.ros.transitions import Transitions
from dit_policy_ros.types import ActionChunk, Context, Observation

ROBOT = load_robot("aloha")
DOMAIN = 1 + os.getpid() % 100
TIMEOUT_S = 30.0
STEP_NS = 20_000_000
NOTHING: Mapping[str, Any] = MappingProxyType({})
HOME = dict.fromkeys(ROBOT.names, 0.3)


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
    """Returns the first true value of ``condition``; fails at the deadline."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"Waited {timeout_s:g} s in vain for: {what}.")


class StillPolicy:
    """Wants to stay where it is."""

    horizon = 16
    step_ns = STEP_NS
    slow_cameras = ("top",)
    fast_cameras = ("left_wrist", "right_wrist")

    @staticmethod
    def tensor() -> np.ndarray:
        return np.zeros(3, dtype=np.float32)

    def encode(self, observation: Observation, instruction: str, epoch: int = 0) -> Context:
        return Context(observation.stamp_ns, instruction, epoch, {"mean": observation.images["top"].mean((0, 1))})

    def act(self, observation: Observation, context: Context, committed: ActionChunk | None = None) -> ActionChunk:
        actions = np.tile([observation.positions[name] for name in ROBOT.names], (self.horizon, 1))
        return ActionChunk(ROBOT.names, observation.stamp_ns, self.step_ns, actions)


class Stage:
    """Nodes under test, each spinning in its own thread, and a client to talk to them."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context, domain_id=DOMAIN)
        self.client = rclpy.create_node("client", context=self.context, use_global_arguments=False)
        self.transitions = Transitions("stage_manager", domain_id=DOMAIN)
        self._nodes: list[tuple[Any, Repeat]] = []
        self._spin(self.client)

    def start(self, kind: type[ManagedNode], name: str, parameters: Mapping[str, Any] = NOTHING, **options):
        """Starts an unconfigured node."""
        overrides = [Parameter(key, value=value) for key, value in parameters.items()]
        node = kind(name, context=self.context, parameter_overrides=overrides, use_global_arguments=False, **options)
        self._spin(node)
        return node

    def change(self, node: str, *steps: str) -> None:
        """Requests transitions by name through the node's service, and wants each to succeed."""
        for step in steps:
            number = getattr(Transition, f"TRANSITION_{step.upper()}")
            self.transitions.change([node], number, time.monotonic() + TIMEOUT_S)

    def state(self, node: str) -> str:
        """Returns the label of a node's lifecycle state."""
        client = self.client.create_client(GetState, f"/{node}/get_state")
        wait_until(client.service_is_ready, f"the services of {node}")
        return client.call(GetState.Request(), timeout_sec=TIMEOUT_S).current_state.label

    def activate(self, kind: type[ManagedNode], name: str, parameters: Mapping[str, Any] = NOTHING, **options):
        """Starts a node and takes it to active."""
        node = self.start(kind, name, parameters, **options)
        self.change(name, "configure", "activate")
        return node

    def hear(self, kind: type, topic: str, profile: QoSProfile = qos.RECORD) -> list:
        """Returns a list that grows with the messages of a topic."""
        heard: list = []
        self.client.create_subscription(kind, topic, heard.append, profile)
        return heard

    def speak(self, kind: type, topic: str, profile: QoSProfile = qos.COMMAND):
        """Returns a publisher that a subscriber has found already."""
        publisher = self.client.create_publisher(kind, topic, profile)
        wait_until(lambda: publisher.get_subscription_count() > 0, f"a subscriber of {topic}")
        return publisher

    def publishers_of(self, node: str) -> set[str]:
        """Returns the topics a node publishes, as the graph knows them, without those that every node has."""
        ours = {"/rosout", "/parameter_events", "/diagnostics", f"/{node}/transition_event"}
        found = self.client.get_publisher_names_and_types_by_node(node, "/")
        return {topic for topic, _ in found} - ours

    def now_ns(self) -> int:
        return self.client.get_clock().now().nanoseconds

    def close(self) -> None:
        for node, spinner in reversed(self._nodes):
            spinner.__exit__()
            if isinstance(node, ManagedNode) and not node.is_finalized:
                node.trigger_shutdown()
            node.destroy_node()
        self.transitions.close()
        self.context.try_shutdown()
        self._nodes.clear()
        # A lifecycle state machine keeps its services in the graph until it is collected.
        gc.collect()

    def _spin(self, node: Any) -> None:
        executor = SingleThreadedExecutor(context=self.context)
        executor.add_node(node)
        self._nodes.append((node, Repeat(lambda: executor.spin_once(timeout_sec=0.05), 0.0).__enter__()))


class Repeat:
    """Context manager that calls a function again and again in a thread; by default at 50 Hz, as a sensor would."""

    def __init__(self, call: Callable[[], None], period_s: float = 0.02) -> None:
        self._call = call
        self._period_s = period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Repeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(TIMEOUT_S)

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            self._call()


def joint_state(stamp_ns: int, positions: dict[str, float]) -> JointState:
    message = JointState(name=list(positions), position=array.array("d", positions.values()))
    message.header.stamp = ns_to_time(stamp_ns)
    return message


def picture(stamp_ns: int, camera: str, width: int = 32, height: int = 24):
    return rgb_to_compressed(np.full((height, width, 3), 90, dtype=np.uint8), stamp_ns, camera)


def swing(start_ns: int, context_ns: int | None = None, epoch: int = 1, observation_ns: int | None = None):
    """A chunk message of 0.6 s that moves every joint away from ``HOME`` and is still moving at its end."""
    times_s = np.arange(30) * STEP_NS * 1e-9
    # Shoulders back: the other way the hands would go into the table, and the executor would stop ahead of it.
    ways = np.array([-1.0 if "shoulder" in name else 1.0 for name in HOME])
    actions = np.array(list(HOME.values()))[None] + 0.6 * np.sin(math.pi * times_s)[:, None] * ways
    observation_ns = start_ns if observation_ns is None else observation_ns
    context_ns = start_ns if context_ns is None else context_ns
    chunk = ActionChunk(ROBOT.names, start_ns, STEP_NS, actions, observation_ns, context_ns, epoch)
    return chunk_to_message(chunk)
