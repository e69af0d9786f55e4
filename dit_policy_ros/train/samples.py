"""Draws training batches from recorded episodes.

A sample is one instant of an episode: the fast cameras and joints then, the slow camera some time before, the commands
from then on, and how many of these are already committed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dit_policy_ros.data.dataset import Dataset
from dit_policy_ros.data.episode_cache import EpisodeArrays
from dit_policy_ros.policy.dual_policy import Range, image_tensor
from dit_policy_ros.train.config import TrainConfig
from dit_policy_ros.train.perturb import displaced, jitter
from dit_policy_ros.train.phrase import Phrase, obscured
from dit_policy_ros.types import nanoseconds, seconds

Rephrase = Callable[[EpisodeArrays, int, np.random.Generator], Phrase]
"""Another sentence for one of an episode's instructions, counted from 0."""


@dataclass(frozen=True)
class Batch:
    """Everything of one step, normalised. B observations."""

    slow_image: Tensor
    """(B, 3, H, W)."""
    fast_images: Tensor
    """(B, cameras, 3, h, w)."""
    hashed: Tensor
    """(B, words, pieces)."""
    state: Tensor
    """(B, joints)."""
    age_s: Tensor
    """(B,)."""
    actions: Tensor
    """(B, horizon, joints)."""
    committed: Tensor
    """(B, horizon) bool."""
    foreseeable: Tensor
    """(B, horizon) bool, actions that what is seen can tell: none after a surprise later than the slow image."""
    grasp: Tensor
    """(B, joints), joint targets at the next closing of each arm's gripper."""
    grasp_known: Tensor
    """(B, joints) bool."""
    phrases: Tensor
    """(P, words, pieces), further instructions without images."""
    phrase_groups: Tensor
    """(P,) int64, which of them ask for the same."""


