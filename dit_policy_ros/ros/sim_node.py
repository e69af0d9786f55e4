"""The simulated robot as a node: the topics, controllers and clock that a real one would offer."""

from __future__ import annotations

import dataclasses
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.errors import DitPolicyError, WorldError
from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.images import rgb_to_compressed, rgb_to_image
from dit_policy_ros.ros.conversions.joints import JointSample, sample_to_joint_state
from dit_policy_ros.ros.conversions.stamps import ns_to_time
from dit_policy_ros.ros.conversions.trajectories import trajectory_fields
from dit_policy_ros.ros.episode_state import EpisodeState
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.ros.pacer import Pacer
from dit_policy_ros.ros.parameters import parameter
from dit_policy_ros.ros.process import run_node
from dit_policy_ros.types import seconds

RESET_TIMEOUT_S = 10.0
CATCH_UP_S = 0.08
"""Rendering one set of images may take this long. A slower machine gets a slower clock, not a jumping one."""


@dataclass(frozen=True)
class SimOptions:
    """Parameters of ``sim_node``."""

    robot: str = parameter("aloha", "Robot description: a name in config/robots, or a path to a YAML file.")
    world: str = parameter("aloha_language", "Simulated world; read at configure.")
    seed: int = parameter(0, "Seed of the next episode; read at every reset.", "", 0, 2**31 - 1)
    phrase_set: str = parameter("plain", "Phrases the instruction is drawn from; read at every reset.")
    real_time_factor: float = parameter(1.0, "Speed of simulated time; 0: as fast as possible.", "", 0.0, 100.0)


@dataclass
class _Reset:
    """A reset on its way from the service to the simulation thread, and its outcome on the way back."""

    seed: int
    phrase_set: str
    done: threading.Event = field(default_factory=threading.Event)
    problem: str = ""


