"""Which robot channels a family's network reads and writes, from the ``policy.yaml`` of its directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dit_policy_ros.actions.channels import ABSOLUTE, Channels, JointChannels, Places
from dit_policy_ros.actions.end_effector import POSE, ROTATIONS, EndEffectorChannels
from dit_policy_ros.actions.normalise import NORMALISATIONS, Normaliser, divided, none
from dit_policy_ros.actions.statistics import ChannelStatistics
from dit_policy_ros.errors import CheckpointError, RobotError, one_of
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.space import SIZE
from dit_policy_ros.strict_yaml import fields_of, number, positive

WIDTHS: Mapping[str, Callable[[Any], tuple[int | None, int]]] = {
    "gr00t_n16": lambda c: (c.state_dim, c.action_dim),
    "gr00t_n15": lambda c: (c.state_dim, c.action_dim),
}
"""Widths of state and action vectors that are padded; elsewhere they are as long as there are channels."""


class ChannelReader:
    """Makes channels of the entries 'states' and 'actions' of a ``policy.yaml``."""

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
