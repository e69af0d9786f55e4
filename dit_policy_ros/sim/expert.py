"""Scripted experts: keyframes of both hands from the known object poses, turned into joint targets.

Planned once per episode and played open loop, except where the world announces an event: a moment after it the plan is
given up for a new one, which takes the motion over as it is. A keyframe says where a hand is at a control step; between
keyframes the hand moves on a minimum-jerk curve and the joints follow by inverse kinematics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, Slerp

from dit_policy_ros.actions.minimum_jerk import minimum_jerk
from dit_policy_ros.errors import WorldError, one_of
from dit_policy_ros.sim.body import AlohaBody
from dit_policy_ros.sim.inverse_kinematics import ArmKinematics
from dit_policy_ros.sim.worlds import Event

PITCH_RAD = np.radians(60.0)
OPEN, NARROW, CLOSED = 1.0, 0.85, 0.0
REACTION_STEPS = 5
"""From an event to the first motion that answers it; a tenth of a second, which is quick for a person."""
_TAKEOVER_STEPS = 14
"""How long the motion of a plan that was given up takes to die away."""
_IK_STRIDE = 2
_READY_RAD = (0.0, 0.0, 0.7, 0.0, 0.4, 0.0)
"""Where inverse kinematics starts: the wrist bent down, the forearm unrolled."""
_READY_ROLLED_RAD = (0.0, -0.9, 1.1, 0.0, -0.2, np.pi / 2)
"""The same for the rolled hand."""


@dataclass(frozen=True)
class Keyframe:
    """Where one hand is at one control step."""

    step: int
    position: np.ndarray
    """(3,) between the finger tips, world frame, [m]."""
    rotation: np.ndarray
    """(3, 3), x along the fingers, y along their closing, world frame."""
    grip: float
    """1 open, 0 closed; reached at this step in a straight line from the previous keyframe."""


@dataclass(frozen=True)
class Plan:
    """A planned episode."""

    targets: np.ndarray
    """(steps, 14) joint targets of each control step."""
    careful: np.ndarray
    """(steps,) 0..1, how much a disturbance would spoil this step: 1 while grasping and handing over."""
    given_up: tuple[tuple[int, np.ndarray], ...] = ()
    """(step, (any steps, 14)): the joint targets that were intended before this control step, by step."""

    def intended_at(self, step: int) -> np.ndarray:
        """Returns all joint targets as they were meant at a control step, (any steps, 14)."""
        return next((targets for until, targets in self.given_up if step < until), self.targets)


def plan_episode(body: AlohaBody, reaction_steps: int = REACTION_STEPS) -> Plan:
    """Plans the episode the body was just reset to, its events and the answers to them included.

    Args:
        reaction_steps: from an event to the first motion that answers it; late answers show what to do then.

    Raises:
        WorldError: the world has no expert, or an object is out of reach.
    """
    if body.world.name not in EXPERTS:
        raise WorldError(one_of("Expert for world", body.world.name, EXPERTS))
    hands, careful_spans = EXPERTS[body.world.name](body)
    length = max(frames[-1].step for frames in hands.values()) + 1
    home = {"left": body.joint_positions()[:6], "right": body.joint_positions()[7:13]}
    sides = [_joint_targets(body, side, hands[side], home[side], length) for side in ("left", "right")]
    plan = Plan(np.concatenate(sides, axis=1), _careful(careful_spans, length))
    return _answer(body, body.episode.event, hands, plan, reaction_steps) if body.episode.event else plan


def home_frame(body: AlohaBody, side: str, grip: float = 0.0) -> Keyframe:
    """Returns where a hand is now, as a keyframe at step 0."""
    site = body.data.site("cali_left_site1" if side == "left" else "cali_right_site1")
    rotation = site.xmat.reshape(3, 3).copy()
    return Keyframe(0, site.xpos - 0.005 * rotation[:, 0], rotation, grip)


def downward(side: str, yaw_rad: float = 0.0, pitch_rad: float = PITCH_RAD) -> np.ndarray:
    """Returns a hand rotation that points inward and down, fingers closing along y turned by yaw, (3, 3)."""
    inward = -1.0 if side == "right" else 1.0
    forward = np.array([inward * np.cos(pitch_rad), 0.0, -np.sin(pitch_rad)])
    closing = np.array([0.0, inward, 0.0])
    rotation = np.stack([forward, closing, np.cross(forward, closing)], axis=1)
    return Rotation.from_rotvec([0.0, 0.0, yaw_rad]).as_matrix() @ rotation


def sideways_rolled() -> np.ndarray:
    """Returns the left hand's handover rotation: level, pointing to +x, fingers closing along z, (3, 3)."""
    return np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


