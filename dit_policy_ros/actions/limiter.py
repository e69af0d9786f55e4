"""Turns wanted waypoints into the nearest motion that keeps every limit of every joint, and ends at rest.

A motion is returned only after it was checked, whole, between its knots too. What is tried is ordered by how little it
changes. Joints do not influence each other, so any number of robots can be limited in one call.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dit_policy_ros.actions.blend import blended
from dit_policy_ros.actions.fade import PIECES, faded
from dit_policy_ros.actions.limits import KINDS, JointLimits, exceeds, excesses, within
from dit_policy_ros.actions.motion import Motion, control_points, from_control_points
from dit_policy_ros.actions.nearest import nearest_motion
from dit_policy_ros.actions.reachable import caught_up, reachable_points
from dit_policy_ros.actions.stop import stop_motion, stops

FADES = (1, 2, 3, 4, 6, 8, 12, 16)
"""Steps per piece in which the difference to the present motion may die away."""
_ROUNDS = 24
_FEW_ROUNDS = 4
"""Where nothing but chunks out of reach is to be followed."""
_MOST = (1.0, 0.5, 0.0)
"""Of the way from what was planned before, in turn."""
_TAIL = 6
"""Steps after the last waypoint in which a changed motion may come to rest."""


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
    three steps; the motion nearest to it, or where waypoints are too far apart for the speed limit, to the nearest that
    are not; a blend of that and what was planned before; what was planned before. Where that is not known, the hold
    takes its place.

    Args:
        start: the present motion, one knot (1, J).
        past: (P, J) what the waypoints' source says of the steps before the start and of the start itself, P >= 1.
        wanted: (N, J) waypoints of the steps after the start, N >= 1.
        exact: never leave the waypoints; there is more time to catch up with them, and perhaps no motion.
        otherwise: what was planned before, from the start through rest; it is inside the limits.
        room: limits that also include where the joints may be while they come back from outside; by default where
            they start.
    """
    waypoints = np.minimum(np.maximum(np.concatenate((past, wanted)), limits.lower), limits.upper)
    targets, points = waypoints[len(past) :], control_points(waypoints)
    line = from_control_points(points, start.step_s, waypoints)[len(past) - 1 :]
    begin = start.positions[0]
    limits = limits.including(begin, begin) if room is None else room
    search = _Search(limits, start)
    hits = _at_once(search, line, targets != wanted)
    if exact and len(search.open):
        _catch_up(search, rested(limits, line))
    unchanged = search.found() & (targets == wanted).all(axis=0)
    if len(search.open) and not exact:
        # The start takes the place of those before.
        _leave(search, targets, points[len(past) + 2 :], otherwise)
    return Limited(search.motion().trimmed(), search.found(), unchanged, hits)


def rested(limits: JointLimits, body: Motion) -> Motion:
    """Appends the hold to a motion; what it exceeds is for the caller to check, and NaN exceeds everything."""
    end = body[-1:]
    found = stops(limits, end.velocities[0], end.accelerations[0], body.step_s)
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
        if len(self.open) == len(self._limits.lower):
            return self._limits
        return self._limits.columns(self.open)

    @property
    def start(self) -> Motion:
        """Start of the open joints."""
        if len(self.open) == self._start.positions.shape[1]:
            return self._start
        return self._start.columns(self.open)

    def keep(self, motion: Motion, good: np.ndarray, of: np.ndarray | None = None) -> None:
        """Keeps the motion where it is good.

        Args:
            motion: of all open joints, or of those that ``of`` says, (len(open),) bool.
            good: (joints of the motion,) bool.
        """
        joints = self.open if of is None else self.open[of]
        if good.all():
            self._kept.append((joints, motion))
        elif good.any():
            self._kept.append((joints[good], motion.columns(good)))
        if of is None:
            self.open = self.open[~good]
        else:
            closed = of.copy()
            closed[of] = good
            self.open = self.open[~closed]

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


def _at_once(search: _Search, line: Motion, is_clipped: np.ndarray) -> dict[str, np.ndarray]:
    """Keeps the line itself, caught up with as soon as can be, where it is inside the limits; counts what is outside.

    Args:
        is_clipped: (N, J) bool, which waypoints were outside the position limits.
    """
    limits, is_short = search.limits, len(line) <= PIECES
    caught = faded((rested(limits, line) if is_short else line).padded(PIECES + 1), search.start, FADES[0])
    # What is too hard at a knot already need not be brought to rest.
    possible = ~exceeds(np.abs(caught.accelerations).max(axis=0), limits.acceleration)
    if possible.all():
        whole = caught if is_short else rested(limits, caught)
        search.keep(whole, within(limits, whole))
    elif (possible := possible & within(limits, caught)).any():
        limits, whole = limits.columns(possible), caught.columns(possible)
        whole = whole if is_short else rested(limits, whole)
        search.keep(whole, within(limits, whole), possible)
    hits = np.zeros((len(KINDS), is_clipped.shape[1]), dtype=np.int64)
    if len(search.open):
        outside = excesses(search.limits, caught[: len(is_clipped) + 1].columns(search.open))
        hits[:, search.open] = np.array(tuple(outside.values())).sum(axis=1)
    hits[KINDS.index("position")] += is_clipped.sum(axis=0)
    return dict(zip(KINDS, hits, strict=True))


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


def _leave(search: _Search, targets: np.ndarray, points: np.ndarray, otherwise: Motion | None) -> None:
    """Keeps motions that leave the waypoints as little as is found, at last what was planned before.

    Args:
        points: control points of the spline through the targets, (N, J), from two steps after the start on.
    """
    limits, start = search.limits, search.start
    targets, points = targets.take(search.open, axis=1), points.take(search.open, axis=1)
    strides = np.abs(targets - np.concatenate((start.positions, targets[:-1])))
    is_far = exceeds(strides, start.step_s * limits.velocity)
    too_fast = is_far.any(axis=0)
    if too_fast.any():
        fast = limits.columns(too_fast)
        near = reachable_points(fast, start.columns(too_fast), targets[:, too_fast])
        points[:, too_fast] = caught_up(fast, start.step_s, near, points[:, too_fast])
    # Where most is out of reach, details mean nothing.
    wild = 2 * is_far.sum(axis=0) > len(targets)
    smooth = _keep_near(search, points, _FEW_ROUNDS if wild.all() else _ROUNDS)
    if len(search.open):
        before = rested(search.limits, search.start) if otherwise is None else otherwise.columns(search.open)
        _keep_blend(search, before, smooth)


def _keep_near(search: _Search, points: np.ndarray, rounds: int) -> Motion:
    """Keeps motions near control points, brought to rest; returns those that exceed limits."""
    smooth = rested(search.limits, nearest_motion(search.limits, search.start, points, _TAIL, rounds))
    good = within(search.limits, smooth)
    search.keep(smooth, good)
    return smooth.columns(~good)


def _keep_blend(search: _Search, before: Motion, smooth: Motion) -> None:
    """Keeps as much of the way from a motion inside the limits to one that is not as is found, if need be none."""
    for most in _MOST:
        blend = blended(search.limits, before, smooth, most)
        good = within(search.limits, blend)
        search.keep(blend, good)
        if good.all():
            return
        before, smooth = before.columns(~good), smooth.columns(~good)
