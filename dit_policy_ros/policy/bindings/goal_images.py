"""MoDE, MDT and MDT-V: image encoders inside the checkpoint, and a goal that is a text embedding of CLIP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.bindings.binding import (
    Encoders,
    FamilyPolicyConfig,
    Images,
    all_of,
    blind,
    check_width,
    needed,
)
from dit_policy_ros.policy.encoder_decoder import MdtCache
from dit_policy_ros.policy.families.mdt import Mdt
from dit_policy_ros.policy.families.mdtv import MdtV
from dit_policy_ros.policy.families.mode import MoDe, MoDeCache
from dit_policy_ros.policy.guidance.classifier_free import Network
from dit_policy_ros.policy.guidance.prefix import edm_corruption
from dit_policy_ros.policy.guide import Guide


class GoalBinding:
    """What the three have in common: they see no proprioception and denoise at noise levels."""

    family: str
    lead = 0
    flow = False
    predicts = "sample"
    corruption = staticmethod(edm_corruption)
    diffusion = None
    alone = True

    def _join(self, network: MoDe | Mdt | MdtV, encoders: Encoders, config: FamilyPolicyConfig, goal: int) -> None:
        self.network = network
        self.config = config
        self.language = needed(encoders.language, "language", self.family)
        check_width(self.language.width, goal, "language embedding")
        check_width(config.actions.width, network.config.action_dim, "action vector")
        blind(config, self.family)
        self.horizon = network.config.horizon
        self.like = network.net.action_emb.weight

    def _check_cameras(self, wanted: Sequence[str]) -> None:
        got = self.config.cameras
        if len(got) != len(wanted):
            raise CheckpointError(
                f"This checkpoint has the image encoders {', '.join(wanted) or 'none'}; cameras are {', '.join(got)}. "
                "Name one camera for each, in this order."
            )

    def _goal(self, instruction: str) -> Tensor:
        """(1, 1, width)."""
        return self.language(instruction).tokens.mean(1, keepdim=True).to(self.like)

    def denoiser(self, cache: MdtCache | MoDeCache, noise: Tensor, states: Sequence[Tensor]) -> Network:
        """See ``Binding``."""
        return self.network.denoiser(cache)

    def sample(self, cache: MdtCache | MoDeCache, noise: Tensor, states: Sequence[Tensor], guide: Guide | None):
        """See ``Binding``."""
        return self.network.sample(cache, noise, self.config.steps, guide=guide)


class MoDeBinding(GoalBinding):
    """One camera for each FiLM ResNet of the checkpoint, in the order of its tokens."""

    family = "mode"
    tensors = ("observations", "goal")

    def __init__(self, network: MoDe, encoders: Encoders, config: FamilyPolicyConfig) -> None:
        """Joins them.

        Raises:
            CheckpointError: cameras, goal or channels are of another number or width.
        """
        self._join(network, encoders, config, network.config.goal_width)
        self.pixels = needed(encoders.pixels, "pixels", "mode")
        self._check_cameras(network.config.cameras)

    def look(self, images: Images, instruction: str, epoch: int) -> Mapping[str, Tensor]:
        """See ``Binding``."""
        goal, pixels = self._goal(instruction), self.pixels(all_of(images, self.config)).to(self.like)
        return {"observations": self.network.encode_images(pixels.split(1), goal[:, 0]), "goal": goal}

    def condition(self, tensors: Mapping[str, Tensor]) -> MoDeCache:
        """See ``Binding``. Everything before the actions is run at all noise levels already."""
        observations, goal = (tensors[name].to(self.like) for name in self.tensors)
        return self.network.encode(observations, goal, self.network.sigmas(self.config.steps))


class MdtBinding(GoalBinding):
    """Cameras: static, gripper."""

    family = "mdt"
    tensors = ("static", "gripper", "goal")

    def __init__(self, network: Mdt, encoders: Encoders, config: FamilyPolicyConfig) -> None:
        """Joins them.

        Raises:
            CheckpointError: cameras, goal or channels are of another number or width.
        """
        self._join(network, encoders, config, network.config.goal_widths[0])
        self.pixels = needed(encoders.pixels, "pixels", "mdt")
        self._check_cameras([name for name in ("static_resnet", "gripper_resnet") if hasattr(network, name)])

    def look(self, images: Images, instruction: str, epoch: int) -> Mapping[str, Tensor]:
        """See ``Binding``."""
        static, gripper = self.pixels(all_of(images, self.config)).to(self.like).split(1)
        tokens = self.network.encode_images(static, gripper)
        return {"static": tokens[0], "gripper": tokens[1], "goal": self._goal(instruction)}

    def condition(self, tensors: Mapping[str, Tensor]) -> MdtCache:
        """See ``Binding``."""
        return self.network.encode(*(tensors[name].to(self.like) for name in self.tensors))


class MdtVBinding(GoalBinding):
    """The tokens of a vision encoder, camera after camera, are resampled by the Perceiver of the checkpoint.

    The released checkpoints need the frozen Voltron encoder in its place.
    """

    family = "mdtv"
    tensors = ("observations", "goal")

    def __init__(self, network: MdtV, encoders: Encoders, config: FamilyPolicyConfig) -> None:
        """Joins them.

        Raises:
            CheckpointError: there is no Perceiver, or features, goal or channels are of another width.
        """
        self._join(network, encoders, config, network.config.goal_widths[0])
        self.vision = needed(encoders.vision, "vision", "mdtv")
        if not hasattr(network, "perceiver"):
            raise CheckpointError("This checkpoint of MDT-V has no Perceiver; convert the whole file of its release.")
        check_width(self.vision.width, network.perceiver.latents.shape[1], "image feature")

    def look(self, images: Images, instruction: str, epoch: int) -> Mapping[str, Tensor]:
        """See ``Binding``."""
        features = self.vision(all_of(images, self.config)).flatten(0, 1)[None].to(self.like)
        return {"observations": self.network.perceiver(features), "goal": self._goal(instruction)}

    def condition(self, tensors: Mapping[str, Tensor]) -> MdtCache:
        """See ``Binding``."""
        return self.network.encode(*(tensors[name].to(self.like) for name in self.tensors))
