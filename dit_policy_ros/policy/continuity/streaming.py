"""Streaming diffusion (SDP, Hoeg et al., 2024) for networks trained with a noise level per action."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dit_policy_ros.actions.timing import Timing
from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.continuity.wrapped import WrappedPolicy
from dit_policy_ros.policy.samplers.streaming import (
    Buffer,
    Layout,
    TokenDenoiser,
    TokenStep,
    query,
    started_denoised,
)
from dit_policy_ros.policy.schedules import NoiseSchedule
from dit_policy_ros.types import ActionChunk, Context, Observation


@dataclass(frozen=True)
class Stream:
    """What a policy offers to be streamed."""

    layout: Layout
    schedule: NoiseSchedule
    step: TokenStep
    channels: int


class StreamedPolicy(Protocol):
    """A ``types.Policy`` whose network takes a noise level for every action."""

    stream: Stream

    def denoiser(self, observation: Observation, context: Context) -> TokenDenoiser:
        """Returns the network on this observation."""

    def restored(self, rows: Tensor, observation: Observation, context: Context) -> ActionChunk:
        """Makes a chunk that starts at the observation of clean actions (K, A) in the network's units."""


class StreamingPolicy(WrappedPolicy):
    """Keeps a rolling buffer, and hands out its clean head. Chunks are as long as ``layout.actions``.

    The buffer belongs to instants: it is begun anew in a new epoch, and where an observation does not come at the
    instant that the buffer has rolled to, within half a step.
    """

    timing = Timing(commits=False)

    def __init__(self, policy: StreamedPolicy, normal: Callable[..., Tensor] = torch.randn) -> None:
        """Wraps a policy.

        Args:
            normal: draws standard normal numbers; takes a shape and a generator.

        Raises:
            PolicyError: the network was not trained with a level per action.
        """
        if not hasattr(policy, "stream"):
            raise PolicyError(
                f"The method 'streaming' needs a network trained with a noise level per action; "
                f"{type(policy).__name__} was not. See docs/asynchrony.md for what it admits."
            )
        super().__init__(policy)
        self._normal = normal
        self._state: tuple[int, int, Buffer] | None = None
        """Epoch, instant of the buffer's first action, buffer."""

    def act(self, observation: Observation, context: Context, committed: ActionChunk | None = None) -> ActionChunk:
        """See ``types.Policy``."""
        stream, network = self.policy.stream, self.policy.denoiser(observation, context)
        generator = torch.Generator().manual_seed(observation.stamp_ns % 2**63)

        def draw(rows: int) -> Tensor:
            return self._normal((1, rows, stream.channels), generator=generator)

        layout = stream.layout
        buffer = self._buffer(observation, context)
        if buffer is None:
            behind = layout.horizon - layout.actions - layout.observations + 1
            noise, renoise = draw(layout.horizon), draw(behind)
            buffer = started_denoised(layout, stream.schedule, network, stream.step, noise, renoise)
        actions, _, buffer = query(buffer, layout, network, stream.step, draw(layout.actions + layout.remainder))
        self._state = (context.epoch, observation.stamp_ns + layout.actions * self.step_ns, buffer)
        return self.policy.restored(actions[0], observation, context)

    def _buffer(self, observation: Observation, context: Context) -> Buffer | None:
        if self._state is None or self._state[0] != context.epoch:
            return None
        return self._state[2] if 2 * abs(observation.stamp_ns - self._state[1]) <= self.step_ns else None