def _offset(x: float, z: float) -> np.ndarray:
    """A displacement in the world's x-z plane, (3,) [m]."""
    return np.array([x, 0.0, z])


Hands = dict[str, list[Keyframe]]
Spans = tuple[tuple[int, int], ...]
_HANDOVER_SPANS: Spans = ((52, 90), (150, 236))
_MEET_M = np.array([0.0, 0.5, 0.30])
_LIFT_STEPS = 12
_RELEASE_STEPS = 8
_LOW_M = 0.005
"""How far below the beginning of a grasp the hand must rise before it goes to another cube."""
_LEAST_TRAVEL_STEPS = 18
_TRAVEL_STEPS_PER_RAD = 38.0
"""Keeps the fastest joint of a minimum-jerk motion below 80 % of its limit of 3.14 rad/s."""


def _handover(body: AlohaBody) -> tuple[Hands, Spans]:
    """The right hand picks the named cube, meets the left hand in the middle, and lets go."""
    pose = body.data.joint(f"{body.episode.target}_joint").qpos
    right = [home_frame(body, "right"), *_right_hand_from_above(pose)]
    return {"left": [home_frame(body, "left"), *_left_hand_from_waiting()], "right": right}, _HANDOVER_SPANS


def _right_hand_from_above(pose: np.ndarray) -> list[Keyframe]:
    """Grasp of a cube that lies at a pose, (7,), and handover; begins above the cube."""
    cube, yaw = pose[:3], _yaw_within_quarter(pose[3:7])
    grasp = np.array([cube[0], cube[1], 0.02])
    above = grasp + _offset(0.0, 0.09)
    meet = _MEET_M
    turned, straight = downward("right", yaw), downward("right")
    return [
        Keyframe(44, above, turned, NARROW),
        Keyframe(68, grasp, turned, NARROW),
        Keyframe(72, grasp, turned, NARROW),
        Keyframe(84, grasp, turned, CLOSED),
        Keyframe(108, above, turned, CLOSED),
        Keyframe(150, meet, straight, CLOSED),
        Keyframe(206, meet, straight, CLOSED),
        Keyframe(216, meet, straight, OPEN),
        Keyframe(242, meet + _offset(0.12, 0.04), straight, OPEN),
        Keyframe(285, meet + _offset(0.12, 0.04), straight, CLOSED),
    ]


def _left_hand_from_waiting() -> list[Keyframe]:
    meet, rolled = _MEET_M, sideways_rolled()
    return [
        Keyframe(56, meet + _offset(-0.16, 0.0), rolled, OPEN),
        Keyframe(146, meet + _offset(-0.12, 0.0), rolled, OPEN),
        # A fast arm leaves its path by centimetres: slow from where its fingers could push the cube.
        Keyframe(164, meet + _offset(-0.05, 0.0), rolled, OPEN),
        Keyframe(188, meet, rolled, OPEN),
        Keyframe(190, meet, rolled, OPEN),
        Keyframe(202, meet, rolled, CLOSED),
        Keyframe(230, meet, rolled, CLOSED),
        Keyframe(265, meet + _offset(-0.08, 0.0), rolled, CLOSED),
        Keyframe(285, meet + _offset(-0.08, 0.0), rolled, CLOSED),
    ]


