"""What GR00T N1.5 and N1.6 do alike with the layers of ``gr00t``: denoise, sample, loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.corruption import interpolated
from dit_policy_ros.policy.gr00t import EPS, ActionEncoder, CategoryMlp, DiffusionTransformer, Gr00tCache, Gr00tConfig
from dit_policy_ros.policy.guide import Guide, guided
from dit_policy_ros.policy.layers import check_tokens
from dit_policy_ros.policy.samplers import euler
from dit_policy_ros.policy.samplers.flow import Velocity
from dit_policy_ros.policy.schedules import uniform_times


class ActionHead(nn.Module):
    """Base of both heads; they add ``encode``."""

    loss_eps = 0.0
    """Added to the number of counted elements in the loss."""

    def __init__(self, c: Gr00tConfig) -> None:
        super().__init__()
        self.config = c
        self.model = DiffusionTransformer(c)
        self.state_encoder = CategoryMlp(c.embodiments, c.state_dim, c.hidden, c.width)
        self.action_encoder = ActionEncoder(c)
        self.action_decoder = CategoryMlp(c.embodiments, c.out_width, c.hidden, c.action_dim)
        self.vlln = nn.LayerNorm(c.backbone_width, EPS) if c.vl_norm else nn.Identity()
        self.position_embedding = nn.Embedding(c.max_actions, c.width) if c.max_actions else None
        self.future_tokens: nn.Embedding | None = None
        self.register_parameter("mask_token", None)

    def normalized(self, features: Tensor) -> Tensor:
        """Returns the vision-language features (B, L, backbone_width) after their layer norm.

        Raises:
            PolicyError: they have another width.
        """
        check_tokens(features, self.config.backbone_width, features.shape[1], "vision-language")
        return self.vlln(features)

    def tokens(self, x: Tensor, t: Tensor, state: Tensor, embodiment: Tensor, dropped: Tensor | None = None) -> Tensor:
        """Returns the sequence of state, future and action tokens, (B, S + F + T, D); see ``forward``.

        Raises:
            PolicyError: an embodiment is unknown, or a state is to be dropped without a mask token.
        """
        known = self.config.embodiments
        if not ((embodiment >= 0) & (embodiment < known)).all():
            raise PolicyError(f"Embodiment {embodiment.tolist()} is not in the checkpoint; it has 0 to {known - 1}.")
        states = self.state_encoder(state, embodiment)  # (B, S, D)
        if dropped is not None:
            if self.mask_token is None:
                raise PolicyError("The checkpoint has no mask token: it was trained without state dropout.")
            states = torch.where(dropped.bool().reshape(-1, 1, 1), self.mask_token, states)
        parts = [states]
        if self.future_tokens is not None:
            parts.append(self.future_tokens.weight.expand(len(x), -1, -1))  # (B, F, D)
        actions = self.action_encoder(x, t, embodiment)  # (B, T, D)
        if self.position_embedding is not None:
            actions = actions + self.position_embedding.weight[: x.shape[1]]
        return torch.cat([*parts, actions], dim=1)

    def forward(
        self,
        cache: Gr00tCache,
        x: Tensor,
        t: Tensor,
        state: Tensor,
        embodiment: Tensor,
        dropped: Tensor | None = None,
    ) -> Tensor:
        """Returns the velocity (B, T, A).

        Args:
            x: (B, T, A) noisy actions, normalised.
            t: (B,) or (1,) integer flow time ``trunc(1000 t)``.
            state: (B, S, state_dim), normalised and padded with zeros.
            embodiment: (B,) integers.
            dropped: (B,) bool, samples whose state is replaced by the mask token, in training.
        """
        t = t.expand(len(x))
        tokens = self.model(self.tokens(x, t, state, embodiment, dropped), t, cache)  # (B, N, out_width)
        return self.action_decoder(tokens, embodiment)[:, -x.shape[1] :]

    denoise = nn.Module.__call__

    def velocity(self, cache: Gr00tCache, state: Tensor, embodiment: Tensor) -> Velocity:
        """Returns the network of one observation as a function of the flow time."""

        def velocity(x: Tensor, t: float) -> Tensor:
            bucket = torch.tensor([int(t * self.config.buckets)], device=x.device)
            return self(cache, x, bucket, state, embodiment)

        return velocity

    def sample(
        self,
        cache: Gr00tCache,
        noise: Tensor,
        state: Tensor,
        embodiment: Tensor,
        steps: int | None = None,
        guide: Guide | None = None,
    ) -> Tensor:
        """Returns normalised actions (B, T, A) from standard normal noise (B, T, A) by equal Euler steps."""
        velocity = guided(self.velocity(cache, state, embodiment), guide)
        return euler(velocity, noise, uniform_times(steps or self.config.steps))

    def squared_errors(
        self,
        cache: Gr00tCache,
        actions: Tensor,
        noise: Tensor,
        t: Tensor,
        state: Tensor,
        embodiment: Tensor,
        dropped: Tensor | None = None,
    ) -> Tensor:
        """Returns the squared error of the velocity at (B,) flow times, (B, T, A)."""
        buckets = (t * self.config.buckets).long()  # towards zero, below 0 too
        velocity = self(cache, interpolated(actions, noise, t), buckets, state, embodiment, dropped)
        return (velocity - (actions - noise)).square()

    def loss(self, squared_errors: Tensor, action_mask: Tensor) -> Tensor:
        """Returns the mean of ``squared_errors`` where ``action_mask`` (B, T, A) is 1."""
        return (squared_errors * action_mask).sum() / (action_mask.sum() + self.loss_eps)
