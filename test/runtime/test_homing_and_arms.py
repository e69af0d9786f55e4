"""The way home, and robots of which one arm is switched off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from plant import PERIOD, SPEC, START, STEP, Plant, moving, wave

from dit_policy_ros.runtime.executor import Executor
from dit_policy_ros.runtime.homing import Homing
from dit_policy_ros.runtime.permission import Permission
from dit_policy_ros.runtime.supervisor import State, Supervisor


def test_home_is_reached_within_the_limits_and_ends_in_a_pause():
    plant = moving()
    assert plant.supervisor.home() == ""
    assert plant.supervisor.accept(wave(plant.now_ns, plant.positions), plant.now_ns).startswith("homing")
    plant.run(12.0)
    np.testing.assert_allclose(plant.positions, [SPEC.home[name] for name in SPEC.names], atol=1e-6)
    assert plant.supervisor.reason == "paused: at home; call start"
    for sent in plant.sent:
        for trajectory in sent:
            limits = [SPEC.velocity[SPEC.names.index(joint)] for joint in trajectory.names]
            assert (np.abs(trajectory.velocities) <= np.array(limits) * (1 + 1e-6)).all()


@pytest.mark.parametrize("interrupt", [lambda s: s.pause(), lambda s: s.permission.press("x")])
def test_homing_can_be_interrupted(interrupt):
    plant = Plant()
    plant.run(0.05)
    plant.supervisor.home()
    plant.run(0.5)
    assert plant.state is State.MOVING
    interrupt(plant.supervisor)
    plant.run(1.0)
    before = plant.positions
    plant.run(1.0)
    np.testing.assert_array_equal(plant.positions, before)


def test_homing_is_refused_with_a_reason():
    plant = Plant()
    plant.permission.press("topic")
    plant.run()
    assert plant.supervisor.home().startswith("e-stop")
    nowhere = replace(SPEC, home={})
    homeless = Supervisor(nowhere, Executor(nowhere), Permission(True))
    homeless.activate()
    assert "has no home" in homeless.home()


def test_homing_peaks_at_its_share_of_the_limits():
    goal = np.array([SPEC.home[name] for name in SPEC.names])
    homing = Homing(START, goal, SPEC.velocity, SPEC.acceleration)
    actions = []
    for k in range(round(homing.duration_s / 0.02) + 2):
        actions.append(homing.chunk(SPEC.names, k * STEP, 0, 1.0).actions[0])
    velocity = np.diff(np.array(actions), axis=0) / 0.02
    acceleration = np.diff(velocity, axis=0) / 0.02
    share = max((np.abs(velocity) / SPEC.velocity).max() / 0.3, (np.abs(acceleration) / SPEC.acceleration).max() / 0.5)
    assert share == pytest.approx(1.0, abs=0.03)
    np.testing.assert_allclose(actions[-1], goal)


def test_one_arm_can_be_switched_off_and_on():
    plant = moving()
    assert plant.supervisor.switch_arm("left", False) == ""
    plant.run(1.0, wave)
    assert plant.state is State.MOVING
    assert plant.supervisor.mutes(SPEC.controllers[0].joints)
    assert not plant.supervisor.mutes(SPEC.controllers[1].joints)
    left = plant.sent[-1][0]
    assert np.ptp(left.positions, axis=0).max() < 1e-9
    assert np.ptp(plant.sent[-1][1].positions, axis=0).max() > 0.01
    plant.supervisor.switch_arm("right", False)
    plant.run(1.0, wave)
    assert plant.supervisor.reason.startswith("no arm")
    plant.supervisor.switch_arm("left", True)
    plant.supervisor.switch_arm("right", True)
    plant.run(0.05)
    plant.run(0.5, wave)
    assert plant.state is State.MOVING
    assert "has no arm 'third'" in plant.supervisor.switch_arm("third", True)


def test_an_arm_that_is_off_needs_no_joint_states():
    plant = Plant()
    plant.supervisor.switch_arm("left", False)
    plant.run(0.05)
    right = {name: 0.1 for name in SPEC.names if name.startswith("right")}
    plant.now_ns += PERIOD
    assert plant.supervisor.feedback(plant.now_ns, right) == ""


def test_a_controller_of_both_arms_cannot_be_split():
    joined = replace(SPEC, controllers=(replace(SPEC.controllers[0], joints=SPEC.names),))
    supervisor = Supervisor(joined, Executor(joined), Permission(True))
    supervisor.activate()
    assert "moves both arms" in supervisor.switch_arm("left", False)
