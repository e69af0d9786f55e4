"""The loss of the dual-system policy: flow matching on what is not committed, and hints for the slow features.

Conditional flow matching with straight paths (Lipman et al., 2023): ``x_t = (1 - t) noise + t action`` and the network
learns ``action - noise``. Committed actions stand clean in the input and count nothing in the loss.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dit_policy_ros.policy.dual_system import DualSystem, FastFeatures, SlowFeatures
from dit_policy_ros.policy.text import hash_words
from dit_policy_ros.train.config import TrainConfig
from dit_policy_ros.train.curriculum import Lesson
from dit_policy_ros.train.phrase import NO_GROUP, Phrase
from dit_policy_ros.train.samples import Batch
from dit_policy_ros.train.scenes import SceneBatch

_MEANING_SPREAD = 0.75
"""Of each number of a meaning; two meanings are then about twelve apart, and the noise moves one by at most 1.5."""
_READING_KNEE = 10.0
"""Beyond this squared distance the loss of reading grows as a logarithm: a sentence that lost too many words to be read
pulls no harder."""
_PLACE_KNEE = 0.1
"""Beyond this error, relative to half the table, the place loss grows in a line: a hidden object pulls no harder."""


@dataclass(frozen=True)
class Losses:
    """Scalars of one step, 0 where it taught no such thing."""

    flow: Tensor
    grasp: Tensor
    phrase: Tensor
    place: Tensor


class Objective(nn.Module):
    """Network, an auxiliary head, and what each thing to ask for is to be read as; the last two in training only."""

    def __init__(self, network: DualSystem, config: TrainConfig) -> None:
        super().__init__()
        self.network = network
        meanings = _MEANING_SPREAD * torch.randn(config.phrase_groups, network.config.condition)
        self.register_buffer("meanings", meanings)
        self.grasp_head = nn.Linear(network.config.width, network.config.joints)
        self._flow_samples = config.flow_samples
        self._blind_share = config.blind_share
        self._place_noise = config.place_noise
        self._meaning_noise = config.meaning_noise
        self._before: tuple[DualSystem, ...] = ()
        """Whose places without an answer are held to; a tuple keeps its weights out of this module's."""

    def hold_unanswered(self) -> None:
        """From now on places without an answer are to stay as the network says them now: System 1 knows them so."""
        self._before = (copy.deepcopy(self.network).eval().requires_grad_(False),)

    @torch.no_grad()
    def mean_as_read(self, phrases: Sequence[Phrase]) -> None:
        """Takes over how the network reads: each group is to be read as its sentences are on average by now."""
        phrases = [phrase for phrase in phrases if phrase.group != NO_GROUP]
        if not phrases:
            return
        groups = torch.tensor([phrase.group for phrase in phrases])
        read = self.network.text(torch.stack([hash_words(phrase.text) for phrase in phrases]))
        for group in groups.unique():
            self.meanings[group] = read[groups == group].mean(0)

    def forward(self, lesson: Lesson, generator: torch.Generator) -> Losses:
        """Draws noises and flow times, and returns the losses."""
        zero = self.grasp_head.weight.new_zeros(())
        flow = grasp = phrase = place = zero
        if lesson.batch is not None:
            flow, grasp = self._act_losses(lesson.batch, lesson.finds, generator)
        if lesson.batch is not None and lesson.finds:
            phrase = self._phrase_loss(self.network.text(lesson.batch.phrases), lesson.batch.phrase_groups)
        if lesson.scenes is not None:
            place, same = self._scene_losses(lesson.scenes, generator)
            phrase = phrase + same
        return Losses(flow, grasp, phrase, place)

    def _act_losses(self, batch: Batch, finds: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        with torch.set_grad_enabled(finds):
            found = self.network.find(batch.slow_image, batch.hashed)
        noise = torch.randn(found.places.shape, generator=generator).to(found.places)
        slow = self.network.tell(found.instruction, found.places + self._place_noise * noise)
        fast = self._blinded(self.network.look(slow, batch.fast_images, batch.state, batch.age_s), generator)
        actions, committed = self._repeat(batch.actions), self._repeat(batch.committed)
        noise = torch.randn(actions.shape, generator=generator).to(actions.device)
        t = torch.rand(len(actions), generator=generator).to(actions.device)
        mixed = (1 - t)[:, None, None] * noise + t[:, None, None] * actions
        x = torch.where(committed[..., None], actions, mixed)
        velocity = self.network.velocity(self._repeat_slow(slow), self._repeat_fast(fast), x, t, committed)
        wanted = (~committed & self._repeat(batch.foreseeable))[..., None].float()
        error = (velocity.float() - (actions - noise)).square() * wanted
        flow = error.sum() / (wanted.sum() * actions.shape[-1]).clamp(min=1)
        miss = (self.grasp_head(found.summary).float() - batch.grasp).square() * batch.grasp_known
        grasp = miss.sum() / batch.grasp_known.sum().clamp(min=1)
        return flow, grasp

    def _blinded(self, fast: FastFeatures, generator: torch.Generator) -> FastFeatures:
        """Hides the fast cameras of some samples, so that where to go is learned from the slow system."""
        views = 2 * self.network.config.fast_cameras
        hidden = torch.rand(len(fast.tokens), generator=generator) < self._blind_share
        seen = torch.ones(fast.tokens.shape[:2])
        seen[hidden, :views] = 0.0
        return FastFeatures(fast.tokens * seen[..., None].to(fast.tokens), fast.condition)

    def _scene_losses(self, scenes: SceneBatch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The eye is told what is meant, not what was read: reading learns by itself, and neither spoils the other."""
        read = self.network.text(scenes.hashed)
        size = self._meaning_noise * torch.rand(len(read), 1, generator=generator)
        noise = (size * torch.randn(read.shape, generator=generator)).to(read.device)
        meant = self.meanings[scenes.groups.clamp(min=0)] + noise
        told = torch.where((scenes.groups >= 0)[:, None], meant, read.float())
        guess = self.network.seek(scenes.images, told).places.float()
        answers, known = scenes.places, scenes.known
        for before in self._before:
            held = before.to(told.device).seek(scenes.images, told.detach()).places.float()
            answers, known = torch.where(known, answers, held), torch.ones_like(known)
        miss = nn.functional.smooth_l1_loss(guess, answers, reduction="none", beta=_PLACE_KNEE) * known
        return miss.sum() / known.sum().clamp(min=1), self._phrase_loss(read, scenes.groups)

    def _phrase_loss(self, instructions: Tensor, groups: Tensor) -> Tensor:
        known = groups >= 0
        if not bool(known.any()):
            return instructions.new_zeros(())
        distance = (instructions[known].float() - self.meanings[groups[known]]).square().sum(-1)
        return _READING_KNEE * (distance / _READING_KNEE).log1p().mean()

    def _repeat(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self._flow_samples, dim=0)

    def _repeat_slow(self, slow: SlowFeatures) -> SlowFeatures:
        pairs = tuple((self._repeat(keys), self._repeat(values)) for keys, values in slow.keys_values)
        return SlowFeatures(self._repeat(slow.instruction), pairs, self._repeat(slow.places))

    def _repeat_fast(self, fast: FastFeatures) -> FastFeatures:
        return FastFeatures(self._repeat(fast.tokens), self._repeat(fast.condition))
