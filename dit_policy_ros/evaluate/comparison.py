"""Several policies side by side, from the ``report.json`` files of ``evaluate`` or of ``replay``."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.evaluate.paired import PairedDifference, block_difference, holm, paired_difference
from dit_policy_ros.evaluate.report import now, versions_in_use
from dit_policy_ros.evaluate.sequential import SequentialResult, sequential_test
from dit_policy_ros.evaluate.statistics import Interval, PairedComparison, clopper_pearson, mcnemar, wilson

OUTCOMES = ("strict", "sticky")
_LEAST_BAGS = 6
"""Fewer recordings are too few units; their chunks are compared in blocks of time."""


@dataclass(frozen=True)
class Run:
    """One policy: one report of ``evaluate``, or those of ``replay`` on several recordings."""

    label: str
    policy_sha256: str
    reports: tuple[Mapping[str, Any], ...]
    report_sha256: tuple[str, ...]


@dataclass(frozen=True)
class SuccessPair:
    """Two policies on common seeds."""

    first: str
    second: str
    seeds: tuple[int, ...]
    counts: PairedComparison
    p_holm: float
    """Corrected for the number of pairs of policies."""
    sequential: SequentialResult


@dataclass(frozen=True)
class ErrorPair:
    """Two policies on common recordings."""

    first: str
    second: str
    unit: str
    """'recordings' or 'blocks of 2 s'."""
    difference: PairedDifference
    p_holm: float


@dataclass(frozen=True)
class Comparison:
    """Everything that ``comparison.json`` and the page are made of."""

    kind: str
    """'success' or 'error'."""
    subject: str
    """World, or robot."""
    runs: tuple[Run, ...]
    outcome: str
    """Of ``OUTCOMES``; '' for errors."""
    rates: Mapping[str, tuple[int, int, Interval, Interval]]
    """Label to successes, episodes, Wilson's and Clopper-Pearson's interval; empty for errors."""
    outcomes: Mapping[str, Mapping[int, bool]]
    """Label to seed to success; empty for errors."""
    errors: Mapping[str, Mapping[str, float]]
    """Label to recording to mean error; empty for successes."""
    per_joint: Mapping[str, Mapping[str, float]]
    """Label to joint to mean error over the recordings that all have."""
    pairs: tuple[SuccessPair | ErrorPair, ...]
    command: str
    created: str
    versions: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Returns what ``comparison.json`` holds; of equal reports it differs in ``created`` only."""
        return {
            "kind": self.kind,
            "subject": self.subject,
            "outcome": self.outcome,
            "policies": {
                run.label: {"sha256": run.policy_sha256, "reports_sha256": list(run.report_sha256)} for run in self.runs
            },
            "rates": {
                label: {
                    "successes": count,
                    "episodes": total,
                    "rate": count / total,
                    "wilson95": [w.lower, w.upper],
                    "clopper_pearson95": [c.lower, c.upper],
                }
                for label, (count, total, w, c) in self.rates.items()
            },
            "errors": {label: dict(errors) for label, errors in self.errors.items()},
            "per_joint": {label: dict(errors) for label, errors in self.per_joint.items()},
            "pairs": [_pair_dict(pair) for pair in self.pairs],
            "command": self.command,
            "versions": dict(self.versions),
            "created": self.created,
        }


def load_runs(folders: Sequence[Path]) -> tuple[Run, ...]:
    """Reads reports; those of one policy are put together.

    Raises:
        ConfigError: a report is missing, broken, or of neither kind.
    """
    by_policy: dict[tuple[str, str], list[tuple[Mapping[str, Any], str]]] = {}
    for folder in folders:
        report, digest = _read(folder)
        policy = report["policy"]
        name = str(policy.get("name") or Path(str(policy.get("path", ""))).name)
        by_policy.setdefault((name, str(policy.get("sha256", ""))), []).append((report, digest))
    names = Counter(name for name, _ in by_policy)
    return tuple(
        Run(
            label=name if names[name] == 1 else f"{name} ({sha256[:8]})",
            policy_sha256=sha256,
            reports=tuple(report for report, _ in found),
            report_sha256=tuple(digest for _, digest in found),
        )
        for (name, sha256), found in by_policy.items()
    )


def compare(
    runs: Sequence[Run], command: str, outcome: str = "strict", most_pairs: int | None = None, alpha: float = 0.05
) -> Comparison:
    """Compares every two of some policies.

    Args:
        outcome: which success counts.
        most_pairs: for the sequential test, stated before the evaluation; None takes the number of common seeds.
        alpha: of the sequential test.

    Raises:
        ConfigError: there are less than two policies, they have nothing in common, or reports of both kinds are mixed.
    """
    if len(runs) < 2:
        raise ConfigError("A comparison needs the reports of at least two policies; the weights tell them apart.")
    kinds = {"success" if "per_episode" in report else "error" for run in runs for report in run.reports}
    if len(kinds) > 1:
        raise ConfigError("Reports of `evaluate` and of `replay` cannot be compared; give those of one kind.")
    (kind,) = kinds
    common = {"kind": kind, "runs": tuple(runs), "command": command, "created": now(), "versions": versions_in_use()}
    if kind == "success":
        return Comparison(**common, **_successes(runs, outcome, most_pairs, alpha))
    return Comparison(**common, **_errors(runs))


