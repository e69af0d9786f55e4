"""Our dual-system diffusion transformer: slow context tokens, and a fast denoiser with per-token flow time.

System 2 finds what the instruction asks for in the slow camera's image and says where it is, in a few numbers; they and
the instruction become context tokens, and these the keys and values of every cross-attention layer, once per context.
System 1 denoises a chunk from the context, the fast cameras and proprioception. Nothing else passes between the two: a
System 1 that also saw what else lies there learned to go where it was already going.

Flow time runs 0 = noise to 1 = action (Lipman et al., "Flow Matching for Generative Modeling", 2023). Every token has
its own time (after "Training-Time Action Conditioning for Efficient Real-Time Chunking", 2025), so that the committed
prefix stands in the sequence as it is, at time 1: it is exact and costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_policy_ros.policy.layers import KeysValues, Mlp, attend, gelu_tanh, sinusoid, split_heads
from dit_policy_ros.policy.text import TextEncoder
from dit_policy_ros.policy.vision import KeypointEncoder

_TIME_SCALE = 1000.0
PLACE_OCTAVES = 5
"""Wavelengths 2 to 1/8 of the range of a place."""


@dataclass(frozen=True)
class DualSystemConfig:
    """Sizes of the network."""

    joints: int = 14
    horizon: int = 48
    steps_per_token: int = 4
    """Actions of one token; the committed prefix is a whole number of tokens."""
    fast_cameras: int = 2
    width: int = 192
    blocks: int = 5
    heads: int = 6
    slow_keypoints: int = 32
    frame_width: int = 0
    """Columns at the right of the slow image that show what does not move; 0 where it has no such part."""
    frame_keypoints: int = 16
    places: int = 6
    """Numbers in which System 2 says where things are, about -1..1."""
    fast_keypoints: int = 16
    text_width: int = 96
    condition: int = 128
    """Width of the encoded instruction."""

    @property
    def action_tokens(self) -> int:
        """Number of tokens of a chunk."""
        return self.horizon // self.steps_per_token


@dataclass(frozen=True)
class Found:
    """What System 2 makes of an image and an instruction, batched."""

    instruction: Tensor
    """(B, condition)."""
    summary: Tensor
    """(B, width); carries the auxiliary loss in training."""
    places: Tensor
    """(B, places)."""


@dataclass(frozen=True)
class SlowFeatures:
    """What System 2 hands to System 1, batched."""

    instruction: Tensor
    """(B, condition)."""
    keys_values: tuple[KeysValues, ...]
    """One pair per block, each (B, heads, context tokens, head_dim)."""
    places: Tensor
    """(B, places); they modulate every block too."""

    def expanded(self, batch: int) -> SlowFeatures:
        """Returns the features of one context for several chunks."""
        pairs = tuple((_expanded(keys, batch), _expanded(values, batch)) for keys, values in self.keys_values)
        return SlowFeatures(_expanded(self.instruction, batch), pairs, _expanded(self.places, batch))


@dataclass(frozen=True)
class FastFeatures:
    """What System 1 computes once per chunk."""

    tokens: Tensor
    """(B, fast tokens, width)."""
    condition: Tensor
    """(B, width): instruction, places and age of the context."""

    def expanded(self, batch: int) -> FastFeatures:
        """Returns the features of one observation for several chunks."""
        return FastFeatures(_expanded(self.tokens, batch), _expanded(self.condition, batch))


class Block(nn.Module):
    """Self-attention, cross-attention to the context and feed-forward, each gated by flow time and condition."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(width, 9 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.self_out = nn.Linear(width, width)
        self.cross_query = nn.Linear(width, width)
        self.cross_keys_values = nn.Linear(width, 2 * width)
        self.cross_out = nn.Linear(width, width)
        self.feed_forward = Mlp(width, 4 * width, width, gelu_tanh())
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def keys_values(self, context: Tensor) -> KeysValues:
        """(B, L, width) -> keys and values, each (B, heads, L, head_dim)."""
        keys, values = (split_heads(part, self.heads) for part in self.cross_keys_values(context).chunk(2, dim=-1))
        return keys, values

    def forward(self, x: Tensor, context: KeysValues, times: Tensor, clean: Tensor) -> Tensor:
        """Refines tokens.

        Args:
            x: (B, N, width).
            context: of ``keys_values``.
            times: (B, 2, width), embedding of the flow time being solved, and of time 1.
            clean: (B, N) bool, tokens that stand at time 1.
        """
        both = self.modulation(times)  # (B, 2, 9W)
        nine = torch.where(clean[..., None], both[:, 1:2], both[:, :1]).chunk(9, dim=-1)  # 9 x (B, N, W)
        query, keys, values = (
            split_heads(part, self.heads) for part in self.qkv(_norm(x, *nine[0:2])).chunk(3, dim=-1)
        )
        x = x + nine[2] * self.self_out(attend(query, (keys, values)))
        query = split_heads(self.cross_query(_norm(x, *nine[3:5])), self.heads)
        x = x + nine[5] * self.cross_out(attend(query, context))
        return x + nine[8] * self.feed_forward(_norm(x, *nine[6:8]))


