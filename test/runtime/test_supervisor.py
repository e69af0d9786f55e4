"""States, their transitions, and what forbids motion."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plant import PERIOD, SPEC, START, Plant, moving, speeds, wave

from dit_policy_ros.runtime.executor import ExecutorState
from dit_policy_ros.runtime.permission import Permission, Veto
from dit_policy_ros.runtime.supervisor import TRANSITIONS, State

RELEASE = "e-stop: by topic; release it, then call reset and start"


def test_an_activated_supervisor_holds_and_moves_by_chunks():
    plant = moving()
    assert plant.reasons()[:3] == ["inactive: configured", "holding: activated", "moving: chunk"]


def test_without_autostart_it_waits_for_start_and_commands_nothing():
    plant = Plant(autostart=False)
    plant.run(0.3, wave)
    assert plant.state is State.INACTIVE
    assert plant.sent == []
    assert plant.supervisor.start() == ""
    plant.run(0.05)
    plant.run(0.3, wave)
    assert plant.state is State.MOVING


@pytest.mark.parametrize(
    ("stop", "state", "reason"),
    [
        (lambda s: s.permission.press("topic"), State.E_STOPPED, RELEASE),
        (lambda s: s.permission.enable(False, 0), State.HOLDING, "disabled: publish true on enable"),
        (lambda s: s.pause(), State.HOLDING, "paused: call start"),
        (lambda s: s.stop(), State.INACTIVE, "stopped: call start"),
        (lambda s: s.set_speed(0.0, 0), State.HOLDING, "speed zero: publish more than 0 on speed"),
        (lambda s: s.permission.commander("/teleop on /x", True), State.INACTIVE, "another commander: /teleop on /x"),
    ],
)
def test_every_veto_decelerates_and_then_rests_in_its_state(stop, state, reason):
    plant = moving()
    plant.sent.clear()
    stop(plant.supervisor)
    plant.run()
    assert plant.state is State.STOPPING
    assert len(plant.sent) == 1
    for trajectory in plant.sent[0]:
        assert speeds(trajectory)[-1] == 0.0
        assert (np.diff(speeds(trajectory)) <= 1e-9).all()
    plant.run(1.0, wave)
    assert plant.state is state
    assert plant.supervisor.reason == reason
    assert len(plant.sent) == 1, "a vetoed supervisor sends its hold once and nothing else"


def test_an_e_stop_is_latched_until_reset_and_a_reset_moves_nothing():
    plant = moving()
    permission = plant.permission
    permission.press("topic")
    plant.run(1.0)
    assert plant.supervisor.start().startswith("e-stop")
    assert permission.reset() == "the e-stop is still pressed: topic; release it first"
    permission.release("topic")
    plant.run(0.2, wave)
    assert plant.state is State.E_STOPPED
    assert permission.reset() == ""
    plant.sent.clear()
    plant.run(0.2, wave)
    assert (plant.state, plant.sent) == (State.HOLDING, [])
    assert plant.supervisor.start() == ""
    plant.run(0.05)
    plant.run(0.3, wave)
    assert plant.state is State.MOVING


def test_an_e_stop_outlives_an_activation_and_a_configuration():
    plant = moving()
    plant.permission.press("service")
    plant.supervisor.deactivate(plant.now_ns)
    plant.supervisor.finish(plant.now_ns)
    plant.supervisor.activate()
    plant.run()
    assert plant.state is State.E_STOPPED
    fresh = Permission(autostart=True)
    fresh.inherit(plant.permission)
    assert Veto.E_STOP in fresh.vetoes()


def test_nothing_starts_anew_while_a_stop_is_under_way():
    plant = moving()
    plant.permission.enable(False, plant.now_ns)
    plant.run()
    plant.permission.enable(True, plant.now_ns)
    sent = len(plant.sent)
    while plant.state is State.STOPPING:
        plant.run(0.01, wave)
        assert len(plant.sent) == sent
    assert plant.supervisor.reason == "activated"


def test_chunks_from_before_the_start_are_refused():
    plant = moving()
    old_ns = plant.now_ns
    plant.supervisor.pause()
    plant.run(1.0)
    plant.supervisor.start()
    plant.run(0.05)
    chunk = replace(wave(plant.now_ns, plant.positions), observation_ns=old_ns)
    assert plant.supervisor.accept(chunk, plant.now_ns).startswith("before start")


def test_a_dead_mans_switch_must_be_held():
    plant = Plant(enable_timeout_s=0.2)
    plant.run(0.1, wave)
    assert plant.supervisor.reason.startswith("dead man's switch: hold it down")
    for _ in range(50):
        plant.permission.enable(True, plant.now_ns)
        plant.run(0.01, wave)
    assert plant.state is State.MOVING
    plant.run(0.25, wave)
    assert any(reason.startswith("stopping: dead man's switch: let go") for reason in plant.reasons())
    assert "let go" in plant.supervisor.reason


def test_another_commander_during_motion_needs_a_start_afterwards():
    plant = moving()
    plant.permission.commander("/teleop on /x", True)
    plant.run(1.0)
    plant.permission.commander("", False)
    plant.run(0.1, wave)
    assert plant.state is State.HOLDING
    assert plant.supervisor.reason.startswith("paused: /teleop on /x appeared")
    waiting = Plant()
    waiting.permission.commander("/teleop on /x", False)
    waiting.run(0.1)
    assert waiting.supervisor.start() == "another commander: /teleop on /x"
    waiting.permission.commander("", False)
    waiting.run(0.1)
    assert waiting.state is State.HOLDING


def test_deactivation_returns_the_hold():
    plant = moving()
    sent = plant.supervisor.deactivate(plant.now_ns)
    assert [trajectory.names for trajectory in sent] == [c.joints for c in SPEC.controllers]
    assert plant.state is State.STOPPING
    plant.supervisor.finish(plant.now_ns)
    assert plant.state is State.INACTIVE
    assert plant.supervisor.start() == "inactive: activate the node first"


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e12, 8.0])
def test_a_joint_that_is_said_to_be_absurdly_far_away_stops_the_arms(value):
    plant = moving()
    measured = dict(zip(SPEC.names, plant.positions.tolist(), strict=True)) | {"left_waist": value}
    assert "left_waist" in plant.supervisor.feedback(plant.now_ns + PERIOD, measured)
    sent = plant.supervisor.tick(plant.now_ns + PERIOD, plant.now_ns + PERIOD)
    assert len(sent) == 2
    assert plant.state is State.STOPPING
    assert plant.supervisor.reason.startswith("joint states invalid")


def test_in_shadow_every_chunk_starts_at_the_measured_state():
    plant = Plant(shadow=True)
    plant.run(0.05)
    plant.run(0.5, wave)
    plant.positions = START + 0.4
    plant.run(0.4, wave)
    assert plant.refusal == ""
    assert [reason for reason in plant.reasons() if reason == "holding: activated"] == ["holding: activated"]
    first = np.concatenate([trajectory.positions[0] for trajectory in plant.sent[-1]])
    np.testing.assert_allclose(first, START + 0.4, atol=0.05)


ACTIONS = {
    "press": lambda p: p.permission.press("topic"),
    "release": lambda p: p.permission.release("topic"),
    "reset": lambda p: p.permission.reset(),
    "start": lambda p: p.supervisor.start(),
    "pause": lambda p: p.supervisor.pause(),
    "stop": lambda p: p.supervisor.stop(),
    "home": lambda p: p.supervisor.home(),
    "disable": lambda p: p.permission.enable(False, p.now_ns),
    "enable": lambda p: p.permission.enable(True, p.now_ns),
    "slow": lambda p: p.supervisor.set_speed(0.1, p.now_ns),
    "fast": lambda p: p.supervisor.set_speed(1.0, p.now_ns),
    "left off": lambda p: p.supervisor.switch_arm("left", False),
    "left on": lambda p: p.supervisor.switch_arm("left", True),
    "commander": lambda p: p.permission.commander("/x", p.state is State.MOVING),
    "no commander": lambda p: p.permission.commander("", False),
    "jump": lambda p: p.supervisor.restart(p.now_ns),
    "move": lambda p: p.run(0.05, wave),
    "wait": lambda p: p.run(0.1),
}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(ACTIONS)), max_size=25))
def test_no_sequence_of_wishes_breaks_the_rules(names):
    plant = Plant()
    for name in names:
        ACTIONS[name](plant)
        pressed = Veto.E_STOP in plant.permission.vetoes()
        sent = len(plant.sent)
        plant.run(0.02, wave)
        if pressed:
            assert plant.state in (State.STOPPING, State.E_STOPPED)
            assert len(plant.sent) - sent <= 1
            assert plant.supervisor.executor.state is ExecutorState.INACTIVE
        for trajectories in plant.sent[sent:]:
            for trajectory in trajectories:
                assert speeds(trajectory)[-1] == 0.0
    for before, after in zip(plant.changes, plant.changes[1:], strict=False):
        assert after.before is before.after
        assert after.after is after.before or after.after in TRANSITIONS[after.before]
        assert after.reason
