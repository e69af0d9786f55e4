"""The dual-system transformer behind the ``Policy`` port: numpy observations in, joint targets out.

Not thread-safe as a whole, but ``encode`` and ``act`` share no state and may run in two threads or processes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.cameras import CameraView
from dit_policy_ros.policy.dual_system import DualSystem, DualSystemConfig, SlowFeatures
from dit_policy_ros.policy.guidance.prefix import flow_corruption
from dit_policy_ros.policy.guide import guided
from dit_policy_ros.policy.samplers.flow import euler
from dit_policy_ros.policy.steering import Drawing, Steering
from dit_policy_ros.policy.text import hash_words
from dit_policy_ros.space import gather
from dit_policy_ros.types import ActionChunk, Context, Observation, seconds

NEWS = 0.12
"""Least change of a place that is worth a new chunk; on a table of 40 cm by 20 cm, 24 mm and 12 mm."""


@dataclass(frozen=True)
class Range:
    """Lower and upper end of each channel; they map to -1 and 1."""

    lower: np.ndarray
    """(joints,)."""
    upper: np.ndarray
    """(joints,)."""

    def normalise(self, values: np.ndarray) -> np.ndarray:
        """Maps (..., joints) to about -1..1."""
        return 2.0 * (values - self.lower) / (self.upper - self.lower) - 1.0

    def restore(self, values: np.ndarray) -> np.ndarray:
        """Inverse of ``normalise``."""
        return (values + 1.0) / 2.0 * (self.upper - self.lower) + self.lower


@dataclass(frozen=True)
class DualPolicyConfig:
    """Everything about a trained policy but its weights."""

    joint_names: tuple[str, ...]
    """Order of every joint array."""
    slow_camera: CameraView
    fast_cameras: tuple[CameraView, ...]
    states: Range
    actions: Range
    network: DualSystemConfig
    step_ns: int = 20_000_000
    solver_steps: int = 5
    """Euler steps from noise to action."""
    noise_scale: float = 1.0
    """Spread of the starting noise; 0 starts every chunk from its mean."""
    mirrored: bool = True
    """Whether a chunk is the mean of two, drawn from a noise and its negative: what is linear in the noise cancels."""


class DualPolicy:
    """Implements ``types.Policy``."""

    predicts = "velocity"

    def __init__(self, config: DualPolicyConfig, network: DualSystem) -> None:
        self.config = config
        self.network = network.eval()

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return next(self.network.parameters()).device

    @property
    def horizon(self) -> int:
        """Number of actions in a chunk."""
        return self.config.network.horizon

    @property
    def step_ns(self) -> int:
        """Time between two actions, [ns]."""
        return self.config.step_ns

    @property
    def commit_multiple(self) -> int:
        """The committed prefix must be a multiple of this many actions."""
        return self.config.network.steps_per_token

    @property
    def execution_horizon_s(self) -> float:
        """How long a chunk is followed where nobody says otherwise, [s]; joining costs little where draws agree."""
        return seconds(self.horizon * self.step_ns // 3)

    @property
    def slow_cameras(self) -> tuple[str, ...]:
        """Cameras that ``encode`` looks at."""
        return (self.config.slow_camera.name,)

    @property
    def fast_cameras(self) -> tuple[str, ...]:
        """Cameras that ``act`` looks at."""
        return tuple(camera.name for camera in self.config.fast_cameras)

    def example_observation(self) -> Observation:
        """Returns an observation that the policy accepts: grey images, joints in the middle of their range."""
        cameras = (self.config.slow_camera, *self.config.fast_cameras)
        images = {camera.name: np.full((*camera.source[::-1], 3), 128, dtype=np.uint8) for camera in cameras}
        middle = self.config.states.restore(np.zeros(len(self.config.joint_names)))
        return Observation(0, dict(zip(self.config.joint_names, middle.tolist(), strict=True)), images=images)

    @torch.inference_mode()
    def encode(self, observation: Observation, instruction: str, epoch: int = 0) -> Context:
        """System 2; see ``types.Policy``."""
        image = image_tensor(self.config.slow_camera.look(observation)[None]).to(self.device)
        slow = self.network.encode(image, hash_words(instruction)[None].to(self.device))
        pairs = torch.stack([torch.stack(pair) for pair in slow.keys_values])
        tensors = {
            "instruction": slow.instruction.cpu().numpy(),
            "keys_values": pairs.cpu().numpy(),
            "places": slow.places.cpu().numpy(),
        }
        stamp_ns = observation.image_stamps_ns.get(self.config.slow_camera.name, observation.stamp_ns)
        return Context(stamp_ns, instruction, epoch, tensors)

    def is_news(self, before: Context, context: Context) -> bool:
        """Whether a chunk that was planned on one context should not wait for its end when another has come.

        True where what is asked for lies elsewhere than System 2 said before, by more than it errs.
        """
        return bool(np.abs(context.tensors["places"] - before.tensors["places"]).max() > NEWS)

    @torch.no_grad()
    def act(
        self,
        observation: Observation,
        context: Context,
        committed: ActionChunk | None = None,
        steering: Steering | None = None,
    ) -> ActionChunk:
        """System 1; see ``types.Policy``. ``steering`` is for continuity methods."""
        config = self.config
        slow = self._slow_features(context)
        images = image_tensor(np.stack([camera.look(observation) for camera in config.fast_cameras]))
        state = config.states.normalise(gather(observation.positions, config.joint_names))
        age_s = torch.tensor([seconds(observation.stamp_ns - context.stamp_ns)], dtype=torch.float32)
        seen = (images[None], torch.from_numpy(state).float()[None], age_s)
        fast = self.network.look(slow, *(part.to(self.device) for part in seen))
        steering = steering or Steering()
        start = self._noise(steering.seed(observation.stamp_ns))
        slow, fast = slow.expanded(len(start)), fast.expanded(len(start))
        prefix = self._prefix(observation, committed)
        known = torch.zeros(len(start), self.horizon, dtype=torch.bool, device=self.device)
        known[:, : len(prefix)] = True

        def free(x: Tensor, t: float) -> Tensor:
            return self.network.velocity(slow, fast, x, torch.full((len(x),), t, device=x.device), known)

        steered = guided(free, steering.guided(self._drawing(start, observation.stamp_ns)))

        def velocity(x: Tensor, t: float) -> Tensor:
            return steered(x, t).masked_fill(known[..., None], 0.0)

        start[:, : len(prefix)] = prefix
        times = tuple(i / config.solver_steps for i in range(config.solver_steps + 1))
        normalised = euler(velocity, start, times).mean(0).cpu().double().numpy()
        actions = config.actions.restore(normalised)
        if not np.isfinite(actions).all():
            raise PolicyError("The network gave actions that are not finite; the checkpoint is damaged.")
        if committed is not None:
            actions[: len(prefix)] = committed.actions[:, self._columns(committed)]
        return ActionChunk(
            names=config.joint_names,
            start_ns=observation.stamp_ns,
            step_ns=config.step_ns,
            actions=actions,
            observation_ns=observation.stamp_ns,
            context_ns=context.stamp_ns,
            epoch=context.epoch,
            committed=len(prefix),
        )

    def _slow_features(self, context: Context) -> SlowFeatures:
        needed = ("instruction", "keys_values", "places")
        missing = [name for name in needed if name not in context.tensors]
        if missing:
            raise PolicyError(f"The context lacks {', '.join(missing)}; it was made by another policy.")
        arrays = (torch.from_numpy(np.array(context.tensors[name])) for name in needed)
        instruction, pairs, places = (array.to(self.device) for array in arrays)
        if len(pairs) != self.config.network.blocks:
            raise PolicyError(f"The context serves {len(pairs)} blocks, the network has {self.config.network.blocks}.")
        return SlowFeatures(instruction, tuple((pair[0], pair[1]) for pair in pairs), places)

    def _prefix(self, observation: Observation, committed: ActionChunk | None) -> Tensor:
        """Committed actions, normalised, (committed, joints)."""
        if committed is None or not len(committed.actions):
            return torch.zeros(0, len(self.config.joint_names))
        if committed.start_ns != observation.stamp_ns or committed.step_ns != self.step_ns:
            raise PolicyError("The committed prefix must start at the observation and have the policy's step.")
        count = len(committed.actions)
        if count % self.commit_multiple or count >= self.horizon:
            raise PolicyError(
                f"{count} committed actions; allowed are multiples of {self.commit_multiple} below {self.horizon}."
            )
        values = committed.actions[:, self._columns(committed)]
        return torch.from_numpy(self.config.actions.normalise(values)).float()

    def _columns(self, committed: ActionChunk) -> list[int]:
        missing = [name for name in self.config.joint_names if name not in committed.names]
        if missing:
            raise PolicyError(f"The committed prefix lacks {', '.join(missing)}.")
        return [committed.names.index(name) for name in self.config.joint_names]

    def _drawing(self, noise: Tensor, start_ns: int) -> Drawing:
        def to_network(chunk: ActionChunk) -> Tensor:
            return torch.from_numpy(self.config.actions.normalise(chunk.actions[:, self._columns(chunk)])).float()

        channels = torch.ones(noise.shape[2], dtype=torch.bool, device=noise.device)
        # A little room, since what is executed may lie beyond what was ever demonstrated.
        return Drawing(
            noise.clone(), flow_corruption, self.predicts, start_ns, self.step_ns, 0, channels, 1.1, to_network
        )

    def _noise(self, seed: int) -> Tensor:
        """Starts of a chunk, (1 or 2, horizon, joints). An observation gives the same noise on every machine."""
        generator = torch.Generator().manual_seed(seed)
        shape = (1, self.horizon, len(self.config.joint_names))
        noise = torch.randn(shape, generator=generator).to(self.device) * self.config.noise_scale
        return torch.cat([noise, -noise]) if self.config.mirrored else noise


def image_tensor(images: np.ndarray) -> Tensor:
    """(..., H, W, 3) uint8 to (..., 3, H, W) float32 in -1..1."""
    return torch.from_numpy(images).movedim(-1, -3).float() / 127.5 - 1.0
