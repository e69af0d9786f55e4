"""System 2 encoders on tiny models that the tests build and save as real Hugging Face directories."""

import inspect
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import (
    save_clip,
    save_dino,
    save_llava,
    save_qwen,
    save_siglip,
    save_t5,
    save_vae,
    tokenizer,
)

from dit_policy_ros.actions.channels import JointChannels, Places
from dit_policy_ros.actions.normalise import none
from dit_policy_ros.errors import CheckpointError, PolicyError
from dit_policy_ros.policy.bindings.binding import Encoders, FamilyPolicyConfig
from dit_policy_ros.policy.bindings.rdt2_fm import Rdt2FmBinding
from dit_policy_ros.policy.encoders.clip import ClipText, ClipVision
from dit_policy_ros.policy.encoders.language import LanguageFile, T5Encoder
from dit_policy_ros.policy.encoders.latents import LatentEncoder
from dit_policy_ros.policy.encoders.pixels import PixelFormat, in_order, pad_to_square
from dit_policy_ros.policy.encoders.vision import PENULTIMATE, FusedTowers, VisionTower, one_sequence
from dit_policy_ros.policy.encoders.vlm import VisionLanguageModel, chat_prompt
from dit_policy_ros.policy.families import rdt2_fm

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    return save_siglip(tmp_path_factory.mktemp("siglip"))


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    return save_dino(tmp_path_factory.mktemp("dino"))


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    return save_t5(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    return save_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip"))


def images(*sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def test_pixels_are_those_of_the_official_processor(siglip):
    processor = transformers.SiglipImageProcessor(size={"height": 28, "width": 28})
    given = images((40, 40), (13, 13), (28, 28))
    expected = processor(images=given, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(PixelFormat.from_directory(siglip)(given), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("shape", "top", "left"), [((2, 5), 1, 0), ((5, 2), 0, 1), ((3, 3), 0, 0)])
def test_padding_centres_the_image(shape, top, left):
    image = images(shape)[0]
    square = pad_to_square(image, (1, 2, 3))
    side = max(shape)
    assert square.shape == (side, side, 3)
    np.testing.assert_array_equal(square[top : top + shape[0], left : left + shape[1]], image)
    outside = np.ones((side, side), dtype=bool)
    outside[top : top + shape[0], left : left + shape[1]] = False
    assert (square[outside] == (1, 2, 3)).all()


def test_a_missing_camera_is_the_mean_colour(dino):
    pixels = PixelFormat.from_directory(dino)
    assert pixels.colour == (123, 116, 103)
    assert pixels([None]).abs().max() < 0.02


def test_frames_are_ordered_by_time_then_camera():
    frames = [{"left": 1, "top": 2}, {"top": 3, "left": 4}]
    assert in_order(frames, ("top", "left"), 2) == [2, 1, 3, 4]
    assert in_order(frames[1:], ("top", "left", "right"), 2) == [None, None, None, 3, 4, None]
    assert in_order(frames, ("top",), 1) == [3]


def test_an_image_of_another_type_is_refused(siglip):
    with pytest.raises(PolicyError, match="uint8"):
        PixelFormat.from_directory(siglip)([np.zeros((4, 4, 3))])


def test_a_preprocessor_without_a_size_is_refused(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"shortest_edge": 224}}))
    with pytest.raises(CheckpointError, match="height and width"):
        PixelFormat.from_directory(tmp_path)


def test_siglip_features_are_the_last_hidden_state(siglip):
    tower = VisionTower.from_directory(siglip)
    given = images((30, 40), (28, 28))
    features = tower([*given, None])
    assert features.shape == (3, 4, tower.width)
    expected = tower.model(tower.pixels([given[1]])).last_hidden_state
    torch.testing.assert_close(features[1:2], expected)
    assert one_sequence(features).shape == (1, 12, 16)
    torch.testing.assert_close(one_sequence(features)[0, 4:8], features[1])


def test_fused_towers_drop_leading_tokens_and_norms(siglip, dino):
    fused = FusedTowers(VisionTower.from_directory(dino, PENULTIMATE), VisionTower.from_directory(siglip, PENULTIMATE))
    given = images((28, 28))
    features = fused(given)
    assert features.shape == (1, 4, 28)
    assert fused.width == 28
    caught = []
    handle = fused.dino.model.encoder.layer[-1].register_forward_pre_hook(
        lambda _, x, kw: caught.append(x), with_kwargs=True
    )
    fused.dino(given)
    handle.remove()
    torch.testing.assert_close(features[..., :12], caught[0][0][:, 5:])


