from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from dit_policy_ros.robot import load_robot
from dit_policy_ros.runtime.executor import Executor, ExecutorState
from dit_policy_ros.runtime.executor_config import ExecutorConfig
from dit_policy_ros.types import ActionChunk

SPEC = load_robot("aloha")
MS = 1_000_000
STEP = 20 * MS
T0 = 100_000 * MS
HOME = np.where(["gripper" in name for name in SPEC.names], 0.5, 0.0)
INACTIVE, HOLDING, MOVING, STOPPING = (ExecutorState(s) for s in ("inactive", "holding", "moving", "stopping"))


def ramp(start_ns=T0, count=48, speed=0.5, **changes) -> ActionChunk:
    t = (start_ns - T0 + STEP * np.arange(count)) * 1e-9
    actions = HOME + speed * np.repeat(t[:, None], 14, axis=1)
    return replace(ActionChunk(SPEC.names, start_ns, STEP, actions, start_ns, start_ns, 1), **changes)


class Rig:
    """An executor whose joints follow it perfectly."""

    def __init__(self, **config):
        self.executor = Executor(SPEC, ExecutorConfig(**config))
        self.executor.activate(T0)
        self.now_ns = T0
        self.sent = []
        self.step()

    def step(self, *, feedback: bool = True, steady_ns: int | None = None):
        if feedback:
            self.measure()
        self.sent = self.executor.tick(self.now_ns, self.now_ns if steady_ns is None else steady_ns)
        return self.sent

    def measure(self, **odd) -> str:
        reference = self.executor.reference(self.now_ns)
        positions = HOME if reference is None else reference
        return self.executor.feedback(self.now_ns, dict(zip(SPEC.names, positions.tolist(), strict=True)) | odd)

    def run_to(self, now_ns: int, **options):
        sent = []
        while self.now_ns < now_ns:
            self.now_ns += STEP
            sent.append(self.step(**options))
        return sent

    def accept(self, chunk: ActionChunk) -> str:
        return self.executor.accept(chunk, self.now_ns)

    def moving(self):
        assert self.accept(ramp()) == ""
        self.run_to(T0 + 5 * STEP)
        assert self.executor.state is MOVING
        self.executor.drain_changes()
        return self

    def changes(self):
        return [(change.after, change.reason.partition(":")[0]) for change in self.executor.drain_changes()]

    def assert_decelerates(self, sent):
        assert len(sent) == 2
        for trajectory in sent:
            assert trajectory.times_ns[0] > self.now_ns
            np.testing.assert_array_equal(trajectory.velocities[-1], 0.0)
            moved = np.abs(np.diff(trajectory.positions, axis=0))
            assert (np.diff(moved, axis=0) <= 1e-9).all()
            assert trajectory.times_ns[-1] - self.now_ns <= 100 * MS
        assert not np.allclose(sent[0].positions[-1], 0.0)


def test_every_transition_has_a_reason():
    rig = Rig()
    rig.moving()
    rig.executor.deactivate(rig.now_ns)
    rig = Rig()
    assert [(c.before.value, c.after.value, c.reason) for c in rig.executor.drain_changes()] == [
        ("unconfigured", "inactive", "configured"),
        ("inactive", "holding", "activated"),
    ]
    rig.moving().run_to(T0 + 48 * STEP)
    assert rig.changes() == [(STOPPING, "out of plan")]
    rig.run_to(T0 + 70 * STEP)
    assert rig.changes() == [(HOLDING, "out of plan")]


def test_running_out_of_plan_needs_no_message():
    rig = Rig().moving()
    assert rig.run_to(T0 + 100 * STEP) == [()] * 95
    assert rig.executor.state is HOLDING


def test_nothing_is_commanded_before_a_chunk_or_while_inactive():
    rig = Rig()
    assert rig.run_to(T0 + 500 * STEP) == [()] * 500
    assert rig.executor.deactivate(rig.now_ns) == ()
    assert rig.accept(ramp(rig.now_ns)).startswith("inactive")
    assert rig.step() == ()


