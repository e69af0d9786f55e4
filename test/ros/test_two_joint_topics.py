"""A robot whose arms have a joint state topic each, on real nodes: executor, recorder, simulator."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from executor_stage import LEFT, RIGHT, patient
from harness import HOME, ROBOT, Repeat, Stage, joint_state, swing, wait_until
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.data.bag_reader import open_episode
from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.executor_node import ExecutorNode
from dit_policy_ros.ros.recorder_node import RecorderNode
from dit_policy_ros.ros.security import _simulator
from dit_policy_ros.ros.sim_node import SimNode
from dit_policy_ros.strict_yaml import load_yaml_mapping

pytestmark = pytest.mark.ros
TOPICS = {"/left/joint_states": "left", "/right/joint_states": "right"}
ARMS = {arm: tuple(joint.name for joint in ROBOT.joints if joint.arm == arm) for arm in ("left", "right")}


@pytest.fixture
def two_topics(tmp_path) -> str:
    """Returns the path of a robot description with a topic an arm."""
    description = load_yaml_mapping(patient(), ValueError)
    description["joint_states"] = {"topic": list(TOPICS), "max_age_s": 1.5}
    path = tmp_path / "two_topics.yaml"
    path.write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
    return str(path)


class Arms:
    """Publishes each arm on its own topic, at its own stamps."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.publishers = {arm: stage.speak(JointState, topic) for topic, arm in TOPICS.items()}
        self.silent: set[str] = set()
        self.positions = dict(HOME)

    def sense(self) -> None:
        now_ns = self.stage.now_ns()
        for lag, (arm, publisher) in enumerate(self.publishers.items()):
            if arm not in self.silent:
                # The drivers' clocks do not tick together.
                publisher.publish(joint_state(now_ns - lag * 3_000_000, {n: self.positions[n] for n in ARMS[arm]}))


@pytest.mark.parametrize("silent", ["left", "right"])
def test_the_executor_moves_on_both_topics_and_stops_when_one_falls_silent(stage: Stage, two_topics, silent) -> None:
    stage.activate(ExecutorNode, "executor_node", {"robot": two_topics})
    status = stage.hear(String, "/executor_node/status", qos.STATUS)
    commands = [stage.hear(JointTrajectory, controller.topic, qos.COMMANDS_IN) for controller in (LEFT, RIGHT)]
    chunks, arms = stage.speak(JointTrajectory, "/chunk"), Arms(stage)

    def told(text: str) -> bool:
        return any(text in message.data for message in status)

    def moving() -> bool:
        """Sends chunks all the time, so that only the joint states can stop the arms."""
        chunks.publish(swing(stage.now_ns()))
        return all(commands) and told("moving")

    with Repeat(arms.sense):
        wait_until(moving, "both arms to move")
        arms.silent = {silent}
        stale = f": joint states stale: none on /{silent}/joint_states for "
        wait_until(lambda: moving() and told(stale), "the executor to miss a topic")


def test_a_topic_that_never_speaks_is_named(stage: Stage, two_topics) -> None:
    node = stage.activate(ExecutorNode, "executor_node", {"robot": two_topics})
    arms = Arms(stage)
    arms.silent = {"right"}
    with Repeat(arms.sense):
        told = wait_until(lambda: node.problems.present.get("/left/joint_states"), "what is missing")
    missing = told.partition("; got")[0]
    assert all(name in missing for name in ARMS["right"])
    assert not any(name in missing for name in ARMS["left"])


def test_a_bad_value_on_the_second_topic_stops_both_arms(stage: Stage, two_topics) -> None:
    node = stage.activate(ExecutorNode, "executor_node", {"robot": two_topics})
    arms = Arms(stage)
    with Repeat(arms.sense):
        wait_until(lambda: node._supervisor._sample is not None, "joint states of both arms")
        arms.positions["right_elbow"] = float("nan")
        told = wait_until(lambda: node.problems.present.get("/right/joint_states"), "the value to be refused")
    assert "right_elbow" in told


def test_what_is_recorded_live_reads_as_one_history(stage: Stage, two_topics, tmp_path) -> None:
    node = stage.activate(RecorderNode, "recorder_node", {"robot": two_topics, "directory": str(tmp_path / "bags")})
    arms, instruction = Arms(stage), stage.speak(String, "/instruction", qos.LATCHED)
    instruction.publish(String(data="hold still"))
    with Repeat(arms.sense):
        wait_until(lambda: node.measure()["messages"] > 30, "messages to be written")
    stage.change("recorder_node", "deactivate")
    (bag,) = (tmp_path / "bags").iterdir()
    episode = open_episode(bag, load_robot(two_topics))
    assert all(episode.bag.counts[topic] for topic in TOPICS)
    np.testing.assert_allclose(episode.joints.positions, 0.3)


def test_the_simulator_speaks_on_both_topics(stage: Stage, two_topics) -> None:
    heard = {topic: stage.hear(JointState, topic) for topic in TOPICS}
    stage.activate(SimNode, "sim_node", {"robot": two_topics})
    wait_until(lambda: all(heard.values()), "joint states of both arms")
    for topic, arm in TOPICS.items():
        assert tuple(heard[topic][0].name) == ARMS[arm]
    assert set(TOPICS) <= set(_simulator(load_robot(two_topics)).publish)
