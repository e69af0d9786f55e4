"""One part of a transformer layer that a cache can stand in front of."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

FEED_FORWARDS = ("ffn", "ff", "mlp", "experts")


class SubBlock(NamedTuple):
    """Attention, cross-attention or feed-forward."""

    layer: str
    """Name of its layer in the network."""
    kind: str
    """Its name in the layer."""
    module: nn.Module
    """Returns one tensor, before it is gated and added."""