class BatchSource:
    """The arithmetic of drawing from recordings. Equal seeds give equal batches."""

    def __init__(
        self,
        dataset: Dataset,
        config: TrainConfig,
        states: Range,
        actions: Range,
        grippers: Mapping[int, tuple[int, ...]],
        shares: np.ndarray,
        rephrase: Rephrase | None,
        seed: int,
    ) -> None:
        """Opens the frames.

        Args:
            grippers: column of each gripper to the columns of its arm, gripper included.
            shares: (episodes,) how often to draw each episode, sum 1.
            rephrase: draws another sentence each time; None keeps the recorded one.
        """
        self._episodes = dataset.episodes
        self._config = config
        self._states, self._actions = states, actions
        self._shares = shares
        self._arms = np.array([column not in grippers for column in range(len(states.lower))])
        self._rephrase = rephrase
        self._rng = np.random.default_rng(seed)
        names = [camera.name for camera in (config.slow_camera, *config.fast_cameras)]
        # Mapped from disk: hours of recordings do not fit in memory, and what is drawn often stays there anyway.
        self._frames = {name: [episode.frames(name) for episode in dataset.episodes] for name in names}
        self._grasps = [_coming_grasps(episode, grippers) for episode in dataset.episodes]
        self._approaches = [
            _approaches(episode, times) for episode, (times, _, _) in zip(dataset.episodes, self._grasps, strict=True)
        ]

    def draw(self) -> Batch:
        """Returns the next batch."""
        config = self._config
        picks = self._rng.choice(len(self._episodes), config.batch, p=self._shares)
        rows = [self._draw_one(int(pick)) for pick in picks]
        slow, fast, said, state, age, actions, committed, foreseeable, grasp, known = zip(*rows, strict=True)
        slow_image = jitter(image_tensor(np.stack(slow)), config.brightness, self._rng)
        fast_images = jitter(image_tensor(np.stack(fast)), config.brightness, self._rng)
        noise = self._rng.normal(0.0, config.state_noise, (config.batch, len(state[0])))
        return Batch(
            slow_image=slow_image,
            fast_images=fast_images,
            hashed=obscured(said, config, self._rng),
            state=_tensor(np.stack(state) + noise),
            age_s=_tensor(np.array(age)),
            actions=_tensor(np.stack(actions)),
            committed=torch.from_numpy(np.stack(committed)),
            foreseeable=torch.from_numpy(np.stack(foreseeable)),
            grasp=_tensor(self._actions.normalise(np.stack(grasp))),
            grasp_known=torch.from_numpy(np.stack(known)),
            **self._draw_phrases(),
        )

    def _draw_phrases(self) -> dict[str, Tensor]:
        picks = self._rng.choice(len(self._episodes), self._config.phrases)
        drawn = [self._phrase(self._episodes[pick], 0) for pick in picks]
        hashed = obscured(drawn, self._config, self._rng)
        return {"phrases": hashed, "phrase_groups": torch.tensor([phrase.group for phrase in drawn])}

    def _phrase(self, episode: EpisodeArrays, index: int) -> Phrase:
        if self._rephrase is not None:
            return self._rephrase(episode, index, self._rng)
        return Phrase(episode.said(index))

    def _draw_one(self, pick: int) -> tuple:
        config, episode, rng = self._config, self._episodes[pick], self._rng
        clock = episode.image_stamps_ns[config.fast_cameras[0].name]
        index = self._draw_instant(pick, clock)
        now_ns = int(clock[index])
        fast = [self._frame(camera.name, pick, now_ns)[0] for camera in config.fast_cameras]
        wanted_ns = now_ns - nanoseconds(rng.uniform(0.0, config.largest_context_age_s))
        slow, slow_ns = self._frame(config.slow_camera.name, pick, wanted_ns)
        # Before the first frame nothing had moved yet, so that frame stands for any earlier one.
        age_s = seconds(now_ns - min(slow_ns, wanted_ns))
        step = config.network.steps_per_token
        committed = np.arange(config.network.horizon) < step * rng.integers(config.largest_commitment + 1)
        times_ns = now_ns + episode.step_ns * np.arange(config.network.horizon)
        state = self._states.normalise(episode.positions_at(np.array([now_ns]))[0])
        actions = self._actions.normalise(episode.targets_at(times_ns))
        is_free = any(begin_ns <= now_ns < end_ns for begin_ns, end_ns in self._approaches[pick])
        size = config.displacement if is_free else config.displacement_holding
        state, actions = displaced(state, actions, int(committed.sum()), self._arms, size, config.return_steps, rng)
        times, targets, known = self._grasps[pick]
        coming = min(int(np.searchsorted(times, slow_ns, side="right")), len(times) - 1)
        seen = known[coming] & (times[coming] > slow_ns) & episode.foreseeable(slow_ns, times[[coming]])
        return (
            slow,
            np.stack(fast),
            self._phrase(episode, episode.instruction_index_at(slow_ns)),
            state,
            age_s,
            actions,
            committed,
            episode.foreseeable(slow_ns, times_ns),
            targets[coming],
            seen,
        )

    def _draw_instant(self, pick: int, clock: np.ndarray) -> int:
        """Index of a frame; often one of the last approach, where looking matters most."""
        begin, before = np.searchsorted(clock, self._approaches[pick][-1])
        if begin < before < len(clock) and self._rng.random() < self._config.approach_share:
            return int(self._rng.integers(begin, before))
        return int(self._rng.integers(len(clock)))

    def _frame(self, camera: str, pick: int, at_ns: int) -> tuple[np.ndarray, int]:
        """The newest frame at or before an instant, or the first one, and its stamp."""
        stamps = self._episodes[pick].image_stamps_ns[camera]
        index = max(int(np.searchsorted(stamps, at_ns, side="right")) - 1, 0)
        return self._frames[camera][pick][index], int(stamps[index])


def _approaches(episode: EpisodeArrays, grasps_ns: np.ndarray) -> tuple[tuple[int, int], ...]:
    """From when to when a hand was on its way: to the first grasp; from the last answered surprise to the next."""
    answered_ns = max(episode.answers_ns.values(), default=0)
    following_ns = grasps_ns[grasps_ns >= answered_ns]
    return (0, int(grasps_ns[0])), (answered_ns, int(following_ns[0]) if len(following_ns) else answered_ns)


def _coming_grasps(
    episode: EpisodeArrays, grippers: Mapping[int, tuple[int, ...]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """When some gripper closes next, and the joint targets of the arms then.

    Returns:
        Instants (E,) int64 ascending, targets (E, joints), and which are meant (E, joints) bool. The last instant is
        the end of the episode, with nothing meant.
    """
    targets = episode.targets
    events = []
    for gripper, arm in grippers.items():
        is_open = targets[:, gripper] > 0.5
        for row in np.flatnonzero(is_open[:-1] & ~is_open[1:]):
            events.append((int(episode.times_ns[row + 1]), row + 1, arm))
    events.sort()
    width = targets.shape[1]
    times = [event[0] for event in events] + [int(episode.times_ns[-1])]
    values = np.zeros((len(times), width), dtype=np.float32)
    known = np.zeros((len(times), width), dtype=bool)
    for row, (_, index, arm) in enumerate(events):
        values[row, list(arm)] = targets[index, list(arm)]
        known[row, list(arm)] = True
    return np.array(times, dtype=np.int64), values, known


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values)).float()
