"""The table of docs/chunk_methods.md says which family admits which option; every cell is tried."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_families import DIFFUSION_POLICY, SHIPPED, WORDS, make_family_directory, observe, settle

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.checkpoint import load_policy
from dit_policy_ros.policy.continuity.methods import METHODS, continued
from dit_policy_ros.policy.families import FAMILIES

pytest.importorskip("transformers")
pytest.importorskip("diffusers")
PAGE = Path(__file__).parents[2] / "docs" / "chunk_methods.md"
REAL_TIME = ("real_time", "real_time_identity")
OPTIONS = {
    "`cache: taylorseer`": [{"cache": {"interval": 2}}],
    "`cache: block_wise`": [{"cache": {"method": "block_wise", "updates": 2}}],
    "`compose`": [{"compose": {"policy": "../twin", "weights": [0.5, 0.5]}}],
    "`tracking`": [{"tracking": {}}],
    "`continuity: real_time`": REAL_TIME,
    "`continuity: streaming`": ["streaming"],
    "other `continuity`": [name for name in METHODS if name not in (*REAL_TIME, "streaming")],
}
JOINTS = {"robot": "aloha", "cameras": ["top"], "statistics": None, "actions": {"space": "joints"}}
"""CogACT is shipped for hands, whose speed is not known to ``tracking``."""


def rows():
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|") and ("yes" in line or "`c" in line)]
    start = next(i for i, line in enumerate(lines) if line.startswith("| Family |"))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:]]
    return cells[0][1:], {row[0]: row[1:] for row in cells[1:]}


COLUMNS, ROWS = rows()


def test_the_table_has_every_family_and_option():
    assert list(OPTIONS) == COLUMNS
    assert {name for row in ROWS for name in re.findall(r"`(\w+)`", row)} == FAMILIES.keys()


def directory_of(row, directories, path):
    """A directory of the family and variant of a row."""
    family = re.search(r"`(\w+)`", row).group(1)
    name = next(name for name, (each, _) in SHIPPED.items() if each == family)
    if "in-painting" in row:
        painted = replace(DIFFUSION_POLICY, condition_dim=None, condition_tokens=1, input_dim=28)
        return make_family_directory(name, path, painted)
    settle(directories[name], path, **(JOINTS if family == "cogact" else {}))
    if "flow" in row:
        settings = json.loads((path / "config.json").read_text()) | {"objective": "flow_matching"}
        (path / "config.json").unlink()
        (path / "config.json").write_text(json.dumps(settings | {"num_integration_steps": 3}))
    return path


@pytest.mark.parametrize("row", ROWS)
def test_a_family_admits_what_the_table_says(row, directories, tmp_path):
    twin = directory_of(row, directories, tmp_path / "twin")
    plain = load_policy(twin)
    observation = observe(plain)

    def loaded(option):
        if isinstance(option, str):
            return continued(plain, option)
        return load_policy(settle(twin, tmp_path / "-".join(map(str, option.values())).replace("/", ""), **option))

    for column, cell in zip(COLUMNS, ROWS[row], strict=True):
        for option in OPTIONS[column]:
            if cell == "no":
                with pytest.raises(PolicyError):
                    loaded(option)
                continue
            assert cell == "yes"
            policy = loaded(option)
            context = policy.encode(observation, WORDS, epoch=1)
            for step in range(2):  # caches and continuity begin with the second chunk
                later = replace(observation, stamp_ns=observation.stamp_ns + step * policy.step_ns)
                assert np.isfinite(policy.act(later, context).actions).all(), (column, option)
