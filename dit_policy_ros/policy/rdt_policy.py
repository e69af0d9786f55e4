"""RDT behind the ``Policy`` port: encoders, unified action space, and one projection of the conditions per context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dit_policy_ros.actions.normalise import Normaliser
from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.encoders.language import LanguageFeatures
from dit_policy_ros.policy.encoders.pixels import in_order
from dit_policy_ros.policy.encoders.vision import one_sequence
from dit_policy_ros.policy.families.rdt import Rdt, RdtCache
from dit_policy_ros.policy.guidance.prefix import diffusion_corruption, inpainted
from dit_policy_ros.policy.guide import Guide
from dit_policy_ros.space import SIZE, SlotMap, gather
from dit_policy_ros.types import NS_PER_S, ActionChunk, Context, Observation

TENSORS = ("lang_tokens", "lang_mask", "img_tokens")

Vision = Callable[[Sequence[np.ndarray | None]], Tensor]
"""From N images, None where a camera is missing, to features (N, patches, width): a ``VisionTower``."""

Language = Callable[[str], LanguageFeatures]
"""A ``T5Encoder`` or ``LanguageFile``."""


@dataclass(frozen=True)
class RdtPolicyConfig:
    """What a robot is to an RDT."""

    slots: SlotMap
    """Joints of the robot and where they are in the unified space; ``RobotSpec.slots``."""
    cameras: tuple[str, ...]
    """In the order of training: exterior, right wrist, left wrist."""
    states: Normaliser
    """Of the joints; identity but for grippers."""
    actions: Normaliser
    frames: int = 2
    """Images of each camera, the oldest first; one ``encode`` after the other provides them."""
    control_hz: int = 25
    steps: int | None = None
    """Of the solver; None takes the checkpoint's."""


