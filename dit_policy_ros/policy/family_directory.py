"""Reads the ``policy.yaml`` of kind 'family': an official checkpoint with its encoders, robot and statistics.

Paths in it are relative to its directory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from dit_policy_ros.errors import CheckpointError, RobotError, one_of
from dit_policy_ros.policy.bindings.binding import PAINTED, Encoders, FamilyPolicyConfig
from dit_policy_ros.policy.bindings.diffusion_policy_transformer import DiffusionTransformerBinding
from dit_policy_ros.policy.bindings.goal_images import MdtBinding, MdtVBinding, MoDeBinding
from dit_policy_ros.policy.bindings.h_rdt import HRdtBinding
from dit_policy_ros.policy.bindings.lerobot_multi_task_dit import MultiTaskDitBinding
from dit_policy_ros.policy.bindings.pad import PadBinding
from dit_policy_ros.policy.bindings.rdt import RdtBinding
from dit_policy_ros.policy.bindings.rdt2_fm import Rdt2FmBinding
from dit_policy_ros.policy.bindings.uwm import UwmBinding
from dit_policy_ros.policy.bindings.vision_language import CogActBinding, Gr00tBinding
from dit_policy_ros.policy.caching.block_wise import BlockWiseOptions
from dit_policy_ros.policy.caching.family import sub_blocks
from dit_policy_ros.policy.composed_policy import ComposedPolicy
from dit_policy_ros.policy.device import HOST
from dit_policy_ros.policy.encoders.choice import load_encoders
from dit_policy_ros.policy.encoders.language import LanguageFile
from dit_policy_ros.policy.families import load_network
from dit_policy_ros.policy.family_channels import ChannelReader
from dit_policy_ros.policy.family_options import (
    cache_options,
    compose_options,
    tracking_options,
    whole,
    without_own_ways,
)
from dit_policy_ros.policy.family_policy import FamilyPolicy
from dit_policy_ros.robot import RobotSpec, load_robot
from dit_policy_ros.strict_yaml import fields_of, load_yaml_mapping, positive

BINDINGS: Mapping[str, Callable[..., Any]] = {
    "rdt": RdtBinding,
    "h_rdt": HRdtBinding,
    "cogact": CogActBinding,
    "gr00t_n16": Gr00tBinding,
    "gr00t_n15": Gr00tBinding,
    "lerobot_multi_task_dit": MultiTaskDitBinding,
    "rdt2_fm": Rdt2FmBinding,
    "diffusion_policy_transformer": DiffusionTransformerBinding,
    "mode": MoDeBinding,
    "uwm": UwmBinding,
    "mdt": MdtBinding,
    "mdtv": MdtVBinding,
    "pad": PadBinding,
}
"""How each family is fed by a robot."""

BLIND = ("diffusion_policy_transformer",)
"""Families without cameras."""

REQUIRED = ("family", "robot", "cameras", "encoders", "actions", "control_hz")
OPTIONAL = (
    *("checkpoint", "dtype", "states", "statistics", "frames", "steps", "guidance_scale", "embodiment"),
    *("cache", "tracking", "compose", "prefix", "notes"),
)
"""Entries of a ``policy.yaml``."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, None: None}


def load_family_policy(
    directory: Path, data: Mapping[str, Any], device: torch.device = HOST
) -> FamilyPolicy | ComposedPolicy:
    """Loads what a ``policy.yaml`` of kind 'family' describes.

    Args:
        device: of networks and encoders.

    Raises:
        CheckpointError: an entry is wrong, or checkpoint, encoders, statistics and robot do not fit each other.
        RobotError: the robot description is wrong, or lacks a channel.
    """
    where = str(directory / "policy.yaml")
    top = fields_of(data, where, CheckpointError, REQUIRED, OPTIONAL)
    family = top["family"]
    if family not in BINDINGS:
        raise CheckpointError(f"{where}: " + one_of("Family", family, BINDINGS))
    if top.get("dtype") not in DTYPES:
        raise CheckpointError(f"{where}: dtype '{top['dtype']}' is not one of float32, bfloat16.")
    robot = load_robot(_robot_path(directory, top["robot"]))
    network = load_network(directory / top.get("checkpoint", "."), family, DTYPES[top.get("dtype")])
    reader = ChannelReader(directory, where, family, network, robot, top.get("statistics"))
    actions = reader.channels(top["actions"], "actions")
    control_hz = positive(top["control_hz"], f"{where}: control_hz", CheckpointError)
    tracking = None
    if "tracking" in top:
        tracking = tracking_options(top["tracking"], f"{where}: tracking", robot, actions.names, control_hz)
    config = FamilyPolicyConfig(
        cameras=_cameras(top["cameras"], robot, where, family in BLIND),
        states=reader.channels(top["states"], "states") if "states" in top else None,
        actions=actions,
        frames=whole(top.get("frames", 1), f"{where}: frames"),
        control_hz=control_hz,
        steps=whole(top["steps"], f"{where}: steps") if "steps" in top else None,
        guidance_scale=top.get("guidance_scale"),
        embodiment=top.get("embodiment", 0),
        cache=cache_options(top["cache"], f"{where}: cache") if "cache" in top else None,
        tracking=tracking,
        prefix=top.get("prefix", PAINTED),
    )
    encoders = load_encoders(directory, top["encoders"], f"{where}: encoders", device)
    binding = BINDINGS[family](network.to(device), encoders, config)
    policy = FamilyPolicy(config, binding, sub_blocks(family, network) if config.cache else ())
    if isinstance(config.cache, BlockWiseOptions):
        policy.settle(_known_words(encoders))
    return _composed(policy, top["compose"], where, directory, device) if "compose" in top else policy


def _known_words(encoders: Encoders) -> str:
    """An instruction that the encoders take, always the same."""
    language = encoders.language
    return min(language.embeddings) if isinstance(language, LanguageFile) else "Pick up the object."


def _composed(policy: FamilyPolicy, data: Any, where: str, directory: Path, device: torch.device) -> ComposedPolicy:
    composition = compose_options(data, f"{where}: compose", directory)
    file = composition.directory / "policy.yaml"
    own = without_own_ways(load_yaml_mapping(file, CheckpointError), file)
    other = load_family_policy(composition.directory, own, device)
    return ComposedPolicy(policy, other, composition.weights)


def _robot_path(directory: Path, robot: str) -> str | Path:
    beside = directory / str(robot)
    return beside if beside.suffix == ".yaml" and beside.is_file() else str(robot)


def _cameras(names: Any, robot: RobotSpec, where: str, blind: bool) -> tuple[str, ...]:
    if blind and names:
        raise CheckpointError(f"{where}: this family sees no images; set 'cameras: []'.")
    if not isinstance(names, list) or not (names or blind):
        raise CheckpointError(f"{where}: cameras must list camera names in the order of training.")
    missing = [str(name) for name in names if name not in robot.cameras]
    if missing:
        raise RobotError(f"{where}: " + one_of(f"Camera of robot '{robot.name}'", missing[0], robot.cameras))
    return tuple(names)
