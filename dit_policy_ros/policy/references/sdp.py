"""Operations of the ``sdp`` reference directory."""

from __future__ import annotations

import torch
from torch import Tensor

from dit_policy_ros.errors import PolicyError, one_of
from dit_policy_ros.policy.references.case import Case, Outputs
from dit_policy_ros.policy.references.mixture import GaussianMixture, alpha_bars
from dit_policy_ros.policy.samplers.prediction import clean_and_noise
from dit_policy_ros.policy.samplers.recording import Recording
from dit_policy_ros.policy.samplers.streaming import (
    Layout,
    TokenDenoiser,
    TokenStep,
    ddim_tokens,
    ddpm_tokens,
    noised,
    query,
    started_at_zero,
    started_denoised,
)
from dit_policy_ros.policy.schedules import NoiseSchedule, squared_cosine

PREDICTIONS = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v"}


def _schedule(case: Case) -> NoiseSchedule:
    return squared_cosine(case.parameters["num_train_timesteps"])


def _layout(case: Case) -> Layout:
    p = case.parameters
    steps = p.get("num_inference_steps", p["num_train_timesteps"])
    return Layout(p["Tp"], p["To"], p["Ta"], steps)


def _denoiser(case: Case, observation: Tensor) -> TokenDenoiser:
    mixture, schedule = GaussianMixture.from_arrays(case.arrays, "denoiser"), _schedule(case)
    prediction = PREDICTIONS[case.parameters["prediction_type"]]
    observation = observation[:, : case.parameters["To"]]
    return lambda x, levels: mixture.predict(x, alpha_bars(schedule, levels), observation, prediction)


def _step(case: Case, draws: Tensor | None) -> TokenStep:
    p, schedule = case.parameters, _schedule(case)
    prediction, clip = PREDICTIONS[p["prediction_type"]], 1.0 if p["clip_sample"] else None
    if p["scheduler"] == "ddpm":
        remaining = iter(draws)
        return ddpm_tokens(schedule, prediction, clip, lambda x: next(remaining))
    if p["scheduler"] == "ddim":
        return ddim_tokens(schedule, p["num_inference_steps"], prediction, clip)
    raise PolicyError(one_of("Scheduler", p["scheduler"], ("ddim", "ddpm")))


def buffer_levels(case: Case) -> Outputs:
    """Levels of several layouts, padded with -9."""
    rows = []
    for steps, horizon, observations, actions in case.inputs["combos"].tolist():
        levels = Layout(horizon, observations, actions, steps).levels
        rows.append([*levels, *[-9] * (case.parameters["pad_to"] - horizon)])
    return {"levels": torch.tensor(rows)}


def training_levels(case: Case) -> Outputs:
    """Levels of training samples."""
    constant = {"chunk": False, "constant": True}[case.parameters["mode"]]
    return {"levels": _layout(case).training_levels(case.inputs["draw"], constant)}


def add_noise(case: Case) -> Outputs:
    """Forward corruption, one level per token."""
    schedule = _schedule(case)
    return {
        "noisy": noised(case.inputs["clean"], case.inputs["noise"], case.inputs["levels"], schedule),
        "alphas_cumprod": torch.tensor(schedule.alphas_cumprod),
    }


def denoise(case: Case) -> Outputs:
    """The analytic network itself."""
    denoiser = _denoiser(case, case.inputs["obs"])
    return {"output": torch.stack([denoiser(case.inputs["x"], levels) for levels in case.inputs["levels"]])}


def scheduler_step(case: Case) -> Outputs:
    """One step with one level per token."""
    inputs, noise = case.inputs, case.inputs.get("noise")
    step = _step(case, None if noise is None else noise[None])
    level = alpha_bars(_schedule(case), inputs["levels"])[..., None]
    prediction, clip = PREDICTIONS[case.parameters["prediction_type"]], 1.0 if case.parameters["clip_sample"] else None
    clean, _ = clean_and_noise(
        inputs["model_output"], inputs["sample"], level.sqrt(), (1 - level).sqrt(), prediction, clip
    )
    return {"prev_sample": step(inputs["sample"], inputs["model_output"], inputs["levels"]), "pred_x0": clean}


def rolled_queries(case: Case) -> Outputs:
    """Several queries of one buffer."""
    layout, schedule, inputs = _layout(case), _schedule(case), case.inputs
    recording, step, start = Recording(), _step(case, inputs.get("step_noise")), case.parameters["buffer_init"]
    # The condition that 'constant' reads is all zeros in the low-dimensional policy.
    if start in ("zero", "constant"):
        buffer = started_at_zero(layout, schedule, inputs["init_noise"])
    elif start == "denoise":
        first = recording.wrap(_denoiser(case, inputs["obs"][0]))
        buffer = started_denoised(layout, schedule, first, step, inputs["init_noise"], inputs["renoise_init"])
    else:
        raise PolicyError(one_of("Buffer start", start, ("constant", "denoise", "zero")))
    rows = []
    for observation, fresh in zip(inputs["obs"], inputs["fresh_noise"], strict=True):
        denoiser = recording.wrap(_denoiser(case, observation))
        action, prediction, buffer = query(buffer, layout, denoiser, step, fresh)
        rows.append((action, prediction, buffer.sample, buffer.batch_levels()))
    names = ("action", "action_pred", "buffer_after", "levels_after")
    outputs = {name: torch.stack(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    return outputs | {
        "call_x": torch.stack(recording.inputs),
        "call_levels": torch.stack(recording.times),
        "call_output": torch.stack(recording.outputs),
    }


def loss(case: Case) -> Outputs:
    """The training loss of one batch."""
    inputs = case.inputs
    noisy = noised(inputs["action"], inputs["noise"], inputs["levels"], _schedule(case))
    prediction = _denoiser(case, inputs["obs"])(noisy, inputs["levels"])
    level = alpha_bars(_schedule(case), inputs["levels"])[..., None]
    targets = {
        "epsilon": inputs["noise"],
        "sample": inputs["action"],
        "v_prediction": level.sqrt() * inputs["noise"] - (1 - level).sqrt() * inputs["action"],
    }
    target = targets[case.parameters["prediction_type"]]
    return {"noisy": noisy, "prediction": prediction, "loss": ((prediction - target) ** 2).mean()[None]}


OPERATIONS = {
    "sdp_buffer_levels": buffer_levels,
    "sdp_training_levels": training_levels,
    "sdp_add_noise": add_noise,
    "sdp_denoise": denoise,
    "sdp_scheduler_step": scheduler_step,
    "sdp_rolled_queries": rolled_queries,
    "sdp_loss": loss,
}
