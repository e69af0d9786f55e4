"""What holds for the checkpoints of every official family: they load without YAML, or say why not."""

import json

import pytest
import torch
from family_checks import GOLDEN, network, reference, save_checkpoint
from safetensors.torch import save_file

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.families import FAMILIES, identify, load_network
from dit_policy_ros.policy.references.networks import RUNNERS, load_reference_network
from dit_policy_ros.policy.weights import read_shapes, read_tensors

OFFICIAL = (
    "rdt",
    "h_rdt",
    "rdt2_fm",
    "cogact",
    "gr00t_n16",
    "gr00t_n15",
    "lerobot_multi_task_dit",
    "diffusion_policy_transformer",
    "mode",
    "uwm",
    "mdt",
    "mdtv",
    "pad",
)
families = pytest.mark.parametrize("family", OFFICIAL)


@pytest.fixture
def checkpoint(tmp_path, family):
    """A release of the reference weights: official names, official settings, no YAML."""
    settings = RUNNERS[family].settings(reference(family).data)
    tensors = read_tensors(GOLDEN / family / "weights.safetensors")
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(settings))
    return tmp_path


@families
def test_a_directory_loads_as_it_is(checkpoint, family):
    loaded = load_network(checkpoint)
    assert type(loaded) is type(network(family))
    assert loaded.config == network(family).config
    expected = network(family).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    assert not loaded.training
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in loaded.parameters())


@families
def test_a_sharded_directory_in_half_precision(tmp_path, family):
    tensors = read_tensors(GOLDEN / family / "weights.safetensors", dtype=torch.bfloat16)
    names = sorted(tensors)
    shards = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, held in shards.items():
        save_file({name: tensors[name] for name in held}, tmp_path / file)
    weight_map = {name: file for file, held in shards.items() for name in held}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    settings = RUNNERS[family].settings(reference(family).data)
    kept = load_network(tmp_path, settings=settings)
    assert {p.dtype for p in kept.parameters()} == {torch.bfloat16}
    cast = load_network(tmp_path, settings=settings, dtype=torch.float32)
    assert {p.dtype for p in cast.parameters()} == {torch.float32}


@families
def test_every_difference_is_listed_in_one_error(checkpoint, family):
    tensors = read_tensors(checkpoint)
    prefix = "action_head." if "gr00t" in family else ""
    missing, misshapen = _victims(tensors)
    shape = tuple(tensors[misshapen].shape)
    del tensors[missing]
    tensors[misshapen] = torch.zeros(3, 1, 2)
    tensors[prefix + "head.extra"] = torch.zeros(1)
    save_file(tensors, checkpoint / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_network(checkpoint)
    text = str(caught.value)
    assert "unexpected: head.extra" in text
    assert f"missing: {missing.removeprefix(prefix)}" in text
    assert f"misshapen: {misshapen.removeprefix(prefix)} (3, 1, 2) instead of {shape}" in text


def _victims(tensors):
    """Two biases, whose shapes size nothing."""
    biases = [name for name in sorted(tensors) if name.endswith("bias") and "blocks" not in name]
    return biases[0], biases[1]


@families
def test_another_family_is_refused(checkpoint, family):
    other = OFFICIAL[OFFICIAL.index(family) - 1]
    with pytest.raises(CheckpointError, match=f"is of the family '{family}', but '{other}'"):
        load_network(checkpoint, other)


@families
def test_a_truncated_file_is_refused(checkpoint, family):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="damaged"):
        load_network(checkpoint)


@pytest.mark.parametrize("family", [name for name in OFFICIAL if "gr00t" in name])
def test_the_backbone_in_the_same_file_is_left_to_the_encoder(checkpoint, family):
    tensors = read_tensors(checkpoint)
    save_file({**tensors, "backbone.layer.weight": torch.zeros(2)}, checkpoint / "model.safetensors")
    assert load_network(checkpoint).config == network(family).config


@families
def test_only_one_family_knows_the_parameters(family):
    shapes = read_shapes(GOLDEN / family / "weights.safetensors")
    assert identify(shapes)[0] == family
    prefix = identify(shapes)[1]
    own = {name.removeprefix(prefix): shape for name, shape in shapes.items()}
    assert [name for name, module in FAMILIES.items() if module.detect(own)] == [family]


def test_unknown_parameters_name_the_known_families(tmp_path):
    save_file({"layer.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"layer\.weight, \.\.\. Known: .*cogact.*rdt"):
        load_network(tmp_path)


def test_a_reference_of_an_unknown_family_is_refused():
    data = {**reference("rdt").data, "family": "other"}
    with pytest.raises(CheckpointError, match="Family 'other'"):
        load_reference_network(type(reference("rdt"))(GOLDEN / "rdt", data, {}))


def test_a_file_finds_the_settings_beside_it(tmp_path):
    settings = {"config": {"noise_scheduler": {"num_inference_timesteps": 9}}}
    path = save_checkpoint(network("rdt"), tmp_path / "new", settings)
    assert load_network(path / "model.safetensors").config.steps == 9


@pytest.mark.parametrize("settings", [{"config": []}, {"config": {"noise_scheduler": 3}}])
def test_settings_of_the_wrong_kind_are_refused(tmp_path, settings):
    with pytest.raises(CheckpointError, match="looks like 'rdt'"):
        load_network(save_checkpoint(network("rdt"), tmp_path / "new", settings))


def test_saved_settings_survive(tmp_path):
    path = save_checkpoint(network("rdt"), tmp_path / "new", {"config": {"noise_scheduler": {}}})
    assert load_network(path).config == network("rdt").config
