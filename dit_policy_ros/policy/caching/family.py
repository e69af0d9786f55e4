"""What a cache may stand in front of in each family, and the kinds of cache that a ``policy.yaml`` may name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from dit_policy_ros.errors import PolicyError, one_of
from dit_policy_ros.policy.caching.block_wise import BlockWiseOptions
from dit_policy_ros.policy.caching.forecast import TaylorSeerOptions
from dit_policy_ros.policy.caching.sub_block import SubBlock

MODULES: Mapping[str, tuple[str, ...]] = {
    "rdt": ("attn", "cross_attn", "ffn"),
    "h_rdt": ("attn", "img_cross_attn", "lang_cross_attn", "ffn"),
    "rdt2_fm": ("attn", "cross_attn", "ffn"),
    "cogact": ("attn", "mlp"),
    "gr00t_n15": ("attn1", "ff"),
    "gr00t_n16": ("attn1", "ff"),
    "lerobot_multi_task_dit": ("attn", "multihead_attn", "mlp"),
    "diffusion_policy_transformer": ("self_attn", "multihead_attn"),
    "mode": ("experts",),
    "uwm": ("attn", "mlp"),
    "pad": ("attn", "mlp"),
    "mdt": ("attn", "cross_att", "mlp"),
    "mdtv": ("attn", "cross_att", "mlp"),
}
"""Names, in a layer, of the sub-blocks that return one tensor before it is gated and added. MoDE's attention returns
keys and values too, so that only its experts are here."""
SLOW = ("vl_self_attention", "encoder.blocks", "encoder.layers", "obs_encoder", "gen_img", "perceiver")
"""Parts whose blocks do not run in every step."""

CACHES: Mapping[str, type[TaylorSeerOptions] | type[BlockWiseOptions]] = {
    "taylorseer": TaylorSeerOptions,
    "block_wise": BlockWiseOptions,
}
"""By the ``method`` of a ``policy.yaml``, the default first."""


def sub_blocks(family: str, network: nn.Module) -> list[SubBlock]:
    """Returns what is cached of a network, in its own order.

    Raises:
        PolicyError: nothing of the family can be.
    """
    if family not in MODULES:
        raise PolicyError("Family that can be cached: " + one_of("Family", family, MODULES))
    found = []
    for name, module in network.named_modules():
        layer, _, kind = name.rpartition(".")
        numbered = layer.rpartition(".")[2].isdigit()  # heads and embedders have modules of the same names
        if numbered and kind in MODULES[family] and not any(part in name for part in SLOW):
            found.append(SubBlock(layer, kind, module))
    return found


def options_of(values: Mapping[str, Any]) -> TaylorSeerOptions | BlockWiseOptions:
    """Returns the options of the cache that ``method`` names.

    Raises:
        PolicyError: no such method or option, or a value that does not work.
    """
    values = dict(values)
    name = values.pop("method", next(iter(CACHES)))
    if name not in CACHES:
        raise PolicyError(one_of("Cache", str(name), CACHES))
    try:
        return CACHES[name](**values)
    except TypeError as problem:
        raise PolicyError(f"The cache '{name}' does not take these options: {problem}.") from problem
