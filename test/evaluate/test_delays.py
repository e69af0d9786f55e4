"""What the two loops make of delays, and of bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_episode import MS, SPEC, Plant, Wave, run

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.evaluate.episode import EpisodeConfig
from dit_policy_ros.evaluate.loop import TwoSystemLoop
from dit_policy_ros.runtime import incidents
from dit_policy_ros.runtime.executor import ExecutorState
from dit_policy_ros.runtime.executor_config import ExecutorConfig
from dit_policy_ros.runtime.schedule import ScheduleConfig
from dit_policy_ros.types import ActionChunk


class Obedient(Wave):
    """A wave that is off by a little more every time, and keeps its prefix."""

    def act(self, observation, context, committed=None):
        chunk = super().act(observation, context, committed)
        if committed is not None:
            chunk.actions[: len(committed.actions)] = committed.actions
        return replace(chunk, committed=0 if committed is None else len(committed.actions))


class Drift(Wave):
    """Goes on from where the arms are, with a speed that changes slowly."""

    def __init__(self, speed_rad_s=0.3, turns_rad_s=1.0):
        super().__init__()
        self.speed, self.turns = speed_rad_s, turns_rad_s

    def act(self, observation, context, committed=None):
        chunk = super().act(observation, context, committed)
        state = np.array([observation.positions[name] for name in SPEC.names])
        speeds = self.speed * np.cos(self.turns * 1e-9 * (chunk.times_ns - self.start_ns)[:, None] + np.arange(14))
        actions = state + np.cumsum(speeds, axis=0) * 0.02
        count = 0
        if committed is not None:
            count = len(committed.actions)
            actions = np.concatenate((committed.actions, committed.actions[-1] + np.cumsum(speeds, axis=0) * 0.02))
        return replace(chunk, actions=actions[: self.horizon], committed=count)


@pytest.mark.parametrize("action_delay_s", [0.02, 0.06, 0.1, 0.2, 0.3])
def test_a_kept_prefix_leaves_no_seam_however_long_a_chunk_takes(action_delay_s):
    result = run(Obedient(offset=0.002), action_delay_s=action_delay_s)
    # Until a delay was measured, the prefix is a guess.
    assert result.smoothness.seam_positions[3:].max() < 1e-9
    assert result.smoothness.unplanned[np.isfinite(result.smoothness.unplanned)].max() == 0.0
    assert result.incidents.get(incidents.SHORT_PREFIX, 0) <= 2
    # An observation waits for the fast loop up to a period of the camera.
    assert result.smoothness.delays_s[3:].min() >= action_delay_s - 1e-9


def test_a_trace_drives_the_loop():
    policy = Wave()
    run(policy, delay_trace={"context": [0.2], "action": [0.1, 0.3]})
    first, second, third = policy.acted_ns[:3]
    assert second == first + 200 * MS + 40 * MS or second > first
    assert third - second >= 300 * MS - 80 * MS


def test_a_delay_beyond_the_horizon_ends_in_rest_and_goes_on():
    result = run(action_delay_s=0.3, delay_trace={"context": [0.1], "action": [0.1, 0.1, 1.5, 0.1, 0.1, 0.1]})
    states = [(change.after, change.reason.partition(":")[0]) for change in result.changes]
    stopped = states.index((ExecutorState.STOPPING, "out of plan"))
    assert (ExecutorState.MOVING, "chunk") in states[stopped:]
    assert result.incidents[incidents.MISSED_DEADLINE] >= 1
    assert result.incidents[incidents.ACT_OVERRUN] >= 1
    assert result.refusals["stale chunk"] >= 1
    assert 0.0 < np.nanmean(result.smoothness.unplanned) < 0.6


def test_spikes_never_step_back_nor_pass_a_limit():
    result = run_long(Drift(), action_delay_s=0.1, delays="spikes")
    assert (result.smoothness.delays_s < 0.5).all(), "what takes a second is older than a chunk is long"
    assert result.refusals["stale chunk"] >= 1
    assert result.velocity_hits.sum() == 0
    fast = run_long(Drift(0.8, 2.0), action_delay_s=0.1, delays="spikes").smoothness
    momenta = fast.momenta[np.isfinite(fast.momenta)]
    assert len(momenta) > 10
    assert momenta.min() > 0.0
    assert np.nanmax(fast.steps_back) == 0.0


def test_after_a_spike_chunks_react_as_soon_as_before():
    calm, spiky = Obedient(), Obedient()
    run_long(calm, action_delay_s=0.06)
    result = run_long(spiky, action_delay_s=0.06, delays="spikes")
    assert result.refusals["stale chunk"] >= 1
    lengths = [0 if prefix is None else len(prefix.actions) for _, _, prefix in spiky.acted]
    # The first two are made before a delay is known.
    assert {len(prefix.actions) for _, _, prefix in calm.acted[2:]} == set(lengths[2:]) == {4}


@pytest.mark.parametrize("context_delay_s", [0.3, 1.0])
def test_waiting_for_a_younger_context_is_told_with_what_would_help(context_delay_s):
    result = run_long(context_delay_s=context_delay_s, action_delay_s=0.2)
    wait = result.context_wait
    assert 2 * context_delay_s < wait.needed_s < 2 * context_delay_s + 0.5
    if context_delay_s == 0.3:
        assert (wait.share, wait.advice()) == (0.0, "")
        return
    assert 0.0 < wait.share < 0.5
    stopped = [change for change in result.changes if change.reason.startswith("stale context")]
    assert stopped
    assert f"Held for {100 * wait.share:.1f} % of the time because the context was older than 2 s." in wait.advice()
    advised_s = float(wait.advice().split("max_context_age_s to ")[1].partition(",")[0])
    config = ExecutorConfig(max_context_age_s=advised_s)
    patient = run_long(context_delay_s=context_delay_s, action_delay_s=0.2, executor=config)
    assert (patient.context_wait.share, patient.context_wait.advice()) == (0.0, "")
    assert patient.context_wait.limit_s == advised_s


def test_a_stalled_slow_system_stops_the_arms_with_its_name_and_they_go_on():
    result = run_long(context_delay_s=0.1, delay_trace={"context": [0.1, 0.1, 0.1, 3.0], "action": [0.06]})
    states = [(change.after.value, change.reason.partition(":")[0]) for change in result.changes]
    stopped = states.index(("stopping", "stale context"))
    assert ("moving", "chunk") in states[stopped:]


def run_long(policy=None, body=None, steps=350, **config):
    from dit_policy_ros.evaluate.episode import run_episode

    config.setdefault("schedule", ScheduleConfig(execution_horizon_s=0.2))
    return run_episode(body or Plant(), policy or Wave(), SPEC, 5, "plant", EpisodeConfig(steps=steps, **config))


class Fickle(Plant):
    """Says something else every ``every_ns`` from ``from_ns`` to ``to_ns`` after the reset."""

    from_ns, to_ns, every_ns = 1000 * MS, 2000 * MS, 100 * MS

    @property
    def instruction(self) -> str:
        since_ns = self.time_ns - getattr(self, "start_ns", self.time_ns)
        count = min(max(since_ns - self.from_ns, 0), self.to_ns - self.from_ns) // self.every_ns
        return f"wave {count}"


def test_an_instruction_that_changes_every_100_ms_finishes_the_plan_and_recovers():
    policy, body = Wave(), Fickle()
    result = run_long(policy, body, steps=200)
    seen = [context.instruction for _, context, _ in policy.acted]
    assert seen[0] == "wave 0"
    assert seen[-1] == "wave 10"
    assert result.incidents[incidents.OLD_EPOCH] >= 2
    epochs = [context.epoch for _, context, _ in policy.acted]
    assert epochs == sorted(epochs)
    states = [(change.after.value, change.reason.partition(":")[0]) for change in result.changes]
    assert ("stopping", "out of plan") in states
    assert states[-1] == ("moving", "chunk")


def test_a_result_of_the_old_epoch_never_moves_the_arms():
    class Once(Fickle):
        to_ns = Fickle.from_ns + Fickle.every_ns

    policy, body = Wave(), Once()
    body.reset(5, "")
    loop = TwoSystemLoop(body, policy, SPEC, EpisodeConfig(context_delay_s=0.3, action_delay_s=0.2))
    accepted: list[ActionChunk] = []
    real = loop.executor.accept
    loop.executor.accept = lambda chunk, now_ns: (
        accepted.append((now_ns - body.start_ns, chunk)),
        real(chunk, now_ns),
    )[1]
    for _ in range(150):
        loop.step()
    switched = Once.from_ns + Once.every_ns
    assert {chunk.epoch for now_ns, chunk in accepted if now_ns < switched} == {1}
    assert {chunk.epoch for now_ns, chunk in accepted if now_ns >= switched} == {2}


@pytest.mark.parametrize("problem", [PolicyError("the camera is dirty"), RuntimeError("out of memory"), KeyError("x")])
@pytest.mark.parametrize("method", ["encode", "act"])
def test_a_policy_that_breaks_now_and_then_is_counted_and_goes_on(method, problem):
    class Shaky(Wave):
        calls = 0

        def fail(self):
            self.calls += 1
            if 3 <= self.calls <= 6:
                raise problem

        def encode(self, *args):
            if method == "encode":
                self.fail()
            return super().encode(*args)

        def act(self, *args):
            if method == "act":
                self.fail()
            return super().act(*args)

    body = Plant()
    body.reset(5, "")
    loop = TwoSystemLoop(body, Shaky(), SPEC, EpisodeConfig(schedule=ScheduleConfig(execution_horizon_s=0.2)))
    for _ in range(350):
        loop.step()
    assert all(str(problem) in told for told in loop.log.failures)
    assert loop.incidents()[incidents.FAILED] == len(loop.log.failures) == 4
    assert [change.after for change in loop.log.changes][-1] is ExecutorState.MOVING


def test_a_policy_that_cannot_work_at_all_is_told():
    class Broken(Wave):
        def act(self, *args):
            raise PolicyError("trained for another robot")

    with pytest.raises(PolicyError, match="another robot"):
        run(Broken())


def test_every_delay_beyond_the_horizon_for_a_while_ends_in_rest_and_goes_on():
    trace = {"context": [0.1], "action": [*[0.1] * 5, *[1.5] * 3, *[0.1] * 60]}
    policy = Obedient()
    result = run_long(policy, delay_trace=trace, steps=500)
    assert result.refusals["stale chunk"] == 3
    assert result.incidents[incidents.MISSED_DEADLINE] >= 3
    assert result.incidents[incidents.ACT_OVERRUN] == 3
    states = [(change.after.value, change.reason.partition(":")[0]) for change in result.changes]
    assert states.count(("stopping", "out of plan")) == 1, "it rests once, and does not twitch"
    assert states[-1] == ("moving", "chunk")
    lengths = {len(prefix.actions) for _, _, prefix in policy.acted[10:]}
    assert lengths <= {4, 8}, "it looks back no farther than before"


def test_contexts_that_always_come_too_late_hold_the_arms_until_they_come_in_time():
    trace = {"context": [3.0, 3.0, 3.0, *[0.1] * 200], "action": [0.06]}
    result = run_long(delay_trace=trace, steps=700)
    states = [(change.after.value, change.reason.partition(":")[0]) for change in result.changes]
    assert set(states[2:-1]) <= {("moving", "chunk"), ("stopping", "stale context"), ("holding", "stale context")}
    assert result.refusals["stale context"] >= 3
    assert states[-1] == ("moving", "chunk")


def test_nan_in_a_context_lasts_no_longer_than_the_context():
    class Blind(Wave):
        def encode(self, *args):
            value = np.nan if 3 <= len(self.encoded) <= 8 else 0.0
            return replace(super().encode(*args), tensors={"x": np.array([value])})

        def act(self, observation, context, committed=None):
            chunk = super().act(observation, context, committed)
            return replace(chunk, actions=chunk.actions + context.tensors["x"])

    result = run_long(Blind(), context_delay_s=0.3)
    assert result.incidents[incidents.FAILED] >= 3
    states = [(change.after.value, change.reason.partition(":")[0]) for change in result.changes]
    assert ("stopping", "out of plan") in states
    assert states[-1] == ("moving", "chunk")


def test_nan_now_and_then_finishes_the_plan_and_recovers():
    class Sparks(Wave):
        def act(self, *args):
            chunk = super().act(*args)
            return replace(chunk, actions=chunk.actions * np.nan) if 4 <= len(self.acted) <= 9 else chunk

    result = run_long(Sparks())
    assert result.incidents[incidents.FAILED] == 6
    states = [(change.after.value, change.reason.partition(":")[0]) for change in result.changes]
    assert ("stopping", "out of plan") in states
    assert states[-1] == ("moving", "chunk")


class Leaping(Plant):
    """A clock that leaps once."""

    leap_ns, at_ns, leapt = 0, 3500 * MS, False

    def step(self):
        super().step()
        if not self.leapt and self.time_ns - self.start_ns >= self.at_ns:
            self.leapt = True
            self.time_ns += self.leap_ns
            for controller in self.controllers:
                controller.__init__(controller.joints, controller.config, self._of(controller.joints))


@pytest.mark.parametrize("leap_ns", [-3000 * MS, 5000 * MS])
def test_a_clock_that_jumps_is_survived(leap_ns):
    body = Leaping()
    body.leap_ns = leap_ns
    result = run_long(Wave(), body, image_period_s=0.02)
    changes = [(change.stamp_ns, change.after.value) for change in result.changes]
    assert changes[-1][1] == "moving"
    reasons = {change.reason.partition(":")[0] for change in result.changes}
    if leap_ns < 0:
        assert "clock jumped back" in reasons
        assert result.incidents[incidents.CLOCK_JUMP] >= 1
    else:
        assert reasons & {"out of plan", "stale context"}
        assert result.incidents[incidents.CLOCK_AHEAD] == 1


class OddStamps(Plant):
    """Cameras whose stamps are wrong for a second and a half, each image by what ``odd`` says."""

    from_ns, to_ns = 2000 * MS, 3500 * MS
    odd = staticmethod(lambda stamp_ns, since_ns: stamp_ns)

    def observe(self, cameras=()):
        seen = super().observe(cameras)
        since_ns = self.time_ns - self.start_ns
        if not self.from_ns <= since_ns < self.to_ns:
            return seen
        return replace(seen, image_stamps_ns={name: self.odd(self.time_ns, since_ns) for name in seen.images})


@pytest.mark.parametrize(
    ("odd", "counted", "reason"),
    [
        (lambda stamp_ns, since_ns: stamp_ns - (since_ns - 1600 * MS) // 4, "", ""),
        (lambda stamp_ns, since_ns: 9_000 * MS - since_ns // 20, "out of order", "out of plan"),
        (lambda stamp_ns, since_ns: 8_980 * MS, "duplicates", "out of plan"),
        (lambda stamp_ns, since_ns: stamp_ns + 2000 * MS, "jumps", "camera future"),
    ],
    ids=["late", "out of order", "duplicated", "of the future"],
)
def test_odd_stamps_finish_the_plan_and_are_named_and_the_loop_recovers(odd, counted, reason):
    body, policy = OddStamps(), Wave()
    body.odd = odd
    body.reset(5, "")
    schedule = ScheduleConfig(execution_horizon_s=0.2)
    loop = TwoSystemLoop(body, policy, SPEC, EpisodeConfig(schedule=schedule, image_period_s=0.02))
    for _ in range(350):
        loop.step()
    changes = [(change.after.value, change.reason.partition(":")[0]) for change in loop.log.changes]
    assert changes[-1] == ("moving", "chunk"), "it recovers by itself"
    assert policy.acted_ns[-1] > 6500 * MS
    reasons = {said for _, said in changes}
    assert reasons <= {"configured", "activated", "chunk", "out of plan", "stale context"}
    assert bool(reason) == ("out of plan" in reasons)
    assert reason in (*reasons, *loop.log.starved, "")
    counts = loop.synchroniser.counts()
    assert any(counted in name for name in counts) or not counted
    speeds = np.abs(np.diff(np.array(body.desired), axis=0)) / 0.02
    assert (speeds < SPEC.velocity).all()


def test_a_change_of_method_changes_what_is_measured():
    from dit_policy_ros.actions.timing import Timing

    def rolled(timing):
        policy = Drift(0.8, 2.0)
        policy.timing = timing
        return run_long(policy, action_delay_s=0.1, steps=200)

    naive, joined = rolled(Timing(False, starts_at_arrival=True)), rolled(Timing())
    resting = rolled(Timing(False, starts_at_arrival=True, waits_for_rest=True, executes=0.5))
    assert naive.smoothness.seam_positions[3:].max() > 0.02
    naive_jump, joined_jump = (r.smoothness.seam_positions[3:].max() for r in (naive, joined))
    assert joined_jump < 0.1 * naive_jump
    assert joined_jump < joined.smoothness.steps.max()
    assert np.nanmean(naive.smoothness.steps_back[3:]) > 0.5
    assert np.nanmax(joined.smoothness.steps_back[3:]) == 0.0
    assert np.nanmean(resting.smoothness.unplanned) > 0.3
    assert np.nanmean(naive.smoothness.unplanned) == 0.0
