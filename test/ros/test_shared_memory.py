"""What killed processes leave in shared memory is removed, and nothing else."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from dit_policy_ros.ros.shared_memory import SETTLED_S, sweep


def make(directory: Path, name: str, age_s: float = 2.0 * SETTLED_S) -> Path:
    """A segment and the file its owner locks."""
    for suffix in ("", "_el"):
        path = directory / f"{name}{suffix}"
        path.write_bytes(b"x")
        past = path.stat().st_mtime - age_s
        os.utime(path, (past, past))
    return directory / name


def test_only_segments_without_an_owner_go(tmp_path):
    left = make(tmp_path, "fastdds_1a")
    young = make(tmp_path, "fastdds_2b", age_s=0.0)
    held = make(tmp_path, "fastdds_3c")
    port = make(tmp_path, "fastdds_port7400")
    foreign = make(tmp_path, "cyclone_1a")
    with (tmp_path / "fastdds_3c_el").open("r+b") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        assert sweep(tmp_path) == 1
        assert sweep(tmp_path) == 0
    assert not left.exists()
    assert not (tmp_path / "fastdds_1a_el").exists()
    assert all(path.exists() for path in (young, held, port, foreign))
    assert sweep(tmp_path) == 1
    assert not held.exists()


def test_a_system_without_such_a_folder_has_nothing_to_sweep(tmp_path):
    assert sweep(tmp_path / "nowhere") == 0
