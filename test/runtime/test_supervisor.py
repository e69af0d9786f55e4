from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dit_policy_ros.actions.pacing import repaced, slowed
from dit_policy_ros.robot import load_robot
from dit_policy_ros.runtime.executor import Executor, ExecutorState
from dit_policy_ros.runtime.homing import Homing
from dit_policy_ros.runtime.permission import Permission, Veto
from dit_policy_ros.runtime.supervisor import TRANSITIONS, State, Supervisor
from dit_policy_ros.types import ActionChunk, Trajectory

SPEC = load_robot("aloha")
MS = 1_000_000
PERIOD = 10 * MS
STEP = 20 * MS
RELEASE = "e-stop: by topic; release it, then call reset and start"
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


def test_an_activated_supervisor_holds_and_moves_by_chunks():
    plant = moving()
    assert plant.reasons()[:3] == ["inactive: configured", "holding: activated", "moving: chunk"]


def test_without_autostart_it_waits_for_start_and_commands_nothing():
    plant = Plant(autostart=False)
    plant.run(0.3, wave)
    assert plant.state is State.INACTIVE
    assert plant.sent == []
    assert plant.supervisor.start() == ""
    plant.run(0.05)
    plant.run(0.3, wave)
    assert plant.state is State.MOVING


@pytest.mark.parametrize(
    ("stop", "state", "reason"),
    [
        (lambda s: s.permission.press("topic"), State.E_STOPPED, RELEASE),
        (lambda s: s.permission.enable(False, 0), State.HOLDING, "disabled: publish true on enable"),
        (lambda s: s.pause(), State.HOLDING, "paused: call start"),
        (lambda s: s.stop(), State.INACTIVE, "stopped: call start"),
        (lambda s: s.set_speed(0.0, 0), State.HOLDING, "speed zero: publish more than 0 on speed"),
        (lambda s: s.permission.commander("/teleop on /x", True), State.INACTIVE, "another commander: /teleop on /x"),
    ],
)
def test_every_veto_decelerates_and_then_rests_in_its_state(stop, state, reason):
    plant = moving()
    plant.sent.clear()
    stop(plant.supervisor)
    plant.run()
    assert plant.state is State.STOPPING
    assert len(plant.sent) == 1
    for trajectory in plant.sent[0]:
        assert speeds(trajectory)[-1] == 0.0
        assert (np.diff(speeds(trajectory)) <= 1e-9).all()
    plant.run(1.0, wave)
    assert plant.state is state
    assert plant.supervisor.reason == reason
    assert len(plant.sent) == 1, "a vetoed supervisor sends its hold once and nothing else"


def test_an_e_stop_is_latched_until_reset_and_a_reset_moves_nothing():
    plant = moving()
    permission = plant.permission
    permission.press("topic")
    plant.run(1.0)
    assert plant.supervisor.start().startswith("e-stop")
    assert permission.reset() == "the e-stop is still pressed: topic; release it first"
    permission.release("topic")
    plant.run(0.2, wave)
    assert plant.state is State.E_STOPPED
    assert permission.reset() == ""
    plant.sent.clear()
    plant.run(0.2, wave)
    assert (plant.state, plant.sent) == (State.HOLDING, [])
    assert plant.supervisor.start() == ""
    plant.run(0.05)
    plant.run(0.3, wave)
    assert plant.state is State.MOVING


def test_an_e_stop_outlives_an_activation_and_a_configuration():
    plant = moving()
    plant.permission.press("service")
    plant.supervisor.deactivate(plant.now_ns)
    plant.supervisor.finish(plant.now_ns)
    plant.supervisor.activate()
    plant.run()
    assert plant.state is State.E_STOPPED
    fresh = Permission(autostart=True)
    fresh.inherit(plant.permission)
    assert Veto.E_STOP in fresh.vetoes()


