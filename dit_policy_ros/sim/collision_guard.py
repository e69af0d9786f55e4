"""Objects to motions in which parts of the robot come too close to each other or to what stands around."""

from __future__ import annotations

import mujoco
import numpy as np

from dit_policy_ros.actions.motion import Motion
from dit_policy_ros.runtime.guard import Finding
from dit_policy_ros.sim.robot_model import RobotModel

_LOOK_M = 0.01
"""How much farther than the margin distances are known; with more room, instants are skipped."""
_APPROACH_M = 5e-4
"""What is too close already must not come closer than this."""
_MOST_BETWEEN = 4
"""Places looked at between two knots."""


class CollisionGuard:
    """Follows a motion by conservative advancement: no part moves farther than the room that there was.

    Links that share a joint, what one joint moves together (a hand with its fingers), objects that are handled, and
    bodies that the description lets touch do not count. Where two parts are too close from the beginning, they may
    only part.
    """

    name = "collision"

    def __init__(self, model: RobotModel, margin_m: float, mode: str = "stop") -> None:
        """Prepares the model.

        Args:
            margin_m: distance that is kept, [m].
            mode: 'stop' or 'refuse'.
        """
        self.mode = mode
        self.checks = 0
        """Places that were looked at."""
        self._robot, self._margin = model, margin_m
        self._apart = _links_apart(model)
        self._link = model.links()[model.model.geom_bodyid]
        self._touching = np.isin(model.model.geom_bodyid, list(model.touching) or [-1])
        self._reach = model.reaches()
        handled = np.isin(model.model.body_rootid[model.model.geom_bodyid], list(model.objects) or [-1])
        solid = ~handled & ((self._link >= 0) | (model.model.geom_contype > 0) | (model.model.geom_conaffinity > 0))
        model.model.geom_contype[:] = model.model.geom_conaffinity[:] = solid
        model.model.geom_margin[:] = margin_m + _LOOK_M
        model.model.geom_gap[:] = 0.0

    def check(self, motion: Motion) -> Finding | None:
        """See ``Guard``."""
        positions = motion.positions
        if not np.isfinite(positions).all():
            return Finding(0, "joint positions are not finite")
        steps = np.abs(np.diff(positions[:, self._robot.columns], axis=0)) @ self._reach
        travelled = np.concatenate(([0.0], np.cumsum(steps)))
        begin = self.distances(positions[0])
        knot, room = 0, self._room(begin, begin)[0]
        while knot < len(positions) - 1:
            ahead = int(np.searchsorted(travelled, travelled[knot] + max(room, 0.0), side="right")) - 1
            knot_before, knot = knot, max(knot + 1, ahead)
            between = 1
            if ahead <= knot_before:
                between = min(_MOST_BETWEEN, int(np.ceil(steps[knot_before] / max(room, self._margin))))
            for share in np.arange(1, between + 1) / between:
                place = positions[knot_before] + share * (positions[knot] - positions[knot_before])
                room, pair = self._room(self.distances(place), begin)
                if room < 0.0:
                    return Finding(knot, self._text(pair, room))
        return None

    def distances(self, positions: np.ndarray) -> dict[tuple[int, int], float]:
        """Returns the pairs of geoms that are near each other, with their distance, [m]."""
        self.checks += 1
        self._robot.move(positions)
        model, data = self._robot.model, self._robot.data
        mujoco.mj_collision(model, data)
        found: dict[tuple[int, int], float] = {}
        pairs, distances = data.contact.geom, data.contact.dist
        for (first, second), distance in zip(pairs.tolist(), distances.tolist(), strict=True):
            if self.counts(first, second):
                found[first, second] = min(distance, found.get((first, second), np.inf))
        return found

    def counts(self, first: int, second: int) -> bool:
        """Returns whether two geoms are kept apart."""
        is_free = self._touching[first] and self._touching[second]
        return bool(self._apart[self._link[first], self._link[second]]) and not is_free

    def _room(
        self, distances: dict[tuple[int, int], float], begin: dict[tuple[int, int], float]
    ) -> tuple[float, tuple[int, int]]:
        """Returns how much closer any pair may come, and which."""
        room, closest = _LOOK_M, (-1, -1)
        for pair, distance in distances.items():
            least = min(self._margin, begin.get(pair, np.inf) - _APPROACH_M)
            if distance - least < room:
                room, closest = distance - least, pair
        return room, closest

    def _text(self, pair: tuple[int, int], room: float) -> str:
        model = self._robot.model
        names = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_BODY, int(model.geom_bodyid[geom])) for geom in pair]
        return f"{names[0]} and {names[1]} would come {1e3 * -room:.0f} mm too close (margin {1e3 * self._margin:g} mm)"


def _links_apart(model: RobotModel) -> np.ndarray:
    """(L + 1, L + 1) bool, which links are kept apart; the last is everything that no joint moves."""
    parents = model.parents()
    count = len(parents)
    apart = np.ones((count + 1, count + 1), dtype=bool)
    np.fill_diagonal(apart, False)
    for link, parent in enumerate(parents):
        apart[link, parent] = apart[parent, link] = False
    return apart
