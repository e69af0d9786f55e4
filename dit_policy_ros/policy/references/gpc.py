"""Operations of the ``gpc`` reference directory."""

from __future__ import annotations

import torch
from torch import Tensor

from dit_policy_ros.errors import PolicyError, one_of
from dit_policy_ros.policy.guidance.classifier_free import Network
from dit_policy_ros.policy.guidance.composition import composed
from dit_policy_ros.policy.references.case import Case, Outputs
from dit_policy_ros.policy.references.mixture import GaussianMixture
from dit_policy_ros.policy.samplers import ddim, ddpm
from dit_policy_ros.policy.samplers.recording import Recording
from dit_policy_ros.policy.schedules import NoiseSchedule, leading, squared_cosine

PREDICTIONS = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v"}


def _network(case: Case, number: int, schedule: NoiseSchedule, prediction: str) -> Network:
    mixture = GaussianMixture.from_arrays(case.arrays, f"denoiser{number}")
    observation = case.inputs[f"obs{number}"]

    def network(x: Tensor, step: int) -> Tensor:
        return mixture.predict(x, schedule.alpha_bar(step), observation, prediction)

    return network


def composed_sample(case: Case) -> Outputs:
    """Two policies at the same noisy sample in every step."""
    p = case.parameters
    train_steps, steps = p["num_train_timesteps"], p["num_inference_steps"]
    schedule, timesteps = squared_cosine(train_steps), leading(train_steps, steps)
    prediction = PREDICTIONS[p["prediction_type"]]
    networks = [_network(case, number, schedule, prediction) for number in (1, 2)]
    recording, clip = Recording(), 1.0 if p["clip_sample"] else None
    arguments = (recording.wrap(composed(networks, (p["w1"], p["w2"]))), case.inputs["noise"], timesteps, schedule)
    if p["scheduler"] == "ddim":
        sample = ddim(*arguments, prediction, clip, stride=train_steps // steps)
    elif p["scheduler"] == "ddpm":
        sample = ddpm(*arguments, prediction, clip, step_noise=case.inputs["step_noise"])
    else:
        raise PolicyError(one_of("Scheduler", p["scheduler"], ("ddim", "ddpm")))
    visited = list(zip(recording.inputs, recording.times, strict=True))
    first = p["obs_steps"] - 1
    return {
        "timesteps": torch.tensor(timesteps),
        "x_traj": recording.trajectory(sample),
        "output1": torch.stack([networks[0](x, step) for x, step in visited]),
        "output2": torch.stack([networks[1](x, step) for x, step in visited]),
        "sample": sample,
        "action": sample[:, first : first + p["n_action_steps"]],
    }


OPERATIONS = {"gpc_composed_sample": composed_sample}
