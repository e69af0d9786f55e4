"""A controller that says nothing stops the arms."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plant import MS, SPEC, moving, wave

from dit_policy_ros.runtime.controller_watch import ControllerWatch
from dit_policy_ros.runtime.supervisor import State

LEFT, RIGHT = (replace(controller, max_state_age_s=0.3) for controller in SPEC.controllers)


def nobody(joints) -> bool:
    return False


def test_silence_is_told_by_name_and_ends_with_a_word():
    watch = ControllerWatch((LEFT, RIGHT))
    assert watch.silent(0, nobody) == ""
    for k in range(4):
        watch.hear(LEFT.name, k)
        assert watch.silent(100 * k * MS, nobody) == ""
    watch.hear(LEFT.name, 4)
    said = watch.silent(301 * MS, nobody)
    assert said == f"{RIGHT.name} has said nothing for 0.301 s (limit 0.3 s); is it active?"
    watch.hear(RIGHT.name, 1)
    assert watch.silent(400 * MS, nobody) == ""


def test_the_same_stamp_again_is_silence_and_a_restart_gives_time():
    watch = ControllerWatch((LEFT,))
    for k in range(5):
        watch.hear(LEFT.name, 7)
        said = watch.silent(100 * k * MS, nobody)
    assert said.startswith(f"{LEFT.name} has said nothing for 0.400 s")
    watch.restart()
    assert watch.silent(500 * MS, nobody) == ""


def test_a_controller_that_is_switched_off_or_not_to_be_watched_may_be_silent():
    watch = ControllerWatch((LEFT, *SPEC.controllers))
    assert [controller.name for controller in watch.controllers] == [LEFT.name]
    watch.silent(0, nobody)
    assert watch.silent(1000 * MS, lambda joints: joints == LEFT.joints) == ""
    assert watch.silent(1000 * MS, nobody) != ""


@pytest.mark.parametrize("says_again", [True, False])
def test_the_arms_stop_and_move_again_once_it_speaks(says_again: bool):
    plant = moving()
    plant.permission.controllers("left has said nothing")
    plant.run()
    assert plant.state is State.STOPPING
    plant.run(1.0, wave)
    assert (plant.state, plant.supervisor.reason) == (State.HOLDING, "controller silent: left has said nothing")
    if says_again:
        plant.permission.controllers("")
    plant.run(0.05)
    plant.run(0.3, wave)
    assert (plant.state is State.MOVING) == says_again
