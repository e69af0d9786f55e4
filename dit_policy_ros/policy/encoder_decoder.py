"""The denoiser that MDT and MDT-V share: an encoder reads goal and observations, a decoder denoises the actions.

Same function as https://github.com/intuitive-robots/mdt_policy. Cross-attention is causal, counted from the first
action and the first context token: action j sees tokens 0..j. How the noise level enters is up to the checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_policy_ros.policy.causal_blocks import Stack
from dit_policy_ros.policy.edm_sampling import EdmSampling
from dit_policy_ros.policy.foresight import Foresight
from dit_policy_ros.policy.layers import KeysValues, adapter, sinusoid
from dit_policy_ros.policy.mdt_config import NET, STORED_FREQUENCIES, MdtConfig
from dit_policy_ros.policy.preconditioning import batch_scalings, levels, network_target


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


class EncoderDecoder(EdmSampling):
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
