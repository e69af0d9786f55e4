"""The most memory that a process holds as it reads, inspects or replays a bag; ``bench bags`` starts it."""

from __future__ import annotations

import sys
from pathlib import Path

WORK = ("reading", "inspect", "replay")
"""reading: every image decoded. inspect: with its page. replay: with its page, of a policy that stays where it is."""


def main(what: str, bag: str, robot_name: str, out: str) -> None:
    """Does one of ``WORK`` and prints the peak, [kB]."""
    from dit_policy_ros.robot import load_robot

    robot = load_robot(robot_name)
    {"reading": _read, "inspect": _inspect, "replay": _replay}[what](bag, robot, Path(out))
    print(_peak_kb())


def _read(bag, robot, out) -> None:
    from dit_policy_ros.data.bag_reader import open_episode
    from dit_policy_ros.data.recorded_body import RecordedBody

    body = RecordedBody(open_episode(bag, robot), tuple(robot.cameras), 200_000_000)
    while not body.is_over:
        body.observe(tuple(robot.cameras))
        body.step()


def _inspect(bag, robot, out) -> None:
    from dit_policy_ros.data.inspection import inspect_bag
    from dit_policy_ros.data.thumbnails import thumbnails
    from dit_policy_ros.evaluate.inspection_page import write_inspection

    inspection = inspect_bag(bag, robot)
    write_inspection(inspection, thumbnails(inspection), robot, out)


def _replay(bag, robot, out) -> None:
    from dit_policy_ros.data.bag_reader import open_episode
    from dit_policy_ros.evaluate.replay import SHADOW, run_replay
    from dit_policy_ros.evaluate.replay_page import moment_images, write_replay_page
    from dit_policy_ros.evaluate.replay_report import (
        ReplayOrigin,
        make_replay_report,
        recording_sha256,
        write_interventions,
        write_replay_json,
    )

    episode = open_episode(bag, robot)
    policy = _Stays(tuple(robot.cameras))
    digest = recording_sha256(episode.bag.path)
    origin = ReplayOrigin("bag", digest, "stays", "", robot.name, "", {"context": 0.3, "action": 0.06})
    report = make_replay_report(origin, run_replay(episode, policy, SHADOW))
    write_replay_json(report, out)
    write_interventions(report, out)
    write_replay_page(report, moment_images(episode, report, policy.slow_cameras), out)


class _Stays:
    """A policy that looks at every camera and stays where it is."""

    horizon, step_ns = 25, 40_000_000
    fast_cameras: tuple[str, ...] = ()

    def __init__(self, cameras: tuple[str, ...]) -> None:
        self.slow_cameras = cameras

    def encode(self, observation, instruction, epoch=0):
        from dit_policy_ros.types import Context

        return Context(observation.stamp_ns, instruction, epoch, {})

    def act(self, observation, context, committed=None):
        import numpy as np

        from dit_policy_ros.types import ActionChunk

        names = tuple(observation.positions)
        actions = np.tile(np.array(list(observation.positions.values())), (self.horizon, 1))
        count = 0 if committed is None else len(committed.actions)
        if count:
            actions[:count] = committed.actions[:, [committed.names.index(name) for name in names]]
        stamps = (observation.stamp_ns, context.stamp_ns)
        return ActionChunk(names, observation.stamp_ns, self.step_ns, actions, *stamps, context.epoch, count)


def _peak_kb() -> int:
    """Returns the most memory held so far; what the parent held does not count."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(*sys.argv[1:])
