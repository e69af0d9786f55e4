"""Options of a policy directory that change how a family samples: caches, a second policy, a tracking cost."""

from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from tiny_families import SHIPPED, WORDS, observe, random_weights, settle

from dit_policy_ros.errors import CheckpointError, PolicyError
from dit_policy_ros.policy.caching.family import CACHES, sub_blocks
from dit_policy_ros.policy.checkpoint import load_policy
from dit_policy_ros.policy.continuity.methods import METHODS, admitted, continued
from dit_policy_ros.types import ActionChunk, Context

pytest.importorskip("transformers")
pytest.importorskip("diffusers")
shipped = pytest.mark.parametrize("name", SHIPPED)


epochs = count(100)


def act(policy):
    """A chunk for the same observation; every call is an epoch of its own, so that nothing is remembered."""
    observation = observe(getattr(policy, "policy", policy))
    return policy.act(observation, policy.encode(observation, WORDS, next(epochs))).actions


def counted(family, network, monkeypatch):
    """A list that grows whenever the inside of a sub-block runs."""
    calls = []
    blocks = sub_blocks(family, network)
    assert len(blocks) >= 2
    for kind in {type(block.module) for block in blocks}:

        def forward(self, *arguments, whole=kind.forward, **named):
            calls.append(1)
            return whole(self, *arguments, **named)

        monkeypatch.setattr(kind, "forward", forward)
    return calls


@shipped
@pytest.mark.parametrize("method", CACHES)
def test_a_cache_skips_sub_blocks_and_leaves_nothing_behind(edited, policies, monkeypatch, name, method):
    options = {"taylorseer": {"interval": 2, "warmup": 1, "order": 0}, "block_wise": {"updates": 1}}[method]
    policy = load_policy(edited(name, cache={"method": method, **options}))
    exact = act(policies[name])
    if method == "block_wise":
        assert all(due.count(True) >= 1 for due in policy.caching.update.values())
        assert not all(all(due) for due in policy.caching.update.values())
    rough = act(policy)
    assert np.abs(rough - exact).max() > 1e-9
    np.testing.assert_allclose(act(policy), rough, atol=1e-6)
    assert not any("forward" in vars(block.module) for block in sub_blocks(SHIPPED[name][0], policy.binding.network))
    calls = counted(SHIPPED[name][0], policy.binding.network, monkeypatch)
    act(policy)
    some = len(calls)
    policy.caching = None
    calls.clear()
    np.testing.assert_allclose(act(policy), exact, atol=1e-6)
    assert 0 < some < len(calls)


@shipped
def test_a_cache_that_computes_every_step_changes_nothing(edited, policies, name):
    policy = load_policy(edited(name, cache={"interval": 1}))
    np.testing.assert_allclose(act(policy), act(policies[name]), atol=1e-6)


def test_all_updates_change_nothing_and_selected_sub_blocks_take_over_steps(edited, policies):
    policy = load_policy(edited("rdt_aloha", cache={"method": "block_wise", "updates": 9}))
    act(policy)
    np.testing.assert_allclose(act(policy), act(policies["rdt_aloha"]), atol=1e-6)
    counts = []
    for selected in (0, 6):
        other = load_policy(edited("rdt_aloha", cache={"method": "block_wise", "updates": 2, "selected": selected}))
        act(other)
        assert other.caching.times == (999, 799, 599, 400, 200)
        counts.append(sum(sum(due) for due in other.caching.update.values()))
    assert counts[0] == 2 * 6
    assert counts[1] >= counts[0]


@pytest.mark.parametrize("name", ["rdt_aloha", "gr00t_n16_openarm", "diffusion_policy_aloha"])
def test_the_schedule_of_a_block_wise_cache_does_not_depend_on_where_a_run_begins(edited, name):
    directory = edited(name, cache={"method": "block_wise", "updates": 2})
    live, replay = load_policy(directory), load_policy(directory)
    elsewhere = live.example_observation()
    moved = {joint: value + 0.3 for joint, value in elsewhere.positions.items()}
    elsewhere = replace(elsewhere, stamp_ns=7 * live.step_ns, positions=moved)
    live.act(elsewhere, live.encode(elsewhere, WORDS, next(epochs)))
    chunks = act(live), act(replay)
    np.testing.assert_array_equal(*chunks)
    assert list(live.caching.update.values()) == list(replay.caching.update.values())
    assert live.caching.times == replay.caching.times != ()