def _expanded(one: Tensor, batch: int) -> Tensor:
    return one.expand(batch, *one.shape[1:])


def _waves(places: Tensor) -> Tensor:
    """(..., N) -> (..., N, 2 octaves + 1): each number and its sines and cosines, so that a millimetre is seen."""
    angles = places.float()[..., None] * torch.pi * 2.0 ** torch.arange(PLACE_OCTAVES, device=places.device)
    return torch.cat([places.float()[..., None], angles.sin(), angles.cos()], dim=-1)


def _norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


class DualSystem(nn.Module):
    """The network; see the module's text. Actions and proprioception are normalised."""

    def __init__(self, config: DualSystemConfig) -> None:
        super().__init__()
        self.config = config
        width, condition = config.width, config.condition
        self.text = TextEncoder(config.text_width, condition)
        self.slow_camera = KeypointEncoder(config.slow_keypoints, condition)
        keypoints = config.slow_keypoints
        if config.frame_width:
            self.slow_frame = KeypointEncoder(config.frame_keypoints, condition, width=32)
            keypoints += config.frame_keypoints
        self.slow_summary = Mlp(2 * keypoints + condition, 256, width, nn.SiLU())
        self.slow_places = nn.Linear(width, config.places)
        self.place_token = nn.Linear(2 * PLACE_OCTAVES + 1, width)
        self.place_names = nn.Parameter(torch.randn(config.places, width) * 0.02)
        self.slow_text = nn.Linear(condition, width)

        self.fast_camera = KeypointEncoder(config.fast_keypoints, condition, width=48)
        self.fast_view = Mlp(2 * config.fast_keypoints, 256, 2 * width, nn.SiLU())
        self.proprioception = Mlp(config.joints, width, width, nn.SiLU())
        self.age = Mlp(64, width, width, nn.SiLU())
        self.instruction = nn.Linear(condition, width)
        self.places = Mlp(config.places * (2 * PLACE_OCTAVES + 1), width, width, nn.SiLU())
        self.time = Mlp(128, width, width, nn.SiLU())

        tokens = 2 * config.fast_cameras + 1 + config.action_tokens
        self.token_names = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.action_in = nn.Linear(config.steps_per_token * config.joints, width)
        self.blocks = nn.ModuleList([Block(width, config.heads) for _ in range(config.blocks)])
        self.final_modulation = nn.Linear(width, 2 * width)
        self.action_out = nn.Linear(width, config.steps_per_token * config.joints)
        for layer in (self.final_modulation, self.action_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def encode(self, slow_image: Tensor, hashed: Tensor) -> SlowFeatures:
        """System 2.

        Args:
            slow_image: (B, 3, H, W), -1..1.
            hashed: (B, words, pieces) of ``text.hash_words``.
        """
        found = self.find(slow_image, hashed)
        return self.tell(found.instruction, found.places)

    def find(self, slow_image: Tensor, hashed: Tensor) -> Found:
        """The part of System 2 that looks and reads; arguments as for ``encode``."""
        return self.seek(slow_image, self.text(hashed))

    def seek(self, slow_image: Tensor, instruction: Tensor) -> Found:
        """The part of System 2 that looks.

        Args:
            slow_image: (B, 3, H, W), -1..1.
            instruction: (B, condition), what to look for.
        """
        frame_width = self.config.frame_width
        near, frame = slow_image.split([slow_image.shape[-1] - frame_width, frame_width], dim=-1)
        points = self.slow_camera(near, instruction)  # (B, K, 2)
        if frame_width:
            points = torch.cat([points, self.slow_frame(frame, instruction)], dim=1)
        summary = self.slow_summary(torch.cat([points.flatten(1), instruction], dim=-1))  # (B, W)
        return Found(instruction, summary, self.slow_places(summary))

    def tell(self, instruction: Tensor, places: Tensor) -> SlowFeatures:
        """The part of System 2 that speaks to System 1.

        Args:
            instruction: (B, condition).
            places: (B, places).
        """
        tokens = self.place_token(_waves(places)) + self.place_names  # (B, places, W)
        context = torch.cat([tokens, self.slow_text(instruction)[:, None]], dim=1)  # (B, places + 1, W)
        return SlowFeatures(instruction, tuple(block.keys_values(context) for block in self.blocks), places)

    def look(self, slow: SlowFeatures, fast_images: Tensor, proprioception: Tensor, age_s: Tensor) -> FastFeatures:
        """The part of System 1 that does not depend on the chunk.

        Args:
            fast_images: (B, fast cameras, 3, H, W), -1..1.
            proprioception: (B, joints).
            age_s: (B,) time between the context's observation and this one.
        """
        batch, cameras = fast_images.shape[:2]
        instruction = slow.instruction.repeat_interleave(cameras, dim=0)
        points = self.fast_camera(fast_images.flatten(0, 1), instruction)  # (B * cameras, K, 2)
        views = self.fast_view(points.flatten(1))  # (B * cameras, 2W)
        views = views.reshape(batch, 2 * cameras, -1)  # (B, 2 * cameras, W)
        tokens = torch.cat([views, self.proprioception(proprioception)[:, None]], dim=1)
        condition = self.instruction(slow.instruction) + self.places(_waves(slow.places).flatten(1))
        condition = condition + self.age(sinusoid(age_s * _TIME_SCALE, 64))
        return FastFeatures(tokens, condition)

    def velocity(self, slow: SlowFeatures, fast: FastFeatures, x: Tensor, t: Tensor, committed: Tensor) -> Tensor:
        """Flow velocity of the chunk at time t.

        Args:
            x: (B, horizon, joints); committed actions stand at time 1.
            t: (B,) flow time of the others.
            committed: (B, horizon) bool, whole tokens only.

        Returns:
            (B, horizon, joints); what stands at committed actions means nothing.
        """
        config = self.config
        batch = x.shape[0]
        actions = self.action_in(x.reshape(batch, config.action_tokens, -1))
        tokens = torch.cat([fast.tokens.to(actions.dtype), actions], dim=1) + self.token_names
        seen = torch.ones(batch, fast.tokens.shape[1], dtype=torch.bool, device=x.device)
        clean = torch.cat([seen, committed[:, :: config.steps_per_token]], dim=1)  # (B, N)
        both = torch.stack([t, torch.ones_like(t)], dim=1).flatten()  # (2B,)
        times = self.time(sinusoid(both * _TIME_SCALE, 128)).reshape(batch, 2, -1) + fast.condition[:, None]
        times = F.silu(times)  # (B, 2, W)
        for block, context in zip(self.blocks, slow.keys_values, strict=True):
            tokens = block(tokens, context, times, clean)
        shift, scale = self.final_modulation(times[:, :1]).chunk(2, dim=-1)
        out = self.action_out(_norm(tokens[:, -config.action_tokens :], shift, scale))
        return out.reshape(batch, config.horizon, config.joints)
