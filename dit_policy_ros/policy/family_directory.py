"""Reads the ``policy.yaml`` of kind 'family': an official checkpoint with its encoders, robot and statistics.

Paths in it are relative to its directory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dit_policy_ros.actions.channels import ABSOLUTE, Channels, JointChannels, Places
from dit_policy_ros.actions.end_effector import POSE, ROTATIONS, EndEffectorChannels
from dit_policy_ros.actions.normalise import NORMALISATIONS, Normaliser, divided, none
from dit_policy_ros.actions.statistics import ChannelStatistics
from dit_policy_ros.errors import CheckpointError, RobotError, one_of
from dit_policy_ros.policy.bindings.binding import PAINTED, FamilyPolicyConfig
from dit_policy_ros.policy.bindings.diffusion_policy_transformer import DiffusionTransformerBinding
from dit_policy_ros.policy.bindings.goal_images import MdtBinding, MdtVBinding, MoDeBinding
from dit_policy_ros.policy.bindings.h_rdt import HRdtBinding
from dit_policy_ros.policy.bindings.lerobot_multi_task_dit import MultiTaskDitBinding
from dit_policy_ros.policy.bindings.pad import PadBinding
from dit_policy_ros.policy.bindings.rdt import RdtBinding
from dit_policy_ros.policy.bindings.rdt2_fm import Rdt2FmBinding
from dit_policy_ros.policy.bindings.uwm import UwmBinding
from dit_policy_ros.policy.bindings.vision_language import CogActBinding, Gr00tBinding
from dit_policy_ros.policy.caching.family import CacheOptions, sub_blocks
from dit_policy_ros.policy.encoders.choice import load_encoders
from dit_policy_ros.policy.families import load_network
from dit_policy_ros.policy.family_policy import FamilyPolicy
from dit_policy_ros.robot import RobotSpec, load_robot
from dit_policy_ros.space import SIZE
from dit_policy_ros.strict_yaml import fields_of, number, positive

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

WIDTHS: Mapping[str, Callable[[Any], tuple[int | None, int]]] = {
    "gr00t_n16": lambda c: (c.state_dim, c.action_dim),
    "gr00t_n15": lambda c: (c.state_dim, c.action_dim),
}
"""Widths of state and action vectors that are padded; elsewhere they are as long as there are channels."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, None: None}


def load_family_policy(directory: Path, data: Mapping[str, Any]) -> FamilyPolicy:
    """Loads what a ``policy.yaml`` of kind 'family' describes.

    Raises:
        CheckpointError: an entry is wrong, or checkpoint, encoders, statistics and robot do not fit each other.
        RobotError: the robot description is wrong, or lacks a channel.
    """
    where = str(directory / "policy.yaml")
    required = ("family", "robot", "cameras", "encoders", "actions", "control_hz")
    optional = (
        "checkpoint",
        "dtype",
        "states",
        "statistics",
        "frames",
        "steps",
        "guidance_scale",
        "embodiment",
        "cache",
        "prefix",
        "notes",
    )
    top = fields_of(data, where, CheckpointError, required, optional)
    family = top["family"]
    if family not in BINDINGS:
        raise CheckpointError(f"{where}: " + one_of("Family", family, BINDINGS))
    if top.get("dtype") not in DTYPES:
        raise CheckpointError(f"{where}: dtype '{top['dtype']}' is not one of float32, bfloat16.")
    robot = load_robot(_robot_path(directory, top["robot"]))
    network = load_network(directory / top.get("checkpoint", "."), family, DTYPES[top.get("dtype")])
    reader = _Reader(directory, where, family, network, robot, top.get("statistics"))
    config = FamilyPolicyConfig(
        cameras=_cameras(top["cameras"], robot, where, family in BLIND),
        states=reader.channels(top["states"], "states") if "states" in top else None,
        actions=reader.channels(top["actions"], "actions"),
        frames=_whole(top.get("frames", 1), f"{where}: frames"),
        control_hz=positive(top["control_hz"], f"{where}: control_hz", CheckpointError),
        steps=_whole(top["steps"], f"{where}: steps") if "steps" in top else None,
        guidance_scale=top.get("guidance_scale"),
        embodiment=top.get("embodiment", 0),
        cache=_cache(top["cache"], f"{where}: cache") if "cache" in top else None,
        prefix=top.get("prefix", PAINTED),
    )
    encoders = load_encoders(directory, top["encoders"], f"{where}: encoders")
    binding = BINDINGS[family](network, encoders, config)
    return FamilyPolicy(config, binding, sub_blocks(family, network) if config.cache else ())