def _successes(runs: Sequence[Run], outcome: str, most_pairs: int | None, alpha: float) -> dict[str, Any]:
    worlds = {report["world"] for run in runs for report in run.reports}
    if len(worlds) > 1:
        raise ConfigError(f"The reports are of several worlds ({', '.join(sorted(worlds))}); compare those of one.")
    outcomes = {
        run.label: {
            int(episode["seed"]): bool(episode[outcome]) for report in run.reports for episode in report["per_episode"]
        }
        for run in runs
    }
    found = []
    for first, second in combinations(outcomes, 2):
        seeds = tuple(sorted(outcomes[first].keys() & outcomes[second].keys()))
        if not seeds:
            raise ConfigError(f"{first} and {second} have no seed in common; evaluate both with the same --seed.")
        one, other = ([outcomes[label][seed] for seed in seeds] for label in (first, second))
        sequential = sequential_test(one, other, most_pairs or len(seeds), alpha)
        found.append((first, second, seeds, mcnemar(one, other), sequential))
    corrected = holm([counts.p_value for _, _, _, counts, _ in found])
    rates = {}
    for label, known in outcomes.items():
        count, total = sum(known.values()), len(known)
        rates[label] = (count, total, wilson(count, total), clopper_pearson(count, total))
    return {
        "subject": next(iter(worlds)),
        "outcome": outcome,
        "rates": rates,
        "outcomes": outcomes,
        "errors": {},
        "per_joint": {},
        "pairs": tuple(
            SuccessPair(first, second, seeds, counts, p, sequential)
            for (first, second, seeds, counts, sequential), p in zip(found, corrected, strict=True)
        ),
    }


def _errors(runs: Sequence[Run]) -> dict[str, Any]:
    reports = {run.label: {_recording(report): report for report in run.reports} for run in runs}
    settings = {
        (report["mode"], json.dumps(report["delays_s"], sort_keys=True), report["robot"]["sha256"])
        for run in runs
        for report in run.reports
    }
    if len(settings) > 1:
        raise ConfigError("The replays differ in mode, delays or robot description; replay all with the same options.")
    shared = set.intersection(*(set(found) for found in reports.values()))
    if not shared:
        raise ConfigError("The policies have no recording in common; replay all of them over the same bags.")
    pairs = []
    for first, second in combinations(reports, 2):
        bags = sorted(reports[first].keys() & reports[second].keys())
        pairs.append((first, second, *_difference([(reports[first][bag], reports[second][bag]) for bag in bags])))
    corrected = holm([difference.p_value for _, _, _, difference in pairs])
    return {
        "subject": next(iter(runs)).reports[0]["robot"]["name"],
        "outcome": "",
        "rates": {},
        "outcomes": {},
        "errors": {
            label: {_name(report): report["error"]["overall"]["policy"] for report in found.values()}
            for label, found in reports.items()
        },
        "per_joint": {
            label: {
                joint: float(np.mean([found[bag]["error"]["per_joint"][joint]["policy"] for bag in sorted(shared)]))
                for joint in next(iter(found.values()))["error"]["per_joint"]
            }
            for label, found in reports.items()
        },
        "pairs": tuple(
            ErrorPair(first, second, unit, difference, p)
            for (first, second, unit, difference), p in zip(pairs, corrected, strict=True)
        ),
    }


def _recording(report: Mapping[str, Any]) -> str:
    return f"{report['bag']['sha256']} {report['bag'].get('episode')}"


def _name(report: Mapping[str, Any]) -> str:
    episode = report["bag"].get("episode")
    return report["bag"]["name"] if episode is None else f"{report['bag']['name']}, episode {episode}"


def _difference(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> tuple[str, PairedDifference]:
    if len(pairs) >= _LEAST_BAGS:
        one, other = (np.array([pair[k]["error"]["overall"]["policy"] for pair in pairs]) for k in (0, 1))
        return "recordings", paired_difference(one, other)
    times_s, one, other = [], [], []
    offset_s = 0.0
    for pair in pairs:
        first, second = ({row[0]: row[1] for row in report["error"]["per_chunk"]} for report in pair)
        both = sorted(first.keys() & second.keys())
        times_s += [offset_s + time_s for time_s in both]
        one += [first[time_s] for time_s in both]
        other += [second[time_s] for time_s in both]
        offset_s += float(pair[0]["duration_s"]) + 10.0
    if not times_s:
        raise ConfigError("The policies planned at no common instant; replay both with the same delays.")
    return "blocks of 2 s", block_difference(np.array(one), np.array(other), np.array(times_s))


def _read(folder: Path) -> tuple[Mapping[str, Any], str]:
    file = folder / "report.json" if folder.is_dir() else folder
    try:
        data = file.read_bytes()
        report = json.loads(data)
    except (OSError, ValueError) as problem:
        raise ConfigError(
            f"{file} cannot be read as a report; give a folder that evaluate or replay wrote."
        ) from problem
    if not isinstance(report, dict) or not {"per_episode", "error"} & report.keys() or "policy" not in report:
        raise ConfigError(f"{file} is no report of evaluate or replay.")
    # Without its date, so that equal results have equal hashes.
    plain = json.dumps({key: value for key, value in report.items() if key != "created"}, sort_keys=True)
    return report, hashlib.sha256(plain.encode()).hexdigest()


def _pair_dict(pair: SuccessPair | ErrorPair) -> dict[str, Any]:
    names = {"first": pair.first, "second": pair.second, "p_holm": _known(pair.p_holm)}
    if isinstance(pair, ErrorPair):
        difference = {name: _known(value) for name, value in asdict(pair.difference).items()}
        return names | {"unit": pair.unit, "difference": difference}
    sequential = pair.sequential
    return names | {
        "seeds": list(pair.seeds),
        **asdict(pair.counts),
        "sequential": {
            "verdict": sequential.verdict,
            "stopped_after": sequential.stopped_after,
            "alpha": sequential.alpha,
            "most_pairs": sequential.most_pairs,
            "threshold": sequential.threshold,
            "evidence": sequential.evidence.tolist(),
        },
    }


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
