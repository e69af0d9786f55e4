"""Every fault: how it is made, how its cause goes away, and whether it must stop the arms."""

from __future__ import annotations

import contextlib
import math
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from rclpy.serialization import deserialize_message, serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Bool, Float64
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.ros.conversions.stamps import ns_to_time, time_to_ns
from dit_policy_ros.ros.faults.stand import KEPT_NS, PLAN, Stand
from dit_policy_ros.ros.faults.tampering import CHUNK_KINDS, KINDS, VALUE_KINDS, Tamperer
from dit_policy_ros.types import NS_PER_S, nanoseconds

CHUNK_S = 0.9
"""A chunk of the scripted policy, from its observation to its end, and a period of the simulator."""
JOINTS_S = 0.22
"""The age limit of joint states, and a period of the simulator."""
CONTEXT_S = 2.1
SETTLE_S = KEPT_NS / NS_PER_S
COMMANDER_S = 1.5
"""The period in which other commanders are looked for, and discovery."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault."""

    begin: Callable[[Stand], Any]
    end: Callable[[Stand, Any], None] = lambda stand, made: None
    """Gets what ``begin`` returned."""
    stops_within_s: float | None = None
    """From then on nothing but slowing down is allowed: what is configured as a timeout; None: it need not stop."""
    lasts_s: float = 1.5
    since: Callable[[Any], int | None] = lambda made: None
    """Gets what ``begin`` returned; when inputs stopped to be fresh, by the system clock; None: at once."""
    records: bool = False
    """Needs a recorder."""
    misleads: str = ""
    """Topic of a controller that gets commands nobody gave: where it goes is not known from what was published."""
    settles_s: float = 0.0
    """How long the arms move before the next fault: what was sent before the executor began anew is forgotten then."""


def _kill(stand: Stand, node: str) -> None:
    os.kill(stand.launcher.pid(node), signal.SIGKILL)


def _freeze(stand: Stand, node: str) -> int:
    pid = stand.launcher.pid(node)
    os.kill(pid, signal.SIGSTOP)
    return pid


def _thaw(stand: Stand, pid: int) -> None:
    os.kill(pid, signal.SIGCONT)


def _tamper(stand: Stand, topic: str, message_type: type, kind: str) -> Tamperer:
    tamperer = Tamperer(message_type, kind, random.Random(stand.rng.random()))
    stand.relay.tamper(topic, tamperer)
    return tamperer


def _restore(stand: Stand, made: Any, topic: str) -> None:
    stand.relay.tamper(topic, None)


def _shift_clock(stand: Stand, by_s: float) -> None:
    def shift(cdr: bytes) -> list[tuple[float, bytes]]:
        clock_ns = time_to_ns(deserialize_message(cdr, Clock).clock) + nanoseconds(by_s)
        return [(0.0, serialize_message(Clock(clock=ns_to_time(max(0, clock_ns)))))]

    stand.relay.tamper("/clock", shift)


def _press(stand: Stand) -> None:
    stand.e_stop.publish(Bool(data=True))


def _release(stand: Stand, made: Any) -> None:
    stand.e_stop.publish(Bool(data=False))
    stand.wait(lambda: not stand.call("reset"), 10.0)
    stand.call("start")


def _withdraw(stand: Stand) -> None:
    stand.enable.publish(Bool(data=False))


def _enable(stand: Stand, made: Any) -> None:
    stand.enable.publish(Bool(data=True))


def _pace(stand: Stand, speed: float) -> None:
    stand.speed.publish(Float64(data=speed))


def _full_speed(stand: Stand, made: Any) -> None:
    _pace(stand, 1.0)


def _press_service(stand: Stand) -> None:
    stand.call("e_stop")


def _intrude(stand: Stand) -> None:
    """Somebody else sends the left arm where it is."""
    controller = stand.robot.controllers[0]
    positions = [stand.measured[joint] for joint in controller.joints]
    stand.order_intruder({"topic": controller.topic, "joints": controller.joints, "positions": positions})


def _leave(stand: Stand, made: Any) -> None:
    stand.order_intruder({})
    stand.wait(lambda: not stand.call("start"), 10.0)


def _starve(stand: Stand) -> list[subprocess.Popen]:
    count = 2 * (os.cpu_count() or 1)
    return [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]


