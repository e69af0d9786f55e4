"""A mixture of gated feed-forward experts, and the fusion of the chosen ones into one layer.

Source of the routing rule and of the fusion: "Efficient Diffusion Transformer Policies with Mixture of Expert
Denoisers" (MoDE). There the router sees the noise level only, so for a known grid of levels the choice is made once
and kept under the index of the step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST = 1e-9
"""Bound of a routing probability from 0 and from 1."""
SHIFT = 1e-6
"""Added inside the logarithm of the router z loss."""


class Gate(nn.Module):
    """Linear whose first half is a value, multiplied by SiLU of the second half."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., hidden)."""
        value, gate = self.project(x).chunk(2, dim=-1)
        return value * F.silu(gate)


class Expert(nn.Module):
    """Gated feed-forward. Place 1 of the official sequence is a dropout."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(Gate(width, hidden), nn.Identity(), nn.Linear(hidden, width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        return self.mlp(x)


class Routing(NamedTuple):
    """One layer's decision."""

    logits: Tensor
    """(B, 1, E), the largest subtracted."""
    probabilities: Tensor
    """(B, 1, E)."""
    indices: Tensor
    """(B, tokens or 1, k) chosen experts; best first unless they were drawn."""
    weights: Tensor
    """(B, tokens or 1, E) share of each expert, zero for those not chosen."""


class FusedExperts(NamedTuple):
    """Several experts as one gated layer; the parameters of layers with the same experts are shared."""

    up: Tensor
    """(2 k F, D), values above gates."""
    up_bias: Tensor
    down: Tensor
    """(D, k F)."""
    shares: Tensor
    """(k F,) mixing weight of every hidden feature."""

    def __call__(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        value, gate = F.linear(x, self.up, self.up_bias).chunk(2, dim=-1)
        return F.linear(value * self.shares * F.silu(gate), self.down)


class Router(nn.Module):
    """Linear, exact GELU, linear. Place 2 of the official sequence is a dropout."""

    def __init__(self, width: int, hidden: int, experts: int) -> None:
        super().__init__()
        layers = (nn.Linear(width, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, experts))
        self.router = nn.ModuleDict({"mlp": nn.Sequential(*layers)})

    def forward(self, condition: Tensor, top_k: int, normalize: bool, drawn: Tensor | None = None) -> Routing:
        """Chooses experts from a condition (B, 1, D), for all tokens of a sample.

        Args:
            top_k: number of experts.
            normalize: make the shares of the chosen ones sum to 1.
            drawn: (B, tokens, k) experts drawn in training, instead of the most probable.
        """
        logits = self.router["mlp"](condition)
        logits = logits - logits.amax(-1, keepdim=True)
        probabilities = logits.softmax(-1).clamp(SMALLEST, 1 - SMALLEST)  # (B, 1, E)
        indices = probabilities.topk(top_k, dim=-1).indices if drawn is None else drawn
        everywhere = probabilities.expand(-1, indices.shape[1], -1)
        chosen = everywhere.gather(-1, indices)
        chosen = chosen / chosen.sum(-1, keepdim=True) if normalize else chosen
        return Routing(logits, probabilities, indices, torch.zeros_like(everywhere).scatter(-1, indices, chosen))


class ExpertBank(nn.ModuleDict):
    """The experts of one layer, ``expert_0`` and so on."""

    def __init__(self, count: int, width: int, hidden: int) -> None:
        super().__init__({f"expert_{i}": Expert(width, hidden) for i in range(count)})
        self._fused: dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor]] = {}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ExpertBank:
        self._fused.clear()  # moved or cast parameters
        return super()._apply(fn, recurse)

    def fuse(self, routing: Routing) -> FusedExperts | Tensor:
        """Returns the chosen experts as one layer, or the mixing weights where samples differ.

        Layers with the same experts share their parameters, which are made once: the parameters of the network must
        not change afterwards.
        """
        if not (routing.weights == routing.weights[:1, :1]).all():
            return routing.weights
        chosen = tuple(sorted(routing.indices[0, 0].tolist()))
        experts = [self[f"expert_{i}"] for i in chosen]
        if chosen not in self._fused:
            self._fused[chosen] = _concatenated(experts)
        hidden = experts[0].mlp[2].in_features
        return FusedExperts(*self._fused[chosen], routing.weights[0, 0, list(chosen)].repeat_interleave(hidden))

    def forward(self, x: Tensor, shares: FusedExperts | Tensor) -> Tensor:
        """Runs x (B, N, D) through fused experts, or mixes by (B, N or 1, E); experts nobody chose are not run."""
        if isinstance(shares, FusedExperts):
            return shares(x)
        out = torch.zeros_like(x)
        for share, expert in zip(shares.unbind(-1), self.values(), strict=True):
            if share.any():
                out = out + share[..., None] * expert(x)
        return out


def _concatenated(experts: list[Expert]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns ``up``, its bias and ``down`` of :class:`FusedExperts`."""
    gates = [expert.mlp[0].project for expert in experts]
    up, bias = (
        torch.cat([half for side in zip(*(p.chunk(2) for p in params), strict=True) for half in side])
        for params in ([gate.weight for gate in gates], [gate.bias for gate in gates])
    )
    return up, bias, torch.cat([expert.mlp[2].weight for expert in experts], dim=1)


def load_balancing(routings: list[Routing]) -> Tensor:
    """Returns one term per layer, ``E sum_e (mean share of e) (tokens sent to e / tokens)``."""
    terms = []
    for routing in routings:
        experts = routing.weights.shape[-1]
        counts = F.one_hot(routing.indices, experts).float().sum(-2).mean((0, 1))  # (E,), sums to k
        terms.append(experts * (routing.weights.mean((0, 1)) * counts).sum())
    return torch.stack(terms)


def router_z(routings: list[Routing]) -> Tensor:
    """Returns the mean over layers and samples of the squared log-sum-exp of the shifted logits."""
    return torch.stack([(routing.logits.exp().sum(-1) + SHIFT).log().square().mean() for routing in routings]).mean()
