from __future__ import annotations

from dataclasses import replace

import pytest
from harness import HOME, ROBOT, STEP_NS, Repeat, Stage, StillPolicy, joint_state, picture, swing, wait_until
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.errors import ConfigError, PolicyError
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.chunks import message_to_chunk
from dit_policy_ros.ros.conversions.contexts import context_to_message, message_to_context
from dit_policy_ros.ros.dit_node import DitNode
from dit_policy_ros.ros.policy_node import PolicyNode
from dit_policy_ros.ros.vlm_node import VlmNode
from dit_policy_ros.types import Context

pytestmark = pytest.mark.ros


class PickyPolicy(StillPolicy):
    """Refuses images of another size, and notes what it is told is committed."""

    def __init__(self) -> None:
        self.committed = []
        self.threads = 0

    def load(self, path: str, threads: int, device: str) -> PickyPolicy:
        self.threads, self.device = threads, device
        return self

    def act(self, observation, context, committed=None):
        self.committed.append(committed)
        for camera, image in observation.images.items():
            if image.shape != (24, 32, 3):
                raise PolicyError(f"Camera {camera} gave {image.shape}, trained on (24, 32, 3).")
        return super().act(observation, context, committed)


class Sensors:
    """Cameras and joint states as topics."""

    def __init__(self, stage: Stage, cameras: tuple[str, ...]) -> None:
        self.stage = stage
        self.joints = stage.speak(JointState, "/joint_states")
        self.cameras = {
            camera: stage.speak(CompressedImage, f"{ROBOT.cameras[camera].topic}/compressed") for camera in cameras
        }
        self.size = (32, 24)

    def sense(self) -> None:
        now_ns = self.stage.now_ns()
        self.joints.publish(joint_state(now_ns, HOME))
        for camera, publisher in self.cameras.items():
            publisher.publish(picture(now_ns, camera, *self.size))


def test_every_instruction_opens_an_epoch_that_is_announced_before_its_contexts(stage: Stage) -> None:
    stage.activate(VlmNode, "vlm_node", load=PickyPolicy().load)
    messages = stage.hear(CompressedImage, "/context", qos.COMMANDS_IN)
    sensors = Sensors(stage, ("top",))
    instruction = stage.speak(String, "/instruction", qos.LATCHED)
    heard: list[Context] = []

    def contexts(text: str, epoch_above: int) -> list[Context]:
        heard[:] = [message_to_context(message) for message in messages]
        return [c for c in heard if c.instruction == text and c.epoch > epoch_above and c.tensors]

    with Repeat(sensors.sense):
        instruction.publish(String(data="red"))
        first = wait_until(lambda: contexts("red", 0), "a context")[0].epoch
        instruction.publish(String(data="blue"))
        second = wait_until(lambda: contexts("blue", first), "a context for the new instruction")[0].epoch
        instruction.publish(String(data="blue"))
        third = wait_until(lambda: contexts("blue", second), "a context after the same instruction again")[0].epoch
    epochs = [context.epoch for context in heard]
    assert epochs == sorted(epochs)
    for epoch in (second, third):
        assert not next(context for context in heard if context.epoch == epoch).tensors


def test_a_restarted_vlm_node_does_not_fall_behind_its_former_epochs(stage: Stage) -> None:
    messages = stage.hear(CompressedImage, "/context", qos.COMMANDS_IN)
    instruction = stage.client.create_publisher(String, "/instruction", qos.LATCHED)
    instruction.publish(String(data="red"))
    stage.activate(VlmNode, "vlm_node", load=PickyPolicy().load)
    first = message_to_context(wait_until(lambda: messages and messages[-1], "an epoch"))
    stage.change("vlm_node", "deactivate", "cleanup")
    messages.clear()
    stage.change("vlm_node", "configure", "activate")
    second = message_to_context(wait_until(lambda: messages and messages[-1], "an epoch"))
    assert second.instruction == "red"
    assert second.epoch > first.epoch


class Fast:
    """A dit_node with its inputs."""

    def __init__(self, stage: Stage, **parameters) -> None:
        self.stage = stage
        self.policy = PickyPolicy()
        self.node = stage.activate(
            DitNode, "dit_node", {"execution_horizon_s": 0.05, **parameters}, load=self.policy.load
        )
        self.messages = stage.hear(JointTrajectory, "/chunk", qos.COMMANDS_IN)
        self.sensors = Sensors(stage, ("left_wrist", "right_wrist"))
        self.contexts = stage.speak(CompressedImage, "/context")

    def think(self, epoch: int, with_tensors: bool = True) -> int:
        """Publishes a context; returns its stamp."""
        stamp_ns = self.stage.now_ns()
        tensors = {"x": StillPolicy.tensor()} if with_tensors else {}
        self.contexts.publish(context_to_message(Context(stamp_ns, "red", epoch, tensors)))
        return stamp_ns

    def chunks(self) -> list:
        return [message_to_chunk(message) for message in self.messages]


