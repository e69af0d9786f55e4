"""Drives the executor's planning with hostile chunks by the million, before an independent judge.

Every joint is a robot of its own here: its own limits, its own chunks. What they share is the clock.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dit_policy_ros.actions.limits import JointLimits
from dit_policy_ros.evaluate.motion_check import Bounds, MotionJudge
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.runtime.executor_config import ExecutorConfig
from dit_policy_ros.runtime.plan import RunningPlan
from dit_policy_ros.runtime.planner import Planner
from dit_policy_ros.types import ActionChunk

MS = 1_000_000
STEP_NS = 20 * MS
_HORIZON = 10


@dataclass
class LimitRun:
    """What a run found."""

    episodes: int = 0
    chunks: int = 0
    """Chunks, one joint each, that were planned for."""
    refused: Counter[str] = field(default_factory=Counter)
    """Of those, by reason."""
    holds: int = 0
    """States of a joint from which the hold was judged."""
    seconds: float = 0.0
    violations: Counter[str] = field(default_factory=Counter)
    worst: dict[str, float] = field(default_factory=dict)
    """Largest share of each limit that was reached."""

    def add(self, judge: MotionJudge) -> None:
        """Takes over what a judge counted."""
        self.violations += judge.violations
        for kind, share in judge.worst.items():
            self.worst[kind] = max(self.worst.get(kind, 0.0), share)


def random_limits(rng: np.random.Generator, joints: int) -> JointLimits:
    """Returns limits as far apart as those of grippers, stiff industrial arms and soft ones."""
    half = rng.uniform(0.3, 3.2, joints)
    middle = rng.uniform(-1.0, 1.0, joints)
    velocity = rng.uniform(0.3, 7.0, joints)
    acceleration = velocity * 10.0 ** rng.uniform(0.3, 2.0, joints)
    jerk = acceleration * 10.0 ** rng.uniform(0.7, 2.5, joints)
    return JointLimits(middle - half, middle + half, velocity, acceleration, jerk)


def _walk(rng: np.random.Generator, now: np.ndarray, limits: JointLimits) -> np.ndarray:
    """Smooth motion that stays within all limits but perhaps the position."""
    speed = rng.uniform(-0.3, 0.3, len(now)) * limits.velocity
    return now + speed * 0.02 * np.arange(1, _HORIZON + 1)[:, None]


def _bang(rng: np.random.Generator, now: np.ndarray, limits: JointLimits) -> np.ndarray:
    """From end to end and back, as often as possible or less."""
    period = rng.integers(1, _HORIZON + 1, len(now))
    high = (np.arange(_HORIZON)[:, None] // period + rng.integers(0, 2, len(now))) % 2 == 0
    reach = 10.0 ** rng.uniform(-1.0, 1.0, len(now))
    return np.where(high, limits.upper * reach, limits.lower * reach)


def _noise(rng: np.random.Generator, now: np.ndarray, limits: JointLimits) -> np.ndarray:
    """White noise around where the joint is, or anywhere."""
    size = 10.0 ** rng.uniform(-4.0, 1.0, len(now))
    return now + size * rng.standard_normal((_HORIZON, len(now)))


def _jump(rng: np.random.Generator, now: np.ndarray, limits: JointLimits) -> np.ndarray:
    """A step to another place, at once or later."""
    later = np.arange(_HORIZON)[:, None] >= rng.integers(0, _HORIZON, len(now))
    return np.where(later, rng.uniform(limits.lower - 0.5, limits.upper + 0.5), now)


def _brink(rng: np.random.Generator, now: np.ndarray, limits: JointLimits) -> np.ndarray:
    """At full speed against the nearer end, and perhaps back in the last moment."""
    sign = np.where(limits.upper - now < now - limits.lower, 1.0, -1.0)
    back = np.where(np.arange(_HORIZON)[:, None] >= rng.integers(2, 2 * _HORIZON, len(now)), -1.0, 1.0)
    return now + np.cumsum(sign * back * limits.velocity * 0.02 * rng.uniform(0.8, 1.2, len(now)), axis=0)


def _huge(rng: np.random.Generator, now: np.ndarray, limits: JointLimits) -> np.ndarray:
    """Finite nonsense."""
    return rng.choice([-1e300, -1e9, 0.0, 1e9, 1e300], (_HORIZON, len(now)))


HOSTILITY: dict[str, Callable[[np.random.Generator, np.ndarray, JointLimits], np.ndarray]] = {
    "walk": _walk,
    "bang": _bang,
    "noise": _noise,
    "jump": _jump,
    "brink": _brink,
    "huge": _huge,
}
"""Kind of chunk to what makes (K, J) actions of one."""


def hostile_actions(rng: np.random.Generator, now: np.ndarray, limits: JointLimits) -> np.ndarray:
    """Returns actions, (K, J), of a random kind for each joint."""
    kinds = rng.integers(0, len(HOSTILITY), len(now))
    made = np.stack([make(rng, now, limits) for make in HOSTILITY.values()])
    return made[kinds, :, np.arange(len(now))].T


def run_limits(count: int, seed: int, joints: int, limit_s: float = np.inf) -> LimitRun:
    """Plans for ``count`` random chunks or more, unless the time is over before.

    Args:
        joints: how many are planned for in one call.
        limit_s: of wall-clock time, [s].
    """
    run, begin = LimitRun(), time.perf_counter()
    rng = np.random.default_rng(seed)
    while run.chunks < count and time.perf_counter() - begin < limit_s:
        # Only a few joints at once often allow to stop before the next step of the grid.
        _episode(run, rng, joints if run.episodes % 8 else min(joints, 7), chunks=20)
        run.episodes += 1
    run.seconds = time.perf_counter() - begin
    return run


def time_limiter(spec: RobotSpec, runs: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns how long planning for one chunk of 48 actions takes, by kind of chunk, (runs,) [s] each."""
    limits = JointLimits(spec.lower, spec.upper, spec.velocity, spec.acceleration, spec.jerk)
    planner = Planner(spec.names, limits, ExecutorConfig(), ())
    rng = np.random.default_rng(seed)
    home = 0.5 * (spec.lower + spec.upper)
    size = 0.1 * np.minimum(spec.upper - spec.lower, spec.acceleration / 9.0)
    swing = home + size * (1.0 - np.cos(3.0 * 0.02 * np.arange(48)[:, None]))
    rough = 0.5 * spec.acceleration * 0.02**2
    kinds = {
        "inside the limits": lambda: swing,
        "noisy": lambda: swing + rough * rng.standard_normal(swing.shape),
        "hostile": lambda: rng.uniform(spec.lower, spec.upper, swing.shape),
        "elsewhere": lambda: np.broadcast_to(rng.uniform(spec.lower, spec.upper), swing.shape),
    }
    durations = {}
    for kind, actions in kinds.items():
        taken = []
        for _ in range(runs + 1):
            running = RunningPlan.at_rest(10**9, STEP_NS, home)
            chunk = ActionChunk(spec.names, 10**9, STEP_NS, actions())
            begin = time.perf_counter()
            planner.follow(running, chunk, 10**9)
            taken.append(time.perf_counter() - begin)
        durations[kind] = np.array(taken[1:])
    return durations


