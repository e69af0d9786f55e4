"""A report: what was evaluated, what came out, and what it takes to repeat it. Written as ``report.json``."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata as installed
from pathlib import Path
from typing import Any

import numpy as np

from dit_policy_ros import __version__
from dit_policy_ros.errors import ConfigError
from dit_policy_ros.evaluate.document import json_text, write_whole
from dit_policy_ros.evaluate.record import EpisodeRecord
from dit_policy_ros.evaluate.smoothness import summary
from dit_policy_ros.evaluate.statistics import Interval, percentiles, wilson
from dit_policy_ros.runtime.context_watch import ContextWait, wait_of

INTERVAL_METHOD = "wilson"
_PACKAGES = ("numpy", "torch", "mujoco", "gym-aloha", "opencv-python-headless", "rclpy")


@dataclass(frozen=True)
class Report:
    """Everything that ``report.json`` and the page are made of."""

    world: str
    policy: str
    """Name or path of the checkpoint."""
    policy_sha256: str
    """Of its weights; empty for a policy without any."""
    episodes: tuple[EpisodeRecord, ...]
    """In the order of their seeds."""
    delays: Mapping[str, float]
    """Name to delay [s], such as 'context' and 'action'; empty where they were not chosen but measured."""
    command: str
    """Shell command that repeats it."""
    created: str
    """ISO 8601; the only part that two runs of the same command do not share."""
    versions: Mapping[str, str]
    method: str = ""
    """Continuity method; empty for the policy's own."""
    pattern: str = ""
    """How the delays varied; empty where they were measured."""

    def __post_init__(self) -> None:
        if not self.episodes:
            raise ConfigError("A report needs at least one episode; check --episodes.")

    @property
    def strict(self) -> tuple[int, Interval]:
        """Number of strict successes, and the 95 % interval of their rate."""
        return self._successes("strict")

    @property
    def sticky(self) -> tuple[int, Interval]:
        """Number of sticky successes, and the 95 % interval of their rate."""
        return self._successes("sticky")

    def _successes(self, kind: str) -> tuple[int, Interval]:
        count = sum(getattr(episode, kind) for episode in self.episodes)
        return count, wilson(count, len(self.episodes))

    def to_dict(self) -> dict[str, Any]:
        """Returns what ``report.json`` holds."""
        (strict, ci95), (sticky, sticky_ci95) = self.strict, self.sticky
        total = len(self.episodes)
        return {
            "world": self.world,
            "success_rate": strict / total,
            "ci95": [ci95.lower, ci95.upper],
            "sticky_rate": sticky / total,
            "sticky_ci95": [sticky_ci95.lower, sticky_ci95.upper],
            "interval_method": INTERVAL_METHOD,
            "episodes": total,
            "policy": {"path": self.policy, "sha256": self.policy_sha256},
            "delays_s": dict(self.delays),
            "delay_pattern": self.pattern,
            "method": self.method,
            "command": self.command,
            "versions": dict(self.versions),
            "metrics": self._metrics(),
            "per_episode": [_episode(episode) for episode in self.episodes],
            "created": self.created,
        }

    @property
    def context_wait(self) -> ContextWait | None:
        """What the limit on the age of contexts cost; None where it was not measured."""
        return wait_of([episode.context_wait for episode in self.episodes if episode.context_wait is not None])

    def _metrics(self) -> dict[str, Any]:
        episodes = self.episodes
        refusals = sum((Counter(episode.refusals) for episode in episodes), Counter())
        starved = sum((Counter(episode.starved) for episode in episodes), Counter())
        incidents = sum((Counter(episode.incidents) for episode in episodes), Counter())
        names = sorted({name for episode in episodes for name in episode.latencies_s})
        smooth = [episode.smoothness for episode in episodes if episode.smoothness is not None]
        return {
            "context_age_s": percentiles(join(episode.context_ages_s for episode in episodes)),
            "context_wait": wait_to_dict(self.context_wait),
            "tracking_error": percentiles(np.abs(join(episode.tracking_error for episode in episodes))),
            "time_to_success_s": percentiles(
                np.array([episode.reached_s for episode in episodes if episode.reached_s is not None])
            ),
            "latency_s": {
                name: percentiles(join(episode.latencies_s.get(name, np.empty(0)) for episode in episodes))
                for name in names
            },
            "position_hits": sum(episode.position_hits for episode in episodes),
            "velocity_hits": sum(episode.velocity_hits for episode in episodes),
            "refusals": dict(sorted(refusals.items())),
            "starved": dict(sorted(starved.items())),
            "incidents": dict(sorted(incidents.items())),
            "smoothness": summary(smooth) if smooth else {},
            "stages_ms": _stages(episodes),
        }


