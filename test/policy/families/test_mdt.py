import copy
from dataclasses import replace

import pytest
import torch
from family_checks import (
    assert_close,
    case_names,
    check_case,
    inputs,
    modules_named,
    network,
    no_calls,
    passes,
    random_network,
    save_checkpoint,
)

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.families import load_network
from dit_policy_ros.policy.mdt_config import MdtConfig

FAMILIES = ("mdt", "mdtv")
families = pytest.mark.parametrize("family", FAMILIES)

SMALL = MdtConfig(
    width=24,
    encoder_depth=2,
    decoder_depth=3,
    mlp_hidden=40,
    bias=False,
    goal_widths=(6, 48, 24),
    out_widths=(24, 5),
    proprio_widths=None,
    observation_width=7,
    action_dim=5,
    positions=9,
    shapes={"model.inner_model.incam_embed.weight": (24, 7), "model.inner_model.lang_emb.0.weight": (48, 6)},
    heads=3,
    noise="adaptive",
    rotary=False,
    goal_tokens=1,
    steps=4,
)
FREQUENCIES = {
    f"model.inner_model.{place}.rotary_pos_emb.freqs": (3,)
    for place in (
        *(f"encoder.blocks.{i}.attn" for i in range(2)),
        *(f"decoder.blocks.{i}.{kind}" for i in range(3) for kind in ("attn", "cross_att")),
    )
}
OPTIONS = {
    "as released": SMALL,
    "noise added": replace(SMALL, noise="added"),
    "noise in the context": replace(SMALL, noise="context"),
    "biases": replace(SMALL, bias=True),
    "stored rotary": replace(SMALL, rotary=True, shapes={**SMALL.shapes, **FREQUENCIES}),
    "computed rotary": replace(SMALL, width=66, heads=2, rotary=True, goal_widths=(6, 66), out_widths=(66, 5)),
    "small heads": replace(SMALL, heads=1),
    "linear goal": replace(SMALL, goal_widths=(6, 24)),
    "deep head": replace(SMALL, out_widths=(24, 10, 5)),
    "no positions": replace(SMALL, positions=None),
}
options = pytest.mark.parametrize("config", OPTIONS.values(), ids=OPTIONS)