def test_deactivation_decelerates():
    rig = Rig().moving()
    rig.assert_decelerates(rig.executor.deactivate(rig.now_ns, "operator"))
    assert rig.changes() == [(INACTIVE, "operator")]
    assert rig.run_to(rig.now_ns + 10 * STEP) == [()] * 10


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"names": SPEC.names[:13], "actions": np.zeros((48, 13))}, "names"),
        ({"names": (*SPEC.names[:13], "left_waist")}, "names"),
        ({"names": (*SPEC.names[:13], "tail")}, "names"),
        ({"actions": np.zeros((48, 13))}, "shape"),
        ({"actions": np.zeros((0, 14))}, "shape"),
        ({"actions": np.zeros(14)}, "shape"),
        ({"step_ns": 0}, "shape"),
        ({"actions": np.full((48, 14), np.nan)}, "not finite"),
        ({"actions": np.full((48, 14), np.inf)}, "not finite"),
        ({"epoch": 0}, "old epoch"),
        ({"context_ns": T0 - 2000 * MS}, "stale context"),
        ({"start_ns": T0 - 2000 * MS}, "stale chunk"),
        ({"start_ns": T0 + 1000 * MS}, "future"),
        ({"observation_ns": T0 + 1000 * MS}, "future"),
        ({"context_ns": T0 + 1000 * MS}, "future"),
        ({"observation_ns": T0 - MS}, "out of order"),
    ],
)
def test_senseless_chunks_are_refused_and_the_motion_goes_on(changes, kind):
    rig = Rig().moving()
    assert rig.accept(replace(ramp(), **changes)).startswith(f"{kind}: ")
    assert rig.executor.refusals == {kind: 1}
    assert rig.run_to(rig.now_ns + STEP) == [()]
    assert rig.executor.state is MOVING


def test_limits_on_age_and_future_are_configurable():
    old, early = ramp(context_ns=T0 - 3000 * MS), ramp(observation_ns=T0 + 1000 * MS)
    assert Rig().accept(old) == "stale context: 3.000 s old (limit 2 s)"
    assert Rig(max_context_age_s=5.0).accept(old) == ""
    assert Rig().accept(early) == "future: 1.000 s ahead (limit 0.5 s)"
    assert Rig(max_future_s=2.0).accept(early) == ""


def test_from_rest_a_chunk_must_begin_where_the_arms_are():
    rig = Rig()
    far = ramp()
    far = replace(far, actions=far.actions + np.eye(14)[3] * 0.9)
    reason = rig.accept(far)
    assert reason == "first jump: left_forearm_roll would start 0.900 away from where it is (limit 0.628)"
    assert Rig(max_first_jump_s=0.3).accept(far) == ""
    rig.moving()
    assert rig.accept(replace(far, observation_ns=rig.now_ns)) == ""


def test_from_rest_the_commanded_place_counts_too():
    rig = Rig()
    actions = np.repeat(HOME[None], 48, axis=0)
    actions[:, 0] = np.linspace(0.0, 0.9, 48)
    rig.accept(replace(ramp(), actions=actions))
    while rig.executor.state is not HOLDING or rig.now_ns == T0:
        rig.now_ns += STEP
        rig.executor.feedback(rig.now_ns, dict(zip(SPEC.names, HOME.tolist(), strict=True)))
        rig.step(feedback=False)
    held = np.repeat(actions[-1:], 48, axis=0)
    assert rig.accept(replace(ramp(rig.now_ns), actions=held)) == ""
    assert rig.accept(replace(ramp(rig.now_ns), actions=held + np.eye(14)[0])).startswith("first jump: left_waist")


