"""The denoiser that MDT and MDT-V share: an encoder reads goal and observations, a decoder denoises the actions.

Same function as https://github.com/intuitive-robots/mdt_policy. Cross-attention is causal, counted from the first
action and the first context token: action j sees tokens 0..j. How the noise level enters is up to the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_policy_ros.policy.adaptive import modulation
from dit_policy_ros.policy.attention import causal_mask, rotate
from dit_policy_ros.policy.foresight import Foresight
from dit_policy_ros.policy.layers import KeysValues, adapter, adapter_widths, attend, sinusoid, split_heads
from dit_policy_ros.policy.preconditioning import batch_scalings, levels, network_target
from dit_policy_ros.policy.samplers import edm_ddim
from dit_policy_ros.policy.schedules import exponential_sigmas
from dit_policy_ros.policy.shaped import checked_heads, count
from dit_policy_ros.policy.weights import Shapes

NET = "model.inner_model."
ROTARY_FEATURES = 32
ROTARY_BASE = 10_000.0
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


def configure(settings: Mapping[str, Any], shapes: Shapes) -> MdtConfig:
    """Returns the configuration from the official settings (may be empty) and the parameter shapes."""
    inner, paint = settings.get("inner_model", settings), settings.get("foresight", {})
    net = {name[len(NET) :]: shape for name, shape in shapes.items() if name.startswith(NET)}
    width = net["encoder.ln.weight"][0]
    out_widths, has_proprio = adapter_widths(net, "action_pred"), "proprio_emb.0.weight" in net
    stored = any(name.endswith(STORED_FREQUENCIES) for name in net)
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
        positions=net["pos_emb"][1] if "incam_embed.weight" in net else None,
        shapes=shapes,
        heads=checked_heads(inner.get("n_heads", 8), width),
        noise="adaptive" if adaptive else "added" if added else "context",
        rotary=stored or inner.get("use_rot_embed", False),
        goal_tokens=inner.get("goal_seq_len", 1),
        perceiver_heads=settings.get("perceiver", {}).get("heads", 8),
        paint_heads=paint.get("decoder_n_heads", 8),
        mask_ratio=paint.get("mask_ratio", 0.75),
        sigma_data=settings.get("sigma_data", 0.5),
        sigma_min=settings.get("sigma_min", 0.001),
        sigma_max=settings.get("sigma_max", 80.0),
        steps=settings.get("num_sampling_steps", 10),
    )


@dataclass(frozen=True)
class MdtCache:
    """Everything that depends on goal and cameras alone."""

    tokens: Tensor
    """(B, L, D) what the encoder reads, without the noise token."""
    context: Tensor | None
    """(B, L, D) what it writes; None where that depends on the noise level."""
    keys_values: tuple[KeysValues, ...] | None
    """Of the context in every cross-attention, each (B, heads, L, head_dim)."""


class Attention(nn.Module):
    """Attention with separate projections; rotary on the first features of each head where the checkpoint has it."""

    def __init__(self, c: MdtConfig) -> None:
        super().__init__()
        self.heads, self.rotary = c.heads, c.rotary
        self.query, self.key, self.value = (nn.Linear(c.width, c.width) for _ in range(3))
        self.c_proj = nn.Linear(c.width, c.width, bias=c.bias)

    def _turned(self, x: Tensor) -> Tensor:
        if not self.rotary:
            return x
        if hasattr(self, "rotary_pos_emb"):
            return rotate(x, self.rotary_pos_emb["freqs"], interleaved=True)
        i = torch.arange(0, ROTARY_FEATURES, 2, device=x.device, dtype=torch.float32)
        return rotate(x, ROTARY_BASE ** (-i / ROTARY_FEATURES), interleaved=True)

    def keys_values(self, context: Tensor) -> KeysValues:
        """(B, L, D) -> each (B, heads, L, head_dim)."""
        keys, values = (split_heads(layer(context), self.heads) for layer in (self.key, self.value))
        return self._turned(keys), values

    def forward(self, x: Tensor, keys_values: KeysValues | None = None, causal: bool = True) -> Tensor:
        """Attends from x (B, N, D) to ready keys and values, or to x itself without them."""
        query = self._turned(split_heads(self.query(x), self.heads))
        keys, values = keys_values or self.keys_values(x)
        mask = causal_mask(query.shape[2], keys.shape[2], x.device) if causal else None
        return self.c_proj(attend(query, (keys, values), mask))


class FeedForward(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, c: MdtConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(c.width, c.mlp_hidden, bias=c.bias)
        self.c_proj = nn.Linear(c.mlp_hidden, c.width, bias=c.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.c_proj(F.gelu(self.c_fc(x)))


class Block(nn.Module):
    """Self-attention, cross-attention in a decoder, feed-forward; each after a norm and added."""

    def __init__(self, c: MdtConfig, cross: bool) -> None:
        super().__init__()
        self.noise = c.noise
        self.ln_1 = nn.LayerNorm(c.width, bias=c.bias)
        self.attn = Attention(c)
        self.ln_2 = nn.LayerNorm(c.width, bias=c.bias)
        self.mlp = FeedForward(c)
        if cross:
            self.cross_att = Attention(c)
            self.ln3 = nn.LayerNorm(c.width)
        if cross and c.noise == "adaptive":
            self.adaLN_zero = nn.ModuleDict({"modulation": modulation(c.width, c.width, 6)})

    def encode(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D) in the encoder, which is not causal."""
        x = x + self.attn(self.ln_1(x), causal=False)
        return x + self.mlp(self.ln_2(x))

    def forward(self, x: Tensor, context: KeysValues, noise: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D) in the decoder; the noise embedding is (B, 1, D)."""
        if self.noise == "adaptive":
            vectors = self.adaLN_zero["modulation"](noise)
            shift1, scale1, gate1, shift2, scale2, gate2 = vectors.chunk(6, dim=-1)  # (B, 1, D) each
            # The official modulation has no ``1 +`` before the scale.
            x = x + gate1 * self.attn(shift1 + scale1 * self.ln_1(x))
            x = x + self.cross_att(self.ln3(x), context)
            return x + gate2 * self.mlp(shift2 + scale2 * self.ln_2(x))
        added = noise if self.noise == "added" else 0.0
        x = x + self.attn(self.ln_1(x) + added)
        x = x + self.cross_att(self.ln3(x) + added, context)
        return x + self.mlp(self.ln_2(x))


class Stack(nn.Module):
    """Blocks and a last norm."""

    def __init__(self, c: MdtConfig, depth: int, cross: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(c, cross) for _ in range(depth))
        self.ln = nn.LayerNorm(c.width, bias=c.bias)


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

    def sample(self, cache: MdtCache, noise: Tensor, steps: int | None = None) -> Tensor:
        """Returns actions (B, H, A) from standard normal noise of that shape."""
        sigmas = self.sigmas(steps)
        return edm_ddim(lambda x, sigma: self(cache, x, sigma), noise * sigmas[0], sigmas)

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