def _answer(body: AlohaBody, event: Event, hands: Hands, plan: Plan, reaction_steps: int) -> Plan:
    """Goes for what is asked after an event, out of the motion of the plan so far; the rest comes later by as much.

    A hand that is down already lets go of whatever it holds, and rises first.
    """
    step = event.step + reaction_steps
    target = body.episode.after(event).target
    pose = event.pose if event.pose is not None else body.data.joint(f"{target}_joint").qpos
    coming = _right_hand_from_above(pose)
    now = _on_the_way(hands["right"], step)
    above_old = hands["right"][1]
    arm_now = plan.targets[step, 7:13]
    is_low = step > above_old.step and now.position[2] < above_old.position[2] - _LOW_M
    release = _RELEASE_STEPS if now.grip < NARROW else 0
    ready = step + release + (_LIFT_STEPS if is_low else 0)
    arm_ready = plan.targets[above_old.step, 7:13] if is_low else arm_now
    turn_rad = np.abs(_reach(body, "right", coming[0])[1] - arm_ready).max()
    above_step = max(above_old.step, ready + int(max(_LEAST_TRAVEL_STEPS, np.ceil(_TRAVEL_STEPS_PER_RAD * turn_rad))))
    delay = above_step - coming[0].step
    right = [replace(now, step=ready, grip=max(now.grip, NARROW)), *_later(coming, delay)]
    left = [*hands["left"][:2], *_later(hands["left"][2:], delay)]
    length = right[-1].step + 1
    left_joints = _joint_targets(body, "left", left, body.joint_positions()[:6], length)
    right_joints = _joint_targets(body, "right", right, arm_ready, length)
    every = np.arange(ready - step)
    lift = arm_now + minimum_jerk(np.clip((every - release) / _LIFT_STEPS, 0, 1))[:, None] * (arm_ready - arm_now)
    grip = np.interp(every, [0, max(release, 1)], [now.grip, max(now.grip, NARROW)])
    lift = np.concatenate([lift, grip[:, None]], axis=1)
    right_joints = _taken_over(plan.targets[:, 7:], step, np.concatenate([lift, right_joints]))
    spans = [(begin, min(end, step)) for begin, end in _HANDOVER_SPANS if begin < step]
    spans += [(begin + delay, end + delay) for begin, end in _HANDOVER_SPANS]
    targets = np.concatenate([left_joints, right_joints], axis=1)
    return Plan(targets, _careful(tuple(spans), length), ((step, plan.targets),))


def _later(frames: list[Keyframe], steps: int) -> list[Keyframe]:
    return [replace(frame, step=frame.step + steps) for frame in frames]


def _on_the_way(frames: list[Keyframe], step: int) -> Keyframe:
    """Where the hand is between its keyframes, as another one."""
    positions, rotations = _curve(frames, np.array([step]))
    grip = np.interp(step, [frame.step for frame in frames], [frame.grip for frame in frames])
    return Keyframe(step, positions[0], rotations[0], float(grip))


def _taken_over(old: np.ndarray, step: int, new: np.ndarray) -> np.ndarray:
    """Joins two plans of a hand at a step, where the motion so far dies away on a quintic.

    Args:
        old: (any steps, 7) from step 0.
        new: (steps, 7) from ``step``, where it has the same position but is at rest.
    """
    before = old[step - 1 : step + 2]
    velocity = (before[2] - before[0]) / 2.0
    acceleration = before[2] - 2.0 * before[1] + before[0]
    s = np.arange(min(_TAKEOVER_STEPS, len(new))) / _TAKEOVER_STEPS
    falling = (1.0 - s) ** 3
    motion = np.outer(falling * s * (1.0 + 3.0 * s), velocity * _TAKEOVER_STEPS)
    motion += np.outer(falling * s**2 / 2.0, acceleration * _TAKEOVER_STEPS**2)
    motion[:, -1] = 0.0  # The gripper moves in straight lines.
    joined = new.copy()
    joined[: len(s)] += motion
    return np.concatenate([old[:step], joined])


def _insertion(body: AlohaBody) -> tuple[Hands, Spans]:
    """Each hand picks its part by the middle; they meet in the air and the peg is pushed in."""
    peg = body.data.joint("red_peg_joint").qpos[:3]
    socket = body.data.joint("blue_socket_joint").qpos[:3]
    middle = np.array([0.0, 0.5, 0.20])
    hands: Hands = {}
    for side, part, height, apart in (("right", peg, 0.015, 1.0), ("left", socket, 0.022, -1.0)):
        rotation = downward(side)
        grasp = np.array([part[0], part[1], height])
        above = grasp + _offset(0.0, 0.09)
        hands[side] = [
            home_frame(body, side),
            Keyframe(50, above, rotation, OPEN),
            Keyframe(75, grasp, rotation, OPEN),
            Keyframe(80, grasp, rotation, OPEN),
            Keyframe(95, grasp, rotation, CLOSED),
            Keyframe(120, above, rotation, CLOSED),
            Keyframe(175, middle + _offset(0.10 * apart, 0.0), rotation, CLOSED),
            Keyframe(195, middle + _offset(0.10 * apart, 0.0), rotation, CLOSED),
            Keyframe(290, middle + _offset(0.045 * apart, 0.0), rotation, CLOSED),
            Keyframe(330, middle + _offset(0.045 * apart, 0.0), rotation, CLOSED),
        ]
    return hands, ((60, 110), (180, 330))