def test_a_context_that_ages_while_moving_stops_and_a_fresh_one_moves_again():
    rig = Rig().moving()
    while rig.executor.state is MOVING:
        rig.accept(ramp(rig.now_ns, context_ns=T0, speed=0.1))
        rig.now_ns += STEP
        rig.step()
    assert rig.now_ns == T0 + 2000 * MS + STEP
    rig.assert_decelerates(rig.sent)
    rig.run_to(rig.now_ns + 10 * STEP)
    assert rig.accept(ramp(rig.now_ns, context_ns=T0, speed=0.1)).startswith("stale context")
    assert rig.changes() == [(STOPPING, "stale context"), (HOLDING, "stale context")]
    assert rig.accept(ramp(rig.now_ns, speed=0.1)) == ""
    rig.run_to(rig.now_ns + STEP)
    assert rig.changes() == [(MOVING, "chunk")]


def test_silent_joint_states_stop_by_the_steady_clock():
    rig = Rig().moving()
    sent = rig.run_to(rig.now_ns + 200 * MS, feedback=False)
    assert sent == [()] * 10
    rig.run_to(rig.now_ns + STEP, feedback=False)
    rig.assert_decelerates(rig.sent)
    assert rig.changes() == [(STOPPING, "joint states stale")]
    assert rig.accept(ramp(rig.now_ns)).startswith("joint states stale")
    rig.run_to(rig.now_ns + 10 * STEP, feedback=False)
    assert rig.changes() == [(HOLDING, "joint states stale")]
    rig.run_to(rig.now_ns + STEP)
    assert rig.accept(ramp(rig.now_ns)) == ""
    rig.run_to(rig.now_ns + STEP)
    assert rig.executor.state is MOVING


def test_a_frozen_ros_clock_does_not_hide_silent_joint_states():
    rig = Rig().moving()
    assert rig.step(feedback=False, steady_ns=rig.now_ns + 200 * MS) == ()
    rig.assert_decelerates(rig.step(feedback=False, steady_ns=rig.now_ns + 201 * MS))


def test_joint_states_that_repeat_one_stamp_are_silent():
    rig = Rig().moving()
    frozen_ns, sent = rig.now_ns, []
    for _ in range(12):
        rig.now_ns += STEP
        rig.executor.feedback(frozen_ns, dict(zip(SPEC.names, HOME.tolist(), strict=True)))
        sent += rig.step(feedback=False)
    assert len(sent) == 2
    assert rig.executor.reason.startswith("joint states stale")


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_senseless_joint_states_stop_until_they_make_sense(odd):
    rig = Rig().moving()
    assert "left_elbow is not finite" in rig.measure(left_elbow=odd)
    assert rig.accept(ramp(rig.now_ns)).startswith("joint states invalid")
    rig.assert_decelerates(rig.step(feedback=False))
    assert rig.changes() == [(STOPPING, "joint states invalid")]
    assert rig.accept(ramp(rig.now_ns)).startswith("joint states invalid")
    rig.run_to(rig.now_ns + 10 * STEP)
    assert rig.accept(ramp(rig.now_ns)) == ""


def test_missing_joints_are_named():
    rig = Rig().moving()
    assert "Missing joint" in rig.executor.feedback(rig.now_ns, {"left_waist": 0.0})
    rig.assert_decelerates(rig.step(feedback=False))


def test_no_chunk_before_the_first_joint_states():
    executor = Executor(SPEC)
    executor.activate(T0)
    assert executor.accept(ramp(), T0) == "joint states missing: none received yet"


def test_a_chunk_that_waited_past_its_end_is_dropped():
    rig = Rig()
    assert rig.accept(ramp(count=2)) == ""
    assert rig.run_to(T0 + 5 * STEP) == [()] * 5
    assert rig.executor.refusals == {"stale chunk": 1}
    assert rig.executor.plan is None


def test_a_fresh_chunk_takes_over_while_stopping():
    rig = Rig().moving()
    rig.measure(left_elbow=float("nan"))
    rig.step(feedback=False)
    rig.step()
    assert rig.executor.state is STOPPING
    assert rig.accept(ramp(rig.now_ns)) == ""
    rig.step()
    assert rig.changes() == [(STOPPING, "joint states invalid"), (MOVING, "chunk")]


