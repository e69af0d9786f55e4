"""A two-arm ALOHA in MuJoCo behind the ``Body`` port, under its own virtual clock.

One control period is 20 ms: the trajectory controllers are sampled at its start, then 10 physics steps of 2 ms run.
The clock never goes back, also not at a reset. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import mujoco
import numpy as np
from gym_aloha.constants import (
    START_ARM_POSE,
    normalize_puppet_gripper_position,
    normalize_puppet_gripper_velocity,
    unnormalize_puppet_gripper_position,
)

from dit_policy_ros.errors import RobotError, WorldError, one_of
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.sim.controllers import TrajectoryController, TrajectoryControllerConfig
from dit_policy_ros.sim.renderer import CameraRenderer
from dit_policy_ros.sim.variation import Looks
from dit_policy_ros.sim.worlds import Episode, Event, find_world
from dit_policy_ros.types import NS_PER_S, Observation, Trajectory

CONTROL_NS = 20_000_000
PHYSICS_STEPS = 10
CAMERA_PERIOD_NS = 80_000_000
IMAGE_SIZES: Mapping[str, tuple[int, int]] = {"top": (640, 480), "left_wrist": (320, 240), "right_wrist": (320, 240)}
"""Camera name to (width, height) of what the simulated cameras publish."""

_ARM_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
JOINT_NAMES = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in (*_ARM_JOINTS, "gripper"))
"""The 14 joints of the simulated robot, in gym-aloha's order."""


@dataclass(frozen=True)
class Score:
    """How an episode stands."""

    reward: int
    """gym-aloha's reward now, 0..4."""
    sticky: bool
    """The largest reward was reached at least once, which is how results are published."""
    strict: bool
    """The success holds now: see ``worlds``."""


