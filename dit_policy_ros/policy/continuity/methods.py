"""The continuity methods by name: one line of a policy's YAML, a launch argument or an option chooses one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from dit_policy_ros.actions.timing import Timing
from dit_policy_ros.errors import PolicyError, one_of
from dit_policy_ros.policy.continuity.best_of import BestOfPolicy
from dit_policy_ros.policy.continuity.ensemble import adaptive, temporal
from dit_policy_ros.policy.continuity.real_time import RealTimePolicy
from dit_policy_ros.policy.continuity.roll_forward import RolledForwardPolicy
from dit_policy_ros.policy.continuity.streaming import StreamingPolicy
from dit_policy_ros.policy.continuity.warm_start import WarmStartedPolicy
from dit_policy_ros.policy.continuity.wrapped import TimedPolicy, WrappedPolicy
from dit_policy_ros.types import Policy

DEFAULT = "prefix"
"""For policies whose ``policy.yaml`` names none."""


@dataclass(frozen=True)
class Method:
    """One way to join chunks."""

    wrap: Callable[..., Any]
    """From a policy and options to a policy."""
    says: str
    """What it does, for a table."""


def _stop_and_think(policy, executes: float = 0.5) -> TimedPolicy:
    if not 0.0 < executes <= 1.0:
        raise PolicyError(f"A share of {executes} of every chunk cannot be executed; allowed is (0, 1].")
    return TimedPolicy(policy, Timing(False, starts_at_arrival=True, waits_for_rest=True, executes=executes))


def _timed(policy, timing: Timing) -> TimedPolicy:
    return TimedPolicy(policy, timing)


METHODS: Mapping[str, Method] = {
    "synchronous": Method(_stop_and_think, "Baseline: the robot rests while the models think."),
    "naive": Method(
        partial(_timed, timing=Timing(False, starts_at_arrival=True)),
        "Baseline: a chunk replaces the last one when it arrives, from its first action on.",
    ),
    "splice": Method(partial(_timed, timing=Timing(False)), "A chunk takes over by time; its past is dropped."),
    "temporal_ensemble": Method(temporal, "ACT: mean of all chunks that cover an instant."),
    "adaptive_ensemble": Method(adaptive, "CogACT: mean weighted by likeness to the newest chunk."),
    "real_time": Method(RealTimePolicy, "Real-time chunking with the exact Jacobian."),
    "real_time_identity": Method(
        partial(RealTimePolicy, jacobian="identity"), "Real-time chunking without a backward pass."
    ),
    "prefix": Method(
        partial(_timed, timing=Timing()), "The policy's own hard prefix: trained in ours, painted in elsewhere."
    ),
    "streaming": Method(StreamingPolicy, "SDP: a rolling buffer, noisier towards its end."),
    "warm_start": Method(WarmStartedPolicy, "RTI-DP: denoises the last chunk again from a lower noise level."),
    "best_of": Method(BestOfPolicy, "BID: of several draws the one nearest to the last chunk."),
    "roll_forward": Method(RolledForwardPolicy, "VLASH: the policy is told where the robot will be."),
}


def continued(policy: Policy, method: str | Mapping[str, Any] = "") -> Policy:
    """Returns a policy whose chunks are joined by a method.

    Args:
        method: its name, or a mapping with ``method`` and the options of that method; '' is the default.

    Raises:
        PolicyError: there is no such method or option, or the policy does not admit it.
    """
    options = dict(method) if isinstance(method, Mapping) else {"method": method}
    name = options.pop("method", "") or DEFAULT
    if name not in METHODS:
        raise PolicyError(one_of("Continuity method", str(name), METHODS))
    if name == DEFAULT and not options:
        return policy
    try:
        return METHODS[name].wrap(policy, **options)
    except TypeError as problem:
        raise PolicyError(f"Continuity method '{name}' does not take {', '.join(options)}: {problem}.") from problem


def bare(policy: Policy) -> Policy:
    """Returns a policy without the continuity method around it."""
    return policy.policy if isinstance(policy, WrappedPolicy) and policy.joins else policy


def admitted(policy: Policy) -> tuple[str, ...]:
    """Returns the methods that a policy admits, the default first."""
    names = []
    for name in (DEFAULT, *(name for name in METHODS if name != DEFAULT)):
        try:
            continued(policy, name)
        except PolicyError:
            continue
        names.append(name)
    return tuple(names)