class SimNode(ManagedNode):
    """Steps the body in one thread, which alone touches it; callbacks leave commands and resets for it."""

    OPTIONS = SimOptions

    def __init__(self, name: str = "sim_node", **kwargs) -> None:
        super().__init__(name, **kwargs)

    def configure(self) -> None:
        """Builds the world."""
        # MuJoCo stays out of processes that only import this module.
        from dit_policy_ros.sim import body as sim

        self._control_s = seconds(sim.CONTROL_NS)
        self._image_steps = sim.CAMERA_PERIOD_NS // sim.CONTROL_NS
        self._sizes = sim.IMAGE_SIZES
        self._robot = load_robot(self.options.robot)
        unknown = [camera for camera in self._robot.cameras if camera not in self._sizes]
        if unknown:
            raise WorldError(f"The simulator has no camera {', '.join(unknown)}. It has: {', '.join(self._sizes)}.")
        self._body = sim.AlohaBody(self.options.world, self._robot)
        self._inbox: deque[tuple[str, JointTrajectory]] = deque(maxlen=64)
        self._resets: deque[_Reset] = deque()
        self._accepted = self._rejected = 0
        self._clock_publisher = self.publish_on(Clock, "/clock", qos.NEWEST)
        self._joint_states = [
            (names, self.publish_on(JointState, topic, qos.COMMAND))
            for topic, names in self._robot.joints_by_topic().items()
        ]
        self._instruction = self.publish_on(String, self._robot.instruction_topic, qos.LATCHED)
        self._episode = self.publish_on(String, "~/episode", qos.LATCHED)
        self._raw, self._compressed = {}, {}
        for camera in self._robot.cameras.values():
            self._raw[camera.name] = self.publish_on(Image, camera.topic, qos.IMAGE)
            self._compressed[camera.name] = self.publish_on(CompressedImage, f"{camera.topic}/compressed", qos.IMAGE)
        for controller in self._robot.controllers:
            store = partial(self._store_command, controller.name)
            self.listen_to(JointTrajectory, controller.topic, store, qos.COMMANDS_IN)
        self.serve(Trigger, "~/reset", self._request_reset)

    def activate(self) -> None:
        """Starts the first episode and the clock."""
        self._inbox.clear()
        self._resets.clear()
        self._begin_episode(self.options.seed, self.options.phrase_set)
        self._pacer = Pacer(CATCH_UP_S)
        self.start_worker("simulation", self._step, self._body.close)

    def measure(self) -> dict[str, object]:
        """Returns the score and what the controllers took."""
        values = {"commands accepted": self._accepted, "commands rejected": self._rejected}
        return {**values, "late periods": self._pacer.overruns, "episode": self._state.to_json()}

    def _store_command(self, controller: str, message: JointTrajectory) -> None:
        self._inbox.append((controller, message))

    def _request_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        del request  # Empty.
        if not self.is_active:
            response.message = "sim_node is not active; activate it first."
            return response
        reset = _Reset(self.get_parameter("seed").value, self.get_parameter("phrase_set").value)
        self._resets.append(reset)
        if not reset.done.wait(RESET_TIMEOUT_S):
            reset.problem = f"The simulation did not answer within {RESET_TIMEOUT_S:g} s."
        response.success = not reset.problem
        response.message = reset.problem or self._state.to_json()
        return response

    def _step(self) -> None:
        self._reset_if_asked()
        self._publish_state()
        factor = self.options.real_time_factor
        self._pacer.wait(self._control_s / factor if factor > 0.0 else 0.0)
        self._obey()
        self._body.step()
        self._tell_instruction()
        self._note_score()

    def _reset_if_asked(self) -> None:
        while self._resets:
            reset = self._resets.popleft()
            try:
                self._begin_episode(reset.seed, reset.phrase_set)
            except DitPolicyError as problem:
                reset.problem = str(problem)
            self.problems.tell("reset", reset.problem)
            reset.done.set()

    def _begin_episode(self, seed: int, phrase_set: str) -> None:
        body = self._body
        body.reset(seed, phrase_set)
        self._inbox.clear()
        self._state = EpisodeState(body.world.name, seed, body.instruction, body.start_ns)
        self._episode.publish(String(data=self._state.to_json()))
        self._instruction.publish(String(data=body.instruction))

    def _tell_instruction(self) -> None:
        """Some worlds ask for something else in the middle of an episode."""
        if self._body.instruction == self._state.instruction:
            return
        self._state = dataclasses.replace(self._state, instruction=self._body.instruction)
        self._episode.publish(String(data=self._state.to_json()))
        self._instruction.publish(String(data=self._state.instruction))

    def _publish_state(self) -> None:
        body = self._body
        now_ns = body.now_ns()
        self._clock_publisher.publish(Clock(clock=ns_to_time(now_ns)))
        observation = body.observe()
        for names, publisher in self._joint_states:
            positions, velocities = (
                {name: values[name] for name in names if name in values}
                for values in (observation.positions, observation.velocities)
            )
            publisher.publish(sample_to_joint_state(JointSample(now_ns, positions, velocities)))
        if body.steps % self._image_steps == 0:
            self._publish_images(now_ns)

    def _publish_images(self, now_ns: int) -> None:
        """Renders only what somebody listens to."""
        for camera, (width, height) in self._sizes.items():
            raw, compressed = self._raw.get(camera), self._compressed.get(camera)
            wants_raw = raw is not None and raw.get_subscription_count() > 0
            wants_compressed = compressed is not None and compressed.get_subscription_count() > 0
            if not (wants_raw or wants_compressed):
                continue
            rgb = self._body.render(camera, width, height)
            if wants_compressed:
                compressed.publish(rgb_to_compressed(rgb, now_ns, camera))
            if wants_raw:
                raw.publish(rgb_to_image(rgb, now_ns, camera))

    def _obey(self) -> None:
        while self._inbox:
            controller, message = self._inbox.popleft()
            fields = trajectory_fields(message)
            reason = self._body.controllers[controller].accept(
                fields.stamp_ns,
                fields.names,
                fields.offsets_ns,
                fields.positions,
                fields.velocities,
                fields.accelerations,
                self._body.now_ns(),
                fields.efforts,
            )
            self._rejected += bool(reason)
            self._accepted += not reason
            self.problems.tell(controller, f"rejected a trajectory: {reason}" if reason else "")

    def _note_score(self) -> None:
        if self._state.is_done:
            return
        score = self._body.score()
        is_done = self._body.steps >= self._body.world.episode_steps
        state = self._state.scored(score.reward, score.sticky, score.strict, is_done)
        if state != self._state:
            self._state = state
            self._episode.publish(String(data=state.to_json()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the node as a process."""
    return run_node(SimNode, arguments)


if __name__ == "__main__":
    sys.exit(main())