def _feed(stand: Stand, eaters: list[subprocess.Popen]) -> None:
    for eater in eaters:
        eater.kill()
        eater.wait()


def _fill_disk(stand: Stand) -> None:
    """No file of the recorder may grow any more, which is what a full disk does to it."""
    resource.prlimit(stand.launcher.pid("recorder_node"), resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))


def _empty_disk(stand: Stand, made: Any) -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    # A recorder that ended for want of space is started again by the launcher, without the limit.
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(stand.launcher.pid("recorder_node"), resource.RLIMIT_FSIZE, unlimited)


def _processes() -> dict[str, Fault]:
    ends = {"dit_node": CHUNK_S, "vlm_node": CONTEXT_S, "executor_node": None}
    faults = {}
    for node, stops_s in ends.items():
        lasts_s = 3.5 if node == "vlm_node" else 1.5
        # A killed node is started again at once, so that it need not stop the arms for long.
        faults[f"{node} killed"] = Fault(partial(_kill, node=node), lasts_s=lasts_s)
        faults[f"{node} frozen"] = Fault(partial(_freeze, node=node), _thaw, stops_s, lasts_s)
    faults["sim_node frozen"] = Fault(partial(_freeze, node="sim_node"), _thaw)
    return faults


def _streams() -> dict[str, Fault]:
    """Whatever happens to the messages of a stream. Only what makes it useless must stop the arms."""
    left = "/left_arm_controller/joint_trajectory"
    # Type, timeout, longest time between two messages, and how long the fault lasts.
    streams = {
        "/chunk": (JointTrajectory, CHUNK_S, 0.6, 1.5),
        "/joint_states": (JointState, JOINTS_S, 0.02, 1.5),
        "/context": (CompressedImage, CONTEXT_S, 0.4, 3.5),
        left: (JointTrajectory, None, 0.0, 1.0),
        PLAN: (JointTrajectory, None, 0.0, 1.0),
    }
    harmless = ("delayed", "duplicated", "reordered", "corrupted", "arbitrary")
    faults = {}
    for topic, (message_type, stops_s, period_s, lasts_s) in streams.items():
        for kind in KINDS:
            if (kind in VALUE_KINDS and message_type is CompressedImage) or (kind in CHUNK_KINDS and topic != "/chunk"):
                continue
            # What is frozen is the first message after the fault began: up to that one, all are fresh.
            freezes = kind == "frozen"
            misleads = topic == left and kind in ("corrupted", "huge")
            faults[f"{topic} {kind}"] = Fault(
                partial(_tamper, topic=topic, message_type=message_type, kind=kind),
                partial(_restore, topic=topic),
                None if kind in harmless or (topic, kind) == ("/chunk", "huge") else stops_s,
                lasts_s + (period_s if freezes else 0.0),
                (lambda tamperer: tamperer.first_ns) if freezes else (lambda tamperer: None),
                misleads=topic if misleads else "",
                settles_s=SETTLE_S if misleads else 0.0,
            )
    return faults


FAULTS: Mapping[str, Fault] = {
    **_processes(),
    **_streams(),
    "clock ahead by 1 s": Fault(partial(_shift_clock, by_s=1.0), partial(_restore, topic="/clock"), settles_s=SETTLE_S),
    "clock back by 1 s": Fault(partial(_shift_clock, by_s=-1.0), partial(_restore, topic="/clock"), settles_s=SETTLE_S),
    "e-stop topic": Fault(_press, _release, 0.0),
    "e-stop service": Fault(_press_service, _release, 0.0),
    "enable withdrawn": Fault(_withdraw, _enable, 0.0),
    "speed zero": Fault(partial(_pace, speed=0.0), _full_speed, 0.0),
    "speed not a number": Fault(partial(_pace, speed=math.nan), _full_speed),
    "speed huge": Fault(partial(_pace, speed=1e12), _full_speed),
    "second commander": Fault(_intrude, _leave, COMMANDER_S, 2.5),
    "processor starved": Fault(_starve, _feed),
    "disk full": Fault(_fill_disk, _empty_disk, records=True),
}
"""Name to fault. Commands on their way to a controller that are lost or spoilt need not stop the arms; nothing unsafe
may be sent because of it."""