def test_nothing_starts_anew_while_a_stop_is_under_way():
    plant = moving()
    plant.permission.enable(False, plant.now_ns)
    plant.run()
    plant.permission.enable(True, plant.now_ns)
    sent = len(plant.sent)
    while plant.state is State.STOPPING:
        plant.run(0.01, wave)
        assert len(plant.sent) == sent
    assert plant.supervisor.reason == "activated"


def test_chunks_from_before_the_start_are_refused():
    plant = moving()
    old_ns = plant.now_ns
    plant.supervisor.pause()
    plant.run(1.0)
    plant.supervisor.start()
    plant.run(0.05)
    chunk = replace(wave(plant.now_ns, plant.positions), observation_ns=old_ns)
    assert plant.supervisor.accept(chunk, plant.now_ns).startswith("before start")


def test_a_dead_mans_switch_must_be_held():
    plant = Plant(enable_timeout_s=0.2)
    plant.run(0.1, wave)
    assert plant.supervisor.reason.startswith("dead man's switch: hold it down")
    for _ in range(50):
        plant.permission.enable(True, plant.now_ns)
        plant.run(0.01, wave)
    assert plant.state is State.MOVING
    plant.run(0.25, wave)
    assert any(reason.startswith("stopping: dead man's switch: let go") for reason in plant.reasons())
    assert "let go" in plant.supervisor.reason


def test_another_commander_during_motion_needs_a_start_afterwards():
    plant = moving()
    plant.permission.commander("/teleop on /x", True)
    plant.run(1.0)
    plant.permission.commander("", False)
    plant.run(0.1, wave)
    assert plant.state is State.HOLDING
    assert plant.supervisor.reason.startswith("paused: /teleop on /x appeared")
    waiting = Plant()
    waiting.permission.commander("/teleop on /x", False)
    waiting.run(0.1)
    assert waiting.supervisor.start() == "another commander: /teleop on /x"
    waiting.permission.commander("", False)
    waiting.run(0.1)
    assert waiting.state is State.HOLDING


def test_deactivation_returns_the_hold():
    plant = moving()
    sent = plant.supervisor.deactivate(plant.now_ns)
    assert [trajectory.names for trajectory in sent] == [c.joints for c in SPEC.controllers]
    assert plant.state is State.STOPPING
    plant.supervisor.finish(plant.now_ns)
    assert plant.state is State.INACTIVE
    assert plant.supervisor.start() == "inactive: activate the node first"


def test_home_is_reached_within_the_limits_and_ends_in_a_pause():
    plant = moving()
    assert plant.supervisor.home() == ""
    assert plant.supervisor.accept(wave(plant.now_ns, plant.positions), plant.now_ns).startswith("homing")
    plant.run(12.0)
    np.testing.assert_allclose(plant.positions, [SPEC.home[name] for name in SPEC.names], atol=1e-6)
    assert plant.supervisor.reason == "paused: at home; call start"
    for sent in plant.sent:
        for trajectory in sent:
            limits = [SPEC.velocity[SPEC.names.index(joint)] for joint in trajectory.names]
            assert (np.abs(trajectory.velocities) <= np.array(limits) * (1 + 1e-6)).all()


@pytest.mark.parametrize("interrupt", [lambda s: s.pause(), lambda s: s.permission.press("x")])
def test_homing_can_be_interrupted(interrupt):
    plant = Plant()
    plant.run(0.05)
    plant.supervisor.home()
    plant.run(0.5)
    assert plant.state is State.MOVING
    interrupt(plant.supervisor)
    plant.run(1.0)
    before = plant.positions
    plant.run(1.0)
    np.testing.assert_array_equal(plant.positions, before)


def test_homing_is_refused_with_a_reason():
    plant = Plant()
    plant.permission.press("topic")
    plant.run()
    assert plant.supervisor.home().startswith("e-stop")
    nowhere = replace(SPEC, home={})
    homeless = Supervisor(nowhere, Executor(nowhere), Permission(True))
    homeless.activate()
    assert "has no home" in homeless.home()


