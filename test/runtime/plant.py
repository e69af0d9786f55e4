"""A supervised executor with arms that follow exactly."""

from __future__ import annotations

import numpy as np

from dit_policy_ros.robot import load_robot
from dit_policy_ros.runtime.executor import Executor
from dit_policy_ros.runtime.permission import Permission
from dit_policy_ros.runtime.supervisor import State, Supervisor
from dit_policy_ros.types import ActionChunk, Trajectory

SPEC = load_robot("aloha")
MS = 1_000_000
PERIOD = 10 * MS
STEP = 20 * MS
START = np.where(["gripper" in name for name in SPEC.names], 0.5, 0.1)


class Plant:
    """A supervised executor whose arms follow exactly, stepped at 100 Hz."""

    def __init__(self, shadow: bool = False, **permission) -> None:
        self.now_ns = 10_000 * MS
        self.permission = Permission(**{"autostart": True, **permission})
        self.supervisor = Supervisor(SPEC, Executor(SPEC), self.permission, shadow)
        self.positions = START.copy()
        self.sent: list[tuple[Trajectory, ...]] = []
        self.changes = []
        self.supervisor.activate()

    def run(self, seconds: float = 0.01, plan=None) -> None:
        """Advances; ``plan`` makes a chunk from the time, five times a second."""
        for k in range(max(1, round(seconds * 100))):
            self.now_ns += PERIOD
            if not self.supervisor.shadow:
                here = self.supervisor.executor.reference(self.now_ns)
                self.positions = self.positions if here is None else here
            self.supervisor.feedback(self.now_ns, dict(zip(SPEC.names, self.positions.tolist(), strict=True)))
            if plan is not None and k % 20 == 0:
                self.refusal = self.supervisor.accept(plan(self.now_ns, self.positions), self.now_ns)
            sent = self.supervisor.tick(self.now_ns, self.now_ns)
            if sent:
                self.sent.append(sent)
            self.changes += self.supervisor.drain_changes()

    @property
    def state(self) -> State:
        return self.supervisor.state

    def reasons(self) -> list[str]:
        return [f"{change.after.value}: {change.reason}" for change in self.changes]


def wave(now_ns: int, positions: np.ndarray) -> ActionChunk:
    """A second of slow motion from where the arms are."""
    t = np.arange(50)[:, None] * STEP * 1e-9
    return ActionChunk(SPEC.names, now_ns, STEP, positions + 0.2 * np.sin(t), now_ns, now_ns, 1)


def moving(**options) -> Plant:
    plant = Plant(**options)
    plant.run(0.05)
    plant.run(0.3, wave)
    assert plant.state is State.MOVING
    return plant


def speeds(trajectory: Trajectory) -> np.ndarray:
    return np.abs(trajectory.velocities).max(axis=1)
