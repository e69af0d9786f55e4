"""The loss of the dual-system policy: flow matching on what is not committed, and a hint for the slow features.

Conditional flow matching with straight paths (Lipman et al., 2023): ``x_t = (1 - t) noise + t action`` and the network
learns ``action - noise``. Committed actions stand clean in the input and count nothing in the loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dit_policy_ros.policy.dual_system import DualSystem, FastFeatures, SlowFeatures
from dit_policy_ros.train.samples import Batch


@dataclass(frozen=True)
class Losses:
    """Scalars of one step."""

    flow: Tensor
    grasp: Tensor
    phrase: Tensor


class Objective(nn.Module):
    """Network and auxiliary heads; the heads are used in training only."""

    def __init__(self, network: DualSystem, flow_samples: int, phrase_groups: int) -> None:
        super().__init__()
        self.network = network
        self.phrase_head = nn.Linear(network.config.condition, phrase_groups)
        self.grasp_head = nn.Linear(network.config.width, network.config.joints)
        self._flow_samples = flow_samples

    def forward(self, batch: Batch, generator: torch.Generator) -> Losses:
        """Draws noises and flow times, and returns the losses."""
        slow = self.network.encode(batch.slow_image, batch.hashed)
        fast = self.network.look(slow, batch.fast_images, batch.state, batch.age_s)
        actions, committed = self._repeat(batch.actions), self._repeat(batch.committed)
        noise = torch.randn(actions.shape, generator=generator).to(actions.device)
        t = torch.rand(len(actions), generator=generator).to(actions.device)
        mixed = (1 - t)[:, None, None] * noise + t[:, None, None] * actions
        x = torch.where(committed[..., None], actions, mixed)
        velocity = self.network.velocity(self._repeat_slow(slow), self._repeat_fast(fast), x, t, committed)
        wanted = (~committed[..., None]).float()
        error = (velocity.float() - (actions - noise)).square() * wanted
        flow = error.sum() / (wanted.sum() * actions.shape[-1])
        miss = (self.grasp_head(slow.summary).float() - batch.grasp).square() * batch.grasp_known
        grasp = miss.sum() / batch.grasp_known.sum().clamp(min=1)
        return Losses(flow, grasp, self._phrase_loss(batch))

    def _phrase_loss(self, batch: Batch) -> Tensor:
        known = batch.phrase_groups >= 0
        if not bool(known.any()):
            return batch.actions.new_zeros(())
        guess = self.phrase_head(self.network.text(batch.phrases[known])).float()
        return nn.functional.cross_entropy(guess, batch.phrase_groups[known])

    def _repeat(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self._flow_samples, dim=0)

    def _repeat_slow(self, slow: SlowFeatures) -> SlowFeatures:
        pairs = tuple((self._repeat(keys), self._repeat(values)) for keys, values in slow.keys_values)
        return SlowFeatures(self._repeat(slow.instruction), pairs, self._repeat(slow.summary))

    def _repeat_fast(self, fast: FastFeatures) -> FastFeatures:
        return FastFeatures(self._repeat(fast.tokens), self._repeat(fast.condition))
