"""Operations of the ``solvers`` reference directory."""

from __future__ import annotations

import torch
from torch import Tensor

from dit_policy_ros.errors import PolicyError, one_of
from dit_policy_ros.policy import schedules
from dit_policy_ros.policy.preconditioning import batch_scalings, precondition
from dit_policy_ros.policy.references.case import Case, Outputs
from dit_policy_ros.policy.references.mixture import GaussianMixture, final_level, noise_ratio
from dit_policy_ros.policy.samplers import ddim, ddpm, dpm_solver, edm_ddim, edm_euler, edm_heun, euler
from dit_policy_ros.policy.samplers.prediction import clean_and_noise, signal_and_noise
from dit_policy_ros.policy.samplers.recording import Recording

SPACINGS = {"leading": schedules.leading, "trailing": schedules.trailing, "linspace": schedules.linspace}
PREDICTIONS = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v"}
EDM_SAMPLERS = {"euler": edm_euler, "heun": edm_heun, "ddim": edm_ddim}


def _mixture(case: Case) -> GaussianMixture:
    return GaussianMixture.from_arrays(case.arrays, "denoiser")


def _choose(what: str, name: object, table: dict) -> object:
    if name not in table:
        raise PolicyError(one_of(what, name, table))
    return table[name]


def _schedule(case: Case) -> schedules.NoiseSchedule:
    """Squared-cosine unless the case says otherwise."""
    p = case.parameters
    name = p.get("beta_schedule", "squaredcos_cap_v2")
    return schedules.named(name, p["T"], p.get("beta_start", 1e-4), p.get("beta_end", 0.02))


def vp_tables(case: Case) -> Outputs:
    """The tables of a schedule."""
    schedule = _schedule(case)
    return {"betas": torch.tensor(schedule.betas), "alphas_cumprod": torch.tensor(schedule.alphas_cumprod)}


def vp_denoise(case: Case) -> Outputs:
    """The analytic network itself."""
    schedule, mixture = _schedule(case), _mixture(case)
    outputs = {}
    for name, prediction in PREDICTIONS.items():
        values = [
            mixture.predict(case.inputs["x"], schedule.alpha_bar(step), case.inputs["obs"], prediction)
            for step in case.inputs["timesteps"].tolist()
        ]
        outputs[name] = torch.stack(values)
    return outputs


def vp_sample(case: Case) -> Outputs:
    """DDIM, DDPM and DPM-Solver++."""
    parameters = case.parameters
    train_steps, steps = parameters["T"], parameters["num_inference_steps"]
    schedule, mixture = _schedule(case), _mixture(case)
    prediction = _choose("Prediction", parameters["prediction_type"], PREDICTIONS)
    clip = parameters.get("clip_sample_range", 1.0) if parameters.get("clip_sample") else None
    recording = Recording()
    denoiser = recording.wrap(
        lambda x, step: mixture.predict(x, schedule.alpha_bar(step), case.inputs["obs"], prediction)
    )
    noise = case.inputs["noise"]
    if parameters["solver"] == "dpmsolver++":
        timesteps = schedules.linspace_open(train_steps, steps)
        sample = dpm_solver(denoiser, noise, timesteps, schedule, prediction, clip, parameters.get("order", 2))
    else:
        spacing = _choose("Spacing", parameters.get("timestep_spacing", "leading"), SPACINGS)
        timesteps = spacing(train_steps, steps)
        if parameters["solver"] == "ddim":
            final, stride = final_level(schedule, parameters), train_steps // steps
            sample = ddim(denoiser, noise, timesteps, schedule, prediction, clip, stride=stride, final_alpha_bar=final)
        elif parameters["solver"] == "ddpm":
            variance = _choose(
                "Variance",
                parameters.get("variance_type", "fixed_small"),
                {"fixed_small": "small", "fixed_large": "large"},
            )
            draws = case.inputs["step_noise"]
            sample = ddpm(denoiser, noise, timesteps, schedule, prediction, clip, variance, step_noise=draws)
        else:
            raise PolicyError(one_of("Solver", parameters["solver"], ("ddim", "ddpm", "dpmsolver++")))
    levels = [schedule.alpha_bar(step) for step in recording.times]
    clean = [
        clean_and_noise(output, x, *signal_and_noise(level), prediction, clip)[0]
        for output, x, level in zip(recording.outputs, recording.inputs, levels, strict=True)
    ]
    return {
        "timesteps": torch.tensor(timesteps),
        "x_traj": recording.trajectory(sample),
        "model_output": torch.stack(recording.outputs),
        "sample": sample,
        "pred_x0": torch.stack(clean),
        "sigmas": torch.tensor([*map(noise_ratio, levels), 0.0]),
    }


