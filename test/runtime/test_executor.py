from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dit_policy_ros.actions.splice import committed_prefix
from dit_policy_ros.errors import ConfigError
from dit_policy_ros.evaluate.motion_check import Bounds, MotionJudge
from dit_policy_ros.robot import load_robot
from dit_policy_ros.runtime.executor import Executor, ExecutorState
from dit_policy_ros.runtime.executor_config import ExecutorConfig
from dit_policy_ros.types import ActionChunk, Trajectory

SPEC = load_robot("aloha")
MS = 1_000_000
STEP = 20 * MS
T0 = 100_000 * MS
HOME = np.where(["gripper" in name for name in SPEC.names], 0.5, 0.0)


def chunk_of(actions, start_ns=T0, **changes) -> ActionChunk:
    made = ActionChunk(SPEC.names, start_ns, STEP, np.asarray(actions, dtype=np.float64), start_ns, start_ns, 1)
    return replace(made, **changes)


def ramp(count=48, speed=0.5, start_ns=T0, since_ns=T0, **changes) -> ActionChunk:
    """All joints move at ``speed``, [1/s], from HOME at ``since_ns``."""
    t = (start_ns - since_ns + STEP * np.arange(count)) * 1e-9
    return chunk_of(HOME + speed * np.repeat(t[:, None], 14, axis=1), start_ns, **changes)


def swing(count=48, start_ns=T0, since_ns=T0, size=0.2, **changes) -> ActionChunk:
    """All joints swing smoothly from HOME, at rest at ``since_ns``."""
    t = (start_ns - since_ns + STEP * np.arange(count)) * 1e-9
    return chunk_of(HOME + size * np.repeat(1.0 - np.cos(3.0 * t[:, None]), 14, axis=1), start_ns, **changes)


def active(**config) -> Executor:
    executor = Executor(SPEC, ExecutorConfig(**config))
    executor.activate(T0)
    feed(executor, T0)
    assert executor.tick(T0, T0) == ()
    return executor


def feed(executor: Executor, now_ns: int, positions=HOME) -> str:
    return executor.feedback(now_ns, dict(zip(SPEC.names, positions.tolist(), strict=True)))


def tick(executor: Executor, now_ns: int) -> tuple[Trajectory, ...]:
    feed(executor, now_ns)
    return executor.tick(now_ns, now_ns)


