"""The report of a replay: ``report.json``, which two runs share but for its date, and the page beside it."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dit_policy_ros.data.bag_storage import is_storage
from dit_policy_ros.evaluate.document import json_text, write_whole
from dit_policy_ros.evaluate.horizon_errors import METHODS
from dit_policy_ros.evaluate.replay import SHADOW, ReplayResult
from dit_policy_ros.evaluate.report import now, versions_in_use
from dit_policy_ros.evaluate.statistics import percentiles

_BLOCK_BYTES = 1 << 20
_MOMENTS = 8
_INTERVENTIONS = 1000
"""In ``report.json``; all are in ``interventions.csv``."""


@dataclass(frozen=True)
class ReplayOrigin:
    """What was replayed on what, by names and hashes: no folder, so that any place gives the same report."""

    bag: str
    bag_sha256: str
    """Of the stored messages."""
    policy: str
    policy_sha256: str
    """Of the weights."""
    robot: str
    robot_sha256: str
    """Of the robot YAML."""
    delays_s: Mapping[str, float]
    lost: str = ""
    """What a damaged bag lacks."""
    episode: int | None = None
    """Number of the episode where the bag holds several."""


@dataclass(frozen=True)
class ReplayReport:
    """Everything that ``report.json`` and the page are made of."""

    origin: ReplayOrigin
    result: ReplayResult
    created: str
    versions: Mapping[str, str]

    @property
    def command(self) -> str:
        """Shell command that repeats it, with the names of bag, policy and robot for their paths."""
        origin, delays = self.origin, self.origin.delays_s
        episode = "" if origin.episode is None else f"--episode {origin.episode} "
        return (
            f"python -m dit_policy_ros replay {origin.bag} {episode}--policy {origin.policy} --robot {origin.robot} "
            f"--mode {self.result.mode} --context-delay {delays['context']:g} --action-delay {delays['action']:g} "
            "--report DIR"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns what ``report.json`` holds."""
        origin, result = self.origin, self.result
        return {
            "mode": result.mode,
            "bag": {
                "name": origin.bag,
                "sha256": origin.bag_sha256,
                "lost": origin.lost,
                "episode": origin.episode,
            },
            "policy": {"name": origin.policy, "sha256": origin.policy_sha256},
            "robot": {"name": origin.robot, "sha256": origin.robot_sha256},
            "delays_s": dict(origin.delays_s),
            "command": self.command,
            "versions": dict(self.versions),
            "instruction": result.instruction,
            "duration_s": float(result.times_s[-1]),
            "suspicions": list(result.suspicions),
            "error": _errors(result),
            "worst_moments": [
                {"time_s": (moment.observation_ns - result.start_ns) * 1e-9, "error": moment.error}
                for moment in result.errors.moments[:_MOMENTS]
            ],
            "encodes": result.encodes,
            "chunks": result.chunks,
            "starved": result.starved,
            "context_age_s": percentiles(result.context_ages_s),
            "shadow": _shadow(result) if result.mode == SHADOW else None,
            "created": self.created,
        }


def make_replay_report(origin: ReplayOrigin, result: ReplayResult) -> ReplayReport:
    """Makes a report with today's date and the versions in use."""
    return ReplayReport(origin, result, now(), versions_in_use())


def write_replay_json(report: ReplayReport, directory: Path) -> Path:
    """Writes ``report.json`` and returns its path."""
    return write_whole(directory / "report.json", json_text(report.to_dict()))


def write_interventions(report: ReplayReport, directory: Path) -> Path:
    """Writes ``interventions.csv``, a line each, and returns its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "interventions.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("time_s", "kind", "text"))
        for entry in report.result.interventions:
            writer.writerow((f"{entry.time_s:.3f}", entry.kind, entry.text))
    return path


def recording_sha256(path: Path) -> str:
    """Returns the SHA-256 of a bag's storage files, in the order of their names, as hexadecimal digits."""
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if is_storage(file))
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def _errors(result: ReplayResult) -> dict[str, Any]:
    """Mean absolute errors in the units of the joints."""
    errors = result.errors
    per_step = errors.mean.mean(axis=2)
    return {
        "chunks": len(errors.chunk_ns),
        "overall": {name: float(errors.overall[m]) for m, name in enumerate(METHODS)},
        "per_joint": {
            joint: {name: float(errors.per_joint[m, j]) for m, name in enumerate(METHODS)}
            for j, joint in enumerate(result.joint_names)
        },
        "per_horizon_step": {name: [_known(value) for value in per_step[m]] for m, name in enumerate(METHODS)},
        "per_horizon_step_and_joint": {
            joint: [_known(value) for value in errors.mean[0, :, j]] for j, joint in enumerate(result.joint_names)
        },
        "chunks_at_step": errors.counts.tolist(),
        "per_chunk": [
            [float(time_s), float(policy), float(hold)]
            for time_s, policy, hold in zip(
                (errors.chunk_ns - result.start_ns) * 1e-9, errors.per_chunk[:, 0], errors.per_chunk[:, 1], strict=True
            )
        ],
    }


def _shadow(result: ReplayResult) -> dict[str, Any]:
    return {
        "trajectories": result.trajectories,
        "limited": {
            kind: dict(zip(result.joint_names, hits.tolist(), strict=True)) for kind, hits in result.hits.items()
        },
        "refusals": result.refusals,
        "smoothness": result.seams.summary(),
        "interventions": dict(sorted(result.interventions.counts.items())),
        "first_interventions": [
            [entry.time_s, entry.kind, entry.text] for entry in result.interventions[:_INTERVENTIONS]
        ],
    }


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