def test_a_cache_lets_a_warm_start_skip_steps(edited):
    """Steps are known by their time: a guide that keeps the first ones from the network shifts nothing."""
    policy = load_policy(edited("rdt_aloha", cache={"method": "block_wise", "updates": 2}))
    warm = continued(policy, "warm_start")
    first = observe(warm.policy)
    context = warm.encode(first, WORDS, epoch=1)
    for k in range(4):
        chunk = warm.act(replace(first, stamp_ns=first.stamp_ns + 2 * k * policy.step_ns), context)
        assert np.isfinite(chunk.actions).all()


@pytest.fixture
def composed(directories, edited):
    """A policy directory that composes a family with one of other weights."""

    def make(name, weights, **other):
        directory = edited(name, compose={"policy": "other", "weights": weights})
        settle(directories[name], directory / "other", **other)
        return directory

    return make


def _other_weights(name, directory):
    """Another network with the same normaliser, where the checkpoint holds one."""
    file = directory / "model.safetensors"
    kept = {key: value for key, value in load_file(file).items() if key.startswith("normalizer.")}
    file.unlink()
    random_weights(*SHIPPED[name], directory / "fresh", seed=1)
    save_file(load_file(directory / "fresh" / "model.safetensors") | kept, file)


ALONE = [name for name in SHIPPED if name != "pad_dual_franka"]


@pytest.mark.parametrize("name", ALONE)
def test_two_policies_make_one_chunk(composed, policies, name):
    alone = act(policies[name])
    directory = composed(name, [0.25, 0.75])
    np.testing.assert_allclose(act(load_policy(directory)), alone, atol=1e-4)  # with itself
    _other_weights(name, directory / "other")
    mixed = load_policy(directory)
    ours, theirs, chunk = act(mixed.policy), act(mixed.other), act(mixed)
    assert min(np.abs(chunk - ours).max(), np.abs(chunk - theirs).max()) > 1e-6
    for weights, expected in (((1.0, 0.0), ours), ((0.0, 1.0), theirs)):
        mixed.weights = weights
        np.testing.assert_allclose(act(mixed), expected, atol=1e-4)


def test_a_composed_policy_is_a_policy_like_any_other(composed):
    policy = load_policy(composed("gr00t_n16_openarm", [0.5, 0.5]))
    observation = observe(policy.policy)
    context = policy.encode(observation, WORDS, epoch=3)
    free = policy.act(observation, context)
    received = Context(context.stamp_ns, WORDS, 3, {key: np.copy(value) for key, value in context.tensors.items()})
    np.testing.assert_allclose(policy.act(observation, received).actions, free.actions, atol=1e-5)
    values = free.actions[:3] + 0.1
    kept = policy.act(observation, context, ActionChunk(free.names, observation.stamp_ns, policy.step_ns, values))
    np.testing.assert_array_equal(kept.actions[:3], values)
    example = policy.example_observation()
    assert np.isfinite(policy.act(example, policy.encode(example, WORDS)).actions).all()
    assert set(admitted(policy)) == METHODS.keys() - {"streaming"}
    for method in admitted(policy):
        wrapped = continued(policy, method)
        later = replace(observation, stamp_ns=observation.stamp_ns + policy.step_ns)
        wrapped.act(observation, context)
        assert np.isfinite(wrapped.act(later, context).actions).all()


TRACKED = {
    "rdt_aloha": {},
    "lerobot_dual_franka": {},
    "diffusion_policy_aloha": {},
    "uwm_openarm": {},
    "cogact_dual_franka": {"robot": "aloha", "cameras": ["top"], "statistics": None, "actions": {"space": "joints"}},
}


def excess(policy, chunk, allowed):
    """How much faster than allowed a chunk moves, in the cost of EADP."""
    start = observe(policy).positions
    values = np.vstack([[start[name] for name in policy.config.actions.names], chunk])
    return (np.clip(np.abs(np.diff(values, axis=0)) - allowed, 0, None) ** 2).sum()


@pytest.mark.parametrize("name", TRACKED)
def test_tracking_makes_a_chunk_slower(edited, name):
    plain = load_policy(edited(name, **TRACKED[name]))
    policy = load_policy(edited(name, **TRACKED[name], tracking={"scale": 1.5, "limit": 0.5, "speed": 0.2}))
    allowed = policy.config.tracking.largest_change
    before, after = (excess(each, act(each), allowed) for each in (plain, policy))
    assert after < before
    policy.config = replace(policy.config, tracking=replace(policy.config.tracking, repeats=3))
    thrice = act(policy)
    assert np.isfinite(thrice).all()
    np.testing.assert_array_equal(act(policy), thrice)
    loose = replace(policy.config.tracking, repeats=1, largest_change=allowed + 1e6)
    policy.config = replace(policy.config, tracking=loose)
    assert excess(policy, act(policy), allowed) > after


