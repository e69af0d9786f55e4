"""The command ``train``."""

import pytest

from dit_policy_ros.__main__ import main
from dit_policy_ros.commands.train import _stills
from dit_policy_ros.policy.checkpoint import load_policy

WORLDS = ("aloha_transfer_cube", "aloha_insertion", "aloha_language")


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        (["0"], (0, 0, 0)),
        (["7"], (7, 7, 7)),
        (["7", "aloha_language=9"], (7, 7, 9)),
        (["aloha_insertion=2"], (0, 2, 0)),
    ],
)
def test_stills_of_each_world(given, counts):
    assert _stills(given) == dict(zip(WORLDS, counts, strict=True))


def test_training_goes_on_and_begins_with_others(recordings, tmp_path, capsys):
    folder, robot_file, recipe_file = recordings
    fixed = ["--data", str(folder), "--robot", str(robot_file), "--recipe", str(recipe_file), "--threads", "1"]
    cache = ["--cache", str(tmp_path / "cache")]

    def train(out, *more):
        code = main(["train", *fixed, *cache, "--out", str(tmp_path / out), *more])
        said = capsys.readouterr()
        return code, said.out + said.err

    assert train("first", "--steps", "1")[0] == 0
    code, said = train("first", "--steps", "2")
    assert code == 0
    assert "Going on at step 1." in said
    assert load_policy(tmp_path / "first").config.joint_names == ("left_a", "left_grip")
    assert train("second", "--steps", "1", "--start-from", str(tmp_path / "first"))[0] == 0
    for more, message in (
        (["--stills", "many"], "--stills takes numbers and WORLD=NUMBER, not 'many'"),
        (["--stills", "moon=3"], "moon"),
        (["--only-find", "--start-from", str(tmp_path / "first")], "give scenes and a policy to begin with"),
    ):
        code, said = train("third", "--steps", "1", *more)
        assert code != 0
        assert message in said
        assert "Traceback" not in said
    assert not (tmp_path / "third" / "policy.yaml").exists()
