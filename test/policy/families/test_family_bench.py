import json

import pytest
import torch

from dit_policy_ros.__main__ import main
from dit_policy_ros.policy.families.rdt import build
from dit_policy_ros.policy.family_bench import CONFIGS, random_checkpoint
from dit_policy_ros.policy.weights import read_shapes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_family_is_timed_split_and_unsplit(tmp_path, capsys, dtype):
    options = ["--config", "rdt_tiny", "--dtype", dtype, "--runs", "2", "--steps", "3", "--scratch", str(tmp_path)]
    assert main(["bench", "family", *options]) == 0
    got = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (got["config"], got["dtype"], got["steps"], got["runs"]) == ("rdt_tiny", dtype, 3, 2)
    assert got["difference"] <= 1e-5
    assert all(got[name] > 0 for name in ("load_s", "encode_s", "act_s", "unsplit_s"))
    assert 0 < got["loaded_gib"] <= got["acted_gib"] <= got["peak_gib"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--config", "--dtype"])
def test_an_unknown_choice_names_the_known(capsys, option):
    assert main(["bench", "family", option, "x"]) == 2
    assert "'x' does not exist. Available:" in capsys.readouterr().err


def test_the_large_configuration_is_the_released_one():
    with torch.device("meta"):
        network = build(CONFIGS["rdt_1b"])
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_228_319_872
    assert len(network.state_dict()) == 618


def test_the_random_checkpoint_is_sharded(tmp_path, monkeypatch):
    monkeypatch.setattr("dit_policy_ros.policy.family_bench.SHARD", 5000)
    random_checkpoint(CONFIGS["rdt_tiny"], tmp_path, torch.bfloat16)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in build(CONFIGS["rdt_tiny"]).state_dict().items()}
    assert read_shapes(tmp_path) == expected
