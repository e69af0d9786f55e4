"""Operations of the ``eadp`` reference directory: a two-link planar arm that cannot follow every chunk."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dit_policy_ros.errors import PolicyError, one_of
from dit_policy_ros.policy.guidance.tracking import clipped, tracking_ddim, tracking_refinement
from dit_policy_ros.policy.references.case import Case, Outputs
from dit_policy_ros.policy.references.mixture import GaussianMixture
from dit_policy_ros.policy.samplers.ddim import ddim_step
from dit_policy_ros.policy.samplers.recording import Recording
from dit_policy_ros.policy.schedules import NoiseSchedule, leading, squared_cosine

GROUPS = ((slice(0, 3), 0.05), (slice(3, 9), 0.005))


@dataclass(frozen=True)
class PlanarArm:
    """Links, rate limits and the cost of not being where the chunk says."""

    links: tuple[float, float]
    reach_per_tick: Tensor
    """(2,) largest joint change a tick, [rad]."""
    rotation_weight: float

    @classmethod
    def from_case(cls, case: Case) -> PlanarArm:
        """Reads the arm from the parameters of a case."""
        p = case.config | case.parameters
        reach = torch.tensor(p["max_joint_velocity"], dtype=torch.float64) * p["dt"]
        return cls(tuple(p["link_lengths"]), reach, p["rotation_weight"])

    def pose(self, q: Tensor) -> Tensor:
        """Position and first two columns of the rotation, (9,)."""
        (l1, l2), total = self.links, q[0] + q[1]
        c, s, zero = torch.cos(total), torch.sin(total), torch.zeros((), dtype=q.dtype)
        position = [l1 * torch.cos(q[0]) + l2 * c, l1 * torch.sin(q[0]) + l2 * s, zero]
        return torch.stack([*position, c, s, zero, -s, c, zero])

    def inverse(self, action: Tensor, q: Tensor) -> Tensor:
        """Joint positions that reach an action's x and y, elbow on the side it is on now."""
        (l1, l2), (x, y) = self.links, action[:2]
        edge = 1 - 1e-6
        cosine = ((x**2 + y**2 - l1**2 - l2**2) / (2 * l1 * l2)).clamp(-edge, edge)
        q2 = torch.acos(cosine) * (1.0 if q[1] >= 0 else -1.0)
        q1 = torch.atan2(y, x) - torch.atan2(l2 * torch.sin(q2), l1 + l2 * torch.cos(q2))
        return torch.stack([q1, q2])

    def rollout(self, chunk: Tensor, q: Tensor) -> Tensor:
        """Joint positions at every tick, before that tick's move, (H, 2)."""
        visited = []
        for action in chunk:
            visited.append(q)
            change = self.inverse(action, q) - q
            change = change - 2 * math.pi * torch.round(change.detach() / (2 * math.pi))
            q = q + torch.minimum(torch.maximum(change, -self.reach_per_tick), self.reach_per_tick)
        return torch.stack(visited)

    def cost(self, chunk: Tensor, poses: Tensor) -> Tensor:
        """Squared distance of the poses from the chunk."""
        off = (poses - chunk[:, :9]) ** 2
        return off[:, :3].sum() + self.rotation_weight * off[:, 3:].sum()

    def gradient(self, chunk: Tensor, q0: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        """Returns the gradient (H, A) of the cost and the cost.

        Raises:
            PolicyError: unknown kind of gradient.
        """
        if kind not in ("frozen", "exact"):
            raise PolicyError(one_of("Gradient", kind, ("frozen", "exact")))
        with torch.enable_grad():
            chunk = chunk.double().detach().requires_grad_(True)
            q = self.rollout(chunk, q0.double())
            poses = torch.stack([self.pose(row) for row in q])
            cost = self.cost(chunk, poses.detach() if kind == "frozen" else poses)
            return torch.autograd.grad(cost, chunk)[0].float(), cost.detach().float()


def tracking_cost(case: Case) -> Outputs:
    """Rollout, cost and both gradients of one chunk."""
    arm, chunk, q0 = PlanarArm.from_case(case), case.inputs["trajectory"], case.inputs["q0"]
    q = arm.rollout(chunk.double(), q0.double())
    frozen, cost = arm.gradient(chunk, q0, "frozen")
    return {
        "q": q,
        "predicted_pose": torch.stack([arm.pose(row) for row in q]),
        "cost": cost[None],
        "gradient_frozen": frozen,
        "gradient_exact": arm.gradient(chunk, q0, "exact")[0],
    }


def clip_gradient(case: Case) -> Outputs:
    """The limits of the authors."""
    return {"clipped": clipped(case.inputs["gradient"], GROUPS)}


class _Guide:
    """The clipped gradient of a case as a function of the noisy chunk, keeping what it was asked."""

    def __init__(self, case: Case) -> None:
        self.case, self.arm = case, PlanarArm.from_case(case)
        self.inputs: list[Tensor] = []
        self.costs: list[Tensor] = []
        self.gradients: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        gradient, cost = self.arm.gradient(x[0], self.case.inputs["q0"], self.case.parameters["gradient"])
        self.inputs.append(x)
        self.costs.append(cost)
        self.gradients.append(gradient)
        return clipped(gradient, GROUPS)[None]


def _denoiser(case: Case, schedule: NoiseSchedule) -> Callable[[Tensor, int], Tensor]:
    mixture = GaussianMixture.from_arrays(case.arrays, "denoiser")
    return lambda x, step: mixture.predict(x, schedule.alpha_bar(step), None)


def guided_step(case: Case) -> Outputs:
    """One guided DDIM step at each of several diffusion steps."""
    p, guide, x = case.parameters, _Guide(case), case.inputs["x"]
    schedule, stride = squared_cosine(p["num_train_timesteps"]), p["num_train_timesteps"] // p["num_inference_steps"]
    denoiser, clip = _denoiser(case, schedule), 1.0 if p["clip_sample"] else None
    rows = []
    for step in case.inputs["timestep"].tolist():
        level = schedule.alpha_bar(step)
        gradient = guide(x)
        moved = x - p["scale"] * level * gradient
        epsilon = denoiser(moved, step)
        after = ddim_step(moved, epsilon, level, schedule.alpha_bar(step - stride), "epsilon", clip)
        rows.append((moved, epsilon, after, gradient[0], torch.tensor(level)))
    names = ("guided", "epsilon", "next", "gradient_clipped", "alpha_bar")
    outputs = {name: torch.stack(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    return outputs | {"cost": torch.stack(guide.costs)}


def guided_sample(case: Case) -> Outputs:
    """A whole guided run, and the refinement after it where the case asks for one."""
    p, guide, recording = case.parameters, _Guide(case), Recording()
    train_steps, steps, passes = p["num_train_timesteps"], p["num_inference_steps"], p["guided_steps"]
    schedule, timesteps, stride = squared_cosine(train_steps), leading(train_steps, steps), train_steps // steps
    denoiser, clip = recording.wrap(_denoiser(case, schedule)), 1.0 if p["clip_sample"] else None
    renoise, scale = case.inputs.get("renoise", ()), p["scale"]
    refines = scale == 0 and p["guidance"] > 0
    sample = tracking_ddim(
        denoiser, case.inputs["noise"], timesteps, schedule, guide, scale, "epsilon", clip, stride,
        () if refines else renoise, 1 if refines else passes,
    )  # fmt: skip
    if refines:
        step = min(t for t in timesteps if t > 0)
        sample = tracking_refinement(
            denoiser, sample, step, schedule, guide, p["guidance"], renoise[:passes], "epsilon", clip
        )
    outputs = {
        "timesteps": torch.tensor(recording.times),
        "model_input": torch.stack(recording.inputs),
        "model_output": torch.stack(recording.outputs),
        "sample": sample,
    }
    if guide.inputs:
        outputs["guidance_input"] = torch.stack(guide.inputs)
        outputs["cost"] = torch.stack(guide.costs)
        outputs["gradient"] = torch.stack(guide.gradients)
    return outputs


OPERATIONS = {
    "eadp_tracking_cost": tracking_cost,
    "eadp_clip_gradient": clip_gradient,
    "eadp_guided_step": guided_step,
    "eadp_guided_sample": guided_sample,
}
