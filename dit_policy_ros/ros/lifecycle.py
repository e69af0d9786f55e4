"""The base of all nodes: managed, silent unless active, and told apart by what they configure and activate."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.service import Service

from dit_policy_ros.errors import DitPolicyError
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.diagnostics import ERROR, OK, WARN, Status, diagnostics_message
from dit_policy_ros.ros.parameters import declare_parameters, read_parameters
from dit_policy_ros.ros.problems import Problems
from dit_policy_ros.ros.stream import Stream
from dit_policy_ros.ros.worker import Worker

DIAGNOSTICS_PERIOD_S = 1.0


class ManagedNode(LifecycleNode):
    """A lifecycle node that says why a transition failed.

    It publishes nothing unless active, but for /diagnostics: there it says in every state how it is.

    Subclasses override ``configure``, ``activate``, ``deactivate``, ``cleanup`` and ``measure``, and may raise
    ``DitPolicyError`` in them to refuse. What ``publish_on`` and ``listen_to`` make lives from configure to cleanup,
    what ``start_worker`` starts from activate to deactivate.
    """

    OPTIONS: ClassVar[type]
    """Frozen dataclass of ``parameter`` fields; ``options`` is one of these from configure on."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        declare_parameters(self, self.OPTIONS)
        self.options: Any = None
        self.problems = Problems(self.get_logger())
        self.is_active = False
        self.is_finalized = False
        self.is_broken = False
        """A worker died of an unexpected error; the process must end."""
        self._workers: list[Worker] = []
        self._publishers_made: list[Publisher] = []
        self._streams: list[Stream] = []
        self._services_made: list[Service] = []
        self._label, self._failure = "unconfigured", ""
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        self._timer = self.create_timer(
            DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def configure(self) -> None:
        """Loads everything; may take seconds."""

    def activate(self) -> None:
        """Starts workers; publishers are open already."""

    def deactivate(self) -> None:
        """Sends what must be sent last: workers have ended, publishers are open still."""

    def cleanup(self) -> None:
        """Lets go of what ``configure`` made."""

    def measure(self) -> dict[str, object]:
        """Returns quantities for /diagnostics, by name with unit. Called by the ROS thread while active."""
        return {}

    def measure_parts(self) -> Mapping[str, Status]:
        """Returns more statuses by the name of a part, such as one limit. Called by the ROS thread while active."""
        return {}

    def now_ns(self) -> int:
        """Returns ROS time, [ns]; 0 while waiting for the first /clock of simulated time."""
        return self.get_clock().now().nanoseconds

    def publish_on(self, message_type: type, topic: str, profile: QoSProfile) -> Publisher:
        """Makes a publisher that is mute unless the node is active."""
        publisher = self.create_lifecycle_publisher(message_type, topic, profile)
        self._publishers_made.append(publisher)
        return publisher

    def listen_to(
        self, message_type: type, topic: str, store: Callable[[Any], None], profile: QoSProfile, raw: bool = False
    ) -> Stream:
        """Makes a subscription within the bounds of its type. ``store`` runs in the ROS thread and must only store."""
        stream = Stream(self, self.problems, message_type, topic, store, profile, raw)
        self._streams.append(stream)
        return stream

    def serve(self, service_type: type, name: str, answer: Callable[[Any, Any], Any]) -> Service:
        """Makes a service; it is there while inactive too, and must then refuse."""
        service = self.create_service(service_type, name, answer)
        self._services_made.append(service)
        return service

    def start_worker(self, name: str, work: Callable[[], None], leave: Callable[[], None] = lambda: None) -> None:
        """Runs ``work`` again and again in a thread until deactivation; see ``Worker``."""
        worker = Worker(name, work, self._break, leave)
        self._workers.append(worker)
        worker.start()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Reads the parameters and loads everything; goes back to unconfigured if that is refused."""

        def run() -> None:
            self.options = read_parameters(self, self.OPTIONS)
            self.configure()

        if self._succeeds("configure", run):
            self._label = "inactive"
            return super().on_configure(state)
        self._succeeds("clean up", self._release)
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Opens the publishers and starts the workers; goes back to inactive if that is refused."""
        super().on_activate(state)
        self.problems.begin()
        if self._succeeds("activate", self.activate):
            self.is_active, self._label = True, "active"
            return TransitionCallbackReturn.SUCCESS
        self._succeeds("stop", self._stop_workers)
        super().on_deactivate(state)
        return TransitionCallbackReturn.FAILURE

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops the workers, sends what must be sent last, and closes the publishers."""
        self._label = "inactive"
        done = self._succeeds("deactivate", self._end)
        super().on_deactivate(state)
        return TransitionCallbackReturn.SUCCESS if done else TransitionCallbackReturn.ERROR

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Removes every publisher and subscription."""
        done = self._succeeds("clean up", self._release)
        self._label = "unconfigured"
        return super().on_cleanup(state) if done else TransitionCallbackReturn.ERROR

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Goes down from any state, through the same steps."""
        if self.is_active:
            self.on_deactivate(state)
        self._succeeds("clean up", self._release)
        self.is_finalized = True
        self._timer.cancel()
        self.destroy_publisher(self._diagnostics)
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a failed deactivation or cleanup: back to unconfigured."""
        self._label = "unconfigured"
        self._succeeds("clean up", self._release)
        return super().on_error(state)

    def _succeeds(self, name: str, step: Callable[[], None]) -> bool:
        """Runs a step and logs its error, which rclpy would turn into a bare ERROR."""
        try:
            step()
        except Exception as problem:
            told = str(problem) if isinstance(problem, DitPolicyError) else repr(problem)
            self._failure = f"cannot {name}: {told}"
            self.get_logger().error(f"Cannot {name}: {told}\n{traceback.format_exc()}")
            return False
        if name in ("configure", "activate"):
            self._failure = ""
        return True

    def _end(self) -> None:
        self.is_active = False
        try:
            self._stop_workers()
        finally:
            self.deactivate()

    def _stop_workers(self) -> None:
        stuck = [worker.name for worker in self._workers if not worker.stop()]
        self._workers.clear()
        if stuck:
            self.is_broken = True
            raise DitPolicyError(f"The worker {', '.join(stuck)} does not stop; the process must end.")

    def _release(self) -> None:
        try:
            self.cleanup()
        finally:
            for publisher in self._publishers_made:
                self.destroy_lifecycle_publisher(publisher)
            for stream in self._streams:
                self.destroy_subscription(stream.subscription)
            for service in self._services_made:
                self.destroy_service(service)
            self._publishers_made.clear()
            self._services_made.clear()
            self._streams.clear()

    def _break(self, worker: str, problem: Exception) -> None:
        trace = "".join(traceback.format_exception(problem))
        self.get_logger().fatal(f"The worker {worker} died of {problem!r}\n{trace}")
        self.is_broken = True

    def _publish_diagnostics(self) -> None:
        name = self.get_fully_qualified_name()
        statuses = {name: self._status()}
        if self.is_active:
            statuses |= {f"{name}: {part}": status for part, status in self.measure_parts().items()}
            statuses |= {f"{name}: input {stream.topic}": stream.status() for stream in self._streams}
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics_message(statuses, stamp))

    def _status(self) -> Status:
        values: dict[str, object] = {"lifecycle": self._label}
        if not self.is_active:
            return Status(ERROR if self._failure else OK, self._failure or self._label, values)
        values |= self.measure()
        values |= {f"problems {source}": count for source, count in self.problems.counts.items()}
        present = self.problems.present
        if not present:
            return Status(values=values)
        text = "; ".join(f"{source}: {reason}" for source, reason in present.items())
        return Status(ERROR if self.problems.are_errors else WARN, text, values)