class AlohaBody:
    """The simulated robot in one world."""

    def __init__(self, world: str, robot: RobotSpec) -> None:
        """Builds the model.

        Raises:
            WorldError: there is no such world.
            RobotError: the robot description names joints the simulated arms lack.
        """
        unknown = [name for name in robot.names if name not in JOINT_NAMES]
        if unknown:
            raise RobotError(one_of("Simulated joint", ", ".join(unknown), JOINT_NAMES))
        self.world = find_world(world)
        self.robot = robot
        self.model = self.world.make_model()
        self.data = mujoco.MjData(self.model)
        self.renderer = CameraRenderer(self.model)
        self.disturbance_rad = np.zeros(len(JOINT_NAMES))
        """Added to every joint target on its way to the actuators, (14,); recordings use it to visit odd states."""
        self._looks = Looks(self.model)
        self._now_ns = NS_PER_S
        self._geom_names = [self.model.geom(i).name for i in range(self.model.ngeom)]
        self._cameras = frozenset(self.model.camera(i).name for i in range(self.model.ncam))
        self._index = {name: i for i, name in enumerate(JOINT_NAMES)}
        self.reset(0)

    def rewind(self) -> None:
        """Sets the clock back to its beginning, so that what follows does not depend on what was run before.

        Not for a live graph, where a clock that jumps back confuses everybody.
        """
        self._now_ns = NS_PER_S

    def reset(self, seed: int, phrase_set: str = "plain") -> None:
        """Starts a new episode: home pose, objects and looks drawn from the seed."""
        self.start(self.world.sample(seed, phrase_set))

    def start(self, episode: Episode) -> None:
        """Starts a given episode."""
        self.episode = episode
        self._looks.apply(episode.variation)
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:16] = START_ARM_POSE
        self.data.ctrl[:] = START_ARM_POSE
        self.data.qpos[16:] = episode.objects
        # dm_control settles a reset without actuation; the first steps differ otherwise.
        flags = self.model.opt.disableflags
        self.model.opt.disableflags = flags | int(mujoco.mjtDisableBit.mjDSBL_ACTUATION)
        mujoco.mj_forward(self.model, self.data)
        self.model.opt.disableflags = flags
        self.start_ns = self._now_ns
        self.disturbance_rad[:] = 0.0
        self._sticky = False
        self._targets = self.joint_positions()
        self.controllers = {
            controller.name: TrajectoryController(
                controller.joints, TrajectoryControllerConfig(), self._targets[self._columns(controller.joints)]
            )
            for controller in self.robot.controllers
        }

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The order of every (14,) array here."""
        return JOINT_NAMES

    @property
    def instruction(self) -> str:
        """The sentence that holds now."""
        return self.episode.instruction

    @property
    def steps(self) -> int:
        """Control periods since the reset."""
        return (self._now_ns - self.start_ns) // CONTROL_NS

    def now_ns(self) -> int:
        """Returns the simulated time, [ns]."""
        return self._now_ns

    def joint_positions(self) -> np.ndarray:
        """Returns measured positions in the order of ``JOINT_NAMES``, (14,)."""
        return _fourteen(self.data.qpos, normalize_puppet_gripper_position)

    def joint_velocities(self) -> np.ndarray:
        """Returns measured velocities in the order of ``JOINT_NAMES``, (14,)."""
        return _fourteen(self.data.qvel, normalize_puppet_gripper_velocity)

    def observe(self, cameras: tuple[str, ...] = ()) -> Observation:
        """Returns joints and freshly rendered images, all of this instant."""
        images = {camera: self.render(camera, *IMAGE_SIZES[camera]) for camera in cameras}
        return Observation(
            stamp_ns=self._now_ns,
            positions=dict(zip(JOINT_NAMES, self.joint_positions().tolist(), strict=True)),
            velocities=dict(zip(JOINT_NAMES, self.joint_velocities().tolist(), strict=True)),
            images=images,
            image_stamps_ns=dict.fromkeys(images, self._now_ns),
        )

    def render(self, camera: str, width: int, height: int) -> np.ndarray:
        """Returns an RGB image of any camera in the model, (height, width, 3) uint8.

        Raises:
            WorldError: the model has no such camera.
        """
        if camera not in self._cameras:
            raise WorldError(one_of("Camera", camera, self._cameras))
        return self.renderer.render(self.data, camera, width, height)

    def command(self, trajectory: Trajectory) -> None:
        """Hands a trajectory to the controller of its joints; a rejection is counted there.

        Raises:
            RobotError: no controller owns exactly these joints.
        """
        for controller in self.controllers.values():
            if set(controller.joints) == set(trajectory.names):
                controller.follow(trajectory, self._now_ns)
                return
        raise RobotError(f"No controller owns exactly the joints {', '.join(trajectory.names)}.")

    def step(self) -> None:
        """Runs one control period of 20 ms on what the controllers want."""
        targets = self._targets.copy()
        for controller in self.controllers.values():
            positions, _ = controller.sample(self._now_ns)
            targets[self._columns(controller.joints)] = positions
        self.advance(targets)

    def advance(self, targets: np.ndarray) -> None:
        """Runs one control period with these joint targets, (14,) in the order of ``JOINT_NAMES``."""
        self._targets = np.array(targets, dtype=np.float64)
        disturbed = self._targets + self.disturbance_rad
        left, right = unnormalize_puppet_gripper_position(disturbed[[6, 13]])
        self.data.ctrl[:] = [*disturbed[:6], left, -left, *disturbed[7:13], right, -right]
        # The order of dm_control's control loop, so that contacts and rewards are gym-aloha's to the bit.
        mujoco.mj_step2(self.model, self.data)
        mujoco.mj_step(self.model, self.data, PHYSICS_STEPS - 1)
        mujoco.mj_step1(self.model, self.data)
        self._now_ns += CONTROL_NS
        if self.episode.event is not None and self.episode.event.step == self.steps:
            self._happen(self.episode.event)
        self._sticky = self._sticky or self.world.reward(self.touching(), self.episode) == self.world.max_reward

    def touching(self) -> frozenset[tuple[str, str]]:
        """Returns the pairs of geom names in contact, in MuJoCo's order within a pair."""
        pairs = self.data.contact.geom
        return frozenset((self._geom_names[a], self._geom_names[b]) for a, b in pairs)

    def score(self) -> Score:
        """Returns how the episode stands now."""
        touching = self.touching()
        reward = self.world.reward(touching, self.episode)
        return Score(reward, self._sticky, self.world.is_strict(touching, self.episode))

    def close(self) -> None:
        """Frees the renderer."""
        self.renderer.close()

    def _happen(self, event: Event) -> None:
        self.episode = self.episode.after(event)
        if event.pose is not None:
            joint = self.data.joint(f"{self.episode.target}_joint")
            joint.qpos[:], joint.qvel[:] = event.pose, 0.0
            mujoco.mj_step1(self.model, self.data)

    def _columns(self, joints: tuple[str, ...]) -> list[int]:
        return [self._index[joint] for joint in joints]


def _fourteen(values: np.ndarray, normalise) -> np.ndarray:
    """Keeps one finger per hand of MuJoCo's 16 arm coordinates."""
    return np.concatenate([values[0:6], [normalise(values[6])], values[8:14], [normalise(values[14])]])
