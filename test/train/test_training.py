"""Training: what a batch holds, that it learns, and that it resumes."""

import numpy as np
import pytest
import torch

from dit_policy_ros.data.dataset import load_dataset
from dit_policy_ros.data.episode_cache import CacheConfig
from dit_policy_ros.errors import CheckpointError, ConfigError
from dit_policy_ros.policy.checkpoint import load_policy
from dit_policy_ros.policy.dual_policy import Range
from dit_policy_ros.policy.text import hash_words
from dit_policy_ros.robot import load_robot
from dit_policy_ros.train.config import TrainConfig, load_train_config
from dit_policy_ros.train.recipe import run_recipe
from dit_policy_ros.train.samples import BatchSource, Phrase
from dit_policy_ros.train.trainer import learning_rate, start_run, train

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
    config = TrainConfig(**{**vars(config), **changes})
    shares = np.full(len(dataset.episodes), 1 / len(dataset.episodes))
    return BatchSource(dataset, config, SPAN, SPAN, {1: (0, 1)}, shares, rephrase, seed), config


def test_a_batch_holds_what_was_recorded(dataset, recordings):
    source, config = make_source(dataset, recordings[2], state_noise=0.0, unknown_words=0.0, batch=64)
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
    source, _ = make_source(dataset, recordings[2], unknown_words=0.0, batch=64)
    batch = source.draw()
    sign = torch.tensor([1.0 if torch.equal(row, hash_words("go up")) else -1.0 for row in batch.hashed])
    known = batch.grasp_known[:, 0]
    assert bool(known.any())
    assert not bool(known.all())
    torch.testing.assert_close((batch.grasp[:, 0] * sign)[known], torch.ones(int(known.sum())), atol=1e-5, rtol=0)


def test_rephrasing_and_forgetting_words_change_the_instruction(dataset, recordings):
    source, _ = make_source(dataset, recordings[2], rephrase=lambda episode, rng: Phrase("sing"), unknown_words=0.0)
    assert all(torch.equal(row, hash_words("sing")) for row in source.draw().hashed)
    source, _ = make_source(dataset, recordings[2], unknown_words=1.0)
    assert not any(
        torch.equal(row, hash_words(f"go {word}")) for row in source.draw().hashed for word in ("up", "down")
    )


@pytest.mark.parametrize("name", ["brightness", "state_noise"])
def test_noise_is_off_at_zero_and_on_otherwise(dataset, recordings, name):
    quiet = {"brightness": 0.0, "state_noise": 0.0}
    still = make_source(dataset, recordings[2], **quiet)[0].draw()
    noisy = make_source(dataset, recordings[2], **{**quiet, name: 0.1})[0].draw()
    assert torch.equal(still.state, noisy.state) == (name != "state_noise")
    assert torch.equal(still.slow_image, noisy.slow_image) == (name != "brightness")


def test_equal_seeds_give_equal_batches(dataset, recordings):
    first, second = (make_source(dataset, recordings[2], seed=3)[0].draw() for _ in range(2))
    for name, value in vars(first).items():
        assert torch.equal(value, getattr(second, name)), name


def test_learning_rate_rises_then_falls():
    config = load_train_config("demo")
    rates = [learning_rate(step, 1000, config) for step in range(1000)]
    peak = int(np.argmax(rates))
    assert peak in (config.warmup_steps - 1, config.warmup_steps)
    assert rates[peak] == pytest.approx(config.learning_rate)
    assert np.all(np.diff(rates[peak + 1 :]) < 0)
    assert rates[-1] < 0.02 * config.learning_rate


def test_it_learns_and_the_policy_obeys_the_instruction(recordings, tmp_path):
    folder, robot_file, recipe_file = recordings
    losses = []
    out = tmp_path / "policy"
    run_recipe((folder,), (1.0,), out, recipe_file, robot_file, 500, 0, tmp_path / "cache", "cpu", None, losses.append)
    assert losses[-1].flow < 0.25 * losses[0].flow
    from dit_policy_ros.types import Observation

    policy = load_policy(out)
    images = {name: np.full((24, 32, 3), 128, np.uint8) for name in ("top", "wrist")}
    observation = Observation(stamp_ns=10**9, positions={"left_a": 0.0, "left_grip": 1.0}, images=images)
    ends = {}
    for word in ("up", "down"):
        ends[word] = policy.act(observation, policy.encode(observation, f"go {word}")).actions[-1, 0]
    assert ends["up"] > 0.15
    assert ends["down"] < -0.15


def test_an_interrupted_run_goes_on(recordings, tmp_path, dataset):
    _, config = make_source(dataset, recordings[2])
    steps = []
    state = start_run(config, 0)
    train(
        state,
        config,
        lambda seed: make_source(dataset, recordings[2], seed)[0],
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
        lambda seed: make_source(dataset, recordings[2], seed)[0],
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
