"""What a network predicts, read as a clean action and a noise, and the noise level a step goes to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from dit_policy_ros.errors import PolicyError, one_of
from dit_policy_ros.policy.schedules import NoiseSchedule

PREDICTIONS = ("epsilon", "sample", "v")


def prediction_named(name: str) -> str:
    """Returns the prediction that diffusers calls by this name ('v_prediction' is 'v').

    Raises:
        PolicyError: unknown name.
    """
    prediction = name.removesuffix("_prediction")
    if prediction not in PREDICTIONS:
        raise PolicyError(one_of("Prediction", name, PREDICTIONS))
    return prediction


def clean_and_noise(
    output: Tensor, x: Tensor, alpha: float, sigma: float, prediction: str = "epsilon", clip: float | None = None
) -> tuple[Tensor, Tensor]:
    """Reads a network output at one noise level.

    Args:
        output: network output, shape of ``x``.
        x: the noisy sample ``alpha action + sigma noise``.
        alpha: sqrt(abar).
        sigma: sqrt(1 - abar).
        prediction: 'epsilon' (noise), 'sample' (clean action) or 'v' (``alpha noise - sigma action``).
        clip: bound of the absolute clean action, or None.

    Returns:
        The clean action, clipped, and the noise, which is *not* recomputed from the clipped action.

    Raises:
        PolicyError: unknown prediction.
    """
    if prediction == "epsilon":
        clean, noise = (x - sigma * output) / alpha, output
    elif prediction == "sample":
        clean, noise = output, (x - alpha * output) / sigma
    elif prediction == "v":
        clean, noise = alpha * x - sigma * output, alpha * output + sigma * x
    else:
        raise PolicyError(one_of("Prediction", prediction, PREDICTIONS))
    return (clean if clip is None else clean.clamp(-clip, clip)), noise


def signal_and_noise(alpha_bar: float) -> tuple[float, float]:
    """Returns alpha and sigma, sqrt(abar) and sqrt(1 - abar)."""
    return math.sqrt(alpha_bar), math.sqrt(1.0 - alpha_bar)


def descents(
    timesteps: Sequence[int], schedule: NoiseSchedule, stride: int | None = None, final_alpha_bar: float = 1.0
) -> list[tuple[int, float, float]]:
    """Returns (step, abar, abar after the step) for every entry of a grid.

    Args:
        timesteps: diffusion steps, strictly descending.
        stride: how far down a step goes, in diffusion steps; None goes to the next entry of the grid.
        final_alpha_bar: abar below step 0; some schedulers use that of step 0 instead of 1.

    Raises:
        PolicyError: the grid is empty or not descending.
    """
    if not timesteps or any(a <= b for a, b in pairwise(timesteps)) or timesteps[-1] < 0:
        raise PolicyError(f"Diffusion steps must be descending and at least 0; got {list(timesteps)}.")
    following = (*timesteps[1:], -1) if stride is None else tuple(step - stride for step in timesteps)
    return [
        (step, schedule.alpha_bar(step), schedule.alpha_bar(after, final_alpha_bar))
        for step, after in zip(timesteps, following, strict=True)
    ]