def test_towers_with_different_patches_are_refused(siglip, dino, tmp_path):
    tower = VisionTower.from_directory(dino)
    larger = VisionTower(tower.model, PixelFormat((42, 42), tower.pixels.mean, tower.pixels.std))
    with pytest.raises(CheckpointError, match="9 patches of an image, SigLIP 4"):
        FusedTowers(larger, VisionTower.from_directory(siglip))(images((28, 28)))


def test_t5_features_do_not_depend_on_padding_and_are_cut(t5):
    encoder = T5Encoder.from_directory(t5, max_tokens=4, dtype=torch.float32)
    short = encoder("pick cup")
    assert short.tokens.shape == (1, 3, 16)
    assert short.mask.all()
    assert encoder("pick the red cup pick the red cup").tokens.shape == (1, 4, 16)
    assert (encoder("red cup").tokens - short.tokens).abs().max() > 1e-3


def test_embeddings_survive_a_file(t5, tmp_path):
    encoder = T5Encoder.from_directory(t5, dtype=torch.float32)
    sentence = "pick the red cup"
    LanguageFile({sentence: encoder(sentence).tokens[0]}).save(tmp_path / "language.safetensors")
    loaded = LanguageFile.load(tmp_path / "language.safetensors")
    torch.testing.assert_close(loaded(sentence).tokens, encoder(sentence).tokens)
    assert loaded(sentence).mask.shape == (1, 5)
    with pytest.raises(PolicyError, match=r"No precomputed embedding for 'push'.*'pick the red cup'"):
        loaded("push")


def test_official_embedding_files(tmp_path):
    value = torch.randn(1, 3, 8)
    for content in ({"name": "pick", "embeddings": value}, value):
        torch.save(content, tmp_path / "m.pt")
        assert torch.equal(LanguageFile.from_official("pick", tmp_path / "m.pt")("pick").tokens, value)
    torch.save({"other": value}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="'embeddings'"):
        LanguageFile.from_official("pick", tmp_path / "m.pt")


def test_a_wrong_embedding_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no file"):
        LanguageFile.load(tmp_path / "none.safetensors")
    LanguageFile({"pick": torch.zeros(2, 3, 4)}).save(tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=r"'pick' \(2, 3, 4\)"):
        LanguageFile.load(tmp_path / "m.safetensors")


def test_hidden_states_of_a_layer_with_image_tokens_marked(llava):
    vlm = VisionLanguageModel.from_directory(llava, dtype=torch.float32)
    context = vlm.hidden_states(images((28, 28)), "pick the cup", layer=2)
    length = 1 + 4 + 3 + 1
    assert context.states.shape == (1, length, 16)
    assert context.image_mask[0].nonzero().flatten().tolist() == [1, 2, 3, 4]
    assert context.mask.all()
    other = vlm.hidden_states(images((28, 28), seed=1), "pick the cup", layer=2).states
    assert torch.equal(other[:, 0], context.states[:, 0])
    assert (other[:, 1] - context.states[:, 1]).abs().max() > 1e-4
    with pytest.raises(PolicyError, match="layers 0 to 3; 4"):
        vlm.hidden_states(images((28, 28)), "pick", layer=4)


def test_the_cognition_token_is_that_of_the_suffix(llava):
    plain = VisionLanguageModel.from_directory(llava, dtype=torch.float32)
    asked = VisionLanguageModel(plain.model, plain.processor, plain.prompt, suffix_ids=(4,))
    given = images((28, 28))
    token = asked.cognition_token(given, "pick cup")
    assert token.shape == (1, 1, 16)
    spelled_out = asked.hidden_states(given, "pick cup").states
    torch.testing.assert_close(token, spelled_out[:, -1:])
    torch.testing.assert_close(plain.hidden_states(given, "pick cup").states, spelled_out[:, :-1])


def test_the_cache_is_what_the_model_attends_to(llava):
    vlm = VisionLanguageModel.from_directory(llava, dtype=torch.float32)
    given = images((28, 28))
    cache = vlm.keys_values(given, "pick the cup", layers=2)
    assert cache.keys.shape == cache.values.shape == (2, 1, 2, 9, 4)
    first = vlm.model.model.language_model.layers[0]
    states = vlm.hidden_states(given, "pick the cup", layer=0).states
    values = first.self_attn.v_proj(first.input_layernorm(states)).unflatten(-1, (2, 4)).transpose(1, 2)
    torch.testing.assert_close(cache.values[0], values)
    with pytest.raises(PolicyError, match="has 3 layers; the policy attends to 4"):
        vlm.keys_values(given, "pick", layers=4)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    directory = save_qwen(tmp_path_factory.mktemp("qwen"))
    return VisionLanguageModel.from_directory(directory, dtype=torch.float32, prompt_suffix="<|quad_start|>")


