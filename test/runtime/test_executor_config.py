from __future__ import annotations

from dataclasses import fields

import pytest

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.resources import share_directory
from dit_policy_ros.runtime.executor_config import MODES, ExecutorConfig, load_executor_config


def test_the_shipped_file_states_the_defaults():
    assert load_executor_config("default") == ExecutorConfig()
    text = (share_directory() / "config" / "executor" / "default.yaml").read_text(encoding="utf-8")
    for entry in fields(ExecutorConfig):
        assert f"{entry.name}:" in text


def test_what_is_left_out_has_its_default(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("jerk_mode: refuse\nlead_s: 0.01\n")
    assert load_executor_config(path) == ExecutorConfig(jerk_mode="refuse", lead_s=0.01)


@pytest.mark.parametrize("text", ["jerk: refuse", "lead_s: -1", "lead_s: true", "jerk_mode: stop", "- 1"])
def test_what_makes_no_sense_is_refused(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_executor_config(path)


def test_every_mode_is_taken():
    for option, allowed in MODES.items():
        for mode in allowed:
            assert getattr(ExecutorConfig(**{option: mode}), option) == mode