def _episode(run: LimitRun, rng: np.random.Generator, joints: int, chunks: int) -> None:
    limits = random_limits(rng, joints)
    start = rng.uniform(limits.lower, limits.upper)
    # A tenth of the joints begins outside its range, as a real arm may.
    start = np.where(rng.random(joints) < 0.1, limits.upper + rng.uniform(0.0, 0.2, joints), start)
    planner = Planner(tuple(map(str, range(joints))), limits, ExecutorConfig(), ())
    now_ns = int(rng.integers(10**9, 10**12))
    judge = MotionJudge(Bounds(*vars(limits).values()), start, now_ns=now_ns)
    running = RunningPlan.at_rest(now_ns, STEP_NS, start)
    for _ in range(chunks):
        # Chunks come before, during and after the braking of the one before.
        now_ns += int(rng.choice([rng.integers(1, 30), rng.integers(30, 250), rng.integers(250, 900)])) * MS
        now_ns += int(rng.integers(0, MS))
        judge.follow(now_ns)
        here = running.state_at(now_ns)[0]
        actions = hostile_actions(rng, here, limits)
        chunk = ActionChunk(planner.names, now_ns + int(rng.integers(-120, 120)) * MS, STEP_NS, actions)
        planned = planner.follow(running, chunk, now_ns)
        run.chunks += joints
        if planned.plan is None:
            run.refused[planned.reason.partition(":")[0]] += joints
        running = planned.plan or running
        _send(judge, running, now_ns, rng)
        _judge_hold(run, judge, planner, running, now_ns, rng)
        if rng.random() < 0.15:
            now_ns += int(rng.integers(10, 200)) * MS
            running = planner.stop(running, now_ns)
            _send(judge, running, now_ns, rng)
    judge.follow_to_rest()
    run.add(judge)


def _judge_hold(
    run: LimitRun, judge: MotionJudge, planner: Planner, running: RunningPlan, now_ns: int, rng: np.random.Generator
) -> None:
    """Judges the hold from some instant of the plan; the motion itself goes on."""
    at_ns = now_ns + 10 * MS + int(rng.integers(0, 300 * MS))
    other = judge.copy()
    _send(other, planner.stop(running, at_ns), at_ns, rng)
    other.follow_to_rest()
    run.holds += len(judge.position)
    run.add(other)


def _send(judge: MotionJudge, plan: RunningPlan, now_ns: int, rng: np.random.Generator) -> None:
    """Sends what lies ahead; it arrives within the lead."""
    ahead = plan.times_ns > now_ns
    if ahead.any():
        arrives_ns = now_ns + int(rng.integers(0, 5 * MS))
        judge.command(arrives_ns, plan.times_ns[ahead], plan.positions[ahead], plan.velocities[ahead])