def test_a_clock_that_jumps_back_replaces_old_trajectories_by_a_hold_where_the_arms_are():
    rig = Rig().moving()
    rig.now_ns = 1000 * MS
    assert rig.step(feedback=False) == ()
    assert rig.changes() == [(HOLDING, "clock jumped back")]
    assert rig.executor.plan is None
    # A message from before the jump says nothing.
    rig.executor.feedback(T0, dict.fromkeys(SPEC.names, 0.3))
    assert rig.step(feedback=False) == ()
    here = dict.fromkeys(SPEC.names, 0.2)
    rig.executor.feedback(rig.now_ns, here)
    sent = rig.step(feedback=False)
    for trajectory in sent:
        np.testing.assert_array_equal(trajectory.positions, 0.2)
        np.testing.assert_array_equal(trajectory.velocities, 0.0)
    assert len(sent) == 2
    rig.now_ns += STEP
    rig.executor.feedback(rig.now_ns, here)
    assert rig.step(feedback=False) == ()
    near = replace(ramp(), actions=np.full((48, 14), 0.21), start_ns=rig.now_ns, context_ns=rig.now_ns)
    assert rig.accept(replace(near, observation_ns=rig.now_ns)) == ""


def test_a_clock_set_back_a_little_changes_nothing():
    rig = Rig().moving()
    rig.now_ns -= STEP
    assert rig.step() == ()
    assert rig.executor.state is MOVING


def test_a_clock_that_jumps_forward_ends_in_a_hold():
    rig = Rig().moving()
    rig.now_ns += 3_600_000 * MS
    rig.step()
    rig.run_to(rig.now_ns + STEP)
    assert rig.executor.state is HOLDING


def test_activation_starts_from_where_the_arms_are_now():
    rig = Rig().moving()
    rig.executor.deactivate(rig.now_ns)
    rig.now_ns += 1000 * MS
    rig.executor.activate(rig.now_ns)
    assert rig.executor.plan is None
    moved = dict.fromkeys(SPEC.names, 0.9)
    rig.executor.feedback(rig.now_ns, moved)
    rig.step(feedback=False)
    home = replace(ramp(rig.now_ns), actions=np.repeat(HOME[None], 48, axis=0))
    assert rig.accept(home).startswith("first jump")
    chunk = replace(ramp(rig.now_ns), actions=np.full((48, 14), 0.9))
    assert rig.accept(chunk) == ""
    np.testing.assert_allclose(rig.step(feedback=False)[0].positions, 0.9, atol=1e-12)


def test_a_joint_far_from_its_command_stops_the_arms():
    watched = tuple(replace(joint, tracking_error=0.2) for joint in SPEC.joints)
    rig = Rig()
    rig.executor = Executor(replace(SPEC, joints=watched))
    rig.executor.activate(T0)
    rig.step()
    rig.moving()
    rig.now_ns += STEP
    rig.measure(left_elbow=float(rig.executor.reference(rig.now_ns)[2]) + 0.19)
    assert rig.step(feedback=False) == ()
    rig.now_ns += STEP
    rig.measure(left_elbow=float(rig.executor.reference(rig.now_ns)[2]) - 0.21)
    rig.assert_decelerates(rig.step(feedback=False))
    assert rig.executor.reason == "tracking error: left_elbow is 0.210 from its command (limit 0.2)"


def test_the_import_graph_has_neither_torch_nor_ros():
    code = (
        "import sys, pkgutil, importlib, dit_policy_ros.runtime as r;"
        "[importlib.import_module(m.name) for m in pkgutil.iter_modules(r.__path__, 'dit_policy_ros.runtime.')];"
        "print(sorted(set(sys.modules) & {'torch', 'rclpy', 'mujoco', 'scipy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
