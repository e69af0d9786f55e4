import copy
import json
from dataclasses import replace

import pytest
import torch
from family_checks import (
    GOLDEN,
    assert_close,
    case_names,
    check_case,
    modules_named,
    network,
    no_calls,
    passes,
    random_network,
    reference,
)
from safetensors.torch import save_file

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.experts import Expert, ExpertBank, FusedExperts, Router, load_balancing
from dit_policy_ros.policy.families import load_network, mode
from dit_policy_ros.policy.weights import read_tensors

SMALL = mode.MoDeConfig(
    width=24,
    depth=3,
    head_width=8,
    experts=5,
    expert_hidden=20,
    router_hidden=16,
    goal_width=6,
    goal_tokens=1,
    observation_width=7,
    action_dim=4,
    horizon=6,
    out_widths=(24, 4),
    image_shapes={},
    steps=4,
)
OPTIONS = {
    "as released": SMALL,
    "goal in routing": replace(SMALL, goal_in_routing=True),
    "no noise token": replace(SMALL, noise_token=False),
    "three experts": replace(SMALL, top_k=3),
    "shares not normalised": replace(SMALL, normalize_routing=False),
    "deep head": replace(SMALL, out_widths=(24, 9, 4)),
}
options = pytest.mark.parametrize("config", OPTIONS.values(), ids=OPTIONS)


def example(batch=3, observations=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, observations, 7), (batch, 1, 6), (batch, 6, 4))
    return [torch.randn(*shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize("name", case_names("mode"))
def test_reference(name):
    check_case("mode", name)


def _some(name):
    """Leaves out what repeats."""
    return "blocks.1." in name or "layer2.1." in name or not any(part in name for part in ("blocks.", "layer"))


@pytest.mark.parametrize("name", [name for name, _ in network("mode").named_parameters() if _some(name)])
def test_every_parameter_matters(name):
    net = copy.deepcopy(network("mode"))
    data = net.get_parameter(name).data.view(-1)
    # One channel of an image network may be cut off by a ReLU, and a shift of all by a norm.
    data[:1].add_(0.5) if "resnet" not in name else data.add_(torch.linspace(0.2, 0.8, len(data)))
    case = "routing" if ".router." in name else "encode_images" if "resnet" in name else "loss_train"
    assert not passes("mode", case, net)


@options
def test_the_batch_does_not_mix(config):
    net = random_network("mode", config)
    observations, goal, noise = example()
    together = net.sample(net.encode(observations, goal), noise)
    for i in range(3):
        row = slice(i, i + 1)
        assert_close(together[row], net.sample(net.encode(observations[row], goal[row]), noise[row]), 1e-4)


@options
def test_known_levels_give_the_same_actions(config):
    net = random_network("mode", config)
    observations, goal, noise = example()
    plain = net.encode(observations, goal)
    known = net.encode(observations, goal, net.sigmas())
    assert len(known.levels) == config.steps
    for index, sigma in enumerate(net.sigmas()[:-1]):
        assert_close(net(known, noise, sigma, index), net(plain, noise, sigma))
    assert_close(net.sample(known, noise), net.sample(plain, noise), 1e-4)


def test_a_step_at_a_known_level_sees_actions_only():
    net = random_network("mode", SMALL)
    observations, goal, noise = example()
    cache = net.encode(observations, goal, net.sigmas())
    seen = []
    net.net.blocks[0].ln_1.register_forward_hook(lambda _, arguments, output: seen.append(arguments[0].shape[1]))
    with no_calls(*modules_named(net, "goal_emb", "tok_emb", "sigma_emb", "router", ".mlp.0.project")):
        net.sample(cache, noise)
    assert seen == [6] * 4


def test_samples_that_route_apart_are_not_fused():
    net = random_network("mode", OPTIONS["goal in routing"])
    observations, goal, _ = example()
    apart = net.encode(observations, 5 * goal, (1.0,)).levels[0]
    alike = net.encode(observations, goal[:1].expand(3, -1, -1), (1.0,)).levels[0]
    assert any(isinstance(share, torch.Tensor) for share in apart.shares)
    assert all(isinstance(share, FusedExperts) for share in alike.shares)


def test_actions_do_not_see_later_ones_nor_the_observations_the_actions():
    net = random_network("mode", SMALL)
    observations, goal, noise = example()
    cache, later = net.encode(observations, goal), noise.clone()
    later[:, 3:] += 1.0
    before, after = net(cache, noise, 0.7), net(cache, later, 0.7)
    assert_close(before[:, :3], after[:, :3], 1e-6)
    assert not torch.allclose(before[:, 3:] - after[:, 3:], noise[:, 3:] - later[:, 3:], atol=1e-3)


def test_fused_experts_equal_their_mixture_and_forget_moved_parameters():
    torch.manual_seed(0)
    bank, router = ExpertBank(4, 6, 8), Router(6, 8, 4)
    routing = router(torch.randn(1, 1, 6), 2, normalize=True)
    x = torch.randn(3, 5, 6)
    single = bank(x, bank.fuse(routing))
    assert_close(single, bank(x, routing.weights))
    bank.double()
    assert bank.fuse(routing).up.dtype == torch.float64


def test_layers_with_the_same_experts_share_memory():
    net = random_network("mode", replace(SMALL, experts=2))
    observations, goal, _ = example()
    levels = net.encode(observations, goal, net.sigmas()).levels
    assert len({level.shares[0].up.data_ptr() for level in levels}) == 1


def test_experts_that_nobody_chose_are_not_run():
    bank = ExpertBank(3, 6, 8)
    weights = torch.tensor([0.4, 0.0, 0.6]).expand(2, 1, 3)
    with no_calls(bank["expert_1"]):
        bank(torch.randn(2, 5, 6), weights)
    assert isinstance(bank["expert_1"], Expert)


def test_even_routing_has_the_smallest_balancing_term():
    router = Router(6, 8, 4)
    for parameter in router.parameters():
        parameter.data.zero_()
    drawn = torch.tensor([[[0, 1], [2, 3]]])
    even = router(torch.zeros(1, 1, 6), 2, True, drawn)
    skewed = router(torch.zeros(1, 1, 6), 2, True, torch.tensor([[[0, 1], [0, 1]]]))
    assert load_balancing([even]).item() == pytest.approx(2.0)
    assert load_balancing([skewed]).item() == pytest.approx(4.0)


def _renamed(change):
    return {change(name): value for name, value in read_tensors(GOLDEN / "mode" / "weights.safetensors").items()}


@pytest.mark.parametrize(
    "change",
    [lambda name: name.replace("model.", ""), lambda name: f"state_dict.{name}", lambda name: name],
    ids=["stripped", "lightning", "plain"],
)
def test_published_names_load(tmp_path, change):
    tensors = {**_renamed(change), change("language_goal.clip_rn50.positional_embedding"): torch.zeros(1)}
    save_file(tensors, tmp_path / "model_cleaned.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(reference("mode").data["config"]))
    loaded = load_network(tmp_path)
    assert loaded.config == network("mode").config
    expected = network("mode").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize("option", ["causal", "cond_router"])
def test_options_without_a_reference_are_refused(option):
    config = reference("mode").data["config"]
    shapes = {name: tuple(value.shape) for name, value in network("mode").state_dict().items()}
    with pytest.raises(CheckpointError, match=f"{option} = False"):
        mode.configure({**config, "inner_model": {**config["inner_model"], option: False}}, shapes)