def wait_to_dict(wait: ContextWait | None) -> dict[str, Any]:
    """Returns what JSON holds of it; a limit that nobody recorded is null."""
    if wait is None:
        return {}
    limit_s = wait.limit_s if np.isfinite(wait.limit_s) else None
    return {
        "held_share": wait.share,
        "needed_s": wait.needed_s,
        "max_context_age_s": limit_s,
        "advice": wait.advice(),
    }


def _stages(episodes: tuple[EpisodeRecord, ...]) -> dict[str, dict[str, float]]:
    """The stage latencies that live nodes told, of the last episode that has any."""
    told = [episode.stages_ms for episode in episodes if episode.stages_ms]
    return {stage: dict(values) for stage, values in told[-1].items()} if told else {}


def join(arrays: Any) -> np.ndarray:
    """Returns all numbers of some arrays in one row."""
    return np.concatenate([np.asarray(array, dtype=np.float64).reshape(-1) for array in arrays])


def make_report(
    episodes: tuple[EpisodeRecord, ...],
    policy: str,
    policy_sha256: str,
    delays: Mapping[str, float],
    command: str,
    method: str = "",
    pattern: str = "",
) -> Report:
    """Makes a report of episodes of one world, with today's date and the versions in use.

    Raises:
        ConfigError: there are no episodes, a seed comes twice, or they are of several worlds.
    """
    worlds = sorted({episode.world for episode in episodes})
    if len(worlds) > 1:
        raise ConfigError(f"A report is about one world, but the episodes are of {', '.join(worlds)}; write one each.")
    seeds = [episode.seed for episode in episodes]
    if len(set(seeds)) != len(seeds):
        raise ConfigError("Two episodes have the same seed; the interval would count one result twice.")
    return Report(
        world=worlds[0] if worlds else "",
        policy=policy,
        policy_sha256=policy_sha256,
        episodes=tuple(sorted(episodes, key=lambda episode: episode.seed)),
        delays=delays,
        command=command,
        created=now(),
        versions=versions_in_use(),
        method=method,
        pattern=pattern,
    )


def versions_in_use() -> dict[str, str]:
    """Returns the versions that results may depend on; packages that are not installed are absent."""
    versions = {"dit_policy_ros": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = installed.version(name)
        except installed.PackageNotFoundError:
            continue
    return versions


def write_json(report: Report, directory: Path) -> Path:
    """Writes ``report.json`` and returns its path; an older one is replaced in one step."""
    return write_whole(directory / "report.json", json_text(report.to_dict()))


def _episode(episode: EpisodeRecord) -> dict[str, Any]:
    entry = {
        "seed": episode.seed,
        "instruction": episode.instruction,
        "outcome": episode.outcome,
        "sticky": episode.sticky,
        "strict": episode.strict,
        "steps": len(episode.times_s),
        "best_reward": episode.best_reward,
        "final_reward": episode.final_reward,
        "max_reward": episode.max_reward,
        "reached_s": episode.reached_s,
        "context_age_s": percentiles(episode.context_ages_s),
        "largest_seam": episode.largest_seam,
        "position_hits": episode.position_hits,
        "velocity_hits": episode.velocity_hits,
        "encodes": episode.encodes,
        "chunks": episode.chunks,
        "refusals": dict(sorted(episode.refusals.items())),
        "starved": dict(sorted(episode.starved.items())),
        "incidents": dict(sorted(episode.incidents.items())),
        "smoothness": summary([episode.smoothness]) if episode.smoothness else {},
        "events": [[time_s, text] for time_s, text in episode.events],
    }
    links = {name: getattr(episode, name) for name in ("video", "bag") if getattr(episode, name)}
    return entry | links


def now() -> str:
    """Returns the wall clock in ISO 8601, or SOURCE_DATE_EPOCH [s] where a reproducible build sets it."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH")
    moment_s = int(fixed) if fixed else int(datetime.now(timezone.utc).timestamp())
    return datetime.fromtimestamp(moment_s, timezone.utc).isoformat()
