"""Several episodes in one bag."""

from dataclasses import replace

import numpy as np
import pytest

from dit_policy_ros.data import messages
from dit_policy_ros.data.bag_file import BagFile
from dit_policy_ros.data.bag_reader import open_episode
from dit_policy_ros.data.bag_writer import EpisodeWriter
from dit_policy_ros.data.episode_spans import METADATA_KEY, Span, episode_spans
from dit_policy_ros.data.inspection import inspect_bag
from dit_policy_ros.data.recorded_body import RecordedBody
from dit_policy_ros.errors import BagError

MS = 1_000_000
MARKERS = "/episode_marker"


def write(path, robot, markers=(), pauses=(), marker_type=messages.STRING, length_ms=600):
    """Joint states every 10 ms but for the pauses, the clock as position, an image every 50 ms."""
    make = {messages.STRING: messages.string, messages.BOOL: messages.boolean}.get(marker_type)
    with EpisodeWriter(path, robot) as writer:
        writer.instruction(1 * MS, "first")
        events = [(ms, None) for ms in range(10, length_ms, 10) if not any(a <= ms < b for a, b in pauses)]
        for ms, marker in sorted([*events, *markers], key=lambda event: event[0]):
            if marker is not None:
                cdr = messages.typestore().serialize_cdr(make(marker), marker_type)
                writer.serialized(MARKERS, marker_type, ms * MS, bytes(cdr))
                continue
            writer.joint_state(ms * MS, robot.names, np.full(14, ms * 1e-3))
            if ms % 50 == 0:
                writer.compressed_image("top", ms * MS, b"jpeg")
            if ms == 400:
                writer.instruction(ms * MS, "second")
    return path


@pytest.mark.parametrize(
    ("marker_type", "words"),
    [(messages.STRING, ("start", "stop")), (messages.BOOL, (True, False)), (messages.STRING, ("Begin", "done"))],
)
def test_markers_begin_and_end_episodes(robot, tmp_path, marker_type, words):
    on, off = words
    marked = replace(robot, episode_topic=MARKERS)
    path = write(tmp_path / "bag", robot, [(105, on), (205, off), (305, on), (455, on)], marker_type=marker_type)
    spans = episode_spans(BagFile(path), marked)
    assert spans == (Span(105 * MS, 205 * MS), Span(305 * MS, 455 * MS), Span(455 * MS, 590 * MS + 1))
    episode = open_episode(path, marked, index=1)
    np.testing.assert_array_equal(episode.joints.times_ns, np.arange(310, 460, 10) * MS)
    assert episode.image_stamps_ns("top").tolist() == [350 * MS, 400 * MS, 450 * MS]
    # The instruction that holds as the episode begins was published long before.
    assert episode.instruction == "first"
    assert episode.instructions == ((305 * MS, "first"), (400 * MS, "second"))
    assert open_episode(path, marked, index=2).instruction == "second"
    body = RecordedBody(open_episode(path, marked, index=0))
    assert (body.now_ns(), body.end_ns) == (110 * MS, 200 * MS)
    with pytest.raises(BagError, match="holds 3 episodes; choose one by its number, 0 to 2"):
        open_episode(path, marked)
    with pytest.raises(BagError, match="has no episode 3; it holds 0 to 2"):
        open_episode(path, marked, index=3)
    # Without markers in the robot description the bag is one episode.
    assert len(open_episode(path, robot).joints.times_ns) == 59


def test_pauses_of_the_joint_states_end_episodes(robot, tmp_path):
    path = write(tmp_path / "bag", robot, pauses=[(200, 300), (420, 435)])
    spans = episode_spans(BagFile(path), replace(robot, episode_gap_s=0.05))
    assert spans == (Span(1 * MS, 190 * MS + 1), Span(300 * MS, 590 * MS + 1))
    assert len(episode_spans(BagFile(path), replace(robot, episode_gap_s=0.02))) == 3
    second = open_episode(path, replace(robot, episode_gap_s=0.05), index=1)
    assert second.joints.times_ns[0] == 300 * MS
    assert second.instruction == "first"


def test_metadata_comes_before_markers(robot, tmp_path):
    path = write(tmp_path / "bag", robot, [(105, "start")])
    file = path / "metadata.yaml"
    whole = file.read_text()

    def told(text):
        file.write_text(whole.replace("dit_policy_ros.robot:", f"{METADATA_KEY}: '{text}'\n    dit_policy_ros.robot:"))
        return episode_spans(BagFile(path), replace(robot, episode_topic=MARKERS))

    assert told("[[10000000, 50000000]]") == (Span(10 * MS, 50 * MS),)
    with pytest.raises(BagError, match=r"must be a list of \[start, stop\]"):
        told("[[1, 2, 3]]")
    with pytest.raises(BagError, match="ends as it begins"):
        told("[[5, 5]]")


def test_markers_that_are_none(robot, tmp_path):
    marked = replace(robot, episode_topic=MARKERS)
    with pytest.raises(BagError, match=r"says 'pause'; understood are begin, done"):
        episode_spans(BagFile(write(tmp_path / "word", robot, [(50, "pause")])), marked)
    with pytest.raises(BagError, match="leave no episode"):
        episode_spans(BagFile(write(tmp_path / "end", robot, [(50, "stop")])), marked)
    with pytest.raises(BagError, match="markers are std_msgs/msg/Bool or"):
        episode_spans(BagFile(write(tmp_path / "type", robot)), replace(robot, episode_topic="/joint_states"))


def test_inspect_tells_the_episodes(robot, tmp_path):
    marked = replace(robot, episode_topic=MARKERS)
    path = write(tmp_path / "bag", robot, [(105, "start"), (205, "stop"), (305, "start")])
    said = "".join(finding.text for finding in inspect_bag(path, marked).findings if finding.subject == "episodes")
    assert said == "the bag holds 2 episodes: 0.10 s to 0.20 s, 0.30 s to 0.59 s"