WEIGHTS = [0.5, 0.5]
REFUSED = [
    ("rdt_aloha", {"cache": {"method": "magic"}}, PolicyError, "Cache 'magic' does not exist"),
    ("rdt_aloha", {"cache": {"method": "block_wise", "interval": 2}}, PolicyError, "'block_wise' does not take"),
    ("rdt_aloha", {"cache": {"method": "block_wise", "updates": 0}}, PolicyError, "0 updates and 5 selected"),
    ("rdt_aloha", {"cache": {"interval": 0}}, PolicyError, "interval 0, warm-up 2"),
    ("rdt_aloha", {"cache": {"interval": "often"}}, CheckpointError, "cache.interval is 'often'"),
    ("rdt_aloha", {"cache": {"often": 2}}, CheckpointError, "unknown often"),
    ("rdt_aloha", {"tracking": {"scale": 0}}, PolicyError, "scale 0.0, limit 0.05 and 1 repeats"),
    ("rdt_aloha", {"tracking": {"repeats": 0}}, CheckpointError, "repeats is '0'"),
    ("rdt_aloha", {"tracking": {"speed": -1}}, CheckpointError, "tracking.speed"),
    ("rdt_aloha", {"tracking": {"cost": 1}}, CheckpointError, "unknown cost"),
    ("gr00t_n16_openarm", {"tracking": {}}, PolicyError, "flow times or noise levels"),
    ("mdt_dual_franka", {"tracking": {}}, PolicyError, "flow times or noise levels"),
    ("pad_dual_franka", {"tracking": {}}, PolicyError, "denoises more"),
    ("cogact_dual_franka", {"tracking": {}}, PolicyError, "'end_effector' have none"),
    ("rdt_aloha", {"compose": {"policy": "nowhere", "weights": WEIGHTS}}, CheckpointError, "nowhere is not a policy"),
    ("rdt_aloha", {"compose": {"policy": "nowhere", "weights": [1]}}, CheckpointError, "must be two numbers"),
    ("rdt_aloha", {"compose": {"policy": "nowhere"}}, CheckpointError, "weights"),
]


@pytest.mark.parametrize(("name", "changes", "error", "text"), REFUSED)
def test_options_that_do_not_work_are_refused_as_they_load(edited, name, changes, error, text):
    with pytest.raises(error, match=text):
        load_policy(edited(name, **changes))


REFUSED_PAIRS = [
    ("pad_dual_franka", "pad_dual_franka", {}, PolicyError, "denoises images or observations along"),
    ("rdt_aloha", "h_rdt_aloha", {}, PolicyError, "sample and velocity, with 1000 diffusion steps .* and flow times"),
    ("mode_dual_franka", "rdt_aloha", {}, PolicyError, "predict sample and sample, with noise levels and 1000"),
    ("uwm_openarm", "cogact_dual_franka", {}, PolicyError, "the same horizon"),
    ("gr00t_n16_openarm", "gr00t_n16_openarm", {"control_hz": 7}, PolicyError, "the same horizon"),
    ("gr00t_n16_openarm", "gr00t_n16_openarm", {"statistics": "wider.json"}, PolicyError, "the same action channels"),
    ("rdt_aloha", "rdt_aloha", {"cache": {"interval": 2}}, CheckpointError, "may not have cache"),
    ("rdt_aloha", "rdt_aloha", {"kind": "dual_system"}, CheckpointError, "kind 'family'"),
]


@pytest.mark.parametrize(("name", "other", "changes", "error", "text"), REFUSED_PAIRS)
def test_policies_whose_predictions_cannot_be_added_are_refused(edited, directories, name, other, changes, error, text):
    directory = edited(name, compose={"policy": "other", "weights": WEIGHTS})
    settle(directories[other], directory / "other", **changes)
    if "statistics" in changes:
        wider = (directory / "statistics.json").read_text().replace("2.0", "2.5")
        (directory / "other" / "wider.json").write_text(wider)
    with pytest.raises(error, match=text):
        load_policy(directory)
