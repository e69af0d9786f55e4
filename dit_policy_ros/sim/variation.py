"""How the looks of a world vary between episodes: light, table colour, and a nudged top camera."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np


@dataclass(frozen=True)
class Variation:
    """Looks of one episode. The defaults change nothing."""

    light_scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Brightness of each lamp relative to gym-aloha's."""
    ambient: float = 0.4
    """Head light, gym-aloha's is 0.4."""
    table_rgb: tuple[float, float, float] = (0.2, 0.2, 0.2)
    camera_shift_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Displacement of the top camera, world frame."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Variation:
        """Draws looks that a lab sees over a day: lamps 60-140 %, grey to tinted table, camera within 8 mm."""
        grey = rng.uniform(0.1, 0.4)
        return cls(
            light_scale=tuple(rng.uniform(0.6, 1.4, 3).tolist()),
            ambient=float(rng.uniform(0.3, 0.5)),
            table_rgb=tuple(np.clip(grey + rng.uniform(-0.06, 0.06, 3), 0.0, 1.0).tolist()),
            camera_shift_m=tuple(rng.uniform(-0.008, 0.008, 3).tolist()),
        )


class Looks:
    """Applies variations to one model, always starting from its original looks."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._table = model.geom("table").id
        self._camera = model.camera("top").id
        self._diffuse = model.light_diffuse.copy()
        self._camera_position = model.cam_pos[self._camera].copy()

    def apply(self, variation: Variation) -> None:
        """Sets lights, table and camera."""
        model = self._model
        model.light_diffuse[:] = self._diffuse * np.array(variation.light_scale)[:, None]
        model.vis.headlight.ambient[:] = variation.ambient
        model.geom_rgba[self._table, :3] = variation.table_rgb
        model.cam_pos[self._camera] = self._camera_position + np.array(variation.camera_shift_m)
