import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dit_policy_ros.__main__ import main
from dit_policy_ros.policy.families import load_network
from dit_policy_ros.policy.weights import read_tensors

WEIGHTS = Path(__file__).parent / "golden" / "rdt" / "weights.safetensors"


class Bomb:
    """A pickle that would write a file on loading."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_torch_file_becomes_a_directory(tmp_path, capsys):
    tensors = read_tensors(WEIGHTS)
    torch.save({"module": tensors, "epoch": 3}, tmp_path / "pytorch_model.bin")
    assert main(["convert", str(tmp_path / "pytorch_model.bin"), str(tmp_path / "new")]) == 0
    assert f"holds a rdt with {len(tensors)} parameters" in capsys.readouterr().out
    loaded = load_network(tmp_path / "new", "rdt").state_dict()
    assert all(torch.equal(value, tensors[name]) for name, value in loaded.items())


def test_shards_become_one_file(tmp_path):
    source = tmp_path / "sharded"
    source.mkdir()
    names = sorted(read_tensors(WEIGHTS))
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: read_tensors(WEIGHTS)[name] for name in part}, source / file)
    weight_map = {name: file for file, part in halves.items() for name in part}
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert main(["convert", str(source), str(tmp_path / "new"), "--family", "rdt"]) == 0
    assert read_tensors(tmp_path / "new").keys() == set(names)
    (source / "b.safetensors").unlink()
    assert main(["convert", str(source), str(tmp_path / "again")]) == 2


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("how", ["pickle", "torch", "legacy"])
def test_a_pickle_with_code_is_refused_unrun(tmp_path, capsys, recwarn, protocol, how):
    path, trace = tmp_path / "m.ckpt", tmp_path / "trace"
    data = {"model": read_tensors(WEIGHTS), "hook": Bomb(trace)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(data, protocol))
    else:
        torch.save(data, path, pickle_protocol=max(protocol, 2), _use_new_zipfile_serialization=how == "torch")
    recwarn.clear()
    assert main(["convert", str(path), str(tmp_path / "new")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Refused" in line
    assert not recwarn.list
    assert not trace.exists()
    assert not (tmp_path / "new").exists()


def test_another_family_an_unknown_one_and_damage_are_refused(tmp_path, capsys):
    assert main(["convert", str(WEIGHTS), str(tmp_path / "new"), "--family", "h_rdt"]) == 2
    assert "of the family 'rdt', but 'h_rdt' was asked for" in capsys.readouterr().err
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "m.pt")
    assert main(["convert", str(tmp_path / "m.pt"), str(tmp_path / "new")]) == 2
    assert "no known family" in capsys.readouterr().err
    (tmp_path / "half.safetensors").write_bytes(WEIGHTS.read_bytes()[:-1000])
    assert main(["convert", str(tmp_path / "half.safetensors"), str(tmp_path / "new")]) == 2
    assert "damaged" in capsys.readouterr().err
    torch.save(read_tensors(WEIGHTS) | {"model.blocks.0.tail": torch.zeros(2)}, tmp_path / "more.pt")
    assert main(["convert", str(tmp_path / "more.pt"), str(tmp_path / "new")]) == 2
    assert f"{tmp_path / 'more.pt'} does not fit Rdt: unexpected: model.blocks.0.tail" in capsys.readouterr().err
    torch.save(read_tensors(WEIGHTS), tmp_path / "whole.pt")
    (tmp_path / "half.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:-5000])
    assert main(["convert", str(tmp_path / "half.pt"), str(tmp_path / "new")]) == 2
    assert "Refused" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_an_index_that_points_outside_is_named(tmp_path, capsys):
    source = tmp_path / "sharded"
    source.mkdir()
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../b.safetensors"}}))
    assert main(["convert", str(source), str(tmp_path / "new")]) == 2
    assert "sends 'a' to '../b.safetensors'" in capsys.readouterr().err


def test_a_family_that_does_not_exist_lists_those_that_do(tmp_path, capsys):
    assert main(["convert", str(WEIGHTS), str(tmp_path / "new"), "--family", "magic"]) == 2
    assert "Family 'magic' does not exist. Available: cogact" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["convert", str(WEIGHTS), str(tmp_path / "file" / "new")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written" in line
