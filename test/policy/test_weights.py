import json

import pytest
import torch
from safetensors.torch import save_file

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.weights import (
    count_layers,
    load_strict,
    read_json,
    read_shapes,
    read_tensors,
    read_torch_file,
    weight_files,
)

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}
INDEX = "model.safetensors.index.json"


def test_a_single_file_is_found_by_any_name(tmp_path):
    save_file(TENSORS, tmp_path / "diffusion_pytorch_model.safetensors")
    assert read_shapes(tmp_path) == {"a.weight": (2, 3), "b": (2,)}
    assert torch.equal(read_tensors(tmp_path)["a.weight"], TENSORS["a.weight"])
    assert read_shapes(tmp_path / "diffusion_pytorch_model.safetensors") == read_shapes(tmp_path)


def test_only_floats_are_cast_and_the_prefix_is_cut(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    assert {name: value.dtype for name, value in read_tensors(tmp_path, dtype=torch.float16).items()} == {
        "a.weight": torch.float16,
        "b": torch.int64,
    }
    assert set(read_tensors(tmp_path, "a.")) == {"weight"}


def test_embeddings_beside_a_torch_file_are_not_taken_for_weights(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "language.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"no unmistakable safetensors files .* convert \.pt and \.bin files first"
    ):
        weight_files(tmp_path)
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "language.pt")  # the same weights in two formats
    assert list(weight_files(tmp_path)) == [tmp_path / "language.safetensors"]


def test_an_ambiguous_or_empty_directory_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no safetensors files"):
        read_shapes(tmp_path)
    for name in ("one", "two"):
        save_file(TENSORS, tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match=r"several safetensors files \(one.safetensors, two.safetensors\)"):
        read_shapes(tmp_path)
    with pytest.raises(CheckpointError, match="no such directory"):
        read_shapes(tmp_path / "nowhere")


def sharded(tmp_path, weight_map):
    save_file({"a.weight": TENSORS["a.weight"]}, tmp_path / "first.safetensors")
    save_file({"b": TENSORS["b"], "unlisted": torch.zeros(1)}, tmp_path / "second.safetensors")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return tmp_path


def test_shards_hold_what_the_index_says(tmp_path):
    path = sharded(tmp_path, {"a.weight": "first.safetensors", "b": "second.safetensors"})
    assert set(read_tensors(path)) == {"a.weight", "b"}


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a.weight": "third.safetensors"}, "lacks the shards third.safetensors"),
        ({"c": "first.safetensors"}, "lacks c, which the index says"),
        ({"a.weight": "../first.safetensors"}, "must be a file beside it"),
        ({}, "no 'weight_map'"),
    ],
)
def test_a_wrong_index_is_refused(tmp_path, weight_map, message):
    with pytest.raises(CheckpointError, match=message):
        read_tensors(sharded(tmp_path, weight_map))


def test_damage_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"not a header")
    with pytest.raises(CheckpointError, match="damaged"):
        read_shapes(tmp_path)


def test_json_must_be_an_object(tmp_path):
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="JSON object"):
        read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="Cannot read"):
        read_json(tmp_path / "config.json")


def test_layers_are_counted_by_the_highest_number():
    assert count_layers({"blocks.0.w": (), "blocks.11.w": (), "blocks.x": (), "other.40": ()}, "blocks.") == 12
    assert count_layers({}, "blocks.") == 0


def test_a_long_list_is_cut():
    with torch.device("meta"):
        network = torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(30)))
    with pytest.raises(CheckpointError, match=r"missing: 0.bias, .* and 10 more"):
        load_strict(network, {}, "It")


def test_loading_keeps_the_type_of_the_file():
    network = torch.nn.Linear(3, 2, bias=False, device="meta")
    load_strict(network, {"weight": torch.ones(2, 3, dtype=torch.bfloat16)}, "It")
    assert network.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("legacy", [False, True])
def test_a_torch_file_is_flattened(tmp_path, legacy):
    data = {"module": {"x.weight": torch.arange(4.0), "step": 3}, "optimizer": {"state": {0: torch.zeros(9)}}}
    torch.save(data, tmp_path / "m.pt", _use_new_zipfile_serialization=not legacy)
    tensors = read_torch_file(tmp_path / "m.pt")
    assert set(tensors) == {"module.x.weight", "optimizer.state.0"}
    assert torch.equal(tensors["module.x.weight"], torch.arange(4.0))


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_file_with_code_is_refused_and_not_run(tmp_path):
    torch.save({"weight": torch.zeros(1), "code": Payload(tmp_path / "ran")}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"code in it \(\w+\.open\)") as refused:
        read_torch_file(tmp_path / "m.pt")
    assert "weights_only" not in str(refused.value)  # torch advises to run the code
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04broken"])
def test_a_damaged_torch_file_is_refused(tmp_path, content):
    (tmp_path / "m.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match="Refused"):
        read_torch_file(tmp_path / "m.bin")


def test_a_torch_file_without_tensors_is_refused(tmp_path):
    torch.save({"step": 1}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="no tensors"):
        read_torch_file(tmp_path / "m.pt")