def test_homing_peaks_at_its_share_of_the_limits():
    goal = np.array([SPEC.home[name] for name in SPEC.names])
    homing = Homing(START, goal, SPEC.velocity, SPEC.acceleration)
    actions = []
    for k in range(round(homing.duration_s / 0.02) + 2):
        actions.append(homing.chunk(SPEC.names, k * STEP, 0, 1.0).actions[0])
    velocity = np.diff(np.array(actions), axis=0) / 0.02
    acceleration = np.diff(velocity, axis=0) / 0.02
    share = max((np.abs(velocity) / SPEC.velocity).max() / 0.3, (np.abs(acceleration) / SPEC.acceleration).max() / 0.5)
    assert share == pytest.approx(1.0, abs=0.03)
    np.testing.assert_allclose(actions[-1], goal)


def test_one_arm_can_be_switched_off_and_on():
    plant = moving()
    assert plant.supervisor.switch_arm("left", False) == ""
    plant.run(1.0, wave)
    assert plant.state is State.MOVING
    assert plant.supervisor.mutes(SPEC.controllers[0].joints)
    assert not plant.supervisor.mutes(SPEC.controllers[1].joints)
    left = plant.sent[-1][0]
    assert np.ptp(left.positions, axis=0).max() < 1e-9
    assert np.ptp(plant.sent[-1][1].positions, axis=0).max() > 0.01
    plant.supervisor.switch_arm("right", False)
    plant.run(1.0, wave)
    assert plant.supervisor.reason.startswith("no arm")
    plant.supervisor.switch_arm("left", True)
    plant.supervisor.switch_arm("right", True)
    plant.run(0.05)
    plant.run(0.5, wave)
    assert plant.state is State.MOVING
    assert "has no arm 'third'" in plant.supervisor.switch_arm("third", True)


def test_an_arm_that_is_off_needs_no_joint_states():
    plant = Plant()
    plant.supervisor.switch_arm("left", False)
    plant.run(0.05)
    right = {name: 0.1 for name in SPEC.names if name.startswith("right")}
    plant.now_ns += PERIOD
    assert plant.supervisor.feedback(plant.now_ns, right) == ""


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e12, 8.0])
def test_a_joint_that_is_said_to_be_absurdly_far_away_stops_the_arms(value):
    plant = moving()
    measured = dict(zip(SPEC.names, plant.positions.tolist(), strict=True)) | {"left_waist": value}
    assert "left_waist" in plant.supervisor.feedback(plant.now_ns + PERIOD, measured)
    sent = plant.supervisor.tick(plant.now_ns + PERIOD, plant.now_ns + PERIOD)
    assert len(sent) == 2
    assert plant.state is State.STOPPING
    assert plant.supervisor.reason.startswith("joint states invalid")


def test_a_controller_of_both_arms_cannot_be_split():
    joined = replace(SPEC, controllers=(replace(SPEC.controllers[0], joints=SPEC.names),))
    supervisor = Supervisor(joined, Executor(joined), Permission(True))
    supervisor.activate()
    assert "moves both arms" in supervisor.switch_arm("left", False)


def test_speed_scales_the_motion_live():
    plant = moving()
    fast = plant.supervisor.executor
    before = fast.reference(plant.now_ns + 200 * MS) - fast.reference(plant.now_ns + 100 * MS)
    assert plant.supervisor.set_speed(0.25, plant.now_ns) == ""
    plant.run()
    after = fast.reference(plant.now_ns + 200 * MS) - fast.reference(plant.now_ns + 100 * MS)
    np.testing.assert_allclose(after, before * 0.25, rtol=0.2, atol=1e-3)
    assert "must be 0..1" in plant.supervisor.set_speed(1.5, 0)
    assert "must be 0..1" in plant.supervisor.set_speed(math.nan, 0)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.02, 1.0), st.integers(2, 64), st.integers(0, 64))
