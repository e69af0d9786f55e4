"""In which order a run learns: first where things are, then to act without forgetting it."""

from __future__ import annotations

from dataclasses import dataclass

from dit_policy_ros.train.config import TrainConfig
from dit_policy_ros.train.samples import Batch, BatchSource
from dit_policy_ros.train.scenes import SceneBatch, SceneSource


@dataclass(frozen=True)
class Lesson:
    """What one step learns from; at least one of the two is there."""

    scenes: SceneBatch | None
    batch: Batch | None
    finds: bool = True
    """Whether System 2 learns too."""


class Curriculum:
    """Hands out lessons in order."""

    def __init__(self, source: BatchSource, scenes: SceneSource | None, config: TrainConfig, step: int) -> None:
        """Begins at ``step``. Without scenes every lesson is one of acting."""
        self._source, self._scenes = source, scenes
        self._config = config
        self._step = step

    def draw(self) -> Lesson:
        """Returns the next lesson."""
        config, locating = self._config, self._step < self._config.locate_steps
        self._step += 1
        if self._scenes is not None and locating:
            return Lesson(self._scenes.draw(config.locate_batch), None)
        goes_on = self._scenes is not None and config.find_while_acting and config.scenes > 0
        scenes = self._scenes.draw(config.scenes) if goes_on else None
        return Lesson(scenes, self._source.draw(), config.find_while_acting)
