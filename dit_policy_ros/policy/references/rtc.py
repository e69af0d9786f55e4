"""Operations of the ``rtc`` reference directory."""

from __future__ import annotations

import torch
from torch import Tensor

from dit_policy_ros.policy.guidance.real_time import Correction, correction, guidance_weight, prefix_weights, real_time
from dit_policy_ros.policy.references.case import Case, Outputs
from dit_policy_ros.policy.references.mixture import GaussianMixture
from dit_policy_ros.policy.samplers import euler
from dit_policy_ros.policy.samplers.flow import Velocity
from dit_policy_ros.policy.samplers.recording import Recording
from dit_policy_ros.policy.schedules import uniform_times


def _velocity(case: Case) -> Velocity:
    mixture = GaussianMixture.from_arrays(case.arrays, "denoiser")
    return lambda x, t: mixture.velocity(x, t, case.inputs["obs"])


def _masks(case: Case, clip_end: bool) -> Outputs:
    total = case.parameters["total"]
    pairs = list(zip(case.inputs["start"].tolist(), case.inputs["end"].tolist(), strict=True))
    return {
        mask: torch.tensor(
            [prefix_weights(total, start, min(end, total) if clip_end else end, mask) for start, end in pairs]
        )
        for mask in ("linear", "exp", "ones", "zeros")
    }


def soft_mask(case: Case) -> Outputs:
    """The mask of the authors."""
    return _masks(case, clip_end=False)


def lerobot_soft_mask(case: Case) -> Outputs:
    """The mask of LeRobot, which never ends after the chunk."""
    return _masks(case, clip_end=True)


def weight(case: Case) -> Outputs:
    """Guidance weight over time, one row for each beta."""
    times = case.inputs["time"].tolist()
    return {"weight": torch.tensor([[guidance_weight(t, beta) for t in times] for beta in case.parameters["beta"]])}


def denoise(case: Case) -> Outputs:
    """The analytic network itself."""
    velocity, x = _velocity(case), case.inputs["x"]
    times = case.inputs["time"].tolist()
    velocities = [velocity(x, t) for t in times]
    return {
        "velocity": torch.stack(velocities),
        "x1_hat": torch.stack([x + (1 - t) * v for t, v in zip(times, velocities, strict=True)]),
    }


def _horizon(case: Case) -> int:
    return next(case.inputs[name].shape[1] for name in ("x", "noise") if name in case.inputs)


def _mask(case: Case, end: int) -> Tensor:
    parameters, horizon = case.parameters, _horizon(case)
    return torch.tensor(prefix_weights(horizon, parameters["delay"], end, parameters["schedule"].lower()))


def guided_velocity(case: Case) -> Outputs:
    """One guided evaluation at each of several times."""
    beta, mask = case.parameters["beta"], _mask(case, case.parameters["end"])
    times = case.inputs["time"].tolist()
    parts = [correction(_velocity(case), case.inputs["x"], t, case.inputs["prev"], mask) for t in times]
    weights = [guidance_weight(t, beta) for t in times]
    return {
        "mask": mask,
        "velocity": torch.stack([part.velocity for part in parts]),
        "x1_hat": torch.stack([part.clean for part in parts]),
        "weighted_error": torch.stack([part.error for part in parts]),
        "vjp": torch.stack([part.correction for part in parts]),
        "guidance_weight": torch.tensor(weights),
        "guided_velocity": torch.stack([p.velocity + w * p.correction for p, w in zip(parts, weights, strict=True)]),
    }


def _sample(case: Case, velocity: Velocity) -> tuple[Recording, Tensor]:
    recording = Recording()
    times = uniform_times(case.parameters["num_steps"])
    return recording, euler(recording.wrap(velocity), case.inputs["noise"], times)


def plain_sample(case: Case) -> Outputs:
    """Euler without guidance."""
    recording, actions = _sample(case, _velocity(case))
    return {
        "times": torch.tensor([*recording.times, 1.0]),
        "x_traj": recording.trajectory(actions),
        "velocity": torch.stack(recording.outputs),
        "actions": actions,
    }


def _parts(case: Case, recording: Recording, previous: Tensor, mask: Tensor, jacobian: str) -> list[Correction]:
    visited = zip(recording.inputs, recording.times, strict=True)
    return [correction(_velocity(case), x, t, previous, mask, jacobian) for x, t in visited]


def sample_exact(case: Case) -> Outputs:
    """Euler with the exact vector-Jacobian product."""
    beta, previous = case.parameters["beta"], case.inputs["prev"]
    mask = _mask(case, case.parameters["end"])
    recording, actions = _sample(case, real_time(_velocity(case), previous, mask, beta))
    parts = _parts(case, recording, previous, mask, "exact")
    return {
        "mask": mask,
        "times": torch.tensor([*recording.times, 1.0]),
        "x_traj": recording.trajectory(actions),
        "velocity": torch.stack([part.velocity for part in parts]),
        "x1_hat": torch.stack([part.clean for part in parts]),
        "vjp": torch.stack([part.correction for part in parts]),
        "guidance_weight": torch.tensor([guidance_weight(t, beta) for t in recording.times]),
        "actions": actions,
    }


def sample_identity(case: Case) -> Outputs:
    """LeRobot's form, whose time runs from 1 to 0 and whose velocity has the other sign."""
    velocity, leftover = _velocity(case), case.inputs.get("leftover")
    outputs: Outputs = {}
    if leftover is not None:
        horizon, length = _horizon(case), leftover.shape[1]
        beta = case.parameters["max_guidance_weight"]
        channels = case.inputs["noise"].shape[2] - leftover.shape[2]
        previous = torch.nn.functional.pad(leftover, (0, channels, 0, horizon - length))
        mask = _mask(case, min(case.parameters["execution_horizon"], length))
        velocity = real_time(velocity, previous, mask, beta, "identity")
    recording, actions = _sample(case, velocity)
    times = recording.times
    if leftover is not None:
        parts = _parts(case, recording, previous, mask, "identity")
        outputs["correction"] = torch.stack([part.correction for part in parts])
        outputs["guidance_weight"] = torch.tensor([guidance_weight(t, beta) for t in times])
        outputs["mask"] = mask
    plain = [_velocity(case)(x, t) for x, t in zip(recording.inputs, times, strict=True)]
    return outputs | {
        "times": 1 - torch.tensor(times),
        "x_traj": recording.trajectory(actions),
        "velocity": -torch.stack(plain),
        "guided_velocity": -torch.stack(recording.outputs),
        "actions": actions,
    }


def chunk_shift(case: Case) -> Outputs:
    """What is executed of two successive chunks, and what the next one is guided by."""
    delay, execution_horizon = case.parameters["delay"], case.parameters["exec_horizon"]
    old, new = case.inputs["old_chunk"], case.inputs["new_chunk"]
    return {
        "executed": torch.cat([old[:, :delay], new[:, delay:execution_horizon]], 1),
        "next_prev": torch.nn.functional.pad(new[:, execution_horizon:], (0, 0, 0, execution_horizon)),
    }


OPERATIONS = {
    "rtc_soft_mask": soft_mask,
    "lerobot_soft_mask": lerobot_soft_mask,
    "rtc_guidance_weight": weight,
    "flow_denoise": denoise,
    "rtc_guided_velocity_vjp": guided_velocity,
    "flow_plain_sample": plain_sample,
    "rtc_guided_sample_vjp": sample_exact,
    "lerobot_rtc_sample_identity": sample_identity,
    "rtc_chunk_shift": chunk_shift,
}
