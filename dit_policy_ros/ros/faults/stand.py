"""The test stand: the real nodes in their own processes, a simulated body, a relay between them, and a listener."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import deserialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Bool, Float64, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.stamps import time_to_ns
from dit_policy_ros.ros.conversions.trajectories import trajectory_fields
from dit_policy_ros.ros.faults import intruder
from dit_policy_ros.ros.faults.clock_line import ClockLine
from dit_policy_ros.ros.faults.judge import Heard
from dit_policy_ros.ros.faults.relay import PREFIX, Relay
from dit_policy_ros.ros.graph import NodeSpec
from dit_policy_ros.ros.launcher import Launcher

WORLD = "aloha_transfer_cube"
PLAN = "/executor_node/plan"
SERVICES = ("e_stop", "reset", "start")
RATE_HZ = 100.0
MOTION_TIMEOUT_S = 60.0
KEPT_NS = 1_500_000_000
"""Commands this old are still part of what the controllers follow."""


class Stand:
    """Context manager around a running graph whose every topic can be meddled with."""

    def __init__(
        self,
        directory: Path,
        domain_id: int,
        seed: int,
        record: bool = False,
        rate_hz: float = RATE_HZ,
        real_time_factor: float = 1.0,
        priority: int = 0,
    ) -> None:
        """Starts nothing yet.

        Args:
            directory: for logs, parameters and bags.
            record: whether a recorder runs too.
            rate_hz: of the executor; by the simulated clock where that is slower.
            real_time_factor: of the simulated clock.
            priority: real-time priority of the executor, 0 for none.
        """
        self.slowness = max(1.0, 1.0 / real_time_factor)
        """Seconds of this machine in one of the simulated clock, where that is slower."""
        self._rate_hz, self._factor, self._priority = rate_hz / self.slowness, real_time_factor, priority
        self.robot = load_robot("aloha")
        self.rng = random.Random(seed)
        self.directory = directory
        self.launcher = Launcher(self._specs(record), directory / "logs", domain_id=domain_id, respawn_limit=10_000)
        self._domain_id = domain_id
        self._heard: list[tuple[int, Heard]] = []
        self._clocks = ClockLine()
        self._lock = threading.Lock()
        self._clock_ns = 0
        self._status = ""
        self.stops = 0
        """How often the executor said that it stops."""
        self.measured: dict[str, float] = {}

    def __enter__(self) -> Stand:
        self.launcher.__enter__()
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context, domain_id=self._domain_id)
        self.node = rclpy.create_node("fault_stand", context=self._context, use_global_arguments=False)
        self.relay = Relay(self.node)
        self.relay.carry(JointState, self.robot.joint_states_topic, qos.SENSOR, qos.COMMAND)
        self.relay.carry(Clock, "/clock", qos.NEWEST, qos.COMMAND)
        self.relay.carry(JointTrajectory, "/chunk", qos.COMMAND, qos.COMMAND)
        self.relay.carry(CompressedImage, "/context", qos.COMMAND, qos.COMMAND)
        self.relay.carry(JointTrajectory, PLAN, qos.COMMAND, qos.COMMAND)
        for controller in self.robot.controllers:
            hear = partial(self._hear, controller.name)
            self.relay.carry(JointTrajectory, controller.topic, qos.COMMANDS_IN, qos.COMMAND, hear)
        # Every reading: a judge that is late itself must know what time it was.
        self.node.create_subscription(Clock, "/clock", self._store_clock, qos.RECORD)
        self.node.create_subscription(JointState, self.robot.joint_states_topic, self._store_joints, qos.SENSOR)
        self.node.create_subscription(String, "/executor_node/status", self._store_status, qos.STATUS)
        self.e_stop = self.node.create_publisher(Bool, "/e_stop", qos.LATCHED)
        self.enable = self.node.create_publisher(Bool, "/enable", qos.COMMAND)
        self.speed = self.node.create_publisher(Float64, "/speed", qos.COMMAND)
        # Before they are needed: finding a service takes time, which is none of the executor's.
        self._clients = {name: self.node.create_client(Trigger, f"/executor_node/{name}") for name in SERVICES}
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._intruder = subprocess.Popen(
            [sys.executable, "-m", intruder.__name__],
            env={**os.environ, "ROS_DOMAIN_ID": str(self._domain_id)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._stop = threading.Event()
        self._spinner = threading.Thread(target=self._spin, name="fault stand", daemon=True)
        self._spinner.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The nodes first: their last words go through the relay.
        self.launcher.__exit__(kind, value, trace)
        self._intruder.communicate()
        self._stop.set()
        self._spinner.join()
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()

    def wait_for_motion(self, since_ns: int) -> bool:
        """Waits until the arms were told to move often enough since an instant; returns whether they were."""

        def moving() -> bool:
            with self._lock:
                recent = [m for _, m in self._heard if m.heard_ns > since_ns and m.speeds.max() > 0.05]
            return len(recent) >= 2 * len(self.robot.controllers)

        return self.wait(moving, MOTION_TIMEOUT_S * self.slowness)

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Returns whether a condition came true in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(0.02)
        return False

    def forget(self) -> None:
        """Begins a run: drops all commands but those that are still being followed."""
        limit_ns = time.monotonic_ns() - round(KEPT_NS * self.slowness)
        with self._lock:
            self._heard = [(said_ns, message) for said_ns, message in self._heard if message.heard_ns > limit_ns]

    def heard(self) -> list[Heard]:
        """Returns the commands of this run, with the clock's time when each was published."""
        with self._lock:
            return [dataclasses.replace(message, clock_ns=self._clocks.at(said_ns)) for said_ns, message in self._heard]

    def clock_at(self, instant_ns: int) -> int:
        """Returns the simulated time at an instant of the system clock."""
        with self._lock:
            return self._clocks.at(instant_ns)

    def watched_pids(self) -> tuple[int, ...]:
        """Returns the processes between a fault and what is commanded: the executor's, and this one with its relay."""
        return self.launcher.pid("executor_node"), os.getpid()

    @property
    def status(self) -> str:
        """What the executor said last of its state."""
        return self._status

    @property
    def clock_ns(self) -> int:
        """The simulated time."""
        return self._clock_ns

    def call(self, service: str, timeout_s: float = 10.0) -> str:
        """Calls a service of the executor; returns '' or its refusal."""
        client = self._clients[service]
        if not client.wait_for_service(timeout_s):
            return f"{service} is not there"
        future = client.call_async(Trigger.Request())
        if not self.wait(future.done, timeout_s):
            return f"{service} did not answer"
        answer = future.result()
        return "" if answer.success else answer.message

    def order_intruder(self, order: dict[str, Any]) -> None:
        """Has another process command a controller, or end it with an empty order; returns once it is done."""
        self._intruder.stdin.write(json.dumps(order) + "\n")
        self._intruder.stdin.flush()
        self._intruder.stdout.readline()

    def _specs(self, record: bool) -> list[NodeSpec]:
        """The demo's nodes with a scripted policy, every input behind the relay."""
        robot = {"robot": "aloha"}
        timed = {**robot, "use_sim_time": True}
        joints = {self.robot.joint_states_topic: PREFIX + self.robot.joint_states_topic}
        commands = {controller.topic: PREFIX + controller.topic for controller in self.robot.controllers}
        specs = [
            NodeSpec("sim_node", "sim_node", {**robot, "world": WORLD, "real_time_factor": self._factor}, commands),
            NodeSpec(
                "executor_node",
                "executor_node",
                {**timed, "rate_hz": self._rate_hz, "realtime_priority": self._priority},
                {**joints, "/clock": f"{PREFIX}/clock", "chunk": f"{PREFIX}/chunk"},
            ),
            NodeSpec("vlm_node", "faults.scripted_vlm", {**timed, "encode_period_s": 0.2}, joints),
            NodeSpec(
                "dit_node",
                "faults.scripted_dit",
                timed,
                {**joints, "context": f"{PREFIX}/context", "plan": PREFIX + PLAN},
            ),
        ]
        if record:
            bags = {**timed, "directory": str(self.directory / "bags")}
            specs.append(NodeSpec("recorder_node", "recorder_node", bags))
        return [dataclasses.replace(spec, respawn=spec.name != "sim_node") for spec in specs]

    def _spin(self) -> None:
        while not self._stop.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def _hear(self, controller: str, cdr: bytes, info: Any) -> None:
        message = deserialize_message(bytes(cdr), JointTrajectory)
        if message.header.frame_id == intruder.FRAME:
            return
        fields = trajectory_fields(message)
        # The publisher's middleware noted when; how late this process hears it says nothing of the executor.
        said_ns = int(info["source_timestamp"])
        heard = Heard(
            time.monotonic_ns() - max(0, time.time_ns() - said_ns),
            controller,
            0,
            fields.stamp_ns,
            fields.names,
            fields.offsets_ns,
            _matrix(fields.positions, len(fields.names)),
            _matrix(fields.velocities, len(fields.names)),
        )
        with self._lock:
            self._heard.append((said_ns, heard))

    def _store_clock(self, message: Clock, info: Any) -> None:
        self._clock_ns = time_to_ns(message.clock)
        with self._lock:
            self._clocks.add(int(info["source_timestamp"]), self._clock_ns)

    def _store_joints(self, message: JointState) -> None:
        self.measured = dict(zip(message.name, message.position, strict=True))

    def _store_status(self, message: String) -> None:
        self._status = message.data
        self.stops += message.data.startswith("stopping")


def _matrix(rows, width: int) -> np.ndarray:
    if not len(rows) or any(len(row) != width for row in rows):
        return np.zeros((0, 0))
    return np.array(rows, dtype=np.float64)


def check_motion(stand: Stand) -> None:
    """Waits where the arms do not move yet; raises ConfigError where they never do."""
    if not stand.wait_for_motion(time.monotonic_ns() - round(KEPT_NS * stand.slowness)):
        raise ConfigError(f"The arms of the test stand do not move ({stand.status}); see {stand.directory / 'logs'}.")
