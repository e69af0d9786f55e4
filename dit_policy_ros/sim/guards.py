"""The guards that a robot's description asks for."""

from __future__ import annotations

from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.runtime.executor_config import ExecutorConfig
from dit_policy_ros.runtime.guard import Guard
from dit_policy_ros.sim.collision_guard import CollisionGuard
from dit_policy_ros.sim.robot_model import RobotModel
from dit_policy_ros.sim.tool_guards import ToolSpeedGuard, WorkspaceGuard


def guards_of(spec: RobotSpec, config: ExecutorConfig) -> tuple[Guard, ...]:
    """Returns the guards of a robot.

    None where it has no model; else against collisions, and against fast hands and hands out of their room where its
    description limits them.

    Raises:
        RobotError: the model cannot be loaded, or does not fit the description.
    """
    kinematics = spec.kinematics
    if kinematics is None:
        return ()
    guards: list[Guard] = []
    if kinematics.tool_speed is not None:
        model = RobotModel(kinematics, spec.names)
        guards.append(ToolSpeedGuard(model, kinematics.tool_speed, config.tool_speed_mode))
    if kinematics.workspace:
        model = RobotModel(kinematics, spec.names)
        guards.append(WorkspaceGuard(model, kinematics.workspace, config.workspace_mode))
    if config.collision_mode != "off":
        model = RobotModel(kinematics, spec.names)
        guards.append(CollisionGuard(model, config.collision_margin_m, config.collision_mode))
    return tuple(guards)