EXPERTS: Mapping[str, Callable[[AlohaBody], tuple[Hands, Spans]]] = {
    "aloha_transfer_cube": _handover,
    "aloha_language": _handover,
    "aloha_insertion": _insertion,
    "aloha_nudged": _handover,
    "aloha_switch": _handover,
}


def _yaw_within_quarter(quaternion_wxyz: np.ndarray) -> float:
    """A square looks the same every 90 degrees; the turn within 45 degrees is the shortest."""
    yaw = 2.0 * np.arctan2(quaternion_wxyz[3], quaternion_wxyz[0])
    return float((yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4)


def _joint_targets(body: AlohaBody, side: str, frames: list[Keyframe], home: np.ndarray, length: int) -> np.ndarray:
    """Keyframes of one hand to joint targets from the first one on, (length - first step, 7).

    Args:
        home: (6,) joints of the arm at the first keyframe.
    """
    arm, _ = _reach(body, side, frames[1])
    steps = np.arange(frames[1].step, length + _IK_STRIDE - 1, _IK_STRIDE)
    positions, rotations = _curve(frames, steps)
    angles = np.array([arm.solve(p, r) for p, r in zip(positions, rotations, strict=True)])
    first, second = frames[0].step, frames[1].step
    every = np.arange(first, length)
    # The way from home passes a straight wrist, where inverse kinematics would spin the forearm: interpolate joints.
    leave = minimum_jerk((every[: second - first] - first) / (second - first))[:, None]
    spline = CubicSpline(steps, angles, bc_type="clamped")
    joints = np.concatenate([home + leave * (angles[0] - home), spline(every[second - first :])])
    grip = np.interp(every, [frame.step for frame in frames], [frame.grip for frame in frames])
    return np.concatenate([joints, grip[:, None]], axis=1)


def _reach(body: AlohaBody, side: str, frame: Keyframe) -> tuple[ArmKinematics, np.ndarray]:
    """An arm that is at a keyframe, and its joints there, (6,)."""
    base = 0 if side == "left" else 8
    seed = body.data.qpos.copy()
    rolled = abs(frame.rotation[2, 1]) > 0.5
    seed[base : base + 6] = _READY_ROLLED_RAD if rolled else _READY_RAD
    arm = ArmKinematics(body.model, side, seed)
    return arm, arm.solve(frame.position, frame.rotation, iterations=200)


def _curve(frames: list[Keyframe], steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minimum-jerk poses at these steps: positions (N, 3), rotations (N, 3, 3)."""
    knots = np.array([frame.step for frame in frames])
    steps = np.minimum(steps, knots[-1])
    segment = np.clip(np.searchsorted(knots, steps, side="right") - 1, 0, len(frames) - 2)
    fraction = (steps - knots[segment]) / (knots[segment + 1] - knots[segment])
    smooth = minimum_jerk(fraction)
    points = np.array([frame.position for frame in frames])
    positions = points[segment] + smooth[:, None] * (points[segment + 1] - points[segment])
    slerp = Slerp(np.arange(len(frames)), Rotation.from_matrix([frame.rotation for frame in frames]))
    return positions, slerp(segment + smooth).as_matrix()


def _careful(spans: Spans, length: int, edge: int = 12) -> np.ndarray:
    """1 inside the spans, falling to 0 over ``edge`` steps outside."""
    steps = np.arange(length)
    distance = np.min([np.maximum(0, np.maximum(a - steps, steps - b)) for a, b in spans], axis=0)
    return np.clip(1.0 - distance / edge, 0.0, 1.0)
