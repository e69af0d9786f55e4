"""Which modules of each family a cache may stand in front of, and the caches of one sampling run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from dit_policy_ros.errors import PolicyError, one_of
from dit_policy_ros.policy.caching.modules import cached
from dit_policy_ros.policy.caching.taylorseer import TaylorCache, full_steps
from dit_policy_ros.policy.guide import Guide

MOST_STEPS = 1000

MODULES: Mapping[str, tuple[str, ...]] = {
    "rdt": ("attn", "cross_attn", "ffn"),
    "h_rdt": ("attn", "img_cross_attn", "lang_cross_attn", "ffn"),
    "rdt2_fm": ("attn", "cross_attn", "ffn"),
    "cogact": ("attn", "mlp"),
    "gr00t_n15": ("attn1", "ff"),
    "gr00t_n16": ("attn1", "ff"),
    "lerobot_multi_task_dit": ("attn", "multihead_attn", "mlp"),
    "diffusion_policy_transformer": ("self_attn", "multihead_attn"),
    "uwm": ("attn", "mlp"),
    "pad": ("attn", "mlp"),
    "mdt": ("attn", "cross_att", "mlp"),
    "mdtv": ("attn", "cross_att", "mlp"),
}
"""Last names of the sub-blocks that return one tensor before it is gated and added. Those of MoDE return more."""
SLOW = ("vl_self_attention", "encoder.blocks", "encoder.layers", "obs_encoder", "gen_img", "perceiver")
"""Parts whose blocks do not run in every step."""


@dataclass(frozen=True)
class CacheOptions:
    """TaylorSeer in a ``policy.yaml``."""

    interval: int
    """One of so many steps is computed after the warm-up; 1 computes all."""
    warmup: int = 2
    """Leading steps that are all computed."""
    order: int = 1
    """Highest difference of the forecast; 0 repeats the last output."""

    def __post_init__(self) -> None:
        if self.interval < 1 or self.warmup < 1 or self.order < 0:
            raise PolicyError(
                f"A cache with interval {self.interval}, warm-up {self.warmup} and order {self.order} does not work; "
                "interval and warm-up are at least 1, order at least 0."
            )


def sub_blocks(family: str, network: nn.Module) -> list[nn.Module]:
    """Returns what is cached of a network.

    Raises:
        PolicyError: the family has nothing that can be.
    """
    if family not in MODULES:
        raise PolicyError("Family that can be cached: " + one_of("Family", family, MODULES))
    named = [(name, module) for name, module in network.named_modules() if name.rpartition(".")[2] in MODULES[family]]
    return [module for name, module in named if not any(part in name for part in SLOW)]


@contextmanager
def cached_run(modules: list[nn.Module], options: CacheOptions, guide: Guide | None) -> Iterator[Guide]:
    """Routes modules through new caches while one chunk is sampled.

    Yields:
        The guide to sample with, which also counts the steps.
    """
    full = full_steps(MOST_STEPS, options.interval, options.warmup)
    caches = {module: TaylorCache(full, options.order, options.warmup - 1) for module in modules}
    with cached(caches) as counter:
        yield lambda network: counter.wrap(network) if guide is None else guide(counter.wrap(network))
