"""Off-screen camera images. One renderer per image size is kept, since making one is slow."""

from __future__ import annotations

import atexit
import weakref

import mujoco
import numpy as np

_open: weakref.WeakSet[CameraRenderer] = weakref.WeakSet()


def _close_all() -> None:
    """OpenGL is gone by the time the interpreter deletes what is left, and says so at length."""
    for renderer in list(_open):
        renderer.close()


class CameraRenderer:
    """Renders named cameras of one model. Not thread-safe: an OpenGL context belongs to its thread."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        _open.add(self)

    def render(self, data: mujoco.MjData, camera: str, width: int, height: int) -> np.ndarray:
        """Returns an RGB image, (height, width, 3) uint8."""
        size = (width, height)
        if size not in self._renderers:
            self._renderers[size] = mujoco.Renderer(self._model, height, width)
            # MuJoCo ends OpenGL in a handler of its own, set just now; the last one set runs first.
            atexit.unregister(_close_all)
            atexit.register(_close_all)
        renderer = self._renderers[size]
        renderer.update_scene(data, camera)
        # Shadows and reflections cost five times the rest, and update_scene switches them on again.
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        return renderer.render()

    def close(self) -> None:
        """Frees the OpenGL contexts."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
