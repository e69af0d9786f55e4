"""Sine-cosine tables that official constructors write into trainable position embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Segment = tuple[str, int | Sequence[int]]
"""Name and length of a run of tokens. A grid has several sizes; a negative one counts tokens without a position."""


def sincos_1d(width: int, positions: Tensor) -> Tensor:
    """Returns (len(positions), width) float32: sines of ``p / 10000 ** (2 k / width)``, then cosines."""
    k = torch.arange(width // 2, dtype=torch.float64)
    angles = positions.double()[:, None] * 10_000.0 ** (-2 * k / width)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float()


def concatenated_sincos(segments: Sequence[Segment], width: int, embed_segment: bool) -> Tensor:
    """Returns the table of RDT-1B, (tokens, width): every grid axis has its own channels.

    The channels are split evenly, rounded down to even, over the axes longer than 1; channels left over are zero.

    Args:
        embed_segment: the first half of the channels encodes the number of the segment.
    """
    rows = []
    for number, (_, size) in enumerate(segments):
        inner = width // 2 if embed_segment else width
        table = _concatenated_segment(size, inner)
        if embed_segment:
            kind = sincos_1d(width - inner, torch.tensor([number])).expand(len(table), -1)
            table = torch.cat([kind, table], dim=-1)
        rows.append(table)
    return torch.cat(rows)


def _concatenated_segment(size: int | Sequence[int], width: int) -> Tensor:
    if isinstance(size, int):
        positions = torch.arange(size) if size > 0 else torch.zeros(-size)
        return sincos_1d(width, positions)
    grid = tuple(abs(n) for n in size)
    axes = [axis for axis, n in enumerate(size) if n > 1]
    table = torch.zeros(*grid, width)
    share = width // len(axes) // 2 * 2
    for place, axis in enumerate(axes):
        table[..., place * share : (place + 1) * share] = _along(axis, grid, share)
    return table.reshape(math.prod(grid), width)


def summed_sincos(segments: Sequence[Segment], width: int) -> Tensor:
    """Returns the table of H-RDT and RDT2, (tokens, width): axes and the segment number are summed at full width.

    Axes of length 1 or below add nothing; the segment number counts only where there are several.
    """
    rows = []
    for number, (_, size) in enumerate(segments):
        sizes = (size,) if isinstance(size, int) else tuple(size)
        grid = tuple(abs(n) for n in sizes)
        table = torch.zeros(*grid, width)
        for axis, n in enumerate(sizes):
            if n > 1:
                table = table + _along(axis, grid, width)
        if len(segments) > 1:
            table = table + sincos_1d(width, torch.tensor([number]))
        rows.append(table.reshape(math.prod(grid), width))
    return torch.cat(rows)


def _along(axis: int, grid: tuple[int, ...], width: int) -> Tensor:
    """Table of one axis, shaped to broadcast over the grid: (1, .., n, .., 1, width)."""
    shape = [1] * len(grid) + [width]
    shape[axis] = grid[axis]
    return sincos_1d(width, torch.arange(grid[axis])).reshape(shape)
