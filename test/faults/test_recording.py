"""What was judged can be judged again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_judge import MS, ROBOT, right

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.ros.faults.recording import Recording, read_recording, write_recording

LEFT = "/left_arm_controller/joint_trajectory"


@pytest.mark.parametrize("recording", [Recording(tuple(right()), (1, 2 * MS), LEFT), Recording((), None, "")])
def test_a_recording_is_read_as_it_was_written(tmp_path, recording: Recording):
    path = tmp_path / "heard" / "a.npz"
    write_recording(path, recording)
    read = read_recording(path)
    assert (read.forbidden, read.misled) == (recording.forbidden, recording.misled)
    for ours, theirs in zip(read.heard, recording.heard, strict=True):
        for name, value in vars(theirs).items():
            np.testing.assert_array_equal(getattr(ours, name), value)
            assert type(getattr(ours, name)) is type(value)


def test_the_verdict_is_the_same(tmp_path):
    heard = right()
    heard[2] = replace(heard[2], velocities=heard[2].velocities * 20.0)
    recording = Recording(tuple(heard), None, "")
    write_recording(tmp_path / "a.npz", recording)
    verdict = read_recording(tmp_path / "a.npz").judged(ROBOT)
    assert verdict == recording.judged(ROBOT)
    assert verdict.violations


@pytest.mark.parametrize("content", [None, b"no archive"])
def test_what_is_no_recording_is_refused(tmp_path, content: bytes | None):
    path = tmp_path / "a.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="is no recording of a fault"):
        read_recording(path)
