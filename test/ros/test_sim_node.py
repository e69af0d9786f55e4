from __future__ import annotations

import numpy as np
import pytest
from harness import ROBOT, STEP_NS, Stage, wait_until
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.images import message_to_rgb
from dit_policy_ros.ros.conversions.joints import joint_state_to_sample
from dit_policy_ros.ros.conversions.stamps import time_to_ns
from dit_policy_ros.ros.conversions.trajectories import trajectory_to_message
from dit_policy_ros.ros.episode_state import EpisodeState
from dit_policy_ros.ros.sim_node import SimNode
from dit_policy_ros.sim.worlds import WORLDS
from dit_policy_ros.types import Trajectory

pytestmark = pytest.mark.ros
LEFT = ROBOT.controllers[0]


class Simulation:
    """An active sim_node, its clock and its joints."""

    def __init__(self, stage: Stage, **parameters) -> None:
        self.stage = stage
        self.clock = stage.hear(Clock, "/clock", qos.NEWEST)
        self.states = stage.hear(JointState, "/joint_states", qos.SENSOR)
        parameters = {"world": "aloha_transfer_cube", "real_time_factor": 0.0, **parameters}
        self.node = stage.activate(SimNode, "sim_node", parameters)
        wait_until(lambda: self.clock and self.states, "the clock and the joints")

    def now_ns(self) -> int:
        return time_to_ns(self.clock[-1].clock)

    def positions(self) -> np.ndarray:
        sample = joint_state_to_sample(self.states[-1], LEFT.joints)
        return np.array([sample.positions[joint] for joint in LEFT.joints])

    def reset(self, **parameters) -> Trigger.Response:
        self.node.set_parameters([Parameter(name, value=value) for name, value in parameters.items()])
        client = self.stage.client.create_client(Trigger, "/sim_node/reset")
        wait_until(client.service_is_ready, "the reset service")
        return client.call(Trigger.Request(), timeout_sec=30.0)


def test_an_accepted_trajectory_moves_the_arm_and_a_bad_one_is_refused_with_its_reason(stage: Stage) -> None:
    simulation = Simulation(stage)
    commands = stage.speak(JointTrajectory, LEFT.topic)
    start = simulation.positions()

    def send(names: tuple[str, ...], goal: np.ndarray) -> None:
        begin_ns = simulation.now_ns() + 40 * STEP_NS
        times_ns = begin_ns + np.arange(1, 11, dtype=np.int64) * STEP_NS
        commands.publish(trajectory_to_message(Trajectory(names, times_ns, np.tile(goal, (10, 1))), begin_ns))

    send(("left_waist", "belly"), start[:2])
    reason = wait_until(lambda: simulation.node.problems.present.get(LEFT.name), "a reason")
    assert reason.startswith("rejected a trajectory: Unknown joints: belly")
    assert simulation.node.measure()["commands rejected"] == 1

    goal = start + np.array([0.2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])

    def arrived() -> bool:
        send(LEFT.joints, goal)
        return abs(simulation.positions()[0] - goal[0]) < 0.02

    wait_until(arrived, "the waist to turn")
    assert simulation.node.problems.present.get(LEFT.name) is None


def test_joint_states_come_at_50_hz_of_simulated_time(stage: Stage) -> None:
    simulation = Simulation(stage, real_time_factor=1.0)
    wait_until(lambda: len(simulation.states) >= 20, "joint states")
    stamps_ns = [time_to_ns(message.header.stamp) for message in simulation.states]
    assert set(np.diff(stamps_ns)) == {STEP_NS}
    assert set(simulation.states[0].name) == set(ROBOT.names)
    assert len(simulation.states[0].velocity) == len(simulation.states[0].name)


def test_a_reset_draws_the_episode_of_its_seed_and_tells_it(stage: Stage) -> None:
    episodes = stage.hear(String, "/sim_node/episode", qos.LATCHED)
    instructions = stage.hear(String, "/instruction", qos.LATCHED)
    simulation = Simulation(stage, world="aloha_language", seed=4)
    wait_until(lambda: instructions, "an instruction")
    response = simulation.reset(seed=7, phrase_set="held_out")
    assert response.success, response.message
    episode = EpisodeState.from_json(response.message)
    assert (episode.world, episode.seed) == ("aloha_language", 7)
    wait_until(lambda: instructions[-1].data == episode.instruction, "the new instruction")
    told = [EpisodeState.from_json(message.data) for message in episodes]
    assert [state.seed for state in told if state.reward == 0][:1] == [4]
    assert episode.start_ns > told[0].start_ns

    refused = simulation.reset(phrase_set="songs")
    assert not refused.success
    assert "songs" in refused.message


def test_a_switched_instruction_is_told_when_it_happens(stage: Stage) -> None:
    episodes = stage.hear(String, "/sim_node/episode", qos.LATCHED)
    instructions = stage.hear(String, "/instruction", qos.LATCHED)
    Simulation(stage, world="aloha_switch", seed=4)
    episode = WORLDS["aloha_switch"].sample(4, "plain")
    said = [episode.instruction, episode.event.instruction]
    wait_until(lambda: [message.data for message in instructions] == said, "the second instruction")
    wait_until(lambda: EpisodeState.from_json(episodes[-1].data).instruction == said[1], "the new state")
    assert len({EpisodeState.from_json(message.data).start_ns for message in episodes}) == 1


def test_an_episode_ends_with_its_outcome(stage: Stage) -> None:
    episodes = stage.hear(String, "/sim_node/episode", qos.LATCHED)
    Simulation(stage)
    wait_until(lambda: episodes and EpisodeState.from_json(episodes[-1].data).is_done, "the episode to end")
    last = EpisodeState.from_json(episodes[-1].data)
    assert not last.strict
    assert last.reward == 0


def test_images_are_published_raw_and_compressed_where_somebody_listens(stage: Stage) -> None:
    compressed = stage.hear(CompressedImage, "/left_wrist/image_raw/compressed", qos.SENSOR)
    raw = stage.hear(Image, "/left_wrist/image_raw", qos.SENSOR)
    Simulation(stage, real_time_factor=1.0)
    wait_until(lambda: len(compressed) > 2 and len(raw) > 2, "images of both kinds")
    pairs = {time_to_ns(message.header.stamp): message for message in raw}
    both = [(pairs[stamp], m) for m in compressed if (stamp := time_to_ns(m.header.stamp)) in pairs]
    image, jpeg = (message_to_rgb(message) for message in both[0])
    assert image.shape == jpeg.shape
    assert image.std() > 5.0
    assert np.abs(image.astype(int) - jpeg).mean() < 5.0
    assert both[0][0].header.frame_id == "left_wrist"


@pytest.mark.parametrize(("parameter", "value"), [("world", "moon"), ("phrase_set", "songs")])
def test_unknown_worlds_and_phrases_are_refused(stage: Stage, parameter: str, value: str) -> None:
    stage.start(SimNode, "sim_node", {parameter: value})
    with pytest.raises(ConfigError, match="refused"):
        stage.change("sim_node", "configure", "activate")
