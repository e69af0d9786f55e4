"""A stop that controllers reject, because it came too late, is sent again."""

from __future__ import annotations

import numpy as np
import pytest
from plant import PERIOD, SPEC, START, wave

from dit_policy_ros.runtime.executor import Executor
from dit_policy_ros.runtime.permission import Permission
from dit_policy_ros.runtime.supervisor import State, Supervisor
from dit_policy_ros.sim.controllers import TrajectoryController, TrajectoryControllerConfig
from dit_policy_ros.types import Trajectory

MS = 1_000_000


class Arms:
    """A supervised executor before models of the real controllers, at 100 Hz; joints are measured a period late."""

    def __init__(self) -> None:
        self.now_ns = 10_000 * MS
        self.permission = Permission(autostart=True)
        self.executor = Executor(SPEC)
        self.supervisor = Supervisor(SPEC, self.executor, self.permission)
        self.supervisor.activate()
        self.controllers = [
            TrajectoryController(c.joints, TrajectoryControllerConfig(), START[self._columns(c.joints)])
            for c in SPEC.controllers
        ]
        self.delay_ns = 0
        self.late: list[tuple[int, Trajectory]] = []
        self.path = [START.copy()]

    def _columns(self, joints) -> list[int]:
        return [SPEC.names.index(joint) for joint in joints]

    def run(self, seconds: float, plan=None) -> None:
        for k in range(round(seconds * 100)):
            self.now_ns += PERIOD
            self.supervisor.feedback(self.now_ns, dict(zip(SPEC.names, self.path[-1].tolist(), strict=True)))
            if plan is not None and k % 20 == 0:
                self.supervisor.accept(plan(self.now_ns, self.path[-1]), self.now_ns)
            self.late += [(self.now_ns + self.delay_ns, t) for t in self.supervisor.tick(self.now_ns, self.now_ns)]
            self._follow()

    def _follow(self) -> None:
        due = [trajectory for at_ns, trajectory in self.late if at_ns <= self.now_ns]
        self.late = [(at_ns, trajectory) for at_ns, trajectory in self.late if at_ns > self.now_ns]
        position = self.path[-1].copy()
        for controller in self.controllers:
            for trajectory in due:
                if trajectory.names == controller.joints:
                    controller.follow(trajectory, self.now_ns)
            position[self._columns(controller.joints)] = controller.sample(self.now_ns)[0]
        self.path.append(position)

    @property
    def rejected(self) -> int:
        return sum(controller.rejected for controller in self.controllers)

    def moved(self) -> float:
        """How far any joint went in the last period."""
        return float(np.abs(self.path[-1] - self.path[-2]).max())


def moving() -> Arms:
    arms = Arms()
    arms.run(0.05)
    arms.run(0.5, wave)
    assert arms.supervisor.state is State.MOVING
    assert arms.moved() > 1e-3
    assert arms.rejected == 0
    return arms


def test_an_e_stop_that_came_too_late_is_repeated():
    arms = moving()
    arms.permission.press("a test")
    arms.delay_ns = 200 * MS
    arms.run(0.01)
    arms.delay_ns = 0
    arms.run(0.39)
    assert arms.rejected == len(SPEC.controllers)
    assert arms.executor.repeated_stops >= 1
    assert arms.moved() < 1e-9
    assert arms.supervisor.state is State.E_STOPPED
    # They came to rest where the executor thinks that they did.
    np.testing.assert_allclose(arms.path[-1], arms.executor.reference(arms.now_ns), atol=1e-9)


def test_a_stop_of_the_executor_itself_is_repeated():
    arms = moving()
    arms.delay_ns = 200 * MS
    # Joint states that cannot be right for one period stop the arms.
    arms.supervisor.feedback(arms.now_ns, dict.fromkeys(SPEC.names, np.nan))
    arms.late += [
        (arms.now_ns + arms.delay_ns, t) for t in arms.supervisor.tick(arms.now_ns + PERIOD, arms.now_ns + PERIOD)
    ]
    arms.delay_ns = 0
    arms.now_ns += PERIOD
    arms.run(0.39)
    assert arms.rejected == len(SPEC.controllers)
    assert arms.executor.repeated_stops >= 1
    assert arms.moved() < 1e-9


@pytest.mark.parametrize("delay_ms", [0, 10])
def test_a_stop_that_was_taken_is_not(delay_ms: int):
    arms = moving()
    arms.permission.press("a test")
    arms.delay_ns = delay_ms * MS
    arms.run(1.0)
    assert arms.executor.repeated_stops == 0
    assert arms.rejected == 0
    assert arms.moved() < 1e-9


def test_joints_that_are_held_back_are_no_reason():
    """A gripper around an object is not where it was told to be."""
    arms = moving()
    arms.permission.press("a test")
    arms.run(0.05)
    arms.path[-1] = arms.path[-1] - 0.05
    for _ in range(60):
        arms.now_ns += PERIOD
        arms.supervisor.feedback(arms.now_ns, dict(zip(SPEC.names, arms.path[-1].tolist(), strict=True)))
        assert arms.supervisor.tick(arms.now_ns, arms.now_ns) == ()


@pytest.mark.parametrize("delay_ms", [0, 200])
def test_a_deactivation_doubts_its_stop_until_the_joints_show_it(delay_ms: int):
    arms = moving()
    assert not arms.executor.doubts_stop
    sent = arms.supervisor.deactivate(arms.now_ns)
    arms.late += [(arms.now_ns + delay_ms * MS, trajectory) for trajectory in sent]
    assert arms.executor.doubts_stop
    for _ in range(50):
        arms.now_ns += PERIOD
        arms.supervisor.feedback(arms.now_ns, dict(zip(SPEC.names, arms.path[-1].tolist(), strict=True)))
        arms.late += [(arms.now_ns, trajectory) for trajectory in arms.executor.stop_again(arms.now_ns)]
        if not arms.executor.doubts_stop:
            break
        arms._follow()
    assert not arms.executor.doubts_stop
    assert arms.executor.repeated_stops == (1 if delay_ms else 0)
    assert arms.moved() < 1e-9
    np.testing.assert_allclose(arms.path[-1], arms.executor.reference(arms.now_ns), atol=1e-9)
