"""System 2 learns to find what is asked for and to read, each by itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.policy.checkpoint import load_policy, save_dual_policy
from dit_policy_ros.policy.dual_policy import DualPolicyConfig, Range
from dit_policy_ros.policy.dual_system import DualSystem
from dit_policy_ros.policy.text import hash_words
from dit_policy_ros.robot import load_robot
from dit_policy_ros.train.config import load_train_config
from dit_policy_ros.train.curriculum import Curriculum, Lesson
from dit_policy_ros.train.phrase import Phrase
from dit_policy_ros.train.recipe import run_recipe
from dit_policy_ros.train.scenes import SceneSource
from dit_policy_ros.train.trainer import start_run, train

WORDS = ("white", "black")


def test_scenes_pair_each_question_with_its_own_answer(recordings, spots):
    config = replace(load_train_config(recordings[2]), brightness=0.0)
    batch = SceneSource((spots,), config, 0).draw(64)
    for image, hashed, group, place in zip(batch.images, batch.hashed, batch.groups, batch.places, strict=True):
        assert torch.equal(hashed, hash_words(WORDS[group]))
        column, row = ((place[:2] * 4 + 3.5) * 2).round().long()
        assert float(image[0, row, column]) == pytest.approx((1.0, -1.0)[group], abs=0.01)
    assert set(batch.groups.tolist()) == {0, 1}
    assert bool(batch.known[:, :2].all())
    assert not bool(batch.known[:, 2:].any())
    assert bool((batch.places[:, 2:] == 0).all())


def test_each_question_is_drawn_as_often(recordings, spots):
    config = load_train_config(recordings[2])
    single = replace(spots, ask=(lambda rng: Phrase("grey", 2),), places=spots.places[:, :1])
    groups = SceneSource((spots, single), config, 0).draw(600).groups
    assert all(150 < int((groups == group).sum()) < 250 for group in range(3))


def scene_losses(objective, scenes, seed=0):
    losses = objective(Lesson(scenes, None), torch.Generator().manual_seed(seed))
    objective.zero_grad()
    return losses


def test_the_eye_does_not_depend_on_how_sentences_are_read(recordings, spots):
    config = load_train_config(recordings[2])
    objective = start_run(config, 0).objective
    scenes = SceneSource((spots,), config, 0).draw(16)
    losses = scene_losses(objective, scenes)
    losses.place.backward()
    assert not any(bool(parameter.grad.any()) for parameter in objective.network.text.parameters())
    misread = replace(scenes, hashed=scenes.hashed.flip(0))
    assert scene_losses(objective, misread).place.item() == losses.place.item()
    assert scene_losses(objective, misread).phrase.item() != losses.phrase.item()
    nobody_knows = replace(scenes, groups=torch.full_like(scenes.groups, -100))
    losses = scene_losses(objective, nobody_knows)
    losses.place.backward()
    assert objective.network.text.out[-1].weight.grad.abs().sum() > 0
    assert losses.phrase.item() == 0.0


@pytest.mark.parametrize(("noise", "differs"), [(0.0, False), (0.5, True)])
def test_what_the_eye_is_told_is_made_uncertain(recordings, spots, noise, differs):
    config = replace(load_train_config(recordings[2]), meaning_noise=noise)
    objective = start_run(config, 0).objective
    for block in (objective.network.slow_camera.stem, objective.network.slow_camera.down):
        torch.nn.init.normal_(block.film.weight)
    scenes = SceneSource((spots,), config, 0).draw(16)
    first, second = (scene_losses(objective, scenes, seed).place.item() for seed in (0, 1))
    assert (first != second) == differs


def begin_with(recordings, directory):
    """Writes a policy of the tiny recipe, and returns it."""
    config = load_train_config(recordings[2])
    span = Range(np.array([-1.0, 0.0]), np.array([1.0, 1.0]))
    views = (config.slow_camera, config.fast_cameras)
    torch.manual_seed(7)
    network = DualSystem(config.network)
    save_dual_policy(
        directory, DualPolicyConfig(load_robot(recordings[1]).names, *views, span, span, config.network), network, {}
    )
    return network


def only_find(recordings, directory, start_from, spots=None, steps=60):
    folder, robot_file, recipe_file = recordings
    run_recipe(
        (folder,),
        (1.0,),
        directory / "out",
        recipe_file,
        robot_file,
        steps,
        0,
        directory / "cache",
        "cpu",
        None,
        make_scenes=(lambda dataset, config: [spots]) if spots else None,
        start_from=start_from,
        only_find=True,
    )
    return load_policy(directory / "out").network.state_dict()


def test_finding_can_be_taught_alone(recordings, spots, tmp_path):
    before = begin_with(recordings, tmp_path / "before").state_dict()
    after = only_find(recordings, tmp_path, tmp_path / "before", spots)
    changed = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"text", "slow_camera", "slow_summary", "slow_places"}
    with pytest.raises(ConfigError, match="give scenes and a policy to begin with"):
        only_find(recordings, tmp_path, None, spots)
    with pytest.raises(ConfigError, match="give scenes and a policy to begin with"):
        only_find(recordings, tmp_path, tmp_path / "before")


def test_places_without_an_answer_stay_where_they_were_if_held(recordings, spots, tmp_path):
    before = begin_with(recordings, tmp_path / "before")
    only_find(recordings, tmp_path, tmp_path / "before", spots, steps=150)
    after = load_policy(tmp_path / "out").network
    scenes = SceneSource((spots,), replace(load_train_config(recordings[2]), brightness=0.0), 9).draw(64)
    with torch.inference_mode():
        was, now = (network.find(scenes.images, scenes.hashed).places[:, 2:] for network in (before, after))
    assert float((now - was).abs().mean()) < 0.03

    free = start_run(load_train_config(recordings[2]), 0).objective
    held = start_run(load_train_config(recordings[2]), 0).objective
    held.hold_unanswered()
    assert set(held.state_dict()) == set(free.state_dict())
    for objective in (free, held):
        torch.nn.init.constant_(objective.network.slow_places.bias, 3.0)
    apart = [
        scene_losses(objective, replace(scenes, known=torch.zeros_like(scenes.known))).place.item()
        for objective in (free, held)
    ]
    assert apart[0] == 0.0
    assert apart[1] > 1.0


def test_a_run_keeps_what_the_policy_it_begins_with_made_of_sentences(recordings, tmp_path):
    config = load_train_config(recordings[2])
    objective = start_run(config, 0).objective
    drawn = objective.meanings.clone()
    said = [Phrase("go up", 1), Phrase("rise", 1), Phrase("go down", 3), Phrase("whatever")]
    objective.mean_as_read(said)
    with torch.no_grad():
        read = objective.network.text(torch.stack([hash_words(phrase.text) for phrase in said]))
    torch.testing.assert_close(objective.meanings[1], read[:2].mean(0))
    torch.testing.assert_close(objective.meanings[3], read[2])
    assert torch.equal(objective.meanings[[0, 2]], drawn[[0, 2]])


def test_system_2_learns_to_find_what_is_asked_for(recordings, spots, tmp_path):
    config = replace(
        load_train_config(recordings[2]), locate_steps=300, locate_batch=32, learning_rate=0.005, unknown_words=0.2
    )
    state = start_run(config, 0)
    losses = []

    def lessons(seed, step):
        return Curriculum(None, SceneSource((spots,), config, seed), config, step)

    train(state, config, lessons, 300, 0, tmp_path, losses.append)
    assert losses[-1].place < 0.3 * losses[0].place
    assert losses[-1].flow == 0.0
    other = SceneSource((spots,), replace(config, brightness=0.0), 99).draw(100)
    with torch.inference_mode():
        objective = state.objective.eval()
        guess = objective.network.find(other.images, other.hashed).places
    miss = (guess - other.places)[:, :2].abs().mean()
    assert float(miss) < 0.5 * float(other.places[:, :2].abs().mean())


def test_scenes_that_tell_something_else_are_refused(recordings, tmp_path, spots):
    folder, robot_file, recipe_file = recordings
    short = replace(spots, places=spots.places[..., :4])
    settled = (tmp_path / "cache", "cpu", None, None)
    with pytest.raises(ConfigError, match="Scenes tell 4 numbers, the recipe's network 6 places"):
        run_recipe(
            (folder,),
            (1.0,),
            tmp_path / "out",
            recipe_file,
            robot_file,
            1,
            0,
            *settled,
            lambda dataset, config: [short],
        )