def joined(sent: tuple[Trajectory, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, positions and velocities of all joints in the robot's order."""
    names = [name for trajectory in sent for name in trajectory.names]
    columns = [names.index(name) for name in SPEC.names]
    positions = np.concatenate([trajectory.positions for trajectory in sent], axis=1)[:, columns]
    velocities = np.concatenate([trajectory.velocities for trajectory in sent], axis=1)[:, columns]
    return sent[0].times_ns, positions, velocities


def judge_of(position=HOME, now_ns=T0) -> MotionJudge:
    bounds = Bounds(SPEC.lower, SPEC.upper, SPEC.velocity, SPEC.acceleration, SPEC.jerk)
    return MotionJudge(bounds, position.copy(), now_ns=now_ns)


def assert_acceptable(sent: tuple[Trajectory, ...], now_ns: int, judge: MotionJudge | None = None) -> None:
    """What controllers and the robot's limits demand of anything sent."""
    assert [t.names for t in sent] == [controller.joints for controller in SPEC.controllers]
    for trajectory in sent:
        np.testing.assert_array_equal(trajectory.times_ns, sent[0].times_ns)
    times, positions, velocities = joined(sent)
    assert times[0] > now_ns
    assert (np.diff(times) >= MS).all()
    judge = judge or judge_of(now_ns=now_ns)
    judge.command(now_ns, times, positions, velocities)
    to_the_end = judge.copy()
    to_the_end.follow_to_rest()
    assert not judge.violations + to_the_end.violations


def test_a_chunk_becomes_one_trajectory_per_controller_that_ends_at_rest():
    executor = active()
    assert executor.accept(swing(), T0) == ""
    sent = tick(executor, T0 + STEP)
    assert_acceptable(sent, T0 + STEP)
    times, positions, velocities = joined(sent)
    np.testing.assert_array_equal(times[:46], T0 + 2 * STEP + STEP * np.arange(46))
    # Three steps to catch up with a chunk that began 40 ms ago; then exactly what the policy asked for.
    np.testing.assert_allclose(positions[3:46], swing().actions[5:], atol=1e-12)
    exact = 0.6 * np.sin(3.0 * (times[5:40] - T0) * 1e-9)
    np.testing.assert_allclose(velocities[5:40, 0], exact, atol=2e-4)
    assert times[-1] <= swing().end_ns + 4 * STEP
    assert sum(hits.sum() for hits in (executor.position_hits, executor.velocity_hits, executor.acceleration_hits)) == 0
    assert (executor.state, executor.reason) == (ExecutorState.MOVING, "chunk")
    assert tick(executor, T0 + 2 * STEP) == ()


def test_the_past_of_a_chunk_is_dropped_by_the_clock():
    executor = active()
    executor.accept(ramp(), T0)
    sent = tick(executor, T0 + 310 * MS)
    assert_acceptable(sent, T0 + 310 * MS)
    times, positions, _ = joined(sent)
    assert times[0] == T0 + 320 * MS
    # From rest there is much to catch up with, as fast as the limits allow.
    assert executor.acceleration_hits[0] > 0
    np.testing.assert_allclose(positions[0], HOME)
    np.testing.assert_allclose(positions[16:30, 0], 0.5 * (times[16:30] - T0) * 1e-9, atol=5e-3)


def test_a_new_chunk_takes_over_where_the_clock_says():
    executor = active()
    executor.accept(swing(), T0)
    sent = tick(executor, T0)
    judge = judge_of()
    assert_acceptable(sent, T0, judge)
    now_ns = T0 + 10 * STEP
    newer = swing(start_ns=T0 + 7 * STEP, since_ns=T0)
    newer = replace(newer, actions=newer.actions + 0.001)
    assert executor.accept(newer, now_ns) == ""
    sent = tick(executor, now_ns)
    assert_acceptable(sent, now_ns, judge)
    times, positions, _ = joined(sent)
    assert times[0] == now_ns + STEP
    np.testing.assert_allclose(positions[0, 0], swing().actions[11, 0], atol=1e-12)
    arms = [i for i, name in enumerate(SPEC.names) if "gripper" not in name]
    np.testing.assert_allclose(positions[12:40][:, arms], newer.actions[16:44][:, arms], atol=1e-3)
    _, second = executor.drain_splices()
    assert (second.stamp_ns, second.observation_ns) == (now_ns, newer.observation_ns)
    assert executor.drain_splices() == ()


def test_a_chunk_that_starts_later_follows_the_running_plan_until_then():
    executor = active()
    executor.accept(swing(), T0)
    tick(executor, T0)
    executor.accept(swing(start_ns=T0 + 10 * STEP, since_ns=T0, observation_ns=T0), T0 + 2 * STEP)
    times, positions, _ = joined(tick(executor, T0 + 2 * STEP))
    assert times[0] == T0 + 3 * STEP
    np.testing.assert_allclose(positions[4:40], swing().actions[7:43], atol=1e-12)


def test_any_channel_order_is_understood():
    executor = active()
    order = np.random.default_rng(1).permutation(14)
    chunk = chunk_of(np.repeat(HOME[None] + 0.01 * np.arange(14), 48, axis=0))
    shuffled = replace(chunk, names=tuple(SPEC.names[i] for i in order), actions=chunk.actions[:, order])
    assert executor.accept(shuffled, T0) == ""
    np.testing.assert_allclose(joined(tick(executor, T0))[1][-1], chunk.actions[-1], atol=1e-6)


@pytest.mark.parametrize(("method", "error"), [("linear", 1e-4), ("cubic", 0.0)])
def test_actions_on_another_grid_are_resampled(method, error):
    executor = active(resampling=method)
    t = STEP * 1e-9 * (np.arange(48) + 0.5)
    executor.accept(chunk_of(HOME + np.repeat(t[:, None] ** 2, 14, axis=1), T0 + STEP // 2), T0)
    times, positions, _ = joined(tick(executor, T0))
    assert times[0] == T0 + STEP
    # A chord lies step^2 / 4 above the middle of a parabola.
    np.testing.assert_allclose(positions[4:45, 0], ((times[4:45] - T0) * 1e-9) ** 2 + error, atol=1e-9)


def test_the_waypoint_grid_can_be_finer():
    executor = active(waypoint_s=0.01, lead_s=0.001)
    executor.accept(swing(), T0)
    times, positions, _ = joined(tick(executor, T0))
    assert (np.diff(times) == STEP // 2).all()
    np.testing.assert_allclose(positions[9:40:2], swing().actions[5:21], atol=1e-9)


@pytest.mark.parametrize(("lead_s", "steps"), [(0.005, 1), (0.03, 2)])
def test_nothing_changes_before_the_lead_is_over(lead_s, steps):
    executor = active(lead_s=lead_s)
    executor.accept(ramp(), T0)
    times, positions, _ = joined(tick(executor, T0))
    assert times[0] == T0 + steps * STEP
    np.testing.assert_array_equal(positions[0], HOME)
    assert (positions[1] > HOME).all()


def test_limits_act_and_are_counted():
    executor = active()
    executor.accept(ramp(speed=4.0), T0)
    sent = tick(executor, T0)
    assert_acceptable(sent, T0)
    assert executor.velocity_hits[SPEC.names.index("left_elbow")] > 0
    assert executor.position_hits[SPEC.names.index("left_elbow")] > 0
    assert executor.position_hits[SPEC.names.index("left_gripper")] > 0


BAD = {
    "position": lambda: chunk_of(HOME + 1.1 * np.linspace(0.0, 1.0, 48)[:, None] ** 2 * (np.arange(14) == 6)),
    "velocity": lambda: ramp(speed=4.0),
    "acceleration": lambda: swing(size=4.0),
    "jerk": lambda: chunk_of(HOME + 0.05 * (np.arange(48) % 2)[:, None]),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_limit_can_refuse(kind):
    executor = active(**{f"{kind}_mode": "refuse"})
    assert executor.accept(BAD[kind](), T0) == ""
    assert tick(executor, T0) == ()
    assert executor.refusals == {"limit": 1}
    executor.accept(swing(size=0.1), T0)
    assert tick(executor, T0 + STEP) != ()


def test_a_limit_can_slow_down_along_the_path():
    def path(executor):
        t = STEP * np.arange(48) * 1e-9
        # A straight line in joint space, too fast for one joint in the middle.
        line = np.zeros((48, 14))
        line[:, 0] = 0.55 * (1 - np.cos(4.0 * t))
        line[:, 1] = -1.6 * line[:, 0]
        executor.accept(chunk_of(HOME + line), T0)
        sent = tick(executor, T0)
        assert_acceptable(sent, T0)
        return joined(sent)

    # Once each joint has caught up with the path.
    times, positions, _ = path(active())
    assert np.abs(positions[16:, 1] + 1.6 * positions[16:, 0]).max() > 0.01
    times, positions, _ = path(active(velocity_mode="slow"))
    np.testing.assert_allclose(positions[16:, 1], -1.6 * positions[16:, 0], atol=1e-3)
    assert times[-1] > T0 + 50 * STEP


def test_the_plan_gives_the_committed_prefix_of_the_next_chunk():
    executor = active()
    assert executor.plan is None
    executor.accept(swing(), T0)
    tick(executor, T0)
    plan = executor.plan
    assert (plan.names, plan.epoch, plan.observation_ns, plan.context_ns) == (SPEC.names, 1, T0, T0)
    prefix = committed_prefix(plan, T0 + 5 * STEP, STEP, 4)
    np.testing.assert_allclose(prefix.actions, swing().actions[5:9], atol=1e-12)
    # Later, the past is still known.
    executor.accept(swing(start_ns=T0 + 20 * STEP, since_ns=T0), T0 + 20 * STEP)
    tick(executor, T0 + 20 * STEP)
    np.testing.assert_allclose(committed_prefix(executor.plan, T0 + 5 * STEP, STEP, 4).actions, prefix.actions)


def test_the_plan_forgets_what_is_older_than_its_history():
    executor = active(history_s=0.1)
    for k in (0, 20):
        executor.accept(ramp(start_ns=T0 + k * STEP, since_ns=T0), T0 + k * STEP)
        tick(executor, T0 + k * STEP)
    assert executor.plan.start_ns == T0 + 15 * STEP


def test_reference_and_context_age_follow_the_clock():
    executor = active()
    assert executor.reference(T0) is None
    assert executor.context_age_ns(T0) is None
    executor.accept(swing(context_ns=T0 - 100 * MS), T0)
    tick(executor, T0)
    np.testing.assert_allclose(executor.reference(T0 + 210 * MS)[0], 0.2 * (1 - np.cos(0.63)), atol=1e-6)
    assert executor.context_age_ns(T0 + 100 * MS) == 200 * MS


chunks = arrays(
    np.float64,
    st.tuples(st.integers(1, 30), st.just(14)),
    elements=st.floats(-1e9, 1e9) | st.floats(-3, 3),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(chunks, st.integers(0, 700 * MS), st.integers(-300 * MS, 300 * MS)), max_size=5))
def test_whatever_comes_what_is_sent_is_acceptable(sequence):
    executor = active(max_first_jump_s=1e9)
    judge = judge_of()
    now_ns = T0
    for actions, pause_ns, offset_ns in sequence:
        now_ns += pause_ns
        tick(executor, now_ns)
        executor.accept(chunk_of(actions, now_ns + offset_ns, observation_ns=now_ns, context_ns=now_ns), now_ns)
        sent = tick(executor, now_ns)
        if sent:
            assert_acceptable(sent, now_ns, judge)
    sent = executor.deactivate(now_ns)
    if sent:
        assert_acceptable(sent, now_ns, judge)


@settings(max_examples=25, deadline=None)
@given(chunks)
def test_swapping_arms_swaps_arms(actions):
    names = [joint.name for joint in SPEC.joints]
    mirror = [names.index(name.replace("left", "?").replace("right", "left").replace("?", "right")) for name in names]
    plans = []
    for columns in (list(range(14)), mirror):
        executor = active(max_first_jump_s=1e9)
        executor.accept(chunk_of(np.concatenate((HOME[None], actions))[:, columns]), T0)
        tick(executor, T0)
        plans.append(executor.plan)
    assert (plans[0] is None) == (plans[1] is None)
    if plans[0]:
        np.testing.assert_allclose(plans[0].actions[:, mirror], plans[1].actions, atol=1e-9)


@pytest.mark.parametrize(
    "bad",
    [
        {"waypoint_s": 0.0},
        {"lead_s": float("nan")},
        {"resampling": "nearest"},
        {"position_mode": "slow"},
        {"lead_s": "1"},
    ],
)
def test_bad_options_are_refused(bad):
    with pytest.raises(ConfigError):
        ExecutorConfig(**bad)
