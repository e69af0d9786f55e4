"""Training: what a batch holds, that it learns, and that it resumes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dit_policy_ros.data.dataset import load_dataset
from dit_policy_ros.data.episode_cache import CacheConfig
from dit_policy_ros.errors import CheckpointError, ConfigError
from dit_policy_ros.policy.checkpoint import load_policy, save_dual_policy
from dit_policy_ros.policy.dual_policy import DualPolicyConfig, Range
from dit_policy_ros.policy.dual_system import DualSystem
from dit_policy_ros.policy.text import hash_words
from dit_policy_ros.robot import load_robot
from dit_policy_ros.train.config import TrainConfig, load_train_config
from dit_policy_ros.train.curriculum import Curriculum, Lesson
from dit_policy_ros.train.perturb import displaced
from dit_policy_ros.train.phrase import Phrase
from dit_policy_ros.train.recipe import run_recipe
from dit_policy_ros.train.samples import BatchSource
from dit_policy_ros.train.scenes import SceneSource
from dit_policy_ros.train.trainer import learning_rate, start_run, train

SYSTEM_2 = ("text", "slow_camera", "slow_summary", "slow_places")
SPAN = Range(np.array([-1.0, 0.0]), np.array([1.0, 1.0]))


@pytest.fixture(scope="module")
def dataset(recordings, tmp_path_factory):
    folder, robot_file, recipe_file = recordings
    config = load_train_config(recipe_file)
    views = {camera.name: camera for camera in (config.slow_camera, *config.fast_cameras)}
    cache = tmp_path_factory.mktemp("cache")
    return load_dataset((folder,), load_robot(robot_file), CacheConfig(views), cache, progress=False)


def make_source(dataset, recipe_file, seed=0, rephrase=None, **changes):
    config = load_train_config(recipe_file)
    config = TrainConfig(**{**vars(config), "locate_steps": 0, **changes})
    shares = np.full(len(dataset.episodes), 1 / len(dataset.episodes))
    return BatchSource(dataset, config, SPAN, SPAN, {1: (0, 1)}, shares, rephrase, seed), config


def test_a_batch_holds_what_was_recorded(dataset, recordings):
    quiet = {"state_noise": 0.0, "displacement": 0.0, "displacement_holding": 0.0}
    source, config = make_source(dataset, recordings[2], batch=64, **quiet)
    batch = source.draw()
    up = torch.tensor([torch.equal(row, hash_words("go up")) for row in batch.hashed])
    assert 10 < int(up.sum()) < 54
    sign = torch.where(up, 1.0, -1.0)
    now = batch.state[:, 0] * sign  # progress 0..1 along the path
    ahead = torch.clamp(now[:, None] + torch.arange(config.network.horizon) / 40, max=1.0)
    moving = now < 0.99
    torch.testing.assert_close((batch.actions[..., 0] * sign[:, None])[moving], ahead[moving], atol=1e-5, rtol=0)
    assert int(batch.committed.sum(1).max()) <= 4 * config.largest_commitment
    assert set((batch.committed.sum(1) % 4).tolist()) == {0}
    assert float(batch.age_s.min()) >= 0.0
    assert float(batch.age_s.max()) <= config.largest_context_age_s + 0.08  # the image before that instant
    assert bool((~batch.committed | (torch.arange(16) < batch.committed.sum(1, keepdim=True))).all())


def test_the_coming_grasp_is_where_the_hand_closes(dataset, recordings):
    source, _ = make_source(dataset, recordings[2], batch=64)
    batch = source.draw()
    sign = torch.tensor([1.0 if torch.equal(row, hash_words("go up")) else -1.0 for row in batch.hashed])
    known = batch.grasp_known[:, 0]
    assert bool(known.any())
    assert not bool(known.all())
    torch.testing.assert_close((batch.grasp[:, 0] * sign)[known], torch.ones(int(known.sum())), atol=1e-5, rtol=0)


def test_a_displaced_arm_keeps_to_what_is_committed_and_comes_back():
    state, path = np.array([0.2, 0.5]), np.linspace([0.2, 0.5], [0.6, 0.5], 12)
    arms = np.array([True, False])
    rng = np.random.default_rng(0)
    moved, actions = displaced(state, path, 4, arms, 0.5, back_steps=6, rng=rng)
    offset = moved - state
    assert abs(offset[0]) > 0.01
    assert offset[1] == 0.0
    beside = actions - path
    np.testing.assert_allclose(beside[:4], np.tile(offset, (4, 1)), atol=1e-12)
    assert (np.diff(np.abs(beside[3:10, 0])) < 0).all()
    np.testing.assert_allclose(beside[9:], 0.0, atol=1e-12)
    for again, same in zip(displaced(state, path, 0, arms, 0.0, 6, rng), (state, path), strict=True):
        np.testing.assert_array_equal(again, same)


@pytest.mark.parametrize("steps", [2, 12])
def test_the_way_back_is_as_long_as_asked(dataset, recordings, steps):
    quiet = {"state_noise": 0.0, "largest_commitment": 0, "batch": 64}
    source, _ = make_source(
        dataset, recordings[2], displacement=2.0, displacement_holding=2.0, return_steps=steps, **quiet
    )
    batch = source.draw()
    up = torch.tensor([torch.equal(row, hash_words("go up")) for row in batch.hashed])
    sign = torch.where(up, 1.0, -1.0)
    ends = batch.actions[:, -1, 0] * sign  # on the demonstrated path, 0..1, whatever the state says
    assert bool(((ends > -1e-5) & (ends < 1 + 1e-5)).all())
    beside = (batch.state[:, 0] * sign < -0.1).nonzero().flatten()
    assert len(beside) > 5
    back = (batch.actions[beside, :, 0] * sign[beside, None] > -1e-5).float().argmax(1)
    assert bool((back < steps).all())
    assert int(back.max()) >= steps // 3


def test_what_is_said_after_the_last_command_begins_no_approach(dataset, recordings):
    def talked_to(episode):
        times_ns = episode.times_ns
        return replace(episode, instructions=((int(times_ns[0]), "go on"), (int(times_ns[-1]) + 1, "well done")))

    changed = replace(dataset, episodes=tuple(talked_to(episode) for episode in dataset.episodes))
    source, _ = make_source(changed, recordings[2])
    assert bool(source.draw().foreseeable.all())


def test_rephrasing_and_forgetting_words_change_the_instruction(dataset, recordings):
    source, _ = make_source(dataset, recordings[2], rephrase=lambda episode, index, rng: Phrase("sing"))
    assert all(torch.equal(row, hash_words("sing")) for row in source.draw().hashed)
    source, _ = make_source(dataset, recordings[2], unknown_words=1.0, batch=64)
    whole = [any(torch.equal(row, hash_words(f"go {word}")) for word in ("up", "down")) for row in source.draw().hashed]
    assert 5 < sum(whole) < 45  # a third, with two words and a share drawn from 0 to 1


def test_what_nobody_could_foresee_is_not_taught(dataset, recordings):
    def surprised(episode):
        middle_ns = int(episode.times_ns[len(episode.times_ns) // 2])
        said = ((int(episode.times_ns[0]), "go on"), (middle_ns, "turn"))
        return replace(episode, instructions=said)

    changed = replace(dataset, episodes=tuple(surprised(episode) for episode in dataset.episodes))
    source, config = make_source(changed, recordings[2], batch=256)
    batch = source.draw()
    seen = batch.foreseeable
    assert 0.2 < float(seen.float().mean()) < 0.95
    assert bool((seen[:, 1:] <= seen[:, :-1]).all())
    turned = torch.tensor([torch.equal(row, hash_words("turn")) for row in batch.hashed])
    assert 5 < int(turned.sum()) < 240
    assert bool(seen[turned].all())
    assert not bool(seen[~turned].all())

    objective = start_run(config, 0).objective
    other = replace(batch, actions=torch.where(seen[..., None], batch.actions, batch.actions + 1.0))
    hidden = replace(batch, committed=torch.zeros_like(batch.committed), actions=other.actions)
    plain = replace(hidden, actions=batch.actions)
    torch.nn.init.zeros_(objective.network.action_in.weight)  # so that an action is seen in the loss alone
    torch.testing.assert_close(
        *(objective(Lesson(None, b), torch.Generator().manual_seed(0)).flow for b in (hidden, plain))
    )


@pytest.mark.parametrize("name", ["brightness", "state_noise", "displacement", "displacement_holding"])
def test_noise_is_off_at_zero_and_on_otherwise(dataset, recordings, name):
    quiet = {"brightness": 0.0, "state_noise": 0.0, "displacement": 0.0, "displacement_holding": 0.0}
    still = make_source(dataset, recordings[2], **quiet)[0].draw()
    noisy = make_source(dataset, recordings[2], **{**quiet, name: 0.1})[0].draw()
    assert torch.equal(still.state, noisy.state) == (name == "brightness")
    assert torch.equal(still.slow_image, noisy.slow_image) == (name != "brightness")


def test_equal_seeds_give_equal_batches(dataset, recordings):
    first, second = (make_source(dataset, recordings[2], seed=3)[0].draw() for _ in range(2))
    for name, value in vars(first).items():
        assert torch.equal(value, getattr(second, name)), name


def test_learning_rate_rises_then_falls_in_either_part():
    config = replace(load_train_config("demo"), locate_steps=400)
    rates = np.array([learning_rate(step, 1400, config) for step in range(1400)])
    for part in (rates[:400], rates[400:]):
        peak = int(np.argmax(part))
        assert peak in (config.warmup_steps - 1, config.warmup_steps)
        assert part[peak] == pytest.approx(config.learning_rate)
        assert np.all(np.diff(part[peak + 1 :]) < 0)
        assert part[-1] < 0.02 * config.learning_rate


def test_a_curriculum_locates_first_and_leaves_or_keeps_it_up(dataset, recordings, spots):
    source, config = make_source(dataset, recordings[2], locate_steps=3, locate_batch=10, scenes=4)
    drawn = {}
    for goes_on in (False, True):
        config = replace(config, find_while_acting=goes_on)
        lessons = Curriculum(source, SceneSource((spots,), config, 0), config, step=1)
        drawn[goes_on] = [lessons.draw() for _ in range(4)]
        assert [lesson.batch is None for lesson in drawn[goes_on]] == [True, True, False, False]
        assert [lesson.finds for lesson in drawn[goes_on]] == [True, True, goes_on, goes_on]
    assert [lesson.scenes is None for lesson in drawn[False]] == [False, False, True, True]
    assert [len(lesson.scenes.images) for lesson in drawn[True]] == [10, 10, 4, 4]
    never = replace(config, locate_steps=0, scenes=0)  # and it finds while acting
    assert Curriculum(source, SceneSource((spots,), never, 0), never, 0).draw().scenes is None
    alone = Curriculum(source, None, config, 0).draw()
    assert alone.scenes is None
    assert alone.batch is not None
    assert alone.finds


def test_a_system_2_that_knows_where_things_are_stays_as_it_is(dataset, recordings, tmp_path):
    source, config = make_source(dataset, recordings[2])
    network = start_run(config, 0).objective.network
    slow = [name for name in network.state_dict() if name.split(".")[0] in SYSTEM_2]
    assert len(slow) > 20
    for finds in (False, True):
        state = start_run(config, 0)

        class Lessons:
            def draw(self, finds=finds):
                return Lesson(None, source.draw(), finds)

        train(state, config, lambda seed, step: Lessons(), 2, 0, tmp_path / str(finds), lambda progress: None)
        after, before = state.objective.network.state_dict(), network.state_dict()
        assert any(not torch.equal(after[name], before[name]) for name in slow) == finds
        assert not torch.equal(after["place_token.weight"], before["place_token.weight"])


def test_a_run_begins_with_the_weights_and_ranges_of_another(dataset, recordings, tmp_path):
    folder, robot_file, recipe_file = recordings
    config = load_train_config(recipe_file)
    begun = DualPolicyConfig(
        load_robot(robot_file).names, config.slow_camera, config.fast_cameras, SPAN, SPAN, config.network
    )
    torch.manual_seed(7)
    save_dual_policy(tmp_path / "first", begun, DualSystem(config.network), {})

    def go_on(recipe, start_from):
        where = (tmp_path / "cache", "cpu", None)
        run_recipe((folder,), (1.0,), tmp_path / "next", recipe, robot_file, 1, 0, *where, start_from=start_from)

    go_on(recipe_file, tmp_path / "first")
    first, following = load_policy(tmp_path / "first"), load_policy(tmp_path / "next")
    np.testing.assert_array_equal(following.config.actions.upper, SPAN.upper)
    for name, value in first.network.state_dict().items():
        torch.testing.assert_close(following.network.state_dict()[name], value, atol=0.05, rtol=0)
    other = tmp_path / "other.yaml"
    other.write_text(recipe_file.read_text().replace("horizon: 16", "horizon: 24"))
    with pytest.raises(CheckpointError, match="other sizes than this recipe"):
        go_on(other, tmp_path / "first")


def test_it_learns_and_the_policy_obeys_the_instruction(recordings, tmp_path):
    folder, robot_file, recipe_file = recordings
    losses = []
    out = tmp_path / "policy"
    run_recipe((folder,), (1.0,), out, recipe_file, robot_file, 500, 0, tmp_path / "cache", "cpu", None, losses.append)
    assert losses[-1].flow < 0.25 * losses[0].flow
    from dit_policy_ros.types import Observation

    policy = load_policy(out)
    images = {name: np.full((24, 32, 3), 128, np.uint8) for name in ("top", "wrist")}
    ends = {"up": [], "down": []}
    for word, found in ends.items():
        for noise in range(8):
            now = Observation(stamp_ns=10**9 + noise, positions={"left_a": 0.0, "left_grip": 1.0}, images=images)
            found.append(policy.act(now, policy.encode(now, f"go {word}")).actions[-1, 0])
    assert np.mean(ends["up"]) > 0.15
    assert np.mean(ends["down"]) < -0.15


def test_an_interrupted_run_goes_on(recordings, tmp_path, dataset):
    _, config = make_source(dataset, recordings[2])
    steps = []
    state = start_run(config, 0)
    train(
        state,
        config,
        lambda seed, step: Curriculum(make_source(dataset, recordings[2], seed)[0], None, config, step),
        3,
        0,
        tmp_path,
        lambda p: steps.append(p.step),
    )
    again = start_run(config, 1)
    assert again.load(tmp_path)
    assert again.step == 3
    for name, value in state.average.items():
        assert torch.equal(value, again.average[name]), name
    moments = again.optimizer.state_dict()["state"]
    for index, saved in state.optimizer.state_dict()["state"].items():
        assert torch.equal(saved["exp_avg"], moments[index]["exp_avg"])
    train(
        again,
        config,
        lambda seed, step: Curriculum(make_source(dataset, recordings[2], seed)[0], None, config, step),
        5,
        0,
        tmp_path,
        lambda p: steps.append(p.step),
    )
    assert steps == [1, 2, 3, 4, 5]


def test_foreign_state_and_recipes_are_refused(recordings, tmp_path):
    folder, robot_file, recipe_file = recordings
    config = load_train_config("demo")
    (tmp_path / "state.safetensors").write_bytes(b"nonsense")
    (tmp_path / "progress.json").write_text("{}")
    with pytest.raises(CheckpointError, match="Choose another --out"):
        start_run(load_train_config(recipe_file), 0).load(tmp_path)
    bad = tmp_path / "bad.yaml"
    bad.write_text(recipe_file.read_text().replace("batch:", "bunch:"))
    with pytest.raises(ConfigError, match="unknown bunch"):
        load_train_config(bad)
    with pytest.raises(ConfigError, match="14 joints, robot tiny has 2"):
        run_recipe((folder,), (1.0,), tmp_path, "demo", robot_file, 1, 0, tmp_path / "c", "cpu", None)
    with pytest.raises(ConfigError, match="2 weights for 1 folders"):
        run_recipe((folder,), (1.0, 2.0), tmp_path, "demo", robot_file, 1, 0, tmp_path / "c", "cpu", None)
    assert config.network.joints == 14


def test_what_system_2_tells_is_made_uncertain(dataset, recordings):
    source, config = make_source(dataset, recordings[2], place_noise=0.0)
    batch = source.draw()
    flows = {}
    for noise in (0.0, 0.5):
        objective = start_run(replace(config, place_noise=noise), 0).objective
        torch.nn.init.normal_(objective.network.action_out.weight)
        torch.nn.init.normal_(objective.network.blocks[0].modulation.weight)
        flows[noise] = [
            objective(Lesson(None, batch), torch.Generator().manual_seed(seed)).flow.item() for seed in (0, 0)
        ]
    assert flows[0.0][0] == flows[0.0][1]
    assert flows[0.0][0] != flows[0.5][0]


@pytest.mark.parametrize(("share", "is_blind"), [(0.0, False), (1.0, True)])
def test_blind_samples_do_not_depend_on_the_fast_cameras(dataset, recordings, share, is_blind):
    source, config = make_source(dataset, recordings[2], blind_share=share)
    objective = start_run(config, 0).objective
    torch.nn.init.normal_(objective.network.action_out.weight)
    torch.nn.init.normal_(objective.network.blocks[0].modulation.bias)
    batch = source.draw()
    other = replace(batch, fast_images=-batch.fast_images)
    flows = [objective(Lesson(None, b), torch.Generator().manual_seed(0)).flow.item() for b in (batch, other)]
    assert (flows[0] == flows[1]) == is_blind