def test_the_processor_of_qwen_marks_every_merged_patch_of_every_image(qwen):
    given = images((56, 112), (84, 28))
    text = qwen.prompt("pick the cup", 2)
    assert text == "<|vision_start|><|image_pad|><|vision_end|>" * 2 + " pick the cup <|quad_start|>"
    batch = qwen.processor(text=[text], images=given)
    assert batch["image_grid_thw"].tolist() == [[1, 4, 8], [1, 6, 2]]
    assert batch["input_ids"].tolist() == [[5, *[3] * 8, 6, 5, *[3] * 3, 6, 8, 9, 11, 7]]
    assert (batch["mm_token_type_ids"].bool() == (batch["input_ids"] == 3)).all()
    with pytest.raises(PolicyError, match="2 image marks for 1 images"):
        qwen.processor(text=[text], images=given[:1])
    words = qwen.processor(text=["pick the cup"])
    assert words["input_ids"].tolist() == [[8, 9, 11]]


def test_the_pixels_of_qwen_are_normalised_patches_of_two_equal_frames(qwen):
    (image,) = images((28, 56))
    batch = qwen.processor(text=[qwen.prompt("cup", 1)], images=[image])
    mean, std = (np.array(part) for part in (qwen.processor.images.image_mean, qwen.processor.images.image_std))
    first = ((image[:14, :14] / 255.0 - mean) / std).transpose(2, 0, 1)
    patches = batch["pixel_values"].reshape(-1, 3, 2, 14, 14).numpy()
    np.testing.assert_allclose(patches[0, :, 0], first, atol=1e-5)
    np.testing.assert_allclose(patches[:, :, 0], patches[:, :, 1])


def test_image_tokens_of_qwen_stand_in_rows_and_columns(qwen):
    """Their rotary places are not those of a row of words: without the token types the cache would be another."""
    wide = images((56, 112))
    batch = qwen.processor(text=[qwen.prompt("pick the cup", 1)], images=wide)
    plain = {name: value for name, value in batch.items() if name != "mm_token_type_ids"}
    keys = [qwen.model(**inputs, use_cache=True).past_key_values.layers[0].keys for inputs in (batch, plain)]
    if "mm_token_type_ids" in inspect.signature(qwen.model.forward).parameters:  # older models find them themselves
        assert (keys[0] - keys[1])[:, :, 2:9].abs().max() > 1e-4
    torch.testing.assert_close(qwen.keys_values(wide, "pick the cup", layers=1).keys[0], keys[0])


def test_a_processor_with_a_missing_file_says_which_directory(tmp_path):
    directory = save_qwen(tmp_path)
    (directory / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"processor of .* does not load"):
        VisionLanguageModel.from_directory(directory)


def test_the_cache_of_qwen_holds_projected_values_and_turned_keys(qwen):
    wide = images((56, 112))
    cache = qwen.keys_values(wide, "pick the cup", layers=2)
    length = 1 + 2 * 4 + 1 + 3 + 1  # marks, merged patches, words and the last token
    assert cache.keys.shape == cache.values.shape == (2, 1, 2, length, 4)
    assert (qwen.cache_size, qwen.depth) == ((2, 4), 3)
    assert cache.mask.all()
    for i, layer in enumerate(qwen.model.model.language_model.layers[:2]):
        states = layer.input_layernorm(qwen.hidden_states(wide, "pick the cup", layer=i).states)
        values = layer.self_attn.v_proj(states).unflatten(-1, (2, 4)).transpose(1, 2)
        torch.testing.assert_close(cache.values[i], values)
        plain = layer.self_attn.k_proj(states).unflatten(-1, (2, 4)).transpose(1, 2)
        torch.testing.assert_close(cache.keys[i].norm(dim=-1), plain.norm(dim=-1))
        torch.testing.assert_close(cache.keys[i][:, :, :1], plain[:, :, :1])  # position 0 is not turned
        assert (cache.keys[i] - plain).abs().max() > 1e-4


