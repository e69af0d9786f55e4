"""Delays of the two systems in virtual time, drawn from a pattern or taken from a recording.

They depend on nothing but pattern and seed: sums of uniform numbers of a named generator, the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, repeat

import numpy as np

from dit_policy_ros.errors import ConfigError, one_of
from dit_policy_ros.types import nanoseconds

CONTEXT, ACTION = SYSTEMS = ("context", "action")
SPIKE_S = 1.0
SPIKE_EVERY = 20
STALL_S = 3.0
STALL_EVERY = 8
JITTER = 0.5

Pattern = Callable[[str, float, np.random.Generator], Iterator[float]]
"""(system, mean [s], source of randomness) to one delay after the other, [s]."""


def _constant(system: str, mean_s: float, generator: np.random.Generator) -> Iterator[float]:
    return repeat(mean_s)


def _jitter(system: str, mean_s: float, generator: np.random.Generator) -> Iterator[float]:
    while True:
        yield mean_s * (1.0 + JITTER * (generator.random() + generator.random() - 1.0))


def _spikes(system: str, mean_s: float, generator: np.random.Generator) -> Iterator[float]:
    while True:
        yield max(SPIKE_S, mean_s) if generator.random() * SPIKE_EVERY < 1.0 else mean_s


def _stall(system: str, mean_s: float, generator: np.random.Generator) -> Iterator[float]:
    ordinary = [mean_s] * (STALL_EVERY - 1)
    return cycle([*ordinary, STALL_S]) if system == CONTEXT else repeat(mean_s)


PATTERNS: Mapping[str, Pattern] = {
    "constant": _constant,
    "jitter": _jitter,
    "spikes": _spikes,
    "stall": _stall,
}
"""constant: always the mean. jitter: a triangle of half the mean to each side. spikes: one inference in twenty takes
1 s. stall: every eighth encode takes 3 s."""

Trace = Mapping[str, Sequence[float]]
"""System to delays in the order in which they were measured, [s]; repeated from the beginning when used up."""


def check_pattern(name: str) -> str:
    """Returns the name of a pattern.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in PATTERNS:
        raise ConfigError(one_of("Pattern of delays", name, PATTERNS))
    return name


def check_trace(trace: Trace) -> Trace:
    """Returns a trace.

    Raises:
        ConfigError: a system lacks delays, or one of them is negative or not finite.
    """
    for system in SYSTEMS:
        values = np.asarray(trace.get(system, ()), dtype=np.float64)
        if not len(values) or not np.isfinite(values).all() or (values < 0.0).any():
            raise ConfigError(f"The trace has {len(values)} delays of '{system}'; it needs at least one, all >= 0 s.")
    return trace


def delays_ns(system: str, pattern: str, mean_s: float, seed: int, trace: Trace | None = None) -> Iterator[int]:
    """Yields one delay for every inference, [ns].

    Args:
        system: 'context' or 'action'; each has its own numbers.
        pattern: a name in ``PATTERNS``; not used with a trace.
        mean_s: what the pattern varies, [s].
        trace: recorded delays.
    """
    if trace is not None:
        source: Iterator[float] = cycle(trace[system])
    else:
        generator = np.random.Generator(np.random.PCG64([SYSTEMS.index(system), seed]))
        source = PATTERNS[pattern](system, mean_s, generator)
    return (nanoseconds(delay_s) for delay_s in source)
