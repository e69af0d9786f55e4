"""MoDE, the denoiser of "Efficient Diffusion Transformer Policies with Mixture of Expert Denoisers".

Same function as https://github.com/intuitive-robots/MoDE_Diffusion_Policy. One causal sequence: noise token, goal,
observations, actions. The experts are chosen by the noise level alone (and the goal, where it takes part in routing).

Being causal, everything before the actions is independent of them: for a known grid of levels ``encode`` runs the goal
and observation tokens once and keeps their keys and values and the chosen experts, keyed by the index of the level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_policy_ros.policy.edm_sampling import EdmSampling
from dit_policy_ros.policy.encoders.resnet import FilmResNet
from dit_policy_ros.policy.experts import FusedExperts, Routing, load_balancing, router_z
from dit_policy_ros.policy.layers import KeysValues, adapter
from dit_policy_ros.policy.mode_config import NET, MoDeConfig, configure, rename
from dit_policy_ros.policy.preconditioning import batch_scalings, levels, network_target
from dit_policy_ros.policy.routed_block import EPS, Block, of_tokens
from dit_policy_ros.policy.samplers.edm import EdmDenoiser
from dit_policy_ros.policy.shaped import GainNorm
from dit_policy_ros.policy.weights import Shapes

__all__ = ["PREFIXES", "MoDe", "MoDeCache", "MoDeConfig", "build", "configure", "detect", "rename"]

PREFIXES = ("", "state_dict.")


def detect(shapes: Shapes) -> bool:
    """Returns whether these parameters are a MoDE."""
    names = {rename(name) for name in shapes}
    return {f"{NET}sigma_linear.weight", f"{NET}blocks.0.experts.expert_0.mlp.0.project.weight"} <= names


def build(config: MoDeConfig) -> MoDe:
    """Returns the network with fresh parameters."""
    return MoDe(config)


class MoDeLoss(NamedTuple):
    """The loss of training, in its parts."""

    error: Tensor
    """Mean squared error of the raw network output."""
    load_balancing: Tensor
    """(layers,)."""
    router_z: Tensor
    output: Tensor
    """(B, H, A) raw network output."""

    def total(self, balancing_weight: float, router_weight: float) -> Tensor:
        """Returns the weighted sum."""
        return self.error + balancing_weight * self.load_balancing.mean() + router_weight * self.router_z


class Level(NamedTuple):
    """What a denoising step needs of one noise level."""

    sigma: float | Tensor
    condition: Tensor
    """(B, 1, D)."""
    shares: tuple[FusedExperts | Tensor, ...]
    """Per layer: the chosen experts as one, or where samples differ the mixing weights (B, 1, E)."""
    keys_values: tuple[KeysValues, ...]
    """Of the tokens before the actions in every layer, each (B, heads, P, head_dim)."""
    routings: list[Routing]


@dataclass(frozen=True)
class MoDeCache:
    """Everything that depends on goal and observations alone."""

    tokens: Tensor
    """(B, G + S, D), goal and observations with positions."""
    goal: Tensor | None
    """(B, 1, D) goal embedding, where it takes part in routing."""
    levels: tuple[Level, ...] = ()
    """Of the grid given to ``encode``, by index."""


class Transformer(nn.Module):
    """The parameters under ``model.inner_model.`` in a checkpoint."""

    def __init__(self, c: MoDeConfig) -> None:
        super().__init__()
        self.pos_emb = nn.Parameter(torch.zeros(1, c.goal_tokens + c.horizon, c.width))
        self.sigma_emb = nn.Linear(1, c.width)
        self.sigma_linear = nn.Linear(c.width, c.width, bias=False)
        self.goal_emb = nn.Linear(c.goal_width, c.width, bias=False)
        self.tok_emb = nn.Linear(c.observation_width, c.width, bias=False)
        self.action_emb = nn.Linear(c.action_dim, c.width, bias=False)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.ln = GainNorm(c.width, EPS)
        self.out = adapter(c.out_widths, nn.GELU)


class MoDe(EdmSampling):
    """The denoiser with the image encoders of its checkpoint. The goal is a text embedding of CLIP."""

    def __init__(self, config: MoDeConfig) -> None:
        super().__init__()
        self.config = config
        self.model = nn.ModuleDict({"inner_model": Transformer(config)})
        for name in config.cameras:
            self.add_module(name, FilmResNet(config.image_shapes, f"{name}.", config.goal_width))

    @property
    def net(self) -> Transformer:
        """The denoising network."""
        return self.model["inner_model"]

    def encode_images(self, images: Sequence[Tensor], goal: Tensor) -> Tensor:
        """Returns observation tokens (B, cameras, features) of normalised images, one (B, 3, H, W) per camera."""
        encoders = [getattr(self, name) for name in self.config.cameras]
        return torch.stack([run(each, goal) for run, each in zip(encoders, images, strict=True)], dim=1)

    def encode(self, observations: Tensor, goal: Tensor, sigmas: Sequence[float] = ()) -> MoDeCache:
        """Embeds observation tokens (B, S, width) and goal (B, G, width); a goal of zeros is no goal.

        Args:
            sigmas: noise levels for which the tokens before the actions are run through the network already.
        """
        net, goals = self.net, self.config.goal_tokens
        embedded = net.goal_emb(goal)  # (B, G, D)
        observed = net.tok_emb(observations) + net.pos_emb[:, goals : goals + 1]  # (B, S, D)
        tokens = torch.cat([embedded + net.pos_emb[:, :goals], observed], dim=1)
        cache = MoDeCache(tokens, embedded.mean(1, keepdim=True) if self.config.goal_in_routing else None)
        return replace(cache, levels=tuple(self._level(cache, sigma, fuse=True) for sigma in sigmas if sigma > 0))

    def noise_token(self, sigma: Tensor) -> Tensor:
        """(B,) noise levels -> (B, 1, D)."""
        scalar = (sigma.log() / 4)[:, None].to(self.net.sigma_emb.weight.dtype)
        return self.net.sigma_linear(self.net.sigma_emb(scalar))[:, None]

    def condition(self, sigma: Tensor, goal: Tensor | None = None) -> Tensor:
        """Returns what is added in every block and seen by the routers, (B, 1, D)."""
        noise = self.noise_token(sigma)
        return noise if goal is None else noise + goal

    def routings(self, condition: Tensor, drawn: Tensor | None = None) -> list[Routing]:
        """Returns the decision of every layer; ``drawn`` (layers, B, tokens, k) replaces the most probable experts."""
        c = self.config
        picks = [None] * c.depth if drawn is None else list(drawn)
        pairs = zip(self.net.blocks, picks, strict=True)
        return [block.router(condition, c.top_k, c.normalize_routing, pick) for block, pick in pairs]

    def _level(self, cache: MoDeCache, sigma: float | Tensor, fuse: bool, drawn: Tensor | None = None) -> Level:
        """Runs the tokens before the actions."""
        sigmas = levels(sigma, cache.tokens)
        condition = self.condition(sigmas, cache.goal)
        routings = self.routings(condition, drawn)
        pairs = zip(self.net.blocks, routings, strict=True)
        shares = tuple(block.experts.fuse(routing) if fuse else routing.weights for block, routing in pairs)
        x = torch.cat([self.noise_token(sigmas), cache.tokens], dim=1) if self.config.noise_token else cache.tokens
        count, memories = x.shape[1], []
        for block, share in zip(self.net.blocks, shares, strict=True):
            x, keys_values = block(x, condition, of_tokens(share, 0, count), None)
            memories.append(keys_values)
        return Level(sigma, condition, shares, tuple(memories), routings)

    def network(self, x: Tensor, level: Level) -> Tensor:
        """Raw network output (B, H, A) for scaled noisy actions."""
        net, goals = self.net, self.config.goal_tokens
        tokens = net.action_emb(x) + net.pos_emb[:, goals : goals + x.shape[1]]  # (B, H, D)
        for block, share, before in zip(net.blocks, level.shares, level.keys_values, strict=True):
            tokens, _ = block(tokens, level.condition, of_tokens(share, before[0].shape[2], None), before)
        return net.out(net.ln(tokens))

    def forward(self, cache: MoDeCache, x: Tensor, sigma: Tensor | float, index: int | None = None) -> Tensor:
        """Returns the clean actions that the network sees in noisy ones.

        Args:
            x: (B, H, A) actions plus sigma times noise.
            sigma: noise level, (B,) or one for all.
            index: place of the level in the grid given to ``encode``; None computes it afresh.
        """
        level = self._level(cache, sigma, fuse=False) if index is None else cache.levels[index]
        scalings = batch_scalings(levels(sigma, x), self.config.sigma_data, x.dtype)
        return scalings.skip * x + scalings.out * self.network(scalings.into * x, level)

    def denoiser(self, cache: MoDeCache) -> EdmDenoiser:
        """Returns the network of one observation; levels that the cache holds are not recomputed."""
        known = {level.sigma: index for index, level in enumerate(cache.levels)}
        return lambda x, sigma: self(cache, x, sigma, known.get(sigma))

    def loss(
        self, cache: MoDeCache, actions: Tensor, noise: Tensor, sigma: Tensor, drawn: Tensor | None = None
    ) -> MoDeLoss:
        """Returns the loss at (B,) noise levels; ``drawn`` are the experts of training, (layers, B, tokens, k)."""
        noisy = actions + sigma[:, None, None] * noise
        scalings = batch_scalings(sigma, self.config.sigma_data, noisy.dtype)
        level = self._level(cache, sigma, fuse=False, drawn=drawn)
        output = self.network(scalings.into * noisy, level)
        error = F.mse_loss(output, network_target(actions, noisy, scalings))
        return MoDeLoss(error, load_balancing(level.routings), router_z(level.routings), output)
