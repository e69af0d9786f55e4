"""Operations of the ``rti_dp`` reference directory."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dit_policy_ros.policy.references.case import Case, Outputs
from dit_policy_ros.policy.references.mixture import GaussianMixture
from dit_policy_ros.policy.samplers import ddpm
from dit_policy_ros.policy.samplers.recording import Recording
from dit_policy_ros.policy.samplers.warm_start import advanced, next_guess, snapped
from dit_policy_ros.policy.schedules import squared_cosine


def _gripper_channels(action_dim: int, discrete: bool) -> tuple[int, ...]:
    if not discrete or action_dim <= 9:
        return ()
    return (9, action_dim - 1) if action_dim == 20 else (action_dim - 1,)


def query_sequence(case: Case) -> Outputs:
    """A first query from noise and later ones from the guess before."""
    p, inputs = case.parameters, case.inputs
    schedule, clip = squared_cosine(p["num_train_timesteps"]), 1.0 if p["clip_sample"] else None
    mixture = GaussianMixture.from_arrays(case.arrays, p["denoiser"])
    channels = _gripper_channels(p["action_dim"], p["has_discrete_action"])
    # The branch 'reproduce' clips in scale mode too.
    gripper = "scale" if p["scale"] and p["branch"] == "main" else "clip"
    guesses: list[Tensor] = []
    predictions: list[Tensor] = []
    recordings: list[Recording] = []
    for q, observation in enumerate(inputs["obs"]):
        recording = Recording()
        denoiser = recording.wrap(
            lambda x, step, observation=observation: mixture.predict(x, schedule.alpha_bar(step), observation)
        )
        start = advanced(guesses[-1]) if q else inputs["init_noise"]
        steps = p["steps"] if q else tuple(reversed(range(schedule.steps)))
        noise = _draws(inputs, "step_noise", q - 1) if q else inputs["init_step_noise"]
        chunk = ddpm(denoiser, start, steps, schedule, clip=clip, stride=1, step_noise=noise)
        guesses.append(next_guess(chunk, channels, gripper, p["factor"]))
        predictions.append(snapped(chunk, channels))
        recordings.append(recording)
    prediction, row = torch.stack(predictions), case.config["obs_steps"] - 1
    outputs = {
        "init_x": torch.stack(recordings[0].inputs),
        "init_output": torch.stack(recordings[0].outputs),
        "guess": torch.stack(guesses),
        "action_pred": prediction,
        "action": prediction[:, :, row : row + case.config.get("n_action_steps", 1)],
    }
    if recordings[1:]:
        outputs["rti_x"] = torch.stack([torch.stack(recording.inputs) for recording in recordings[1:]])
        outputs["rti_output"] = torch.stack([torch.stack(recording.outputs) for recording in recordings[1:]])
    return outputs


def _draws(inputs: Mapping[str, Tensor], name: str, query: int) -> Tensor | tuple[()]:
    """Noise of a query; none is drawn where every step is the last one."""
    return inputs[name][query] if name in inputs else ()


OPERATIONS = {"rti_query_sequence": query_sequence}
