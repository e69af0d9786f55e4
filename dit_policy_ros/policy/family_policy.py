"""Any published family behind the ``Policy`` port: encoders, channels of the robot, and a committed prefix."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

from dit_policy_ros.errors import PolicyError, one_of
from dit_policy_ros.policy.bindings.binding import (
    PREFIXES,
    REAL_TIME,
    SPLICED,
    Binding,
    FamilyPolicyConfig,
    FrameHistory,
)
from dit_policy_ros.policy.caching.sub_block import SubBlock
from dit_policy_ros.policy.guidance.classifier_free import Network
from dit_policy_ros.policy.guidance.prefix import inpainted
from dit_policy_ros.policy.guidance.real_time import real_time
from dit_policy_ros.policy.guide import Guide, both, guided
from dit_policy_ros.policy.steering import Drawing, Steering, columns_of
from dit_policy_ros.policy.tracked_sample import check_trackable, tracked_sample
from dit_policy_ros.space import gather
from dit_policy_ros.types import NS_PER_S, ActionChunk, Context, Observation

BEFORE_ANY = -1
"""Epoch before the first one."""


class FamilyPolicy:
    """Implements ``types.Policy``. Act needs joints only: every camera belongs to the slow system."""

    fast_cameras: tuple[str, ...] = ()

    def __init__(self, config: FamilyPolicyConfig, binding: Binding, sub_blocks: Sequence[SubBlock] = ()) -> None:
        """Joins them.

        Args:
            sub_blocks: what ``config.cache`` stands in front of.

        Raises:
            PolicyError: the way in which committed actions are kept is unknown, or an option is not for this family.
        """
        if config.prefix not in PREFIXES:
            raise PolicyError(one_of("Prefix", config.prefix, PREFIXES))
        if config.prefix == REAL_TIME and not binding.flow:
            raise PolicyError("The prefix 'real_time' is for flow matching; this checkpoint diffuses: use 'painted'.")
        if config.tracking is not None:
            check_trackable(config, binding)
        self.config = config
        self.binding = binding
        self.caching = None if config.cache is None else config.cache.caching(sub_blocks)
        self._newest: tuple[Context, object] | None = None
        self._states: tuple[int, tuple[Tensor, ...]] = (BEFORE_ANY, ())
        """Epoch, and the network's states of the last observations in it."""
        self._seen_ns = -1

    @property
    def horizon(self) -> int:
        """Number of actions in a chunk."""
        return self.binding.horizon - self.binding.lead

    @property
    def step_ns(self) -> int:
        """Time between two actions, [ns]."""
        return round(NS_PER_S / self.config.control_hz)

    @property
    def slow_cameras(self) -> tuple[str, ...]:
        """Cameras that ``encode`` looks at."""
        return self.config.cameras

    def example_observation(self) -> Observation:
        """Returns an observation that the policy accepts: grey images, every channel at 0, hands not turned."""
        images = {camera: np.full((48, 64, 3), 128, dtype=np.uint8) for camera in self.config.cameras}
        names = {*self.config.actions.names, *(self.config.states.names if self.config.states else ())}
        straight = ("eef_angle_0", "eef_angle_4")
        return Observation(0, {name: float(name.endswith(straight)) for name in names}, images=images)

    # Not inference mode: exact real-time chunking differentiates through what is made here.
    @torch.no_grad()
    def encode(self, observation: Observation, instruction: str, epoch: int = 0) -> Context:
        """System 2; see ``types.Policy``. What the network makes of it stays here, raw features travel.

        Raises:
            PolicyError: no camera at all is in the observation, or the family needs the one that is missing.
        """
        cameras = self.config.cameras
        if cameras and not any(camera in observation.images for camera in cameras):
            raise PolicyError(f"None of the cameras {', '.join(cameras)} is in the observation.")
        self._look_back(observation, epoch)
        features = self.binding.look([observation.images.get(camera) for camera in cameras], instruction, epoch)
        stamps = [observation.image_stamps_ns.get(camera, observation.stamp_ns) for camera in cameras]
        arrays = {name: _to_numpy(tensor) for name, tensor in features.items()}
        context = Context(min(stamps, default=observation.stamp_ns), instruction, epoch, arrays)
        self._newest = (context, self._condition(context))
        return context

    @torch.no_grad()
    def act(
        self,
        observation: Observation,
        context: Context,
        committed: ActionChunk | None = None,
        steering: Steering | None = None,
    ) -> ActionChunk:
        """System 1; see ``types.Policy``. Chunks begin with the committed actions.

        Args:
            steering: for continuity methods.
        """
        actions, lead = self.config.actions, self.binding.lead
        measured = gather(observation.positions, actions.names, "channel")
        prefix = self._prefix(observation, committed)
        steering = steering or Steering()
        generator = torch.Generator().manual_seed(steering.seed(observation.stamp_ns))
        noise = torch.randn(1, self.binding.horizon, actions.width, generator=generator).to(self.binding.like)
        states = self._remember(observation, context.epoch)
        drawing = self._drawing(noise, observation.stamp_ns, measured)
        guide = both(steering.guided(drawing), self._guide(prefix, measured, noise))
        cache = self._cache(context)
        with self._quickened(guide) as guide:
            sample = self._sample(cache, noise, states, guide, measured)[0, lead:]
        if not sample.isfinite().all():
            raise PolicyError("The network gave actions that are not finite; the checkpoint is damaged.")
        values = actions.from_network(sample.float().cpu().double().numpy(), measured)
        values[: len(prefix)] = prefix
        return ActionChunk(
            names=actions.names,
            start_ns=observation.stamp_ns,
            step_ns=self.step_ns,
            actions=values,
            observation_ns=observation.stamp_ns,
            context_ns=context.stamp_ns,
            epoch=context.epoch,
            committed=len(prefix),
        )

    def settle(self, instruction: str) -> None:
        """Samples a chunk of the example observation, from which a block-wise cache takes its schedule.

        A live run and its replay so have the same one, wherever they begin.
        """
        observation = self.example_observation()
        self.act(observation, self.encode(observation, instruction, epoch=BEFORE_ANY))
        self._newest, self._states, self._seen_ns = None, (BEFORE_ANY, ()), -1

    @property
    def frames(self) -> int:
        """Images of each camera that ``encode`` looks at, one step apart."""
        return self.config.frames

    def _look_back(self, observation: Observation, epoch: int) -> None:
        """Shows the binding the older frames, where the observation has them; else it remembers its last encodes."""
        look = getattr(self.binding, "frames", None)
        if isinstance(look, FrameHistory):
            for images in observation.earlier_images:
                look([images.get(camera) for camera in self.config.cameras], epoch)

    @property
    def predicts(self) -> str:
        """What the network gives: 'velocity', 'epsilon', 'sample' or 'v'."""
        return self.binding.predicts

    def _quickened(self, guide: Guide | None) -> AbstractContextManager[Guide | None]:
        """Caches between the denoising steps of one chunk, where the policy asks for them."""
        return nullcontext(guide) if self.caching is None else self.caching.run(guide)

    def _sample(
        self, cache: object, noise: Tensor, states: Sequence[Tensor], guide: Guide | None, measured: np.ndarray
    ) -> Tensor:
        """Normalised actions (1, H, A), bent to what the robot can follow where the policy asks for it."""
        binding, tracking = self.binding, self.config.tracking
        if tracking is None:
            return binding.sample(cache, noise, states, guide)
        gradient = tracking.gradient(self.config.actions, measured, binding.lead)
        network = guided(binding.denoiser(cache, noise, states), guide)
        return tracked_sample(network, noise, binding, gradient, tracking.scale, tracking.repeats)

    def denoiser(self, observation: Observation, context: Context, noise: Tensor) -> Network:
        """Returns the unguided network at an observation: what ``act`` asks in every step.

        Args:
            noise: (1, H, A) start of the sampler.
        """
        states = self._remember(observation, context.epoch)
        network = self.binding.denoiser(self._cache(context), noise.to(self.binding.like), states)
        return lambda x, time: network(x.to(self.binding.like), time).to(x)

    def _drawing(self, noise: Tensor, start_ns: int, measured: np.ndarray) -> Drawing:
        actions = self.config.actions

        def to_network(chunk: ActionChunk) -> Tensor:
            values = chunk.actions[:, columns_of(chunk, actions.names, "previous chunk")]
            return torch.from_numpy(actions.to_network(values, measured)).to(noise)

        channels = torch.from_numpy(actions.mask).to(noise.device)
        bound, corruption, lead = actions.normaliser.bound, self.binding.corruption, self.binding.lead
        return Drawing(
            noise.clone(), corruption, self.predicts, start_ns, self.step_ns, lead, channels, bound, to_network
        )

    def _remember(self, observation: Observation, epoch: int) -> tuple[Tensor, ...]:
        """Returns the states of the last observations in this epoch, the newest last."""
        channels = self.config.states
        if channels is None:
            return ()
        if self._states[0] == epoch and self._seen_ns == observation.stamp_ns:
            return self._states[1]  # Another draw for the same observation.
        if observation.stamp_ns < self._seen_ns:
            self._states = (BEFORE_ANY, ())  # Time began anew.
        self._seen_ns = observation.stamp_ns
        values = gather(observation.positions, channels.names, "channel")
        now = torch.from_numpy(channels.to_network(values[None], values)[0]).to(self.binding.like)
        past_epoch, past = self._states
        self._states = (epoch, (*(past if past_epoch == epoch else ()), now)[-self.config.frames :])
        return self._states[1]

    def _cache(self, context: Context) -> object:
        """Conditions of a context, computed here only where another process made it."""
        newest = self._newest
        if newest is None or newest[0] is not context:
            newest = self._newest = (context, self._condition(context))
        return newest[1]

    def _condition(self, context: Context) -> object:
        missing = [name for name in self.binding.tensors if name not in context.tensors]
        if missing:
            raise PolicyError(f"The context lacks {', '.join(missing)}; it was made by another policy.")
        return self.binding.condition({n: torch.from_numpy(np.array(context.tensors[n])) for n in self.binding.tensors})

    def _prefix(self, observation: Observation, committed: ActionChunk | None) -> np.ndarray:
        """Committed actions in the robot's units, (committed, channels)."""
        names = self.config.actions.names
        if committed is None or not len(committed.actions):
            return np.zeros((0, len(names)))
        if committed.start_ns != observation.stamp_ns or committed.step_ns != self.step_ns:
            raise PolicyError("The committed prefix must start at the observation and have the policy's step.")
        if len(committed.actions) >= self.horizon:
            raise PolicyError(f"{len(committed.actions)} committed actions; allowed are less than {self.horizon}.")
        return committed.actions[:, columns_of(committed, names, "committed prefix")]

    def _guide(self, prefix: np.ndarray, measured: np.ndarray, noise: Tensor) -> Guide | None:
        if not len(prefix) or self.config.prefix == SPLICED:
            return None
        actions, lead = self.config.actions, self.binding.lead
        rows = slice(lead, lead + len(prefix))
        known, mask = torch.zeros_like(noise), torch.zeros_like(noise, dtype=torch.bool)
        known[0, rows] = torch.from_numpy(actions.to_network(prefix, measured)).to(noise)
        mask[0, rows] = torch.from_numpy(actions.mask).to(noise.device)
        if self.config.prefix == REAL_TIME:
            weights = mask[0].any(-1).to(noise)
            return lambda network: real_time(network, known, weights, jacobian="identity")
        return lambda network: inpainted(network, known, mask, noise, self.binding.corruption)


def _to_numpy(tensor: Tensor) -> np.ndarray:
    """Numpy has no bfloat16."""
    return (tensor if tensor.dtype == torch.bool else tensor.float()).cpu().numpy()