def test_chunks_carry_where_they_come_from_and_older_epochs_are_dropped(stage: Stage) -> None:
    fast = Fast(stage)
    with Repeat(fast.sensors.sense):
        wait_until(lambda: "context" in fast.node.problems.present, "the node to miss a context")
        assert fast.messages == []
        context_ns = fast.think(5)
        chunk = wait_until(fast.chunks, "a chunk")[0]
        assert (chunk.context_ns, chunk.epoch) == (context_ns, 5)
        assert chunk.start_ns == chunk.observation_ns
        fast.think(4)
        newer_ns = fast.think(6)
        wait_until(lambda: fast.chunks()[-1].epoch == 6, "a chunk of the new epoch")
        assert fast.chunks()[-1].context_ns == newer_ns
    assert {chunk.epoch for chunk in fast.chunks()} == {5, 6}


def test_an_announced_epoch_stops_planning_until_its_context_comes(stage: Stage) -> None:
    fast = Fast(stage)
    with Repeat(fast.sensors.sense):
        fast.think(5)
        wait_until(fast.chunks, "a chunk")
        fast.think(6, with_tensors=False)
        wait_until(lambda: "context" in fast.node.problems.present, "the node to drop the old context")
        fast.think(6)
        wait_until(lambda: fast.chunks()[-1].epoch == 6, "a chunk of the new epoch")


def test_an_image_of_another_size_gives_a_reason_and_no_chunk(stage: Stage) -> None:
    fast = Fast(stage)
    with Repeat(fast.sensors.sense):
        fast.think(5)
        wait_until(fast.chunks, "a chunk")
        fast.sensors.size = (64, 48)
        wait_until(lambda: "trained on (24, 32, 3)" in fast.node.problems.present.get("act", ""), "a reason")
        count = len(fast.messages)
        wait_until(lambda: fast.node.problems.counts["act"] > 5, "more tries")
        assert len(fast.messages) == count
        fast.sensors.size = (32, 24)
        wait_until(lambda: len(fast.messages) > count, "the next chunk")


def test_a_damaged_image_and_stale_cameras_give_a_reason(stage: Stage) -> None:
    fast = Fast(stage)
    with Repeat(fast.sensors.sense):
        fast.think(5)
        wait_until(fast.chunks, "a chunk")
    broken = CompressedImage(format="jpeg", data=b"no image")
    broken.header = picture(stage.now_ns(), "left_wrist").header

    def send_broken() -> bool:
        now_ns = stage.now_ns()
        broken.header = picture(now_ns, "left_wrist").header
        fast.sensors.joints.publish(joint_state(now_ns, HOME))
        fast.sensors.cameras["left_wrist"].publish(broken)
        return "cannot be decoded" in fast.node.problems.present.get("act", "")

    wait_until(send_broken, "a reason")


def test_the_committed_prefix_is_the_executors_plan(stage: Stage) -> None:
    fast = Fast(stage, commit_max_steps=4, execution_horizon_s=0.2)
    plans = stage.speak(JointTrajectory, "/plan")
    start_ns = stage.now_ns()
    plans.publish(swing(start_ns))
    plan = message_to_chunk(swing(start_ns))
    with Repeat(fast.sensors.sense):
        fast.think(5)
        prefix = wait_until(lambda: [c for c in fast.policy.committed if c is not None], "a committed prefix")[0]
    assert prefix.step_ns == STEP_NS
    assert 0 < len(prefix.actions) <= 4
    assert plan.actions.min() - 1e-9 <= prefix.actions.min() <= prefix.actions.max() <= plan.actions.max() + 1e-9
    plans.publish(JointTrajectory())
    with Repeat(fast.sensors.sense):
        wait_until(lambda: fast.policy.committed[-1] is None, "a chunk without prefix after an empty plan")


def test_a_plan_of_other_joints_is_told_and_planned_without(stage: Stage) -> None:
    fast = Fast(stage, commit_max_steps=4, execution_horizon_s=0.2)
    plans = stage.speak(JointTrajectory, "/plan")
    wrong = swing(stage.now_ns())
    wrong.joint_names[0] = "nobody"
    plans.publish(wrong)
    with Repeat(fast.sensors.sense):
        fast.think(5)
        wait_until(lambda: "nobody" in fast.node.problems.present.get("plan", ""), "the plan to be refused")
        count = len(fast.policy.committed)
        wait_until(lambda: len(fast.policy.committed) > count + 1, "planning to go on")
    assert fast.policy.committed[-1] is None


def test_the_thread_limit_and_the_camera_names_reach_and_bind_the_policy(stage: Stage) -> None:
    policy = PickyPolicy()
    stage.activate(VlmNode, "vlm_node", {"torch_threads": 3, "device": "cuda:1"}, load=policy.load)
    assert (policy.threads, policy.device) == (3, "cuda:1")
    policy.fast_cameras = ("belly",)
    stage.start(DitNode, "dit_node", load=policy.load)
    with pytest.raises(ConfigError, match="refused"):
        stage.change("dit_node", "configure")


