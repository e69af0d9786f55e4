"""PAD, the denoiser of "Prediction with Action: Visual Policy Learning via Joint Denoising Process".

Same function as https://github.com/Robert-gyj/Prediction_with_Action. Future latents, actions and, where the checkpoint
has them, future depth maps are denoised together, with one diffusion step and learned variances. ``encode`` embeds the
text and the current image, pose and depth, whose share of every token does not change over the steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.adaptive import AdaptiveBlock, modulation, plain_norm
from dit_policy_ros.policy.corruption import diffused
from dit_policy_ros.policy.guide import Guide, guided_actions
from dit_policy_ros.policy.layers import TimestepEmbedder, gelu_tanh, modulate
from dit_policy_ros.policy.modalities import ACTION, DEPTH, EMBEDDERS, IMAGE, POSITIONS, PadSample, Part
from dit_policy_ros.policy.pad_config import PadConfig, configure
from dit_policy_ros.policy.patches import unpatched
from dit_policy_ros.policy.samplers import ddpm
from dit_policy_ros.policy.schedules import NoiseSchedule, linspace
from dit_policy_ros.policy.schedules import linear as linear_schedule
from dit_policy_ros.policy.variational import Chain
from dit_policy_ros.policy.weights import Shapes

__all__ = ["PREFIXES", "Pad", "PadCache", "PadConfig", "PadLoss", "build", "configure", "detect"]

PREFIXES = ("", "model.")


def detect(shapes: Shapes) -> bool:
    """Returns whether these parameters are a PAD."""
    images = {"x_embedder.proj.weight", "final_layer.linear.weight", "pos_embed"} <= shapes.keys()
    return images and ("final_layer.a_linear.weight" in shapes or "y_embedder.embedding_table.bias" in shapes)


def build(config: PadConfig) -> Pad:
    """Returns the network with fresh parameters."""
    return Pad(config)


@dataclass(frozen=True)
class PadCache:
    """Everything that depends on text and current observation alone."""

    text: Tensor | None
    """(B, D)."""
    known: Mapping[str, Tensor]
    """Modality to the share of its tokens that the current observation makes, with positions, (B or 1, N, D)."""


class PadLoss(NamedTuple):
    """The loss of training of one modality, (B,) each."""

    error: Tensor
    """Mean squared error of the noise."""
    bound: Tensor
    """Variational term, bits."""


class FinalLayer(nn.Module):
    """For each modality its own modulated norm and linear."""

    def __init__(self, c: PadConfig) -> None:
        super().__init__()
        for part in c.parts:
            self.add_module(f"{part.name}adaLN_modulation", modulation(c.hidden, c.hidden, 2))
            self.add_module(f"{part.name}linear", nn.Linear(c.hidden, part.outputs))

    def forward(self, x: Tensor, condition: Tensor, modality: str) -> Tensor:
        """(B, N, D) -> (B, N, outputs)."""
        shift, scale = getattr(self, f"{modality}adaLN_modulation")(condition).chunk(2, dim=-1)
        return getattr(self, f"{modality}linear")(modulate(plain_norm(x), shift, scale))


class Pad(nn.Module):
    """The denoiser. Text is a pooled embedding of CLIP; latents are 0.18215 times those of Stable Diffusion."""

    def __init__(self, config: PadConfig) -> None:
        super().__init__()
        self.config = config
        c, hidden = config, config.hidden
        self.t_embedder = TimestepEmbedder(hidden, c.time_width)
        if c.text_width:
            self.y_embedder = nn.ModuleDict({"embedding_table": nn.Linear(c.text_width, hidden)})
        for part in c.parts:
            if part.name == ACTION:
                self.add_module(EMBEDDERS[ACTION], nn.Linear(part.inputs, hidden))
            else:
                proj = nn.Conv2d(part.inputs, hidden, part.patch, part.patch)
                self.add_module(EMBEDDERS[part.name], nn.ModuleDict({"proj": proj}))
            self.register_parameter(POSITIONS[part.name], nn.Parameter(torch.zeros(1, part.positions, hidden)))
        self.blocks = nn.ModuleList(
            AdaptiveBlock(hidden, c.heads, c.mlp_hidden, hidden, gelu_tanh()) for _ in range(c.depth)
        )
        self.final_layer = FinalLayer(c)

    @property
    def schedule(self) -> NoiseSchedule:
        """Corruption of all modalities."""
        return linear_schedule(self.config.train_steps, *self.config.betas, single_precision=False)

    def _embed(self, part: Part, values: Tensor, known: bool) -> Tensor:
        """Linear embedding by the first columns (what is denoised) or the others (what is known), without bias."""
        weight, _ = self._embedder(part)
        weight = weight[:, part.moving :] if known else weight[:, : part.moving]
        if part.name == ACTION:
            return F.linear(values, weight)  # (B, N, D)
        return F.conv2d(values, weight, stride=part.patch).flatten(2).transpose(1, 2)

    def _embedder(self, part: Part) -> tuple[Tensor, Tensor]:
        layer = getattr(self, EMBEDDERS[part.name])
        layer = layer if part.name == ACTION else layer["proj"]
        return layer.weight, layer.bias

    def text(self, text: Tensor) -> Tensor:
        """(B, 512) -> (B, D)."""
        return self.y_embedder["embedding_table"](text)

    def encode(
        self, text: Tensor | None, latent: Tensor, pose: Tensor | None = None, depth: Tensor | None = None
    ) -> PadCache:
        """Embeds what is known.

        Args:
            text: (B, 512), where the checkpoint takes one.
            latent: (B, 4, h, w) of the current image.
            pose: (B, 1, width) of the robot, where the checkpoint is conditioned on it.
            depth: (B, 1, H, W) current depth map, where the checkpoint has depth.

        Raises:
            PolicyError: something that the checkpoint takes is absent.
        """
        given = {IMAGE: latent, ACTION: pose, DEPTH: depth}
        known = {}
        for part in self.config.parts:
            own = getattr(self, POSITIONS[part.name]) + self._embedder(part)[1]  # (1, N, D)
            if part.inputs > part.moving:
                if given[part.name] is None:
                    what = {ACTION: "pose", DEPTH: "depth map"}[part.name]
                    raise PolicyError(f"This checkpoint of PAD is conditioned on the current {what}; there is none.")
                own = own + self._embed(part, given[part.name], known=True)
            known[part.name] = own
        return PadCache(self.text(text) if text is not None and self.config.text_width else None, known)

    def posed(self, cache: PadCache, pose: Tensor) -> PadCache:
        """Returns the cache of another pose (B, 1, width); nothing else is embedded again."""
        part = next(part for part in self.config.parts if part.name == ACTION)
        own = getattr(self, POSITIONS[ACTION]) + self._embedder(part)[1] + self._embed(part, pose, known=True)
        return replace(cache, known={**cache.known, ACTION: own})

    def _mask(self, images: int, tokens: int, device: torch.device) -> Tensor | None:
        if not self.config.image_apart:
            return None
        mask = torch.ones(tokens, tokens, dtype=torch.bool, device=device)
        mask[:images, images:] = False
        return mask[None, None]

    def forward(self, cache: PadCache, x: PadSample, t: Tensor | int) -> PadSample:
        """One evaluation of the network: every part with twice the channels, noise before variance values.

        Args:
            t: diffusion step of the full chain, (B,) or one for all.
        """
        steps = torch.as_tensor(t, device=x.latent.device).expand(len(x.latent))
        condition = self.t_embedder(steps)  # (B, D)
        condition = condition if cache.text is None else condition + cache.text
        parts = self.config.parts
        embedded = [self._embed(part, x.of(part.name), known=False) + cache.known[part.name] for part in parts]
        tokens = torch.cat(embedded, dim=1)  # (B, N, D)
        mask = self._mask(embedded[0].shape[1], tokens.shape[1], tokens.device)
        for block in self.blocks:
            tokens = block(tokens, block.adaLN_modulation(condition), mask)
        pieces = tokens.split([each.shape[1] for each in embedded], dim=1)
        outputs = {}
        for part, piece in zip(parts, pieces, strict=True):
            out = self.final_layer(piece, condition, part.name)
            outputs[part.name] = out if part.name == ACTION else unpatched(out, part.patch, x.of(part.name).shape)
        return PadSample(outputs[IMAGE], outputs.get(ACTION), outputs.get(DEPTH))

    denoise = nn.Module.__call__

    def grid(self, steps: int | None = None) -> tuple[int, ...]:
        """Returns the diffusion steps of the respaced chain."""
        return linspace(self.config.train_steps, steps or self.config.steps)

    def sample(
        self,
        cache: PadCache,
        noise: PadSample,
        step_noise: Tensor | None = None,
        steps: int | None = None,
        guide: Guide | None = None,
        generator: torch.Generator | None = None,
    ) -> PadSample:
        """Returns future latents, actions and depth from standard normal noise of their shapes.

        Args:
            step_noise: (draws, B, all values), packed as ``PadSample.packed`` does; None draws from ``generator``.
            steps: length of the respaced chain.
            guide: of the actions, in the shape in which the network takes them.
        """

        def denoiser(x: Tensor, step: int) -> tuple[Tensor, Tensor]:
            sample = noise.unpacked(x)

            def network(action: Tensor | None, step: int) -> tuple[Tensor | None, tuple[PadSample, PadSample]]:
                halves = self(cache, sample._replace(action=action), step).halves()
                return halves[0].action, halves

            action, (predicted, values) = guided_actions(network, guide)(sample.action, step)
            return predicted._replace(action=action).packed(), values.packed()

        draws = {"step_noise": step_noise, "generator": generator}
        start = noise.packed()
        return noise.unpacked(ddpm(denoiser, start, self.grid(steps), self.schedule, variance="learned", **draws))

    def loss(self, cache: PadCache, clean: PadSample, noise: PadSample, t: Tensor) -> list[PadLoss]:
        """Returns the loss of every modality at (B,) steps of the full chain: its parts are to be added."""
        schedule = self.schedule
        chain = Chain.respaced(schedule, range(schedule.steps))
        noisy = clean.like(diffused(a, n, t, schedule) for a, n in zip(clean, noise, strict=True) if a is not None)
        predicted, values = self(cache, noisy, t).halves()
        losses = []
        for a, x, n, p, v in zip(clean, noisy, noise, predicted, values, strict=True):
            if a is not None:
                losses.append(PadLoss((p - n).square().flatten(1).mean(1), chain.bound(a, x, t, p, v)))
        return losses
