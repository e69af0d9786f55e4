"""MoDE, the denoiser of "Efficient Diffusion Transformer Policies with Mixture of Expert Denoisers".

Same function as https://github.com/intuitive-robots/MoDE_Diffusion_Policy. One causal sequence: noise token, goal,
observations, actions. The experts are chosen by the noise level alone (and the goal, where it takes part in routing).

Being causal, everything before the actions is independent of them: for a known grid of levels ``encode`` runs the goal
and observation tokens once and keeps their keys and values and the chosen experts, keyed by the index of the level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.encoders.resnet import FilmResNet
from dit_policy_ros.policy.experts import ExpertBank, FusedExperts, Router, Routing, load_balancing, router_z
from dit_policy_ros.policy.layers import KeysValues, adapter, adapter_widths, attend, split_heads
from dit_policy_ros.policy.preconditioning import batch_scalings, levels, network_target
from dit_policy_ros.policy.samplers import edm_ddim
from dit_policy_ros.policy.schedules import exponential_sigmas
from dit_policy_ros.policy.shaped import GainNorm, count
from dit_policy_ros.policy.weights import Shapes

PREFIXES = ("", "state_dict.")
NET = "model.inner_model."
CAMERAS = (
    "static_resnet",
    "img_encoder_image_primary",
    "img_encoder_image_secondary",
    "gripper_resnet",
    "img_encoder_image_wrist",
)
"""Names of image encoders in published files, in the order of their tokens."""

EPS = 1e-6


@dataclass(frozen=True)
class MoDeConfig:
    """Sizes from the parameters; the rest from the official configuration of ``inner_model``."""

    width: int
    depth: int
    head_width: int
    experts: int
    expert_hidden: int
    router_hidden: int
    goal_width: int
    goal_tokens: int
    observation_width: int
    action_dim: int
    horizon: int
    out_widths: tuple[int, ...]
    """Of the action head: one linear, or two with GELU between."""
    image_shapes: Shapes
    """Parameters of the FiLM ResNets."""
    top_k: int = 2
    noise_token: bool = True
    goal_in_routing: bool = False
    normalize_routing: bool = True
    sigma_data: float = 0.5
    sigma_min: float = 0.001
    sigma_max: float = 80.0
    steps: int = 10

    @property
    def cameras(self) -> tuple[str, ...]:
        """Image encoders of the checkpoint."""
        return tuple(name for name in CAMERAS if f"{name}.resnet.conv1.weight" in self.image_shapes)


def rename(name: str) -> str | None:
    """Restores what the upload code cut off, and leaves out CLIP and a projection that is never used."""
    if name.startswith("inner_") and not name.startswith("inner_model."):
        name = NET + name.removeprefix("inner_")
    if name.startswith("inner_model."):
        name = "model." + name
    foreign = "clip" in name or "visual" in name or name.startswith((f"{NET}gripper_embed.", "language_goal."))
    return None if foreign else name


def detect(shapes: Shapes) -> bool:
    """Returns whether these parameters are a MoDE."""
    names = {rename(name) for name in shapes}
    return {f"{NET}sigma_linear.weight", f"{NET}blocks.0.experts.expert_0.mlp.0.project.weight"} <= names


def configure(settings: Mapping[str, Any], shapes: Shapes) -> MoDeConfig:
    """Returns the configuration from the official settings (may be empty) and the parameter shapes.

    Raises:
        CheckpointError: an option that is not known.
    """
    inner = settings.get("inner_model", settings)
    known = {"causal": True, "cond_router": True, "use_shared_expert": False, "use_proprio": False}
    for option, value in known.items():
        if inner.get(option, value) is not value:
            raise CheckpointError(f"MoDE with {option} = {inner[option]} is not known; only {value} is.")
    block, goal_tokens = f"{NET}blocks.0.", inner.get("goal_seq_len", 1)
    width, head_width = shapes[f"{NET}goal_emb.weight"][0], shapes[block + "attn.q_norm.g"][0]
    if width % head_width:
        raise ValueError(f"{block}attn.q_norm.g ({head_width},), which does not divide the width {width}")
    return MoDeConfig(
        width=width,
        depth=count(shapes, f"{NET}blocks."),
        head_width=head_width,
        experts=shapes[block + "router.router.mlp.3.weight"][0],
        expert_hidden=shapes[block + "experts.expert_0.mlp.2.weight"][1],
        router_hidden=shapes[block + "router.router.mlp.0.weight"][0],
        goal_width=shapes[f"{NET}goal_emb.weight"][1],
        goal_tokens=goal_tokens,
        observation_width=shapes[f"{NET}tok_emb.weight"][1],
        action_dim=adapter_widths(shapes, f"{NET}out")[-1],
        horizon=shapes[f"{NET}pos_emb"][1] - goal_tokens,
        out_widths=(width, *adapter_widths(shapes, f"{NET}out")[1:]),
        image_shapes={name: shape for name, shape in shapes.items() if name.startswith(CAMERAS)},
        top_k=inner.get("top_k", 2),
        noise_token=inner.get("use_noise_token_as_input", True),
        goal_in_routing=inner.get("use_goal_in_routing", False),
        normalize_routing=inner.get("router_normalize", True),
        sigma_data=settings.get("sigma_data", 0.5),
        sigma_min=settings.get("sigma_min", 0.001),
        sigma_max=settings.get("sigma_max", 80.0),
        steps=settings.get("num_sampling_steps", 10),
    )


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


class Attention(nn.Module):
    """Causal self-attention, q and k normalised per head."""

    def __init__(self, c: MoDeConfig) -> None:
        super().__init__()
        self.heads = c.width // c.head_width
        self.query = nn.Linear(c.width, c.width)
        self.key = nn.Linear(c.width, c.width)
        self.value = nn.Linear(c.width, c.width)
        self.c_proj = nn.Linear(c.width, c.width, bias=False)
        self.q_norm = GainNorm(c.head_width, EPS)
        self.k_norm = GainNorm(c.head_width, EPS)

    def forward(self, x: Tensor, before: KeysValues | None) -> tuple[Tensor, KeysValues]:
        """Returns (B, N, D) and the keys and values of all tokens, those before x included."""
        q, k, v = (split_heads(layer(x), self.heads) for layer in (self.query, self.key, self.value))
        q, k = self.q_norm(q), self.k_norm(k)  # (B, heads, N, head_dim)
        if before is not None:
            k, v = torch.cat([before[0], k], dim=2), torch.cat([before[1], v], dim=2)
        rows, columns = q.shape[2], k.shape[2]
        mask = torch.ones(rows, columns, dtype=torch.bool, device=x.device).tril(columns - rows)[None, None]
        return self.c_proj(attend(q, (k, v), mask)), (k, v)


class Block(nn.Module):
    """Attention on a conditioned norm, then experts; the residual of the experts is their normalised input."""

    def __init__(self, c: MoDeConfig) -> None:
        super().__init__()
        self.ln_1 = GainNorm(c.width, EPS)
        self.attn = Attention(c)
        self.ln_2 = GainNorm(c.width, EPS)
        self.experts = ExpertBank(c.experts, c.width, c.expert_hidden)
        self.router = Router(c.width, c.router_hidden, c.experts)

    def forward(
        self, x: Tensor, condition: Tensor, shares: FusedExperts | Tensor, before: KeysValues | None
    ) -> tuple[Tensor, KeysValues]:
        """Returns (B, N, D) and the keys and values of all tokens, those before x included."""
        update, keys_values = self.attn(self.ln_1(x) + condition, before)
        y = self.ln_2(x + update)
        return y + self.experts(y, shares), keys_values


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


class MoDe(nn.Module):
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
            x, keys_values = block(x, condition, _of_tokens(share, 0, count), None)
            memories.append(keys_values)
        return Level(sigma, condition, shares, tuple(memories), routings)

    def network(self, x: Tensor, level: Level) -> Tensor:
        """Raw network output (B, H, A) for scaled noisy actions."""
        net, goals = self.net, self.config.goal_tokens
        tokens = net.action_emb(x) + net.pos_emb[:, goals : goals + x.shape[1]]  # (B, H, D)
        for block, share, before in zip(net.blocks, level.shares, level.keys_values, strict=True):
            tokens, _ = block(tokens, level.condition, _of_tokens(share, before[0].shape[2], None), before)
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

    denoise = nn.Module.__call__

    def sigmas(self, steps: int | None = None) -> tuple[float, ...]:
        """Returns the noise levels of sampling, the last one 0."""
        c = self.config
        return exponential_sigmas(steps or c.steps, c.sigma_min, c.sigma_max)

    def sample(self, cache: MoDeCache, noise: Tensor, steps: int | None = None) -> Tensor:
        """Returns actions (B, H, A) from standard normal noise; levels that the cache holds are not recomputed."""
        sigmas = self.sigmas(steps)
        known = {level.sigma: index for index, level in enumerate(cache.levels)}
        return edm_ddim(lambda x, sigma: self(cache, x, sigma, known.get(sigma)), noise * sigmas[0], sigmas)

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


def _of_tokens(share: FusedExperts | Tensor, start: int, stop: int | None) -> FusedExperts | Tensor:
    """Cuts out the tokens of mixing weights that differ from token to token."""
    return share[:, start:stop] if isinstance(share, Tensor) and share.shape[1] > 1 else share
