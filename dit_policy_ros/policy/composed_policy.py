"""General policy composition of two checkpoints: one chunk from both, see ``guidance.composition``."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.continuity.wrapped import WrappedPolicy
from dit_policy_ros.policy.family_policy import FamilyPolicy
from dit_policy_ros.policy.guidance.composition import composed
from dit_policy_ros.policy.guide import Guide, both
from dit_policy_ros.policy.steering import Drawing, Steering
from dit_policy_ros.types import ActionChunk, Context, Observation

OTHER = "composed_"
"""What the names of the second policy's tensors begin with in a context."""


class ComposedPolicy(WrappedPolicy):
    """The first policy samples; in every step the prediction of the second one joins that of its own network."""

    joins = False

    def __init__(self, policy: FamilyPolicy, other: FamilyPolicy, weights: tuple[float, float]) -> None:
        """Joins two policies, each with its own encoders, cameras and states.

        Raises:
            PolicyError: their predictions cannot be added up.
        """
        super().__init__(policy)
        check_composable(policy, other)
        self.other = other
        self.weights = weights
        self._newest: tuple[Context, Context, Context] | None = None
        """A context, and its two halves."""

    @property
    def predicts(self) -> str:
        """What both networks give."""
        return self.policy.predicts

    @property
    def frames(self) -> int:
        """Images of each camera that ``encode`` looks at, one step apart."""
        return max(self.policy.frames, self.other.frames)

    @property
    def slow_cameras(self) -> tuple[str, ...]:
        """Cameras that ``encode`` looks at."""
        return tuple(dict.fromkeys((*self.policy.slow_cameras, *self.other.slow_cameras)))

    def example_observation(self) -> Observation:
        """Returns an observation that both accept."""
        ours, theirs = self.policy.example_observation(), self.other.example_observation()
        return replace(ours, positions=ours.positions | theirs.positions, images=ours.images | theirs.images)

    def encode(self, observation: Observation, instruction: str, epoch: int = 0) -> Context:
        """System 2; see ``types.Policy``."""
        ours, theirs = (policy.encode(observation, instruction, epoch) for policy in (self.policy, self.other))
        tensors = ours.tensors | {OTHER + name: tensor for name, tensor in theirs.tensors.items()}
        context = Context(min(ours.stamp_ns, theirs.stamp_ns), instruction, epoch, tensors)
        self._newest = (context, ours, theirs)
        return context

    def act(
        self,
        observation: Observation,
        context: Context,
        committed: ActionChunk | None = None,
        steering: Steering | None = None,
    ) -> ActionChunk:
        """System 1; see ``types.Policy`` and ``FamilyPolicy.act``."""
        ours, theirs = self._halves(context)
        steering = steering or Steering()

        def guide(drawing: Drawing) -> Guide:
            second = self.other.denoiser(observation, theirs, drawing.noise)
            return both(lambda network: composed((network, second), self.weights), steering.guided(drawing))

        chunk = self.policy.act(observation, ours, committed, Steering(steering.draw, guide))
        return replace(chunk, context_ns=context.stamp_ns)

    def _halves(self, context: Context) -> tuple[Context, Context]:
        """What each policy knows; split here only where another process made the context."""
        if self._newest is None or self._newest[0] is not context:
            mine = {name: tensor for name, tensor in context.tensors.items() if not name.startswith(OTHER)}
            other = {n.removeprefix(OTHER): tensor for n, tensor in context.tensors.items() if n.startswith(OTHER)}
            self._newest = (context, replace(context, tensors=mine), replace(context, tensors=other))
        return self._newest[1:]


def check_composable(ours: FamilyPolicy, theirs: FamilyPolicy) -> None:
    """Refuses policies whose predictions mean different things.

    Raises:
        PolicyError: what they predict, the noise, the instants or the channels differ.
    """
    for policy in (ours, theirs):
        if not policy.binding.alone:
            raise PolicyError(
                "This checkpoint denoises images or observations along with its actions, so that its prediction for "
                "the actions alone cannot be composed."
            )
    if ours.predicts != theirs.predicts or not _same_noise(ours, theirs):
        raise PolicyError(
            f"Composed policies need one kind of prediction and of noise; these predict {ours.predicts} and "
            f"{theirs.predicts}, with {_noise(ours)} and {_noise(theirs)}."
        )
    instants = [(policy.binding.horizon, policy.binding.lead, policy.step_ns) for policy in (ours, theirs)]
    if instants[0] != instants[1]:
        raise PolicyError(
            "Composed policies need the same horizon, rows before the observation and step [ns]; these have "
            f"{instants[0]} and {instants[1]}."
        )
    if not _same(ours.config.actions, theirs.config.actions):
        raise PolicyError(
            "Composed policies need the same action channels in the same units; make 'actions' and the statistics of "
            "both equal."
        )


def _same_noise(ours: FamilyPolicy, theirs: FamilyPolicy) -> bool:
    mine, other = ours.binding.diffusion, theirs.binding.diffusion
    if mine is None or other is None:
        return mine is other
    levels = [np.array(each.schedule.alphas_cumprod) for each in (mine, other)]
    return len(levels[0]) == len(levels[1]) and np.allclose(*levels, rtol=1e-3, atol=0)


def _noise(policy: FamilyPolicy) -> str:
    own = policy.binding.diffusion
    if own is not None:
        return f"{own.schedule.steps} diffusion steps that end at {own.schedule.alphas_cumprod[-1]:.3g}"
    return "flow times" if policy.binding.flow else "noise levels"


def _same(a: Any, b: Any) -> bool:
    """Whether two values are equal, arrays in them included."""
    if type(a) is not type(b):
        return False
    if is_dataclass(a):
        return all(_same(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b