def example(batch=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, 1, 7), (batch, 1, 7), (batch, 1, 6), (batch, 8, 5))
    return [torch.randn(*shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize(("family", "name"), [(f, name) for f in FAMILIES for name in case_names(f)])
def test_reference(family, name):
    check_case(family, name)


def _case(name):
    """A case in which this parameter has a part."""
    parts = {"resnet": "encode_images", "gen_img": "foresight", "perceiver": "encode_perceiver"}
    parts |= {"clip_proj": "encode_pool", "logit_scale": "info_nce"}
    return next((case for part, case in parts.items() if part in name), "contrastive")


def _some(name):
    """Leaves out what repeats, and proprioception, which no case has."""
    repeated = ("blocks.1.", "backbone.4.", "backbone.6.", "backbone.7.", "layers.1.", "proprio")
    return not any(part in name for part in repeated)


@pytest.mark.parametrize(
    ("family", "name"),
    [(f, name) for f in FAMILIES for name, _ in network(f).named_parameters() if _some(name)],
)
def test_every_parameter_matters(family, name):
    net = copy.deepcopy(network(family))
    data = net.get_parameter(name).data.view(-1)
    # One channel of an image network may be cut off by a ReLU, and a shift of all by a norm.
    data[-1:].add_(0.5) if "resnet" not in name else data.add_(torch.linspace(0.2, 0.8, len(data)))
    cases = [_case(name), "denoise_mid", "denoise_image_goal"]
    cancels = name.endswith("key.bias")  # shifts all scores of a query alike
    rows = name.endswith("inner_model.pos_emb")  # rows of actions have no effect
    assert all(passes(family, case, net) for case in cases) == (cancels or rows)


@options
def test_the_batch_does_not_mix(config):
    net = random_network("mdt", config)
    static, gripper, goal, noise = example()
    together = net.sample(net.encode(static, gripper, goal), noise)
    for i in range(3):
        row = slice(i, i + 1)
        assert_close(together[row], net.sample(net.encode(static[row], gripper[row], goal[row]), noise[row]), 1e-4)


@options
def test_the_split_equals_encoding_in_every_step(config):
    net = random_network("mdt", config)
    *observed, noise = example()
    cache = net.encode(*observed)
    assert (cache.keys_values is None) == (config.noise == "context")
    unsplit = replace(cache, context=None, keys_values=None)
    assert_close(net(cache, noise, 0.7), net(unsplit, noise, 0.7), 1e-5)


def test_a_step_runs_no_encoder():
    net = random_network("mdt", SMALL)
    *observed, noise = example()
    cache = net.encode(*observed)
    spared = modules_named(net, "goal_emb", "tok_emb", "incam_embed", "encoder.ln", "cross_att.key", "cross_att.value")
    with no_calls(*spared):
        net.sample(cache, noise)


def test_an_action_sees_as_many_context_tokens_as_there_are_actions_before_it():
    net = random_network("mdt", SMALL)
    *observed, noise = example()
    cache = net.encode(*observed)
    for token in range(3):
        pairs = [(k.clone(), v.clone()) for k, v in cache.keys_values]
        for k, v in pairs:
            k[:, :, token] += 1.0
            v[:, :, token] += 1.0
        moved = (net(replace(cache, keys_values=tuple(pairs)), noise, 0.7) - net(cache, noise, 0.7)).abs().amax((0, 2))
        assert (moved[:token] < 1e-6).all()
        assert (moved[token:] > 1e-4).all()


def test_later_actions_have_no_influence():
    net = random_network("mdt", SMALL)
    *observed, noise = example()
    cache, later = net.encode(*observed), noise.clone()
    later[:, 4:] += 1.0
    assert_close(net(cache, noise, 0.7)[:, :4], net(cache, later, 0.7)[:, :4], 1e-6)


def test_the_contrastive_pass_alone_has_an_embedding_of_its_own():
    net = random_network("mdt", SMALL)
    static, gripper, goal, _ = example()
    acting, contrastive = net.tokens(static, gripper, goal), net.tokens(static, gripper, goal, contrastive=True)
    assert torch.equal(acting[:, 1:], contrastive[:, 1:])
    assert not torch.allclose(acting[:, 0], contrastive[:, 0])


def test_the_contrastive_loss_is_smallest_for_matching_rows():
    net, rows = network("mdt"), torch.eye(4)
    matched = net.contrast(rows, rows)
    assert all(a < b for a, b in zip(matched, net.contrast(rows, rows.roll(1, 0)), strict=True))
    assert_close(torch.stack(net.contrast(rows, rows.roll(1, 0))), torch.stack(net.contrast(rows.roll(-1, 0), rows)))


def test_hidden_patches_have_no_influence_on_the_painting():
    net, given = network("mdt"), inputs("mdt", "foresight")
    painted = net.gen_img(given["context"], given["images"], given["mask_noise"])
    hidden = painted.hidden.reshape(-1, 1, 1, 4, 4)  # (B, 1, 1, rows, columns)
    pixels = hidden.repeat_interleave(8, 3).repeat_interleave(8, 4)
    again = net.gen_img(given["context"], given["images"] + 3 * pixels, given["mask_noise"])
    assert torch.equal(painted.patches, again.patches)
    seen = net.gen_img(given["context"], given["images"] + 3 * (1 - pixels), given["mask_noise"])
    assert not torch.allclose(painted.patches, seen.patches)


def test_proprioception_is_the_last_token():
    config = replace(SMALL, proprio_widths=(4, 48, 24), positions=None, shapes={})
    net = random_network("mdtv", config)
    observations, goal, proprio = torch.randn(2, 3, 7), torch.randn(2, 1, 6), torch.randn(2, 1, 4)
    without, tokens = net.tokens(observations, goal), net.tokens(observations, goal, proprio=proprio)
    assert torch.equal(tokens[:, :-1], without)
    assert torch.equal(tokens[:, -1:], net.net.proprio_emb(proprio))


def test_the_encoder_of_mdtv_knows_no_order():
    net = random_network("mdtv", replace(SMALL, positions=None, shapes={}))
    observations, goal = torch.randn(2, 3, 7), torch.randn(2, 1, 6)
    order = torch.tensor([2, 0, 1])
    context, other = net.encode(observations, goal).context, net.encode(observations[:, order], goal).context
    assert_close(context[:, 1:][:, order], other[:, 1:])


def test_language_and_image_goals_are_embedded_apart_in_mdtv():
    net, given = network("mdtv"), inputs("mdtv", "denoise_mid")
    texts, images = (net.encode(given["state_images"], given["goal"], language).context for language in (True, False))
    assert not torch.allclose(texts, images)


def _settings(config):
    return {
        "n_heads": config.heads,
        "use_rot_embed": config.rotary,
        "use_ada_conditioning": config.noise != "context",
        "use_noise_encoder": config.noise == "added",
        "use_abs_pos_emb": config.positions is not None,
    }


@options
def test_a_released_file_tells_its_options(tmp_path, config):
    net = random_network("mdt", config)
    loaded = load_network(save_checkpoint(net, tmp_path, _settings(config), prefix="state_dict."))
    *observed, noise = example()
    assert loaded.config.noise == config.noise
    assert torch.equal(loaded(loaded.encode(*observed), noise, 0.7), net(net.encode(*observed), noise, 0.7))


def test_an_option_without_a_reference_is_refused(tmp_path):
    net = random_network("mdt", SMALL)
    with pytest.raises(CheckpointError, match="rotary_xpos = True is not known"):
        load_network(save_checkpoint(net, tmp_path, {"n_heads": 3, "rotary_xpos": True}))


def test_a_stored_table_of_positions_is_left_alone_where_the_settings_say_so(tmp_path):
    net = random_network("mdt", SMALL)
    loaded = load_network(save_checkpoint(net, tmp_path, {"n_heads": 3, "use_abs_pos_emb": False}))
    *observed, noise = example()
    added = net(net.encode(*observed), noise, 0.7)
    net.net.pos_emb = torch.nn.Parameter(torch.zeros_like(net.net.pos_emb))
    expected = net(net.encode(*observed), noise, 0.7)
    assert_close(loaded(loaded.encode(*observed), noise, 0.7), expected)
    assert not torch.allclose(added, expected)


def test_lost_positions_are_missed(tmp_path):
    net = copy.deepcopy(network("mdt"))
    del net.net.pos_emb
    with pytest.raises(CheckpointError, match="pos_emb"):
        load_network(save_checkpoint(net, tmp_path, {"n_heads": 4}))


@families
@pytest.mark.parametrize("part", ["attn.query.bias", "goal_emb.0.bias", "sigma_emb.1.weight", "mlp.c_fc.weight"])
def test_one_missing_parameter_is_named(tmp_path, family, part):
    net = copy.deepcopy(network(family))
    victim = next(name for name in reversed(net.state_dict()) if name.endswith(part))
    module, _, leaf = victim.rpartition(".")
    delattr(net.get_submodule(module), leaf)
    with pytest.raises(CheckpointError, match=part.replace(".", r"\.")):
        load_network(save_checkpoint(net, tmp_path, {"n_heads": 4, "foresight": {"decoder_n_heads": 4}}), family)


@families
def test_a_misshapen_parameter_is_named(tmp_path, family):
    net = copy.deepcopy(network(family))
    net.net.tok_emb.bias = torch.nn.Parameter(torch.zeros(5))
    settings = {"n_heads": 4, "foresight": {"decoder_n_heads": 4}, "perceiver": {"heads": 4}}
    with pytest.raises(
        CheckpointError, match=r"misshapen: model\.inner_model\.tok_emb\.bias \(5,\) instead of \(32,\)"
    ):
        load_network(save_checkpoint(net, tmp_path, settings))
