"""The denoiser that MDT and MDT-V share: an encoder reads goal and observations, a decoder denoises the actions.

Same function as https://github.com/intuitive-robots/mdt_policy. Cross-attention is causal, counted from the first
action and the first context token: action j sees tokens 0..j. How the noise level enters is up to the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.causal_blocks import Stack
from dit_policy_ros.policy.foresight import Foresight
from dit_policy_ros.policy.guide import Guide, guided
from dit_policy_ros.policy.layers import KeysValues, adapter, adapter_widths, sinusoid
from dit_policy_ros.policy.preconditioning import batch_scalings, levels, network_target
from dit_policy_ros.policy.samplers import edm_ddim
from dit_policy_ros.policy.schedules import exponential_sigmas
from dit_policy_ros.policy.shaped import checked_heads, count
from dit_policy_ros.policy.weights import Shapes

NET = "model.inner_model."
STORED_FREQUENCIES = ".rotary_pos_emb.freqs"


@dataclass(frozen=True)
class MdtConfig:
    """Sizes from the parameters, and what the official configuration adds to them."""

    width: int
    encoder_depth: int
    decoder_depth: int
    mlp_hidden: int
    bias: bool
    """Of norms, output projections and feed-forwards; other layers always have one."""
    goal_widths: tuple[int, ...]
    """Of a goal embedding: one linear, or two with GELU between."""
    out_widths: tuple[int, ...]
    """Of the action head, likewise."""
    proprio_widths: tuple[int, ...] | None
    observation_width: int
    action_dim: int
    positions: int | None
    shapes: Shapes
    """All parameters, for the encoders and training heads beside the denoiser."""
    heads: int
    noise: str
    """How the decoder learns the noise level: 'adaptive' norms, 'added' to every layer, or from the 'context'."""
    rotary: bool
    goal_tokens: int
    perceiver_heads: int = 8
    paint_heads: int = 8
    mask_ratio: float = 0.75
    sigma_data: float = 0.5
    sigma_min: float = 0.001
    sigma_max: float = 80.0
    steps: int = 10
    horizon: int = 10


def configure(settings: Mapping[str, Any], shapes: Shapes) -> MdtConfig:
    """Returns the configuration from the official settings (may be empty) and the parameter shapes.

    Raises:
        CheckpointError: an option that is not known.
    """
    inner, paint = settings.get("inner_model", settings), settings.get("foresight", {})
    net = {name[len(NET) :]: shape for name, shape in shapes.items() if name.startswith(NET)}
    if inner.get("rotary_xpos", False):
        raise CheckpointError("MDT with rotary_xpos = True is not known; only False is.")
    width = net["encoder.ln.weight"][0]
    out_widths, has_proprio = adapter_widths(net, "action_pred"), "proprio_emb.0.weight" in net
    stored, goal_tokens = any(name.endswith(STORED_FREQUENCIES) for name in net), inner.get("goal_seq_len", 1)
    positions = _positions(inner, net) if "incam_embed.weight" in net else None
    adaptive = f"{NET}decoder.blocks.0.adaLN_zero.modulation.1.weight" in shapes
    added = inner.get("use_ada_conditioning", False) and inner.get("use_noise_encoder", False)
    return MdtConfig(
        width=width,
        encoder_depth=count(net, "encoder.blocks."),
        decoder_depth=count(net, "decoder.blocks."),
        mlp_hidden=net["encoder.blocks.0.mlp.c_fc.weight"][0],
        bias="encoder.ln.bias" in net,
        goal_widths=(*adapter_widths(net, "goal_emb")[:-1], width),
        out_widths=(width, *out_widths[1:]),
        proprio_widths=(*adapter_widths(net, "proprio_emb")[:-1], width) if has_proprio else None,
        observation_width=net["tok_emb.weight"][1],
        action_dim=out_widths[-1],
        positions=positions,
        shapes=shapes,
        heads=checked_heads(inner.get("n_heads", 8), width),
        noise="adaptive" if adaptive else "added" if added else "context",
        rotary=stored or inner.get("use_rot_embed", False),
        goal_tokens=goal_tokens,
        perceiver_heads=settings.get("perceiver", {}).get("heads", 8),
        paint_heads=paint.get("decoder_n_heads", 8),
        mask_ratio=paint.get("mask_ratio", 0.75),
        sigma_data=settings.get("sigma_data", 0.5),
        sigma_min=settings.get("sigma_min", 0.001),
        sigma_max=settings.get("sigma_max", 80.0),
        steps=settings.get("num_sampling_steps", 10),
        horizon=inner.get("action_seq_len", positions - goal_tokens if positions else 10),
    )


def _positions(inner: Mapping[str, Any], net: Shapes) -> int | None:
    return net["pos_emb"][1] if inner.get("use_abs_pos_emb", True) else None


@dataclass(frozen=True)
class MdtCache:
    """Everything that depends on goal and cameras alone."""

    tokens: Tensor
    """(B, L, D) what the encoder reads, without the noise token."""
    context: Tensor | None
    """(B, L, D) what it writes; None where that depends on the noise level."""
    keys_values: tuple[KeysValues, ...] | None
    """Of the context in every cross-attention, each (B, heads, L, head_dim)."""


class Transformer(nn.Module):
    """The parameters under ``model.inner_model.`` in a checkpoint."""

    def __init__(self, c: MdtConfig) -> None:
        super().__init__()
        width = c.width
        # The sinusoid has place 0 in the official sequence; it holds no parameters.
        layers = (nn.Identity(), nn.Linear(width, 2 * width), nn.Mish(), nn.Linear(2 * width, width))
        self.sigma_emb = nn.Sequential(*layers)
        self.tok_emb = nn.Linear(c.observation_width, width)
        self.goal_emb = adapter(c.goal_widths, nn.GELU)
        self.action_emb = nn.Linear(c.action_dim, width)
        self.action_pred = adapter(c.out_widths, nn.GELU)
        if _has(c, "lang_emb."):
            self.lang_emb = adapter(c.goal_widths, nn.GELU)
        if _has(c, "incam_embed."):
            self.incam_embed = nn.Linear(c.observation_width, width)
        if c.proprio_widths:
            self.proprio_emb = adapter(c.proprio_widths, nn.Mish)
        if c.positions:
            self.pos_emb = nn.Parameter(torch.zeros(1, c.positions, width))
        self.encoder = Stack(c, c.encoder_depth, cross=False)
        self.decoder = Stack(c, c.decoder_depth, cross=True)


def _has(c: MdtConfig, name: str) -> bool:
    return any(each.startswith(NET + name) for each in c.shapes)


class EncoderDecoder(nn.Module):
    """What MDT and MDT-V have in common: everything behind the tokens of goal and cameras."""

    def __init__(self, config: MdtConfig) -> None:
        super().__init__()
        self.config = config
        self.model = nn.ModuleDict({"inner_model": Transformer(config)})
        c = config
        if any(name.startswith("gen_img.") for name in c.shapes):
            self.gen_img = Foresight(c.shapes, "gen_img.", c.width, c.paint_heads, c.mask_ratio)
        modules = dict(self.named_modules())
        for name in c.shapes:
            owner = modules.get(name.removesuffix(STORED_FREQUENCIES))
            if name.endswith(STORED_FREQUENCIES) and owner is not None:
                owner.rotary_pos_emb = nn.ParameterDict({"freqs": torch.zeros(c.shapes[name])})
        if "logit_scale" in c.shapes:
            self.logit_scale = nn.Parameter(torch.zeros(()))

    @property
    def net(self) -> Transformer:
        """The denoising network."""
        return self.model["inner_model"]

    def noise_token(self, sigma: Tensor) -> Tensor:
        """(B,) noise levels -> (B, 1, D)."""
        width = self.net.sigma_emb[1].in_features
        features = sinusoid(sigma.log() / 4, width, divisor=width // 2 - 1, sines_first=True)
        return self.net.sigma_emb(features.to(self.net.sigma_emb[1].weight.dtype))[:, None]

    def context(self, tokens: Tensor, sigma: Tensor | float | None = None) -> Tensor:
        """Returns the encoder's output (B, L, D); the level counts where the decoder learns it from the context."""
        if self.config.noise == "context":
            tokens = torch.cat([self.noise_token(levels(sigma, tokens)), tokens], dim=1)
        for block in self.net.encoder.blocks:
            tokens = block.encode(tokens)
        return self.net.encoder.ln(tokens)

    def _keys_values(self, context: Tensor) -> tuple[KeysValues, ...]:
        return tuple(block.cross_att.keys_values(context) for block in self.net.decoder.blocks)

    def encode_tokens(self, tokens: Tensor) -> MdtCache:
        """Runs the encoder on the tokens of goal and cameras (B, L, D), where it does not need the noise level."""
        if self.config.noise == "context":
            return MdtCache(tokens, None, None)
        context = self.context(tokens)
        return MdtCache(tokens, context, self._keys_values(context))

    def network(self, cache: MdtCache, x: Tensor, sigma: Tensor) -> Tensor:
        """Raw network output (B, H, A) for scaled noisy actions at (B,) noise levels."""
        memories = cache.keys_values or self._keys_values(self.context(cache.tokens, sigma))
        noise = self.noise_token(sigma)
        x = self.net.action_emb(x)  # (B, H, D)
        for block, memory in zip(self.net.decoder.blocks, memories, strict=True):
            x = block(x, memory, noise)
        return self.net.action_pred(self.net.decoder.ln(x))

    def forward(self, cache: MdtCache, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Returns the clean actions that the network sees in noisy ones.

        Args:
            x: (B, H, A) actions plus sigma times noise.
            sigma: noise level, (B,) or one for all.
        """
        sigma = levels(sigma, x)
        scalings = batch_scalings(sigma, self.config.sigma_data, x.dtype)
        return scalings.skip * x + scalings.out * self.network(cache, scalings.into * x, sigma)

    denoise = nn.Module.__call__

    def sigmas(self, steps: int | None = None) -> tuple[float, ...]:
        """Returns the noise levels of sampling, the last one 0."""
        c = self.config
        return exponential_sigmas(steps or c.steps, c.sigma_min, c.sigma_max)

    def sample(
        self,
        cache: MdtCache,
        noise: Tensor,
        steps: int | None = None,
        sigmas: Sequence[float] | None = None,
        guide: Guide | None = None,
    ) -> Tensor:
        """Returns actions (B, H, A) from standard normal noise of that shape.

        Args:
            sigmas: noise levels instead of those of ``steps``, descending, the last one 0.
        """
        sigmas = self.sigmas(steps) if sigmas is None else sigmas
        return edm_ddim(guided(partial(self, cache), guide), noise * sigmas[0], sigmas)

    def loss(self, cache: MdtCache, actions: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Returns the squared error of the raw network output at (B,) noise levels."""
        noisy = actions + sigma[:, None, None] * noise
        scalings = batch_scalings(sigma, self.config.sigma_data, noisy.dtype)
        output = self.network(cache, scalings.into * noisy, sigma)
        return F.mse_loss(output, network_target(actions, noisy, scalings))

    def contrast(self, image: Tensor, language: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the cross entropies of pooled contexts (N, D) of the same scenes, by image and by language row."""
        image, language = F.normalize(image, dim=-1), F.normalize(language, dim=-1)
        logits = self.logit_scale.exp() * image @ language.T
        own = torch.arange(len(image), device=image.device)
        return F.cross_entropy(logits, own), F.cross_entropy(logits.T, own)