def test_both_systems_in_one_process_hand_contexts_over(stage: Stage) -> None:
    policy = PickyPolicy()
    node = stage.activate(PolicyNode, "policy_node", {"execution_horizon_s": 0.05}, load=policy.load)
    chunks = stage.hear(JointTrajectory, "/chunk", qos.COMMANDS_IN)
    sensors = Sensors(stage, ("top", "left_wrist", "right_wrist"))
    instruction = stage.speak(String, "/instruction", qos.LATCHED)
    with Repeat(sensors.sense):
        instruction.publish(String(data="red"))
        wait_until(lambda: len(chunks) > 3, "chunks without any context on a topic")
        measured = wait_until(lambda: "act p50_ms" in node.measure() and node.measure(), "figures")
        assert "context size_kB" not in measured
        assert measured["slow contexts"] > 0
        contexts = stage.hear(CompressedImage, "/context", qos.COMMANDS_IN)
        wait_until(lambda: [c for c in map(message_to_context, contexts) if c.tensors], "contexts for who listens")
        before = message_to_chunk(chunks[-1]).epoch
        instruction.publish(String(data="blue"))
        wait_until(lambda: message_to_chunk(chunks[-1]).epoch > before, "a chunk of the new epoch")


def test_sizes_transfer_times_and_stages_are_measured(stage: Stage) -> None:
    slow = stage.activate(VlmNode, "vlm_node", load=PickyPolicy().load)
    fast = stage.activate(DitNode, "dit_node", {"execution_horizon_s": 0.05}, load=PickyPolicy().load)
    sensors = Sensors(stage, ("top", "left_wrist", "right_wrist"))
    instruction = stage.speak(String, "/instruction", qos.LATCHED)
    with Repeat(sensors.sense):
        instruction.publish(String(data="red"))
        wait_until(lambda: "context transfer p95_ms" in fast.measure(), "the time a context was on its way")
        measured = wait_until(lambda: "publish p99_ms" in fast.measure() and fast.measure(), "figures")
        encoding = wait_until(lambda: "encode p50_ms" in slow.measure() and slow.measure(), "figures")
    assert {f"{stage} p50_ms" for stage in ("receive", "decode", "synchronise", "act", "publish")} <= set(measured)
    assert encoding["context size_kB"] > 0
    assert measured["observation to chunk p95_ms"] >= measured["act p50_ms"]


def test_a_network_that_breaks_is_a_reason_and_the_next_round_tries_again(stage: Stage) -> None:
    fast = Fast(stage)
    act, broken = fast.policy.act, [True]

    def shaky(*args):
        if broken:
            raise RuntimeError("CUDA error: device lost")
        return act(*args)

    fast.policy.act = shaky
    with Repeat(fast.sensors.sense):
        fast.think(5)
        wait_until(lambda: "device lost" in fast.node.problems.present.get("act", ""), "a reason")
        assert fast.node.measure()["incident inference failed"] > 0
        broken.clear()
        wait_until(fast.chunks, "a chunk after all")


def test_the_method_is_chosen_by_a_parameter(stage: Stage) -> None:
    fast = Fast(stage, continuity="naive")
    with Repeat(fast.sensors.sense):
        fast.think(5)
        chunk = wait_until(fast.chunks, "a chunk")[0]
    assert chunk.start_ns > chunk.observation_ns
    stage.start(DitNode, "other_node", {"continuity": "smooth"}, load=fast.policy.load)
    with pytest.raises(ConfigError, match="refused"):
        stage.change("other_node", "configure")


def test_a_chunk_planned_right_after_another_begins_with_that_one(stage: Stage) -> None:
    """The executor's plan does not show it yet."""
    fast = Fast(stage, execution_horizon_s=0.001)
    plans = stage.speak(JointTrajectory, "/plan")
    plans.publish(swing(stage.now_ns()))
    with Repeat(fast.sensors.sense):
        fast.think(5)
        wait_until(lambda: len(fast.policy.committed) > 5, "chunks")
    before, after = fast.chunks()[1:3]
    prefix = fast.policy.committed[2]
    known = (prefix.times_ns >= before.start_ns) & (prefix.times_ns <= before.end_ns)
    assert known.any()
    assert after.observation_ns > before.observation_ns
    assert prefix.observation_ns == before.observation_ns


def test_joint_states_of_several_topics_are_one_observation(stage: Stage, monkeypatch) -> None:
    two = replace(ROBOT, other_states_topics=("/right/joint_states",))
    monkeypatch.setattr("dit_policy_ros.ros.dit_node.load_robot", lambda name: two)
    fast = Fast(stage)
    right = stage.speak(JointState, "/right/joint_states")
    arms = [{n: v for n, v in HOME.items() if n.startswith(side)} for side in ("left", "right")]

    def sense():
        now_ns = stage.now_ns()
        fast.sensors.joints.publish(joint_state(now_ns, arms[0]))
        right.publish(joint_state(now_ns, arms[1]))
        for camera, publisher in fast.sensors.cameras.items():
            publisher.publish(picture(now_ns, camera, 32, 24))

    with Repeat(sense):
        fast.think(5)
        wait_until(fast.chunks, "a chunk from both topics")
