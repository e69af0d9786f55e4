"""Finished points in files: found again by the same setting only, and code that decides is part of it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from test_smoothness_and_sweep import point

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.evaluate.sweep_points import PointFiles, code_sha256, decides, folder_sha256, running_code_sha256

SETTING = {"world": "aloha_nudged", "seeds": [1000, 4], "weights_sha256": "ab", "max_context_age_s": None, "trace": []}


def test_a_point_comes_back_in_its_own_setting_only(tmp_path):
    made = point("naive", 0.2, [1, 0, 1, 0])
    files = PointFiles(tmp_path, SETTING)
    assert files.load(made.condition) is None
    path = files.save(made)
    assert path.name.startswith("naive-context0.3-action0.06-constant-")
    assert PointFiles(tmp_path, dict(SETTING)).load(made.condition) == made
    for name, value in (("world", "x"), ("seeds", [1000, 5]), ("weights_sha256", "cd"), ("max_context_age_s", 3.0)):
        other = PointFiles(tmp_path, {**SETTING, name: value})
        assert other.load(made.condition) is None
        assert (other.others((made.condition,)), files.others((made.condition,))) == (1, 0)
    for change in ({"method": ""}, {"context_delay_s": 0.5}, {"action_delay_s": 0.1}, {"pattern": "spikes"}):
        assert files.load(replace(made.condition, **change)) is None


def test_delays_that_look_alike_in_a_name_are_two_points(tmp_path):
    files, made = PointFiles(tmp_path, SETTING), point("naive", 0.2, [1, 0])
    near = replace(made.condition, context_delay_s=0.30000001)
    assert files.path(near) != files.path(made.condition)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"setting": {}, "point": {}}'])
def test_a_damaged_point_is_named(text, tmp_path):
    files, made = PointFiles(tmp_path, SETTING), point("naive", 0.2, [1, 0])
    path = files.save(made)
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"{path.name}.*delete it"):
        files.load(made.condition)


def test_a_point_under_the_name_of_another_is_refused(tmp_path):
    files, made = PointFiles(tmp_path, SETTING), point("naive", 0.2, [1, 0])
    path = files.save(made)
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "setting": {**data["setting"], "world": "another"}}))
    with pytest.raises(ConfigError, match="another setting"):
        files.load(made.condition)


def test_code_that_decides_changes_the_digest_and_pages_do_not(tmp_path):
    for name in ("runtime/executor.py", "evaluate/loop.py", "evaluate/sweep_page.py", "ros/graph.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    before = code_sha256(tmp_path)
    for name, is_other in (("evaluate/sweep_page.py", False), ("ros/graph.py", False), ("runtime/executor.py", True)):
        (tmp_path / name).write_text("x = 1")
        assert (code_sha256(tmp_path) != before) == is_other
    assert running_code_sha256() == running_code_sha256() != before


def test_whatever_an_episode_loads_is_part_of_the_digest():
    """Reads off a fresh interpreter what the worker's imports bring along."""
    loads = (
        "import json, sys\n"
        "import dit_policy_ros.commands.episodes, dit_policy_ros.evaluate.episode, dit_policy_ros.evaluate.record\n"
        "import dit_policy_ros.evaluate.sweep, dit_policy_ros.policy.checkpoint, dit_policy_ros.sim.body\n"
        "print(json.dumps([m for m in sys.modules if m.startswith('dit_policy_ros.')]))"
    )
    names = json.loads(subprocess.run([sys.executable, "-c", loads], capture_output=True, check=True).stdout)
    files = [name.partition(".")[2].replace(".", "/") + ".py" for name in names]
    known = [name for name in files if not decides(name)]
    # Folders themselves; the report's own words and files, which a point passes through when it is written.
    assert set(known) <= {"commands.py", "data.py", "evaluate.py", "evaluate/report.py", "evaluate/document.py"} | {
        "evaluate/page_style.py"
    }, known
    assert "evaluate/loop.py" in files


def test_small_files_of_a_policy_are_part_of_its_digest(tmp_path):
    (tmp_path / "policy.yaml").write_text("kind: dual_system")
    (tmp_path / "README.md").write_text("one")
    before = folder_sha256(tmp_path)
    (tmp_path / "README.md").write_text("two")
    assert folder_sha256(tmp_path) == before
    (tmp_path / "policy.yaml").write_text("kind: family")
    assert folder_sha256(tmp_path) != before