def test_a_policy_attends_to_the_cache_of_qwen(qwen):
    config = rdt2_fm.Rdt2FmConfig(
        hidden=16, depth=4, heads=4, kv_heads=2, head_dim=4, ffn_hidden=16, final_hidden=16, horizon=5, registers=1,
        action_dim=3, action_widths=(3, 16), state_widths=(3, 16), lang_widths=None,
    )  # fmt: skip
    torch.manual_seed(0)
    network = rdt2_fm.build(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.normal_(0.0, 0.3)
    channels = JointChannels(("a", "b", "c"), Places(np.arange(3), 3), none(3))
    binding = Rdt2FmBinding(
        network, Encoders(vision_language=qwen), FamilyPolicyConfig(("left", "right"), None, channels)
    )
    chunks = []
    for seed, words in ((0, "pick the cup"), (0, "the red"), (1, "pick the cup")):
        tensors = binding.look(images((20, 30), (20, 30), seed=seed), words, 0)
        assert tensors["keys"].shape[0] == 3  # blocks of the policy take the three layers in turn
        chunks.append(binding.sample(binding.condition(tensors), torch.ones(1, 5, 3), (), None))
    assert all((chunks[0] - other).abs().max() > 1e-5 for other in chunks[1:])
    narrow = replace(config, kv_heads=1)
    with pytest.raises(CheckpointError, match="keeps 2 heads of 4; this checkpoint attends to 1 of 4"):
        Rdt2FmBinding(rdt2_fm.build(narrow), Encoders(vision_language=qwen), binding.config)


def test_latents_are_those_of_the_autoencoder(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    encoder = LatentEncoder.from_directory(save_vae(tmp_path), (32, 48))
    image = images((32, 48))[0]
    values = ((image.astype(np.float32) - 128) / 127.5).clip(-1, 1)
    pixels = torch.from_numpy(values).permute(2, 0, 1)[None]
    official = diffusers.AutoencoderKL.from_pretrained(tmp_path).eval()
    expected = 0.18215 * official.encode(pixels).latent_dist.mean
    torch.testing.assert_close(encoder([image]), expected.detach())
    assert encoder([image, image]).shape == (2, 4, 4, 6)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="does not load as an autoencoder"):
        LatentEncoder.from_directory(tmp_path, (32, 48))


def test_projected_text_lives_in_the_space_of_images(clip):
    plain, projected = ClipText.from_directory(clip), ClipText.from_directory(clip, projected=True)
    vector = projected("pick the cup").tokens
    assert vector.shape == (1, 1, projected.width)
    expected = projected.model.text_projection(plain("pick the cup").tokens)
    torch.testing.assert_close(vector, expected)


def test_a_prompt_ends_with_its_suffix(llava):
    processor = transformers.AutoProcessor.from_pretrained(llava)
    assert chat_prompt(processor, "<cognition>")("pick", 2) == "USER <image> <image> pick <cognition>"


def test_directories_that_cannot_be_used_are_refused(siglip, t5, tmp_path):
    with pytest.raises(CheckpointError, match="nothing is downloaded"):
        VisionTower.from_directory(tmp_path)
    (tmp_path / "config.json").write_text((siglip / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match="never loaded"):
        VisionTower.from_directory(tmp_path)
    with pytest.raises(CheckpointError, match="holds a 't5'"):
        VisionTower.from_directory(t5)


def test_clip_gives_the_class_token_and_the_pooled_text(clip):
    whole = transformers.CLIPModel.from_pretrained(clip).eval()
    vision, text = ClipVision.from_directory(clip), ClipText.from_directory(clip)
    given = images((28, 28), (28, 28))
    with torch.no_grad():
        states = whole.vision_model(vision.pixels(given)).last_hidden_state
        pooled = whole.text_model(**tokenizer()(["pick the cup"], return_tensors="pt", return_token_type_ids=False))
    torch.testing.assert_close(vision(given), states[:, :1])
    torch.testing.assert_close(text("pick the cup").tokens[0], pooled.pooler_output)
    assert (vision.width, text.width) == (16, 16)
    assert text("pick").tokens.shape == (1, 1, 16)


def test_clip_stretches_where_siglip_pads(clip, siglip):
    wide = images((10, 40))
    stretched, padded = (
        tower.pixels(wide) for tower in (ClipVision.from_directory(clip), VisionTower.from_directory(siglip))
    )
    assert padded[0, :, 0].abs().max() < 0.02
    assert stretched[0, :, 0].abs().max() > 0.1


def test_embeddings_of_two_encoders_are_not_mixed():
    with pytest.raises(CheckpointError, match=r"widths \[4, 5\]"):
        LanguageFile({"a": torch.zeros(2, 4), "b": torch.zeros(2, 5)})
