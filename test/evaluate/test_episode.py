from __future__ import annotations

import time
from dataclasses import dataclass, fields
from types import SimpleNamespace

import numpy as np
import pytest

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.evaluate.episode import EpisodeConfig, EpisodeResult, run_episode
from dit_policy_ros.robot import load_robot
from dit_policy_ros.runtime.executor import ExecutorState
from dit_policy_ros.runtime.executor_config import ExecutorConfig
from dit_policy_ros.runtime.schedule import ScheduleConfig
from dit_policy_ros.sim.controllers import TrajectoryController, TrajectoryControllerConfig
from dit_policy_ros.types import ActionChunk, Context, Observation, Trajectory

SPEC = load_robot("aloha")
MS = 1_000_000
STEP = 20 * MS
HOME = np.where(["gripper" in name for name in SPEC.names], 0.5, 0.0)


class Plant:
    """Joints that follow their controllers with a lag, and cameras that see the time."""

    def __init__(self):
        self.time_ns = 7_000 * MS
        self.rendered: list[tuple[int, str]] = []

    @property
    def instruction(self) -> str:
        return f"wave, {self.phrases}"

    def reset(self, seed: int, phrase_set: str = "") -> None:
        self.phrases = phrase_set
        self.start_ns = self.time_ns
        self.joints = HOME + 1e-3 * np.random.default_rng(seed).normal(size=14)
        self.controllers = [
            TrajectoryController(c.joints, TrajectoryControllerConfig(), self._of(c.joints)) for c in SPEC.controllers
        ]
        self.desired: list[np.ndarray] = []

    def _of(self, joints: tuple[str, ...]) -> np.ndarray:
        return self.joints[[SPEC.names.index(joint) for joint in joints]]

    def now_ns(self) -> int:
        return self.time_ns

    def observe(self, cameras: tuple[str, ...] = ()) -> Observation:
        self.rendered += [(self.time_ns - self.start_ns, camera) for camera in cameras]
        images = {camera: np.full((2, 2, 3), (self.time_ns // STEP) % 256, dtype=np.uint8) for camera in cameras}
        return Observation(self.time_ns, dict(zip(SPEC.names, self.joints.tolist(), strict=True)), images=images)

    def command(self, trajectory: Trajectory) -> None:
        (owner,) = (c for c in self.controllers if c.joints == trajectory.names)
        assert owner.follow(trajectory, self.time_ns) == ""

    def step(self) -> None:
        target = np.concatenate([controller.sample(self.time_ns)[0] for controller in self.controllers])
        self.desired.append(target)
        self.joints = self.joints + 0.5 * (target - self.joints)
        self.time_ns += STEP

    def score(self):
        reward = int((self.time_ns - self.start_ns) // (1000 * MS))
        return SimpleNamespace(reward=reward, sticky=reward >= 2, strict=False)


@dataclass
class Wave:
    """Knows where the joints should be at any time, whatever it sees."""

    start_ns: int = 7_000 * MS
    horizon: int = 48
    step_ns: int = STEP
    slow_cameras: tuple[str, ...] = ("top",)
    fast_cameras: tuple[str, ...] = ("left_wrist", "right_wrist")
    commit_multiple: int = 4
    offset: float = 0.0

    def __post_init__(self):
        self.encoded: list[int] = []
        self.acted: list[tuple[Observation, Context, ActionChunk | None]] = []

    def at(self, times_ns: np.ndarray) -> np.ndarray:
        t = (np.asarray(times_ns) - self.start_ns)[:, None] * 1e-9
        return HOME + 0.2 * np.sin(2.0 * t + np.arange(14))

    def encode(self, observation: Observation, instruction: str, epoch: int = 0) -> Context:
        assert set(observation.images) == set(self.slow_cameras)
        self.encoded.append(observation.stamp_ns - self.start_ns)
        return Context(observation.stamp_ns, instruction, epoch, {})

    def act(self, observation, context, committed=None) -> ActionChunk:
        assert set(observation.images) == set(self.fast_cameras)
        self.acted.append((observation, context, committed))
        times = observation.stamp_ns + STEP * np.arange(self.horizon)
        actions = self.at(times) + self.offset * len(self.acted)
        return ActionChunk(
            SPEC.names, observation.stamp_ns, STEP, actions, observation.stamp_ns, context.stamp_ns, context.epoch
        )

    @property
    def acted_ns(self) -> list[int]:
        return [observation.stamp_ns - self.start_ns for observation, _, _ in self.acted]


def run(policy=None, body=None, **config) -> EpisodeResult:
    config.setdefault("schedule", ScheduleConfig(execution_horizon_s=0.2))
    return run_episode(body or Plant(), policy or Wave(), SPEC, 5, "plant", EpisodeConfig(steps=150, **config))


def test_what_is_planned_is_commanded_and_followed():
    body, policy = Plant(), Wave()
    result = run(policy, body)
    times = body.start_ns + STEP * np.arange(150)
    settled = slice(30, None)
    np.testing.assert_allclose(
        result.commanded[settled], np.clip(policy.at(times), SPEC.lower, SPEC.upper)[settled], atol=1e-9
    )
    np.testing.assert_allclose(np.array(body.desired)[settled], result.commanded[settled], atol=1e-4)
    assert np.abs(result.measured[settled] - result.commanded[settled]).max() < 0.02
    # The first two are still catching up from rest.
    assert result.smoothness.seam_positions[2:].max() < 1e-9
    np.testing.assert_allclose(result.measured[0], HOME, atol=5e-3)
    assert np.isnan(result.commanded[0]).all()
    assert result.commanded.shape == result.measured.shape == (150, 14)
    assert (result.refusals, result.starved) == ({}, {})


def test_results_arrive_when_the_delays_say():
    policy = Wave()
    result = run(policy)
    # The context of the image at 0 arrives at 300 ms; then the image of 240 ms is the newest.
    assert [ns // MS for ns in policy.encoded[:4]] == [0, 240, 480, 720]
    assert policy.acted_ns[0] == 240 * MS
    assert [context.stamp_ns - policy.start_ns for _, context, _ in policy.acted][:2] == [0, 0]
    assert result.splice_times_s[0] == pytest.approx(0.3)
    assert result.context_ages_s[15] == pytest.approx(0.3)
    assert np.isnan(result.context_ages_s[:15]).all()
    # Planned anew 200 ms after the last observation, from the newest image; effective 60 ms after that image.
    assert [ns // MS for ns in policy.acted_ns[:4]] == [240, 400, 560, 720]
    np.testing.assert_allclose(result.splice_times_s[:4], [0.3, 0.46, 0.62, 0.78])
    assert (result.encodes, result.chunks) == (len(policy.encoded), len(policy.acted))


def test_without_delays_the_first_image_moves_the_arms():
    result = run(context_delay_s=0.0, action_delay_s=0.0)
    assert result.splice_times_s[0] == 0.0
    assert result.context_ages_s[0] == 0.0


def test_only_consumed_images_are_rendered():
    body, policy = Plant(), Wave()
    run(policy, body)
    rendered = {camera: [ns for ns, name in body.rendered if name == camera] for camera in ("top", "left_wrist")}
    assert all(ns % (80 * MS) == 0 for ns in rendered["top"])
    assert set(policy.encoded) <= set(rendered["top"])
    assert set(policy.acted_ns) <= set(rendered["left_wrist"])
    assert len(rendered["top"]) <= len(policy.encoded) + 1
    assert len(rendered["left_wrist"]) <= len(policy.acted) + 2
    seen = [int(observation.images["left_wrist"][0, 0, 0]) for observation, _, _ in policy.acted]
    assert seen == [(ns + policy.start_ns) // STEP % 256 for ns in policy.acted_ns]


def test_images_can_come_more_often():
    policy = Wave()
    run(policy, image_period_s=0.02)
    assert [ns // MS for ns in policy.encoded[:3]] == [0, 300, 600]
    assert [ns // MS for ns in policy.acted_ns[:3]] == [300, 500, 700]


def test_the_horizon_is_that_of_the_schedule():
    policy = Wave()
    run(policy, schedule=ScheduleConfig(execution_horizon_s=0.4))
    assert [ns // MS for ns in policy.acted_ns[:3]] == [240, 640, 1040]


def test_the_committed_prefix_is_what_was_going_to_be_executed():
    policy = Wave(offset=0.001)
    run(policy)
    prefixes = [committed for _, _, committed in policy.acted]
    assert prefixes[0] is None
    assert [len(prefix.actions) for prefix in prefixes[1:]] == [8] + [4] * (len(prefixes) - 2)
    observation, _, prefix = policy.acted[5]
    assert prefix.start_ns == observation.stamp_ns
    running = policy.at(prefix.times_ns) + 5 * policy.offset
    np.testing.assert_allclose(prefix.actions, np.clip(running, SPEC.lower, SPEC.upper), atol=1e-9)


def test_the_same_seed_gives_the_same_episode():
    first, second = run(), run()
    for entry in fields(EpisodeResult):
        one, other = getattr(first, entry.name), getattr(second, entry.name)
        same = (vars(one), vars(other)) if entry.name == "smoothness" else (one, other)
        np.testing.assert_equal(*same)


def test_no_wall_clock_is_read(monkeypatch):
    def forbidden(*_):
        raise AssertionError("a wall clock was read")

    for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"):
        monkeypatch.setattr(time, name, forbidden)
    assert run().chunks > 0


def test_outcome_and_rewards_are_the_bodys():
    result = run(phrase_set="odd")
    np.testing.assert_array_equal(result.rewards, (STEP * np.arange(1, 151)) // (1000 * MS))
    assert (result.sticky, result.strict, result.seed, result.world) == (True, False, 5, "plant")
    assert result.instruction == "wave, odd"
    np.testing.assert_allclose(result.times_s, 0.02 * np.arange(150))


def test_every_step_can_be_watched():
    steps: list[int] = []
    run_episode(Plant(), Wave(), SPEC, 5, "plant", EpisodeConfig(steps=7), steps.append)
    assert steps == list(range(7))


def test_a_context_that_comes_too_late_moves_nothing():
    body = Plant()
    result = run(body=body, context_delay_s=0.6, executor=ExecutorConfig(max_context_age_s=0.5))
    assert result.refusals["stale context"] > 0
    assert np.isnan(result.commanded).all()
    assert [change.after for change in result.changes][-1] is ExecutorState.HOLDING


def test_a_context_that_ages_between_two_stops_and_goes_on():
    result = run(context_delay_s=0.5, executor=ExecutorConfig(max_context_age_s=0.8))
    states = [(change.after.value, change.reason.partition(":")[0]) for change in result.changes]
    assert states[:5] == [
        ("inactive", "configured"),
        ("holding", "activated"),
        ("moving", "chunk"),
        ("stopping", "stale context"),
        ("holding", "stale context"),
    ]
    assert ("moving", "chunk") in states[5:]


def test_a_policy_that_returns_nothing_but_nonsense_is_told():
    class Broken(Wave):
        def at(self, times_ns):
            return super().at(times_ns) * np.nan

    with pytest.raises(PolicyError, match="not finite: left_waist, left_shoulder"):
        run(Broken())


def test_a_camera_that_the_robot_lacks_is_named():
    result = run(Wave(fast_cameras=("chest",)))
    assert list(result.starved) == ["camera unknown"]
    assert result.chunks == 0


def test_a_policy_without_cameras_lives_on_joints():
    policy = Wave(slow_cameras=(), fast_cameras=())
    body = Plant()
    result = run(policy, body)
    assert body.rendered == []
    assert [ns // MS for ns in policy.acted_ns[:2]] == [300, 500]
    assert result.chunks > 5


def test_a_hold_policy_leaves_the_simulated_arms_still():
    body_module = pytest.importorskip("dit_policy_ros.sim.body")

    class Hold(Wave):
        def act(self, observation, context, committed=None):
            chunk = super().act(observation, context, committed)
            if committed is None:
                self.home = np.array([observation.positions[name] for name in SPEC.names])
            return ActionChunk(**{**vars(chunk), "actions": np.repeat(self.home[None], self.horizon, axis=0)})

    body = body_module.AlohaBody("aloha_transfer_cube", SPEC)
    config = EpisodeConfig(steps=60)
    result = run_episode(body, Hold(slow_cameras=(), fast_cameras=()), SPEC, 5, "aloha_transfer_cube", config)
    assert np.abs(result.measured - result.measured[0]).max() < 0.03
    assert all(c.rejected == 0 and c.accepted == len(result.splice_times_s) for c in body.controllers.values())
    assert not result.sticky
    assert result.velocity_hits.sum() == 0
