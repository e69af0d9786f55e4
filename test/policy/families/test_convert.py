import json

import pytest
import torch
from family_checks import GOLDEN, network, reference
from safetensors.torch import save_file

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.convert import convert
from dit_policy_ros.policy.families import load_network
from dit_policy_ros.policy.families.lerobot_multi_task_dit import CLIP
from dit_policy_ros.policy.references.networks import RUNNERS
from dit_policy_ros.policy.weights import read_tensors

# How each family's release nests its parameters in a torch file.
NESTS = {
    "rdt": lambda tensors: {"module": tensors, "optimizer": {"state": {0: torch.zeros(3)}}, "step": 7},
    "h_rdt": lambda tensors: tensors,
    "rdt2_fm": lambda tensors: tensors,
    "cogact": lambda tensors: {"model": {"action_model": tensors, "llm_backbone": {"w": torch.zeros(2)}}},
    "gr00t_n16": lambda tensors: {**tensors, "backbone.w": torch.zeros(2)},
    "gr00t_n15": lambda tensors: {**tensors, "backbone.w": torch.zeros(2)},
    "lerobot_multi_task_dit": lambda tensors: {**tensors, f"{CLIP[0]}.model.w": torch.zeros(2)},
    "diffusion_policy_transformer": lambda tensors: {"state_dicts": {"model": tensors, "ema_model": tensors}},
    "mode": lambda tensors: {"state_dict": tensors, "global_step": 3},
    "uwm": lambda tensors: {"model": {**tensors, "obs_encoder.vae.vae.w": torch.zeros(2)}, "step": 3},
    "mdt": lambda tensors: {"state_dict": {**tensors, "visual_goal.w": torch.zeros(2)}, "epoch": 3},
    "mdtv": lambda tensors: {"state_dict": {**tensors, "img_encoder.w": torch.zeros(2)}, "epoch": 3},
    "pad": lambda tensors: {"model": tensors},
}


def release(family, directory):
    """The reference weights as a release has them: a torch file and its settings."""
    directory.mkdir()
    torch.save(NESTS[family](read_tensors(GOLDEN / family / "weights.safetensors")), directory / "pytorch_model.bin")
    (directory / "config.json").write_text(json.dumps(RUNNERS[family].settings(reference(family).data)))
    return directory


@pytest.mark.parametrize("family", NESTS)
@pytest.mark.parametrize("whole", [True, False])
def test_an_official_torch_file_becomes_a_directory(tmp_path, family, whole):
    source = release(family, tmp_path / "release")
    assert convert(source if whole else source / "pytorch_model.bin", tmp_path / "new") == family
    loaded, expected = load_network(tmp_path / "new"), network(family).state_dict()
    assert loaded.config == network(family).config
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


def sharded(directory, index="pytorch_model.bin.index.json"):
    """The reference weights of RDT in two torch files with their index."""
    directory.mkdir()
    tensors = read_tensors(GOLDEN / "rdt" / "weights.safetensors")
    names = sorted(tensors)
    halves = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, held in halves.items():
        torch.save({name: tensors[name] for name in held}, directory / file)
    weight_map = {name: file for file, held in halves.items() for name in held}
    (directory / index).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return directory


@pytest.mark.parametrize("whole", [True, False])
def test_torch_shards_become_one_file(tmp_path, whole):
    source = sharded(tmp_path / "release")
    assert convert(source if whole else source / "pytorch_model.bin.index.json", tmp_path / "new") == "rdt"
    expected = read_tensors(GOLDEN / "rdt" / "weights.safetensors")
    got = read_tensors(tmp_path / "new")
    assert got.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in got.items())


def test_incomplete_and_foreign_torch_shards_are_refused(tmp_path):
    source = sharded(tmp_path / "release")
    second, index = source / "pytorch_model-00002-of-00002.bin", source / "pytorch_model.bin.index.json"
    data = json.loads(index.read_text())
    index.write_text(json.dumps({"weight_map": {**data["weight_map"], "model.extra": second.name}}))
    with pytest.raises(CheckpointError, match=r"00002-of-00002\.bin lacks model\.extra, which the index says"):
        convert(source, tmp_path / "new")
    index.write_text(json.dumps({"weight_map": {"x": "../weights.bin"}}))
    with pytest.raises(CheckpointError, match="must be a file beside it"):
        convert(source, tmp_path / "new")
    index.write_text(json.dumps(data))
    second.write_bytes(b"code")
    with pytest.raises(CheckpointError, match="Refused"):
        convert(source, tmp_path / "new")
    second.unlink()
    with pytest.raises(CheckpointError, match=r"lacks the shards pytorch_model-00002-of-00002\.bin"):
        convert(source, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_tied_tensors_are_written_apart(tmp_path):
    tensors = read_tensors(GOLDEN / "rdt" / "weights.safetensors")
    first, second = (f"model.blocks.{i}.norm1.weight" for i in (0, 1))
    tensors[second] = tensors[first]
    torch.save(tensors, tmp_path / "m.pt")
    convert(tmp_path / "m.pt", tmp_path / "new")
    assert torch.equal(read_tensors(tmp_path / "new")[second], tensors[first])


def test_safetensors_lose_their_prefix(tmp_path):
    tensors = read_tensors(GOLDEN / "rdt" / "weights.safetensors", dtype=torch.bfloat16)
    save_file({f"module.{name}": value for name, value in tensors.items()}, tmp_path / "m.safetensors")
    assert convert(tmp_path / "m.safetensors", tmp_path / "new") == "rdt"
    assert read_tensors(tmp_path / "new").keys() == tensors.keys()


def test_nothing_is_left_of_a_failure(tmp_path):
    source = release("rdt", tmp_path / "release")
    tensors = read_tensors(GOLDEN / "rdt" / "weights.safetensors")
    del tensors["model.blocks.0.ffn.fc2.bias"]
    torch.save(tensors, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"missing: model\.blocks\.0\.ffn\.fc2\.bias"):
        convert(source, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["release"]


def test_what_cannot_be_converted_is_refused(tmp_path):
    source = release("rdt", tmp_path / "release")
    (tmp_path / "old").mkdir()
    with pytest.raises(CheckpointError, match="exists already"):
        convert(source, tmp_path / "old")
    with pytest.raises(CheckpointError, match="found none"):
        convert(tmp_path / "old", tmp_path / "new")
    torch.save({"layer": torch.zeros(1)}, source / "another.pt")
    with pytest.raises(CheckpointError, match=r"found another\.pt, pytorch_model\.bin"):
        convert(source, tmp_path / "new")
    with pytest.raises(CheckpointError, match="no file or directory"):
        convert(source / "third.pt", tmp_path / "new")
    with pytest.raises(CheckpointError, match="no known family"):
        convert(source / "another.pt", tmp_path / "new")
    (source / "bad.pt").write_bytes(b"code")
    with pytest.raises(CheckpointError, match="Refused"):
        convert(source / "bad.pt", tmp_path / "new")