class RdtPolicy:
    """Implements ``types.Policy``. A missing camera becomes the mean colour, as in the official deployment."""

    def __init__(self, config: RdtPolicyConfig, network: Rdt, vision: Vision, language: Language) -> None:
        if network.config.action_dim != SIZE:
            raise PolicyError(f"This RDT acts in {network.config.action_dim} slots; the unified space has {SIZE}.")
        self.config = config
        self.network = network
        self.vision = vision
        self.language = language
        self._past: tuple[int, tuple[Tensor, ...]] = (-1, ())
        """Epoch, and the image features of the last frames in it."""
        self._newest: tuple[Context, RdtCache] | None = None
        self._absent: Tensor | None = None

    @property
    def horizon(self) -> int:
        """Number of actions in a chunk."""
        return self.network.config.horizon

    @property
    def step_ns(self) -> int:
        """Time between two actions, [ns]."""
        return NS_PER_S // self.config.control_hz

    @property
    def slow_cameras(self) -> tuple[str, ...]:
        """Cameras that ``encode`` looks at."""
        return self.config.cameras

    @property
    def fast_cameras(self) -> tuple[str, ...]:
        """None: RDT acts on joint positions alone between two contexts."""
        return ()

    @torch.inference_mode()
    def encode(self, observation: Observation, instruction: str, epoch: int = 0) -> Context:
        """System 2; see ``types.Policy``. Keys and values stay here, the features travel in the context.

        Raises:
            PolicyError: no camera at all is in the observation, or features do not fit the network.
        """
        if not any(camera in observation.images for camera in self.config.cameras):
            raise PolicyError(f"None of the cameras {', '.join(self.config.cameras)} is in the observation.")
        words = self.language(instruction)
        tensors = {"lang_tokens": words.tokens, "lang_mask": words.mask, "img_tokens": self._look(observation, epoch)}
        stamps = [observation.image_stamps_ns.get(camera, observation.stamp_ns) for camera in self.config.cameras]
        arrays = {name: _to_numpy(tensor) for name, tensor in tensors.items()}
        context = Context(min(stamps), instruction, epoch, arrays)
        self._newest = (context, self._project(context))
        return context

    @torch.inference_mode()
    def act(self, observation: Observation, context: Context, committed: ActionChunk | None = None) -> ActionChunk:
        """System 1; see ``types.Policy``. Committed actions are painted into the sample at every step."""
        config, weights = self.config, self.network.model.x_pos_embed
        names = config.slots.names
        prefix = self._prefix(observation, committed)
        state = config.states.normalise(gather(observation.positions, names))
        unified = torch.from_numpy(config.slots.to_unified(state)).to(weights)[None, None]  # (1, 1, 128)
        mask = torch.from_numpy(config.slots.mask).to(weights)[None, None]  # (1, 1, 128)
        generator = torch.Generator().manual_seed(observation.stamp_ns % 2**63)
        noise = torch.randn(1, self.horizon, SIZE, generator=generator).to(weights)
        sample = self.network.sample(
            self._cache(context),
            noise,
            unified,
            mask,
            torch.tensor([config.control_hz], device=weights.device),
            config.steps,
            self._guide(prefix, noise),
        )
        actions = config.actions.restore(config.slots.from_unified(sample[0].float().cpu().double().numpy()))
        if not np.isfinite(actions).all():
            raise PolicyError("The network gave actions that are not finite; the checkpoint is damaged.")
        actions[: len(prefix)] = prefix
        return ActionChunk(
            names=names,
            start_ns=observation.stamp_ns,
            step_ns=self.step_ns,
            actions=actions,
            observation_ns=observation.stamp_ns,
            context_ns=context.stamp_ns,
            epoch=context.epoch,
            committed=len(prefix),
        )

    def _look(self, observation: Observation, epoch: int) -> Tensor:
        """Image tokens of the last frames, (1, frames * cameras * patches, width); each image is encoded once."""
        now = self.vision(in_order([observation.images], self.config.cameras, 1))  # (cameras, patches, width)
        past_epoch, past = self._past
        history = (*(past if past_epoch == epoch else ()), now)[-self.config.frames :]
        self._past = (epoch, history)
        if self._absent is None:
            self._absent = self.vision([None])
        missing = self.config.frames - len(history)
        return one_sequence(torch.cat([*[self._absent.expand_as(now)] * missing, *history]))

    def _cache(self, context: Context) -> RdtCache:
        """Keys and values of a context, projected here only where another process made it."""
        newest = self._newest
        if newest is None or newest[0] is not context:
            newest = self._newest = (context, self._project(context))
        return newest[1]

    def _project(self, context: Context) -> RdtCache:
        missing = [name for name in TENSORS if name not in context.tensors]
        if missing:
            raise PolicyError(f"The context lacks {', '.join(missing)}; it was made by another policy.")
        weights = self.network.model.x_pos_embed
        lang, mask, img = (torch.from_numpy(np.array(context.tensors[name])) for name in TENSORS)
        return self.network.encode(lang.to(weights), img.to(weights), mask.to(weights.device))

    def _prefix(self, observation: Observation, committed: ActionChunk | None) -> np.ndarray:
        """Committed actions in the robot's units, (committed, joints)."""
        names = self.config.slots.names
        if committed is None or not len(committed.actions):
            return np.zeros((0, len(names)))
        if committed.start_ns != observation.stamp_ns or committed.step_ns != self.step_ns:
            raise PolicyError("The committed prefix must start at the observation and have the policy's step.")
        if len(committed.actions) >= self.horizon:
            raise PolicyError(f"{len(committed.actions)} committed actions; allowed are less than {self.horizon}.")
        columns = {name: i for i, name in enumerate(committed.names)}
        missing = [name for name in names if name not in columns]
        if missing:
            raise PolicyError(f"The committed prefix lacks {', '.join(missing)}.")
        return committed.actions[:, [columns[name] for name in names]]

    def _guide(self, prefix: np.ndarray, noise: Tensor) -> Guide | None:
        if not len(prefix):
            return None
        slots = self.config.slots
        known, mask = torch.zeros_like(noise), torch.zeros_like(noise, dtype=torch.bool)
        known[0, : len(prefix)] = torch.from_numpy(slots.to_unified(self.config.actions.normalise(prefix))).to(noise)
        mask[0, : len(prefix)] = torch.from_numpy(slots.mask).to(noise.device)
        corruption = diffusion_corruption(self.network.schedule)
        return lambda network: inpainted(network, known, mask, noise, corruption)


def _to_numpy(tensor: Tensor) -> np.ndarray:
    """Numpy has no bfloat16."""
    return (tensor if tensor.dtype == torch.bool else tensor.float()).cpu().numpy()
