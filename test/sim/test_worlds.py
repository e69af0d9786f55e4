"""What the worlds draw, ask and score."""

import numpy as np
import pytest

from dit_policy_ros.errors import WorldError
from dit_policy_ros.sim import phrases, scene
from dit_policy_ros.sim.worlds import (
    CUBE_AREA,
    CUBE_SEPARATION_M,
    EVENT_STEPS,
    LARGEST_NUDGE_M,
    WORLDS,
    find_world,
)


@pytest.mark.parametrize("seed", range(40))
def test_three_cubes_lie_apart_on_the_table_and_one_is_asked_for(seed):
    episode = WORLDS["aloha_language"].sample(seed, "train")
    centres = episode.objects.reshape(3, 7)[:, :2]
    for axis, (low, high) in enumerate(CUBE_AREA):
        assert ((centres[:, axis] >= low) & (centres[:, axis] <= high)).all()
    for i in range(3):
        for j in range(i):
            assert np.linalg.norm(centres[i] - centres[j]) >= CUBE_SEPARATION_M
    assert episode.target.removesuffix("_box") == WORLDS["aloha_language"].task(seed)


def test_every_colour_is_asked_for_about_as_often():
    asked = [WORLDS["aloha_language"].task(seed) for seed in range(300)]
    for colour in scene.CUBE_COLOURS:
        assert 70 <= asked.count(colour) <= 130


def test_reward_follows_the_cube_from_table_to_left_hand():
    world, episode = WORLDS["aloha_language"], WORLDS["aloha_language"].sample(0, "plain")
    cube = episode.target
    others = [f"{colour}_box" for colour in scene.CUBE_COLOURS if f"{colour}_box" != cube]
    table = {(other, "table") for other in others}
    right = (cube, "vx300s_right/10_right_gripper_finger")
    left = (cube, "vx300s_left/10_left_gripper_finger")
    on_table = (cube, "table")
    assert world.reward(frozenset(table | {on_table}), episode) == 0
    assert world.reward(frozenset(table | {on_table, right}), episode) == 1
    assert world.reward(frozenset(table | {right}), episode) == 2
    assert world.reward(frozenset(table | {on_table, left}), episode) == 3
    held = frozenset(table | {left})
    assert world.reward(held, episode) == 4
    assert world.is_strict(held, episode)
    assert not world.is_strict(held | {right}, episode), "the giving hand still touches"
    assert not world.is_strict(held - {(others[0], "table")}, episode), "another cube was lifted"
    wrong = frozenset({(other, "table") for other in (cube, others[1])} | {(others[0], left[1])})
    assert world.reward(wrong, episode) == 0


@pytest.mark.parametrize("seed", range(40))
def test_a_cube_is_nudged_within_reach(seed):
    episode = WORLDS["aloha_nudged"].sample(seed, "train")
    still = WORLDS["aloha_transfer_cube"].sample(seed, "train")
    np.testing.assert_array_equal(episode.objects, still.objects)
    assert episode.instruction == still.instruction
    event = episode.event
    assert EVENT_STEPS[0] <= event.step <= EVENT_STEPS[1]
    assert 0.0 < np.linalg.norm(event.pose[:2] - episode.objects[:2]) <= LARGEST_NUDGE_M
    for value, (low, high) in zip(event.pose, CUBE_AREA, strict=False):
        assert low <= value <= high
    assert episode.after(event).target == episode.target
    again = WORLDS["aloha_nudged"].sample(seed, "train").event
    np.testing.assert_array_equal(again.pose, event.pose)
    assert again.step == event.step


def test_nudges_fill_the_disc_and_the_time_before_the_grasp():
    episodes = [WORLDS["aloha_nudged"].sample(seed, "plain") for seed in range(300)]
    nudges = np.array([episode.event.pose[:2] - episode.objects[:2] for episode in episodes])
    assert (np.abs(nudges.mean(axis=0)) < 0.006).all()
    assert np.linalg.norm(nudges, axis=1).mean() == pytest.approx(LARGEST_NUDGE_M * 2 / 3, abs=0.004)
    steps = [episode.event.step for episode in episodes]
    assert (min(steps), max(steps)) == EVENT_STEPS


@pytest.mark.parametrize("seed", range(40))
def test_a_switch_asks_for_another_cube_of_the_same_table(seed):
    world, language = WORLDS["aloha_switch"], WORLDS["aloha_language"]
    episode, unswitched = world.sample(seed, "train"), language.sample(seed, "train")
    np.testing.assert_array_equal(episode.objects, unswitched.objects)
    assert (episode.instruction, episode.target) == (unswitched.instruction, unswitched.target)
    event = episode.event
    assert EVENT_STEPS[0] <= event.step <= EVENT_STEPS[1]
    assert event.target != episode.target
    assert world.tasks(seed) == (language.task(seed), event.target.removesuffix("_box"))
    after = world.sample(seed, "plain").after(world.sample(seed, "plain").event)
    assert after.instruction == f"hand the {world.tasks(seed)[1]} cube to the left arm"
    left = frozenset({(after.target, "vx300s_left/10_left_gripper_finger")})
    assert world.reward(left, after) == 4
    assert world.reward(left, episode) == 0


def test_unknown_world_and_phrases_name_the_known():
    with pytest.raises(WorldError, match="aloha_insertion"):
        find_world("aloha_pour_tea")
    with pytest.raises(WorldError, match="held_out, plain, train"):
        WORLDS["aloha_language"].sample(0, "rude")
    with pytest.raises(WorldError, match="insertion"):
        phrases.draw("pour tea", "train", 0)


def test_held_out_sentences_are_never_drawn_for_training():
    for task, sentences in phrases.HELD_OUT.items():
        drawn = {phrases.draw(task, "train", seed) for seed in range(2000)}
        assert not drawn & set(sentences)
        assert len(drawn) > 300


@pytest.mark.parametrize("colour", scene.CUBE_COLOURS)
def test_training_sentences_name_the_wanted_colour_outside_what_they_forbid(colour):
    others = [name for name in scene.CUBE_COLOURS if name != colour]
    for seed in range(300):
        sentence = phrases.draw(colour, "train", seed)
        for other in others:
            position = sentence.find(f" {other} ")
            if position >= 0:
                before = sentence[max(0, position - 30) : position]
                forbids = ("not the", "ignore", "leave", "forget", "touch", ", the")
                assert any(word in before for word in forbids), sentence
