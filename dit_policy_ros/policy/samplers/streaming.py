"""Streaming Diffusion Policy (Hoeg et al., 2024): a rolling buffer in which later actions are noisier.

Every token of the buffer has its own level: -1 is clean, ``steps - 1`` the noisiest. One query brings the first chunk
to -1, hands it out, and appends noise at the far end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.samplers.prediction import clean_and_noise
from dit_policy_ros.policy.schedules import NoiseSchedule

TokenDenoiser = Callable[[Tensor, Tensor], Tensor]
"""``denoiser(x, levels)``: (B, H, A) sample and (B, H) int64 levels to a prediction, shape of x."""
TokenStep = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``step(x, output, levels)``: the sample with every token one step down."""


@dataclass(frozen=True)
class Layout:
    """How a buffer is cut into chunks of different noise."""

    horizon: int
    """Tokens in the buffer."""
    observations: int
    """Observation steps; the first ``observations - 1`` tokens are for the past."""
    actions: int
    """Actions handed out by a query."""
    steps: int
    """Denoising steps from noise to action."""

    def __post_init__(self) -> None:
        if self.chunks < 1 or self.steps < self.chunks:
            raise PolicyError(
                f"A buffer of {self.horizon} tokens with {self.observations} observations cannot hand out "
                f"{self.actions} actions in {self.steps} steps; lengthen the horizon or the number of steps."
            )

    @property
    def chunks(self) -> int:
        """Chunks of different noise in the buffer."""
        return (self.horizon - self.observations + 1) // self.actions

    @property
    def remainder(self) -> int:
        """Tokens at the far end that do not make a chunk."""
        return (self.horizon - self.observations + 1) % self.actions

    @property
    def levels(self) -> tuple[int, ...]:
        """Level of each token before a query."""
        first = self.observations - 1
        chunk = [min(max((i - first) // self.actions, 0), self.chunks - 1) for i in range(self.horizon)]
        return tuple(self.steps * (c + 1) // self.chunks - 1 for c in chunk)

    def training_levels(self, draws: Tensor, constant: bool = False) -> Tensor:
        """Returns (B, horizon) levels for training.

        Args:
            draws: (B,) int64; how far the buffer has come, 0 to ``steps // chunks - 1``, or the common level.
            constant: one level for all tokens, as two in ten batches of the authors have.
        """
        if constant:
            return draws[:, None].expand(-1, self.horizon)
        return torch.tensor(self.levels) - draws[:, None]


@dataclass(frozen=True)
class Buffer:
    """State between two queries."""

    sample: Tensor
    """(B, horizon, A)."""
    levels: tuple[int, ...]
    """Level of each token."""

    def batch_levels(self) -> Tensor:
        """Returns the levels for every sample of the batch, (B, horizon) int64."""
        levels = torch.tensor(self.levels, device=self.sample.device)
        return levels.expand(len(self.sample), -1)


def _alpha_bar(schedule: NoiseSchedule, levels: Tensor, x: Tensor) -> Tensor:
    """Level of each token as abar, (B, H, 1) in the type of x; 1 for negative levels."""
    table = torch.tensor((*schedule.alphas_cumprod, 1.0), dtype=torch.float64, device=x.device)
    return table[levels.clamp(min=-1)][..., None]


def noised(clean: Tensor, noise: Tensor, levels: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Returns (B, H, A) tokens at their own levels (B, H)."""
    level = _alpha_bar(schedule, levels, clean)
    return level.sqrt().to(clean.dtype) * clean + (1 - level).sqrt().to(clean.dtype) * noise


def ddpm_tokens(
    schedule: NoiseSchedule,
    prediction: str = "epsilon",
    clip: float | None = None,
    draw: Callable[[Tensor], Tensor] = torch.randn_like,
) -> TokenStep:
    """Returns the ancestral step for tokens of different levels.

    Args:
        schedule: the schedule of training; ``steps`` of the layout should be its number of steps.
        prediction: 'epsilon', 'sample' or 'v'.
        clip: bound of the absolute clean action, or None.
        draw: makes one standard normal array of the buffer's shape for every step.
    """

    def step(x: Tensor, output: Tensor, levels: Tensor) -> Tensor:
        here, below = _alpha_bar(schedule, levels, x), _alpha_bar(schedule, levels - 1, x)
        clean, _ = clean_and_noise(output, x, here.sqrt().to(x.dtype), (1 - here).sqrt().to(x.dtype), prediction, clip)
        kept = here / below
        of_clean = below.sqrt() * (1 - kept) / (1 - here)
        of_x = kept.sqrt() * (1 - below) / (1 - here)
        # Zero at level 0, where the level below is clean.
        deviation = ((1 - below) / (1 - here) * (1 - kept)).sqrt()
        return of_clean.to(x.dtype) * clean + of_x.to(x.dtype) * x + deviation.to(x.dtype) * draw(x)

    return step


def ddim_tokens(
    schedule: NoiseSchedule, steps: int, prediction: str = "epsilon", clip: float | None = None
) -> TokenStep:
    """Returns the deterministic step for tokens of different levels.

    The direction is the raw network output whatever it predicts, as the authors have it, so that only 'epsilon' is
    DDIM.

    Args:
        schedule: the schedule of training.
        steps: sampling steps; a step goes ``schedule.steps // steps`` levels down.
        prediction: 'epsilon', 'sample' or 'v'.
        clip: bound of the absolute clean action, or None.
    """
    stride = schedule.steps // steps

    def step(x: Tensor, output: Tensor, levels: Tensor) -> Tensor:
        here, below = _alpha_bar(schedule, levels, x), _alpha_bar(schedule, levels - stride, x)
        clean, _ = clean_and_noise(output, x, here.sqrt().to(x.dtype), (1 - here).sqrt().to(x.dtype), prediction, clip)
        return below.sqrt().to(x.dtype) * clean + (1 - below).sqrt().to(x.dtype) * output

    return step


def started_at_zero(layout: Layout, schedule: NoiseSchedule, noise: Tensor) -> Buffer:
    """Returns a buffer of noised zeros; ``noise`` is (B, horizon, A)."""
    buffer = Buffer(noise, layout.levels)
    return Buffer(noised(torch.zeros_like(noise), noise, buffer.batch_levels(), schedule), layout.levels)


@torch.no_grad()
def started_denoised(
    layout: Layout, schedule: NoiseSchedule, denoiser: TokenDenoiser, step: TokenStep, noise: Tensor, renoise: Tensor
) -> Buffer:
    """Returns a buffer that was denoised whole and noised again behind its first chunk.

    Args:
        layout: layout of the buffer.
        schedule: the schedule of training.
        denoiser: the network.
        step: :func:`ddpm_tokens` or :func:`ddim_tokens`.
        noise: (B, horizon, A) start.
        renoise: (B, horizon - actions - observations + 1, A) noise of the tokens behind the first chunk.
    """
    sample = noise
    for level in reversed(range(layout.steps)):
        levels = Buffer(sample, (level,) * layout.horizon).batch_levels()
        sample = step(sample, denoiser(sample, levels), levels)
    clean = layout.actions + layout.observations - 1
    behind = Buffer(sample, layout.levels).batch_levels()[:, clean:]
    tail = noised(sample[:, clean:], renoise, behind, schedule)
    return Buffer(torch.cat([sample[:, :clean], tail], 1), layout.levels)


@torch.no_grad()
def query(
    buffer: Buffer, layout: Layout, denoiser: TokenDenoiser, step: TokenStep, fresh: Tensor
) -> tuple[Tensor, Tensor, Buffer]:
    """Denoises until the first chunk is clean, and rolls the buffer on.

    Args:
        buffer: state after the last query.
        layout: layout of the buffer.
        denoiser: the network, with the newest observation.
        step: :func:`ddpm_tokens` or :func:`ddim_tokens`.
        fresh: (B, actions + remainder, A) standard normal noise for the far end.

    Returns:
        The actions to execute (B, actions, A), the whole buffer (B, horizon, A), and the next state.
    """
    sample, levels = buffer.sample, buffer.levels
    first = layout.observations - 1
    while levels[first + layout.actions - 1] != -1:
        state = Buffer(sample, levels).batch_levels()
        sample = step(sample, denoiser(sample, state), state)
        levels = tuple(max(level - 1, -1) for level in levels)
    last = layout.horizon - layout.remainder
    rolled = torch.cat([sample[:, layout.actions : last], fresh], 1)
    levels = (*levels[layout.actions : last], *(layout.steps - 1,) * fresh.shape[1])
    levels = (*(levels[first],) * first, *levels[first:])
    return sample[:, first : first + layout.actions], sample, Buffer(rolled, levels)
