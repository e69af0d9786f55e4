"""Paths of the hands as lines in a camera's image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

import numpy as np

from dit_policy_ros.calibration import Calibration
from dit_policy_ros.evaluate.document import jpeg_source

_NEAR_M = 0.01
"""What is nearer to a camera has no place in its image."""


class ForwardKinematics(Protocol):
    """Where a robot's hands and bodies are; ``sim.kinematics`` implements it."""

    def tips(self, positions: Mapping[str, float]) -> dict[str, np.ndarray]:
        """Returns arm to (3,) in the world, [m]."""

    def body_pose(self, body: str, positions: Mapping[str, float]) -> np.ndarray:
        """Returns (4, 4) in the world."""


@dataclass(frozen=True)
class Path:
    """One line in an image."""

    kind: str
    """Style: 'policy' or 'recorded'."""
    pixels: np.ndarray
    """(K, 2) of the calibration's images; NaN where it is behind the camera."""


def tip_paths(kinematics: ForwardKinematics, names: Sequence[str], positions: np.ndarray) -> dict[str, np.ndarray]:
    """Returns arm to (K, 3) in the world for (K, J) joint positions; NaN where a position is not known."""
    found: dict[str, list[np.ndarray]] = {}
    for row in positions:
        tips = kinematics.tips(dict(zip(names, row.tolist(), strict=True)))
        for arm, place in tips.items():
            found.setdefault(arm, []).append(place if np.isfinite(row).all() else np.full(3, np.nan))
    return {arm: np.array(places) for arm, places in found.items()}


def project(points: np.ndarray, calibration: Calibration, carrier: np.ndarray) -> np.ndarray:
    """Returns the pixels of points, (K, 2); NaN where a point is behind the camera or not known.

    Args:
        points: (K, 3) in the world, [m].
        carrier: (4, 4), pose of the body that carries the camera; identity for one that stands still.
    """
    camera_to_world = carrier @ calibration.pose
    local = (points - camera_to_world[:3, 3]) @ camera_to_world[:3, :3]
    depth = np.where(local[:, 2] > _NEAR_M, local[:, 2], np.nan)
    pixels = local @ calibration.matrix.T
    return pixels[:, :2] / depth[:, None]


def paths_in_image(
    kinematics: ForwardKinematics,
    calibration: Calibration,
    names: Sequence[str],
    measured: np.ndarray,
    motions: Mapping[str, np.ndarray],
) -> list[Path]:
    """Returns the lines of both hands for some motions, seen from where the camera is at one instant.

    Args:
        measured: (J,) positions at that instant.
        motions: style to (K, J) positions over time.
    """
    carrier = np.eye(4)
    if calibration.frame:
        carrier = kinematics.body_pose(calibration.frame, dict(zip(names, measured.tolist(), strict=True)))
    paths = []
    for kind, positions in motions.items():
        for points in tip_paths(kinematics, names, positions).values():
            pixels = project(points, calibration, carrier)
            if _is_seen(pixels, calibration.size):
                paths.append(Path(kind, pixels))
    return paths


def overlay(jpeg: bytes, size: tuple[int, int], paths: Sequence[Path], alt: str) -> str:
    """Returns an image with lines over it, as SVG; a ring marks where each line begins, a dot where it ends."""
    width, height = size
    scale = width / 320
    parts = []
    for path in paths:
        known = path.pixels[np.isfinite(path.pixels).all(axis=1)]
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in known)
        (x0, y0), (x1, y1) = known[0], known[-1]
        parts.append(
            f'<path class="line {path.kind}" style="stroke-width:{2 * scale:.1f}" d="M{line}"/>'
            f'<circle class="line {path.kind}" style="stroke-width:{1.5 * scale:.1f}" cx="{x0:.1f}" cy="{y0:.1f}" '
            f'r="{3.5 * scale:.1f}"/>'
            f'<circle class="line {path.kind}" style="stroke-width:{5 * scale:.1f};stroke-linecap:round" '
            f'cx="{x1:.1f}" cy="{y1:.1f}" r="{0.5 * scale:.1f}"/>'
        )
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(alt)}" '
        f'style="border-radius:6px;overflow:hidden"><image href="{jpeg_source(jpeg)}" width="{width}" '
        f'height="{height}" preserveAspectRatio="none"/>{"".join(parts)}</svg>'
    )


def _is_seen(pixels: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether a line touches the image."""
    with np.errstate(invalid="ignore"):
        inside = ((pixels >= 0) & (pixels < np.array(size))).all(axis=1)
    return bool(inside.sum() >= 2)
