"""A small encoder of instructions, trained with the policy. Unknown words are read by their letters.

Words are hashed together with their letter triples (after Bojanowski et al., "Enriching Word Vectors with Subword
Information", 2017), so that no vocabulary file is needed and a misspelt word lands near the right one.
"""

from __future__ import annotations

import re
import zlib

import torch
from torch import Tensor, nn

MAX_WORDS = 32
PIECES = 12
"""Most hashed pieces of one word: itself and its first letter triples."""
BUCKETS = 8192
_WORD = re.compile(r"[a-z0-9']+")


def hash_words(instruction: str) -> Tensor:
    """Returns the hashed pieces of each word, (MAX_WORDS, PIECES) int64; 0 is padding."""
    words = _WORD.findall(instruction.lower())[:MAX_WORDS]
    table = torch.zeros(MAX_WORDS, PIECES, dtype=torch.int64)
    for row, word in enumerate(words):
        spelled = f"<{word}>"
        triples = [spelled[i : i + 3] for i in range(len(spelled) - 2)]
        pieces = [spelled, *triples][:PIECES]
        # crc32 is the same on every machine and in every run, unlike Python's own hash.
        table[row, : len(pieces)] = torch.tensor([1 + zlib.crc32(piece.encode()) % (BUCKETS - 1) for piece in pieces])
    return table


class TextEncoder(nn.Module):
    """Hashed words, two self-attention layers, and a learned mean."""

    def __init__(self, width: int, out: int, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.pieces = nn.Embedding(BUCKETS, width, padding_idx=0)
        self.positions = nn.Parameter(torch.randn(MAX_WORDS, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.ModuleList(
            [layer]
            + [
                type(layer)(width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
                for _ in range(layers - 1)
            ]
        )
        self.score = nn.Linear(width, 1)
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out), nn.SiLU(), nn.Linear(out, out))

    def forward(self, hashed: Tensor) -> Tensor:
        """(B, MAX_WORDS, PIECES) -> (B, out)."""
        present = hashed != 0  # (B, W, P)
        count = present.sum(-1, keepdim=True).clamp(min=1)  # (B, W, 1)
        words = self.pieces(hashed).sum(-2) / count  # (B, W, D)
        empty = ~present.any(-1)  # (B, W)
        empty[:, 0] = False  # an empty instruction still has one word to attend to
        x = words + self.positions
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=empty)
        weight = self.score(x).squeeze(-1).masked_fill(empty, float("-inf")).softmax(-1)  # (B, W)
        return self.out((weight[..., None] * x).sum(1))  # (B, out)
