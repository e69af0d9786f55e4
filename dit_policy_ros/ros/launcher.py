"""Starts, watches and stops the processes of a node graph where ROS 2's launch system is not installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import yaml

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.ros.environment import local_environment
from dit_policy_ros.ros.graph import NodeSpec
from dit_policy_ros.ros.process import PARENT_VARIABLE
from dit_policy_ros.ros.shared_memory import sweep
from dit_policy_ros.ros.transitions import START_TIMEOUT_S, Transitions

STOP_TIMEOUT_S = 15.0
WATCH_PERIOD_S = 0.2
RESPAWN_LIMIT = 5


class NodeProcess:
    """One node with its log file."""

    def __init__(self, spec: NodeSpec, directory: Path, environment: Mapping[str, str]) -> None:
        """Starts the process.

        Args:
            directory: where its parameters and its log go.
        """
        self.spec = spec
        self.log = directory / f"{spec.name}.log"
        parameters = directory / f"{spec.name}.params.yaml"
        parameters.write_text(yaml.safe_dump({"/**": {"ros__parameters": dict(spec.parameters)}}), encoding="utf-8")
        command = [sys.executable, "-m", f"dit_policy_ros.ros.{spec.executable}", "--ros-args"]
        command += ["-r", f"__node:={spec.name}", "--params-file", str(parameters)]
        for source, target in spec.remappings.items():
            command += ["-r", f"{source}:={target}"]
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C in a terminal reaches the launcher only, which stops nodes in order.
            self.process = subprocess.Popen(
                command,
                env=dict(environment),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def stop(self) -> str:
        """Asks by SIGINT, insists by SIGKILL; returns "" or what had to be done."""
        if self.is_alive:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return f"{self.spec.name} did not stop within {STOP_TIMEOUT_S:g} s and was killed; see {self.log}"
        return ""

    def last_error(self) -> str:
        """Returns the last error line of the log, without its prefix."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        # What a node logged itself says more than the last line of a traceback.
        for marks in (("[ERROR]", "[FATAL]"), ("error:", "Error:")):
            errors = [line for line in lines if any(mark in line for mark in marks)]
            if errors:
                break
        return errors[-1].rpartition("]: ")[2].strip() if errors else (lines[-1].strip() if lines else "no output")


class Launcher:
    """Context manager around a running graph. Nothing is left running at its end."""

    def __init__(
        self,
        nodes: Sequence[NodeSpec],
        directory: str | Path,
        tell: Callable[[str], None] = lambda text: None,
        domain_id: int | None = None,
        respawn_limit: int = RESPAWN_LIMIT,
    ) -> None:
        """Starts nothing yet.

        Args:
            nodes: resolved, in the order of starting; they stop in the reverse one.
            directory: for logs and parameter files; made if missing.
            tell: gets one line for every event worth a person's attention.
            domain_id: ROS domain; None takes ROS_DOMAIN_ID.
            respawn_limit: how often a node that may is started again.
        """
        self._specs = tuple(nodes)
        self._directory = Path(directory)
        self._tell = tell
        self._domain_id = domain_id
        self._respawn_limit = respawn_limit
        self._processes: dict[str, NodeProcess] = {}
        self._respawns: dict[str, int] = {}
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None
        self._transitions: Transitions | None = None
        self.failure = ""
        """Why the graph is no longer whole; "" while it is."""

    def __enter__(self) -> Launcher:
        self._directory.mkdir(parents=True, exist_ok=True)
        environment = self._environment()
        # The launcher's own ROS client must speak through the same transports as the nodes.
        os.environ.update(environment)
        try:
            for spec in self._specs:
                self._processes[spec.name] = NodeProcess(spec, self._directory, self._environment())
            self._transitions = Transitions(domain_id=self._domain_id)
            self._transitions.bring_up([spec.name for spec in self._specs], START_TIMEOUT_S, self._check_alive)
        except ConfigError as problem:
            reason = self._explain(str(problem))
            self.stop()
            raise ConfigError(reason) from problem
        except BaseException:
            self.stop()
            raise
        self._watcher = threading.Thread(target=self._watch, name="launcher", daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends every node, last started first, so that the arms come to rest while their controllers still listen."""
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join()
        for process in reversed(self._processes.values()):
            said = process.stop()
            if said:
                self._tell(said)
        sweep()
        if self._transitions is not None:
            self._transitions.close()
            self._transitions = None

    def pid(self, node: str) -> int:
        """Returns the process id of a node."""
        return self._processes[node].process.pid

    def _environment(self) -> dict[str, str]:
        environment = local_environment()
        environment[PARENT_VARIABLE] = str(os.getpid())
        environment["ROS_LOG_DIR"] = str(self._directory / "ros")
        environment["RCUTILS_COLORIZED_OUTPUT"] = "0"
        if self._domain_id is not None:
            environment["ROS_DOMAIN_ID"] = str(self._domain_id)
        return environment

    def _check_alive(self) -> None:
        for name, process in self._processes.items():
            if not process.is_alive:
                raise ConfigError(f"{name} ended with code {process.process.returncode} while starting.")

    def _explain(self, text: str) -> str:
        name = text.partition(" ")[0]
        process = self._processes.get(name)
        return f"{text} {process.last_error()} (log: {process.log})" if process else text

    def _watch(self) -> None:
        while not self._stop.wait(WATCH_PERIOD_S):
            for name, process in self._processes.items():
                if not process.is_alive and name not in self.failure:
                    self._bury(name, process)

    def _bury(self, name: str, process: NodeProcess) -> None:
        sweep()
        died = f"{name} ended with code {process.process.returncode}: {process.last_error()} (log: {process.log})"
        self._respawns[name] = self._respawns.get(name, 0) + 1
        if not process.spec.respawn or self._respawns[name] > self._respawn_limit:
            self.failure = f"{self.failure}; {died}" if self.failure else died
            self._tell(died)
            return
        self._tell(f"{died}. Starting it again.")
        self._processes[name] = NodeProcess(process.spec, self._directory, self._environment())
        try:
            self._transitions.bring_up([name], START_TIMEOUT_S, self._check_watched)
        except ConfigError as problem:
            self._tell(self._explain(str(problem)))

    def _check_watched(self) -> None:
        if self._stop.is_set():
            raise ConfigError("The graph is being stopped.")
