"""Both systems on one GPU: a stream for each, so that a chunk does not wait for the encode that runs beside it."""

from __future__ import annotations

from typing import Any

import torch

from dit_policy_ros.policy.steering import Steering
from dit_policy_ros.types import ActionChunk, Context, Observation

SLOW_PRIORITY, FAST_PRIORITY = 0, -1
"""Of CUDA streams; lower goes first."""


class TwoStreams:
    """A policy on a GPU, ``encode`` on a stream of low priority and ``act`` on one of high priority.

    ``encode`` and ``act`` may be called from two threads. What ``encode`` leaves on the GPU may still be in the making
    when it returns; an event makes ``act`` wait for that, on the GPU. ``act`` holds what it reads until its chunk is on
    the host, so no memory of it is reused too early. All else is the policy's own.
    """

    def __init__(self, policy: Any, device: torch.device, cuda: Any = torch.cuda) -> None:
        """Makes the streams, once the weights are there.

        Args:
            policy: on the device already.
            cuda: ``torch.cuda``, or what stands for it.
        """
        self._placed, self._cuda = policy, cuda
        self._slow = cuda.Stream(device=device, priority=SLOW_PRIORITY)
        self._fast = cuda.Stream(device=device, priority=FAST_PRIORITY)
        self._encoded: Any = None
        """Event behind the newest encode."""
        cuda.synchronize(device)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._placed, name)

    def encode(self, observation: Observation, instruction: str, epoch: int = 0) -> Context:
        """System 2; see ``types.Policy``."""
        with self._cuda.stream(self._slow):
            context = self._placed.encode(observation, instruction, epoch)
            encoded = self._cuda.Event()
            encoded.record(self._slow)
        self._encoded = encoded
        return context

    def act(
        self,
        observation: Observation,
        context: Context,
        committed: ActionChunk | None = None,
        steering: Steering | None = None,
    ) -> ActionChunk:
        """System 1; see ``types.Policy``."""
        if self._encoded is not None:
            self._fast.wait_event(self._encoded)
        with self._cuda.stream(self._fast):
            if steering is None:
                return self._placed.act(observation, context, committed)
            return self._placed.act(observation, context, committed, steering)