def _flow(case: Case, times: tuple[float, ...], noise_at_1: bool) -> tuple[Recording, Tensor]:
    """Runs Euler; the recorded outputs have the sign of the case's own time convention."""
    mixture, recording, sign = _mixture(case), Recording(), -1.0 if noise_at_1 else 1.0
    network = recording.wrap(lambda x, t: sign * mixture.velocity(x, t, case.inputs["obs"]))
    return recording, euler(lambda x, t: sign * network(x, t), case.inputs["noise"], times)


def flow_euler(case: Case) -> Outputs:
    """Explicit Euler in either time convention."""
    direction = case.parameters["direction"]
    noise_at_1 = _choose("Direction", direction, {"noise_at_0": False, "noise_at_1": True})
    recording, sample = _flow(case, schedules.uniform_times(case.parameters["num_steps"]), noise_at_1)
    times = torch.tensor(recording.times)
    return {
        "times": 1 - times if noise_at_1 else times,
        "x_traj": recording.trajectory(sample),
        "velocity": torch.stack(recording.outputs),
        "sample": sample,
    }


def flow_match_euler(case: Case) -> Outputs:
    """Explicit Euler on shifted noise levels."""
    times = schedules.shifted_times(case.parameters["num_steps"], case.parameters.get("shift", 1.0))
    recording, sample = _flow(case, times, noise_at_1=True)
    sigmas = 1 - torch.tensor(times, dtype=torch.float64)
    return {
        "sigmas": sigmas,
        "timesteps": 1000 * sigmas[:-1],
        "x_traj": recording.trajectory(sample),
        "velocity": torch.stack(recording.outputs),
        "sample": sample,
    }


def _sigmas(case: Case) -> tuple[float, ...]:
    parameters = case.parameters
    arguments = (parameters["num_steps"], parameters["sigma_min"], parameters["sigma_max"])
    if parameters["sigmas"] == "karras":
        return schedules.karras_sigmas(*arguments, parameters.get("rho", 7.0))
    _choose("Noise level grid", parameters["sigmas"], {"exponential": None, "karras": None})
    return schedules.exponential_sigmas(*arguments)


def edm_sigmas(case: Case) -> Outputs:
    """Noise level grids."""
    return {"sigmas": torch.tensor(_sigmas(case))}


def edm_sample(case: Case) -> Outputs:
    """Euler, Heun and DDIM on noise levels."""
    sigmas, mixture, recording = _sigmas(case), _mixture(case), Recording()
    sampler = _choose("Sampler", case.parameters["sampler"], EDM_SAMPLERS)
    denoiser = recording.wrap(lambda x, sigma: mixture.posterior(x, 1.0, sigma, case.inputs["obs"])[0])
    sample = sampler(denoiser, sigmas[0] * case.inputs["noise"], sigmas)
    calls_a_step = 2 if case.parameters["sampler"] == "heun" else 1
    return {
        "sigmas": torch.tensor(sigmas),
        "x_traj": torch.stack([*recording.inputs[::calls_a_step], sample]),
        "call_x": torch.stack(recording.inputs),
        "call_sigma": torch.tensor(recording.times),
        "denoised": torch.stack(recording.outputs),
        "sample": sample,
    }


def edm_precondition(case: Case) -> Outputs:
    """Scalings and the preconditioned denoiser, one noise level per sample."""
    sigma_data, sigmas = case.parameters["sigma_data"], case.inputs["sigma"]
    inputs, denoised = [], []
    for x, sigma, output in zip(case.inputs["x"], sigmas.tolist(), case.inputs["network_output"], strict=True):
        recording = Recording()
        network = recording.wrap(lambda _x, _sigma, output=output: output)
        denoised.append(precondition(network, sigma_data)(x[None], sigma)[0])
        inputs += [given[0] for given in recording.inputs]
    c = batch_scalings(sigmas, sigma_data)
    return {
        "c_skip": c.skip.flatten(),
        "c_out": c.out.flatten(),
        "c_in": c.into.flatten(),
        "c_noise": sigmas.log() / 4,
        "network_input": torch.stack(inputs),
        "denoised": torch.stack(denoised),
    }


OPERATIONS = {
    "vp_tables": vp_tables,
    "vp_denoise": vp_denoise,
    "vp_sample": vp_sample,
    "flow_euler": flow_euler,
    "flow_match_euler_discrete": flow_match_euler,
    "edm_sigmas": edm_sigmas,
    "edm_sample": edm_sample,
    "edm_precondition": edm_precondition,
}