def test_a_slowed_chunk_stays_on_the_path_and_in_its_time(speed, count, committed):
    actions = np.arange(count, dtype=float)[:, None] * np.ones(len(SPEC.names))
    chunk = ActionChunk(SPEC.names, 1000, STEP, actions, committed=min(committed, count))
    slow = slowed(chunk, speed)
    begin = chunk.start_ns + max(0, min(chunk.committed - 1, count - 1)) * STEP if speed < 1.0 else chunk.start_ns
    assert slow.start_ns == begin
    expected = (slow.times_ns - begin) * speed / STEP + (begin - chunk.start_ns) / STEP
    np.testing.assert_allclose(slow.actions[:, 0], expected, atol=1e-4)
    assert slow.end_ns <= chunk.end_ns + 2 * slow.step_ns


def test_a_repaced_chunk_begins_after_now_where_it_was():
    chunk = wave(0, START)
    rest = repaced(chunk, 110 * MS, 0.5)
    assert (rest.start_ns, rest.step_ns) == (120 * MS, 2 * STEP)
    np.testing.assert_array_equal(rest.actions, chunk.actions[6:])
    assert repaced(chunk, chunk.end_ns, 0.5) is None


def test_in_shadow_every_chunk_starts_at_the_measured_state():
    plant = Plant(shadow=True)
    plant.run(0.05)
    plant.run(0.5, wave)
    plant.positions = START + 0.4
    plant.run(0.4, wave)
    assert plant.refusal == ""
    assert [reason for reason in plant.reasons() if reason == "holding: activated"] == ["holding: activated"]
    first = np.concatenate([trajectory.positions[0] for trajectory in plant.sent[-1]])
    np.testing.assert_allclose(first, START + 0.4, atol=0.05)


ACTIONS = {
    "press": lambda p: p.permission.press("topic"),
    "release": lambda p: p.permission.release("topic"),
    "reset": lambda p: p.permission.reset(),
    "start": lambda p: p.supervisor.start(),
    "pause": lambda p: p.supervisor.pause(),
    "stop": lambda p: p.supervisor.stop(),
    "home": lambda p: p.supervisor.home(),
    "disable": lambda p: p.permission.enable(False, p.now_ns),
    "enable": lambda p: p.permission.enable(True, p.now_ns),
    "slow": lambda p: p.supervisor.set_speed(0.1, p.now_ns),
    "fast": lambda p: p.supervisor.set_speed(1.0, p.now_ns),
    "left off": lambda p: p.supervisor.switch_arm("left", False),
    "left on": lambda p: p.supervisor.switch_arm("left", True),
    "commander": lambda p: p.permission.commander("/x", p.state is State.MOVING),
    "no commander": lambda p: p.permission.commander("", False),
    "jump": lambda p: p.supervisor.restart(p.now_ns),
    "move": lambda p: p.run(0.05, wave),
    "wait": lambda p: p.run(0.1),
}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(ACTIONS)), max_size=25))
def test_no_sequence_of_wishes_breaks_the_rules(names):
    plant = Plant()
    for name in names:
        ACTIONS[name](plant)
        pressed = Veto.E_STOP in plant.permission.vetoes()
        sent = len(plant.sent)
        plant.run(0.02, wave)
        if pressed:
            assert plant.state in (State.STOPPING, State.E_STOPPED)
            assert len(plant.sent) - sent <= 1
            assert plant.supervisor.executor.state is ExecutorState.INACTIVE
        for trajectories in plant.sent[sent:]:
            for trajectory in trajectories:
                assert speeds(trajectory)[-1] == 0.0
    for before, after in zip(plant.changes, plant.changes[1:], strict=False):
        assert after.before is before.after
        assert after.after is after.before or after.after in TRANSITIONS[after.before]
        assert after.reason
