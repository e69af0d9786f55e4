"""Builds MuJoCo models from the assets inside the ``gym-aloha`` package; nothing of them is copied."""

from __future__ import annotations

from pathlib import Path

import mujoco
from gym_aloha.constants import ASSETS_DIR

CUBE_COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 0.75, 0.1), "blue": (0.1, 0.25, 1.0)}
CUBE_HALF_SIZE_M = 0.02


def transfer_cube_model() -> mujoco.MjModel:
    """Returns gym-aloha's cube world, unchanged."""
    return _without_multisampling(mujoco.MjModel.from_xml_path(str(_asset("bimanual_viperx_transfer_cube.xml"))))


def insertion_model() -> mujoco.MjModel:
    """Returns gym-aloha's peg-and-socket world, unchanged."""
    return _without_multisampling(mujoco.MjModel.from_xml_path(str(_asset("bimanual_viperx_insertion.xml"))))


def three_cubes_model() -> mujoco.MjModel:
    """Returns gym-aloha's cube world with a green and a blue cube of the same make beside the red one."""
    spec = mujoco.MjSpec.from_file(str(_asset("bimanual_viperx_transfer_cube.xml")))
    for key in list(spec.keys):
        spec.delete(key)  # its length no longer fits
    top = spec.camera("top")
    # A camera that looks straight down at its target spins when it is nudged sideways; this one keeps its heading.
    top.mode, top.quat, top.targetbody = mujoco.mjtCamLight.mjCAMLIGHT_FIXED, [1.0, 0.0, 0.0, 0.0], ""
    red = spec.geom("red_box")
    red.rgba = [*CUBE_COLOURS["red"], 1.0]
    for colour in ("green", "blue"):
        body = spec.worldbody.add_body(name=f"{colour}_box_body", pos=[0.2, 0.5, 0.05])
        body.add_joint(name=f"{colour}_box_joint", type=mujoco.mjtJoint.mjJNT_FREE, frictionloss=0.01)
        body.mass, body.inertia, body.ipos, body.explicitinertial = 0.05, [0.002] * 3, [0.0] * 3, True
        body.add_geom(
            name=f"{colour}_box",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[CUBE_HALF_SIZE_M] * 3,
            rgba=[*CUBE_COLOURS[colour], 1.0],
            condim=4,
            solimp=[2, 1, 0.01, 0.5, 2],
            solref=[0.01, 1],
            friction=[1, 0.005, 0.0001],
        )
    return _without_multisampling(spec.compile())


def _asset(name: str) -> Path:
    return Path(ASSETS_DIR) / name


def _without_multisampling(model: mujoco.MjModel) -> mujoco.MjModel:
    """Halves the cost of a software-rendered frame and touches no physics."""
    model.vis.quality.offsamples = 0
    return model