class _Reader:
    """Makes channels of their entries in the file."""

    def __init__(
        self, directory: Path, where: str, family: str, network: Any, robot: RobotSpec, statistics: str | None
    ) -> None:
        self.directory = directory
        self.where = where
        self.family = family
        self.network = network
        self.robot = robot
        self.statistics = statistics

    def channels(self, entry: Any, kind: str) -> Channels:
        """Reads 'states' or 'actions'."""
        where = f"{self.where}: {kind}"
        shared = ("normalisation", "bound", "divisors", "reference", "gripper_threshold")
        space = entry.get("space", "joints") if isinstance(entry, Mapping) else None
        if space == "end_effector":
            values = fields_of(entry, where, CheckpointError, ("space", "arms", "rotation"), (*shared, "grippers"))
            return self._end_effector(values, kind, where)
        values = fields_of(entry, where, CheckpointError, (), (*shared, "space", "joints", "always_absolute"))
        if space not in ("joints", "slots"):
            raise CheckpointError(f"{where}: " + one_of("Space", space, ("joints", "slots", "end_effector")))
        names = self._known(values.get("joints", self.robot.names), where)
        return JointChannels(
            names=names,
            places=self._slots(names) if space == "slots" else self._first(len(names), kind),
            normaliser=self._normaliser(values, kind, names, names, where),
            reference=values.get("reference", ABSOLUTE),
            always_absolute=tuple(values.get("always_absolute", ())),
            threshold=values.get("gripper_threshold"),
        )

    def _end_effector(self, values: Mapping[str, Any], kind: str, where: str) -> EndEffectorChannels:
        if values["rotation"] not in ROTATIONS:
            raise CheckpointError(f"{where}: " + one_of("Rotation", values["rotation"], ROTATIONS))
        prefixes, grippers = tuple(values["arms"]), tuple(values.get("grippers", ()))
        self._known([prefix + name for prefix in prefixes for name in POSE] + list(grippers), where)
        each = [*(f"position_{axis}" for axis in "xyz"), *(f"rotation_{i}" for i in range(9))]
        each = each[: 3 + ROTATIONS[values["rotation"]][0]]
        network = []
        for i, prefix in enumerate(prefixes):
            network += [prefix + name for name in each] + list(grippers[i : i + 1])
        return EndEffectorChannels(
            prefixes=prefixes,
            grippers=grippers,
            places=self._first(len(network), kind),
            normaliser=self._normaliser(values, kind, tuple(network), grippers, where),
            rotation=values["rotation"],
            reference=values.get("reference", ABSOLUTE),
            threshold=values.get("gripper_threshold"),
        )

    def _known(self, names: Any, where: str) -> tuple[str, ...]:
        missing = [str(name) for name in names if name not in self.robot.names]
        if missing:
            raise RobotError(
                f"{where}: " + one_of(f"Channel of robot '{self.robot.name}'", missing[0], self.robot.names)
            )
        return tuple(names)

    def _slots(self, names: tuple[str, ...]) -> Places:
        order = [self.robot.names.index(name) for name in names]
        return Places(self.robot.slots.indices[order], SIZE)

    def _first(self, count: int, kind: str) -> Places:
        widths = WIDTHS[self.family](self.network.config) if self.family in WIDTHS else (count, count)
        return Places(np.arange(count), widths[0] if kind == "states" else widths[1])

    def _normaliser(
        self, values: Mapping[str, Any], kind: str, names: tuple[str, ...], scaled: tuple[str, ...], where: str
    ) -> Normaliser:
        how = values.get("normalisation", "none")
        bound = values.get("bound")
        bound = None if bound is None else positive(bound, f"{where}: bound", CheckpointError)
        if how == "none":
            return none(len(names))
        if how == "checkpoint":
            return self._own_normaliser(kind, bound, where)
        if how == "divided":
            divisors = fields_of(values.get("divisors"), f"{where}: divisors", CheckpointError, (), scaled)
            return divided([number(divisors.get(n, 1.0), f"{where}: divisor of {n}", CheckpointError) for n in names])
        if how not in NORMALISATIONS:
            raise CheckpointError(
                f"{where}: " + one_of("Normalisation", how, (*NORMALISATIONS, "divided", "checkpoint", "none"))
            )
        if self.statistics is None:
            raise CheckpointError(f"{where}: normalisation '{how}' needs the file of 'statistics' of the checkpoint.")
        key = {"states": "state", "actions": "action"}[kind]
        statistics = ChannelStatistics.from_json(self.directory / self.statistics, key).of(names)
        return NORMALISATIONS[how](statistics, bound=bound)

    def _own_normaliser(self, kind: str, bound: float | None, where: str) -> Normaliser:
        name = {"states": "obs", "actions": "action"}[kind]
        scalings = dict(getattr(self.network, "normalizer", {}).items()).get("params_dict", {})
        if name not in scalings:
            raise CheckpointError(f"{where}: the checkpoint holds no normaliser of '{name}'; choose another.")
        scale, offset = (part.detach().double().numpy() for part in (scalings[name].scale, scalings[name].offset))
        return Normaliser(scale, offset, bound)


def _cache(data: Any, where: str) -> CacheOptions:
    values = fields_of(data, where, CheckpointError, ("interval",), ("warmup", "order"))
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise CheckpointError(f"{where}.{name} is '{value}'; it must be a whole number.")
    return CacheOptions(**values)


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


def _whole(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CheckpointError(f"{where} is '{value}'; it must be a whole number above 0.")
    return value
