"""Turns wanted waypoints into the nearest motion that keeps every limit of every joint, and ends at rest.

A motion is returned only after it was checked, whole, between its knots too. What is tried is ordered by how little it
changes. Joints do not influence each other, so any number of robots can be limited in one call.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dit_policy_ros.actions.fade import PIECES, faded
from dit_policy_ros.actions.limits import KINDS, JointLimits, excesses, within
from dit_policy_ros.actions.motion import Motion, control_points, through
from dit_policy_ros.actions.nearest import nearest_motion
from dit_policy_ros.actions.stop import stop_motion, stops

FADES = (1, 2, 3, 4, 6, 8, 12, 16)
"""Steps per piece in which the difference to the present motion may die away."""
_ROUNDS = (40, 150)
_TAIL = 6
"""Steps after the last waypoint in which a changed motion may come to rest."""
_BLENDS = np.array([0.98, 0.95, 0.9, 0.8, 0.65, 0.5, 0.35, 0.2, 0.1, 0.05, 0.02, 0.0])
_TARGET_SPEED = 0.93
"""Of the speed limit, where waypoints are too far apart; the rest is for catching up."""


@dataclass(frozen=True)
class Limited:
    """A motion inside the limits, and what of the wanted one was outside."""

    motion: Motion
    """From the start through rest. A joint that is not ``feasible`` stands still in it, wherever it was going."""
    feasible: np.ndarray
    """(J,) bool; False where nothing inside the limits was found, not even a hold."""
    unchanged: np.ndarray
    """(J,) bool; True where all waypoints are followed exactly once the start has been caught up with."""
    hits: dict[str, np.ndarray]
    """For each of ``KINDS`` (J,) int64, how many pieces of the wanted motion exceed that limit."""


def limit_motion(
    limits: JointLimits,
    start: Motion,
    past: np.ndarray,
    wanted: np.ndarray,
    exact: bool = False,
    otherwise: Motion | None = None,
    room: JointLimits | None = None,
) -> Limited:
    """Limits one series of waypoints.

    In this order, for each joint, the first that keeps all limits: the spline through the waypoints, caught up with in
    three steps; the motion nearest to it; the motion nearest to waypoints no farther apart than the speed limit; a
    blend of that and the hold; the hold, or where there is none, what was planned before.

    Args:
        start: the present motion, one knot (1, J).
        past: (P, J) what the waypoints' source says of the steps before the start and of the start itself, P >= 1.
        wanted: (N, J) waypoints of the steps after the start, N >= 1.
        exact: never leave the waypoints; there is more time to catch up with them, and perhaps no motion.
        otherwise: what was planned before, from the start through rest; it is inside the limits.
        room: limits that also include where the joints may be while they come back from outside; by default where
            they start.
    """
    targets = np.clip(wanted, limits.lower, limits.upper)
    past = np.clip(past, limits.lower, limits.upper)
    line = through(np.concatenate((past, targets)), start.step_s)[len(past) - 1 :]
    begin = start.positions[0]
    limits = limits.including(begin, begin) if room is None else room
    search = _Search(limits, start)
    line = rested(limits, line)
    at_once = faded(line.padded(PIECES + 1), start, FADES[0])
    search.keep(at_once, within(limits, at_once))
    hits = _hits(search, at_once[: len(wanted) + 1], targets != wanted)
    if exact and len(search.open):
        _catch_up(search, line)
    unchanged = search.found() & (targets == wanted).all(axis=0)
    if len(search.open) and not exact:
        _leave(search, past, targets, otherwise)
    return Limited(search.motion().trimmed(), search.found(), unchanged, hits)


def rested(limits: JointLimits, body: Motion) -> Motion:
    """Appends the hold to a motion; what it exceeds is for the caller to check, and NaN exceeds everything."""
    end = body[-1:]
    found = stops(limits, end.positions[0], end.velocities[0], end.accelerations[0], body.step_s)
    return body.followed_by(stop_motion(found, end)[1:])


class _Search:
    """The joints for which a motion is still to be found, and those that were."""

    def __init__(self, limits: JointLimits, start: Motion):
        self.open = np.arange(start.positions.shape[1])
        """Columns of the joints without a motion."""
        self._limits, self._start = limits, start
        self._kept: list[tuple[np.ndarray, Motion]] = []

    @property
    def limits(self) -> JointLimits:
        """Limits of the open joints."""
        return self._limits.columns(self.open)

    @property
    def start(self) -> Motion:
        """Start of the open joints."""
        return self._start.columns(self.open)

    def keep(self, motion: Motion, good: np.ndarray) -> None:
        """Keeps the motion of those open joints where it is good, (len(open),) bool."""
        if good.all():
            self._kept.append((self.open, motion))
        elif good.any():
            self._kept.append((self.open[good], motion.columns(good)))
        self.open = self.open[~good]

    def found(self) -> np.ndarray:
        """Returns which joints have a motion, (J,) bool."""
        found = np.ones(self._start.positions.shape[1], dtype=bool)
        found[self.open] = False
        return found

    def motion(self) -> Motion:
        """Returns all that was kept, up to the instant at which the last joint comes to rest."""
        if len(self._kept) == 1 and not len(self.open):
            return self._kept[0][1]
        count = max((len(motion) for _, motion in self._kept), default=1)
        rest = np.zeros((count, self._start.positions.shape[1]))
        whole = Motion(self._start.step_s, rest + self._start.positions, rest.copy(), rest.copy())
        for columns, motion in self._kept:
            motion = motion.padded(count)
            whole.positions[:, columns] = motion.positions
            whole.velocities[:, columns] = motion.velocities
            whole.accelerations[:, columns] = motion.accelerations
        return whole


def _hits(search: _Search, at_once: Motion, is_clipped: np.ndarray) -> dict[str, np.ndarray]:
    hits = {kind: np.zeros(is_clipped.shape[1], dtype=np.int64) for kind in KINDS}
    if len(search.open):
        for kind, exceeded in excesses(search.limits, at_once.columns(search.open)).items():
            hits[kind][search.open] = np.count_nonzero(exceeded, axis=0)
    hits["position"] += np.count_nonzero(is_clipped, axis=0)
    return hits


def _catch_up(search: _Search, line: Motion) -> None:
    """Gives joints whose waypoints are inside the limits more time to get to them."""
    line = line.padded(PIECES * FADES[-1] + 1)
    hopeless = ~within(search.limits, line.columns(search.open))
    aside, search.open = search.open[hopeless], search.open[~hopeless]
    for steps in FADES[1:]:
        if len(search.open):
            caught = faded(line.columns(search.open), search.start, steps)
            search.keep(caught, within(search.limits, caught))
    search.open = np.sort(np.concatenate((search.open, aside)))


def _leave(search: _Search, past: np.ndarray, targets: np.ndarray, otherwise: Motion | None) -> None:
    """Keeps motions that leave the waypoints as little as is found, at last the hold."""
    points = control_points(np.concatenate((past, targets))[:, search.open])[len(past) + 2 :]
    nearest = nearest_motion(search.limits, search.start, points, _TAIL, _ROUNDS[0])
    _keep_rested(search, nearest)
    if not len(search.open):
        return
    reachable = _speed_limited(search, targets[:, search.open])
    points = np.concatenate((reachable[1:], reachable[-1:]))
    nearest = nearest_motion(search.limits, search.start, points, _TAIL, _ROUNDS[1])
    nearest = nearest.columns(~_keep_rested(search, nearest))
    if not len(search.open):
        return
    smooth = rested(search.limits, nearest)
    for hold in (rested(search.limits, search.start), otherwise):
        if hold is not None and len(search.open):
            hold = hold.columns(search.open) if hold is otherwise else hold
            blends = _blended(hold, smooth)
            inside = within(search.limits, blends)
            smooth = smooth.columns(~inside.any(axis=0))
            search.keep(_picked(blends, np.argmax(inside, axis=0)), inside.any(axis=0))


def _keep_rested(search: _Search, body: Motion) -> np.ndarray:
    """Keeps a motion of the open joints, brought to rest, where it is inside the limits; returns where, bool."""
    whole = rested(search.limits, body)
    good = within(search.limits, whole)
    search.keep(whole, good)
    return good


def _speed_limited(search: _Search, targets: np.ndarray) -> np.ndarray:
    """Returns waypoints of the open joints that are no farther apart than the speed limit allows, (N, J)."""
    reach = _TARGET_SPEED * search.start.step_s * search.limits.velocity
    limited = targets.copy()
    before = search.start.positions[0]
    for row in limited:
        np.minimum(np.maximum(row, before - reach), before + reach, out=row)
        before = row
    return limited


def _picked(levels: Motion, index: np.ndarray) -> Motion:
    """Returns for each joint one of several motions, (R, K, J) -> (K, J)."""
    joints = np.arange(len(index))
    parts = (levels.positions, levels.velocities, levels.accelerations)
    return Motion(levels.step_s, *(part[index, :, joints].T for part in parts))


def _blended(hold: Motion, other: Motion) -> Motion:
    """Returns hold + weight * (other - hold), both ending at rest, for each weight of ``_BLENDS``, (R, K, J).

    All limits are convex, so the part of the way that is allowed is one interval from the hold on.
    """
    count = max(len(hold), len(other))
    hold, other = hold.padded(count), other.padded(count)
    weights = _BLENDS[:, None, None]
    pairs = (
        (hold.positions, other.positions),
        (hold.velocities, other.velocities),
        (hold.accelerations, other.accelerations),
    )
    # Zero times NaN is NaN, and the hold alone is the last resort.
    return Motion(hold.step_s, *(np.where(weights > 0.0, a + weights * (b - a), a) for a, b in pairs))
