"""Chunks of a live run against the same chunks made from its bag.

What a live run cannot choose is fed back by the provenance that every chunk carries: which observation it was made
from, which context, and how many actions were committed. Everything else is made again from the recording, by the
same synchroniser and policy. Three delays are not in it: whether the joint state of an image's instant had arrived
when the image was used, whether another camera's next image had, and whether the next instruction had when an image
from before it was encoded. Both answers are tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from dit_policy_ros.data.bag_reader import Episode
from dit_policy_ros.errors import BagError
from dit_policy_ros.runtime.synchroniser import Synchroniser
from dit_policy_ros.types import ActionChunk, Context, Observation, Policy

SAME = 1e-9
"""Less is no difference."""


@dataclass(frozen=True)
class ChunkParity:
    """One live chunk beside its repetition."""

    observation_ns: int
    context_ns: int
    committed: int
    difference: float
    """Largest absolute difference of any action; 0 where they are the same."""


class ChunkRepeater:
    """Makes chunks of a recording again. Keeps the recording's images of a few instants only."""

    def __init__(self, episode: Episode, policy: Policy) -> None:
        self._episode, self._policy = episode, policy
        cameras = dict.fromkeys((*policy.slow_cameras, *policy.fast_cameras))
        self._stamps_ns = {camera: np.sort(episode.image_stamps_ns(camera)) for camera in cameras}
        self._contexts: dict[tuple[int, int, int], Context] = {}

    def compare(self, chunks: Sequence[ActionChunk]) -> tuple[ChunkParity, ...]:
        """Repeats chunks.

        Raises:
            BagError: the recording lacks an observation that a chunk was made from.
        """
        return tuple(self._compare(chunk) for chunk in chunks)

    def _compare(self, chunk: ActionChunk) -> ChunkParity:
        prefix = None
        if chunk.committed:
            prefix = replace(chunk, actions=chunk.actions[: chunk.committed])
        least = np.inf
        for context in self._contexts_of(chunk):
            for observation in self._observations(self._policy.fast_cameras, chunk.observation_ns):
                again = self._policy.act(observation, context, prefix)
                columns = [again.names.index(name) for name in chunk.names]
                least = min(least, float(np.abs(again.actions[:, columns] - chunk.actions).max()))
                if least < SAME:
                    return ChunkParity(chunk.observation_ns, chunk.context_ns, chunk.committed, least)
        return ChunkParity(chunk.observation_ns, chunk.context_ns, chunk.committed, least)

    def _contexts_of(self, chunk: ActionChunk) -> Iterator[Context]:
        """Yields what the context may have been; each is made once."""
        observations = self._observations(self._policy.slow_cameras, chunk.context_ns)
        for k, (observation, text) in enumerate(product(observations, self._said_around(chunk.context_ns))):
            key = (chunk.context_ns, chunk.epoch, k)
            if key not in self._contexts:
                self._contexts[key] = self._policy.encode(observation, text, chunk.epoch)
            yield self._contexts[key]

    def _said_around(self, stamp_ns: int) -> list[str]:
        """Returns the instruction that held at an instant, and the next one."""
        instructions = self._episode.instructions
        before = [text for log_ns, text in instructions if log_ns <= stamp_ns]
        after = [text for log_ns, text in instructions if log_ns > stamp_ns]
        return [*(before[-1:] or [self._episode.instruction]), *after[:1]]

    def _observations(self, cameras: Sequence[str], stamp_ns: int) -> Iterator[Observation]:
        """Yields what may have been seen, the likeliest first.

        The first camera's image is known, of the others it was the one before or after. Joints were known up to the
        sample at or after the stamp, or up to the one before.
        """
        reference, *others = cameras
        choices = [self._around(camera, stamp_ns) for camera in others]
        if stamp_ns not in self._stamps_ns[reference]:
            raise BagError(
                f"{self._episode.bag.path} has no image of {reference} at {stamp_ns} ns, which a chunk was made from; "
                "it is the recording of another run."
            )
        after = int(np.searchsorted(self._episode.joints.times_ns, stamp_ns))
        for newest, *stamps_ns in product((after, after - 1), *choices):
            wanted = dict(zip(cameras, (stamp_ns, *stamps_ns), strict=True))
            observation = self._observe(wanted, stamp_ns, min(newest, len(self._episode.joints.times_ns) - 1))
            if observation is not None:
                yield observation

    def _around(self, camera: str, stamp_ns: int) -> list[int]:
        known = self._stamps_ns[camera]
        after = int(np.searchsorted(known, stamp_ns, side="right"))
        return [int(known[k]) for k in (after - 1, after) if 0 <= k < len(known)]

    def _observe(self, wanted: dict[str, int], stamp_ns: int, newest: int) -> Observation | None:
        """Returns an observation of some images, with joints up to one sample; None where these do not reach it."""
        joints = self._episode.joints
        synchroniser = Synchroniser(self._episode.robot, reference=next(iter(wanted)))
        for k in range(max(0, newest - 1), newest + 1):
            positions = dict(zip(joints.names, joints.positions[k].tolist(), strict=True))
            synchroniser.add_joints(int(joints.times_ns[k]), positions)
        for camera, at_ns in wanted.items():
            decode = next(decode for known_ns, decode in self._episode.encoded_frames(camera) if known_ns == at_ns)
            synchroniser.add_image(camera, at_ns, decode)
        return synchroniser.assemble(tuple(wanted), max(stamp_ns, *wanted.values())).observation
