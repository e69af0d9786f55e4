import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dit_policy_ros.data.bag_reader import open_episode
from dit_policy_ros.data.bag_writer import EpisodeWriter
from dit_policy_ros.data.metadata import EpisodeMetadata
from dit_policy_ros.errors import ConfigError
from dit_policy_ros.evaluate.video import OUTCOMES, VideoWriter, caption, compose, contact_sheet, write_episode_video
from dit_policy_ros.robot import load_robot
from dit_policy_ros.types import Observation


def plain(width, height, colour):
    return np.full((height, width, 3), colour, np.uint8)


def read(path):
    reader = imageio_ffmpeg.read_frames(str(path))
    header = next(reader)
    width, height = header["size"]
    return header, [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]


@pytest.mark.parametrize(("width", "height"), [(64, 48), (65, 47), (33, 33)])
def test_what_is_written_plays_also_at_odd_sizes(tmp_path, width, height):
    path = tmp_path / "deep" / "a.mp4"
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    with VideoWriter(path, 12.5) as video:
        for colour in colours:
            video.add(plain(width, height, colour))
        assert not path.exists()
    header, frames = read(path)
    assert header["codec"] == "h264"
    assert header["pix_fmt"].startswith("yuv420p")
    assert header["fps"] == 12.5
    assert header["size"] == (width + width % 2, height + height % 2)
    assert len(frames) == 3
    for frame, colour in zip(frames, colours, strict=True):
        assert np.abs(frame[5:-5, 5:-5].astype(int) - colour).mean() < 12
    assert [file.name for file in path.parent.iterdir()] == ["a.mp4"]


def test_a_worse_quality_is_smaller(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    for quality in (20, 45):
        with VideoWriter(tmp_path / f"{quality}.mp4", 10, quality) as video:
            for frame in noise:
                video.add(frame)
    assert (tmp_path / "45.mp4").stat().st_size < (tmp_path / "20.mp4").stat().st_size


def test_nothing_is_left_of_a_broken_video(tmp_path):
    def change_size() -> None:
        with VideoWriter(tmp_path / "a.mp4", 10) as video:
            video.add(plain(16, 16, 0))
            video.add(plain(32, 16, 0))

    with pytest.raises(ConfigError, match="A frame is 32x16, but the video began with 16x16"):
        change_size()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="No frame was added"), VideoWriter(tmp_path / "a.mp4", 10):
        pass


@settings(deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=4),
    height=st.integers(40, 121),
)
def test_every_camera_has_its_place(sizes, height):
    images = {f"camera{k}": plain(*size, 60 * k + 40) for k, size in enumerate(sizes)}
    scene = compose(images, height)
    assert scene.shape[0] == height
    assert set(range(40, 40 + 60 * len(sizes), 60)) <= set(np.unique(scene[..., 0]).tolist())


def test_caption_shows_what_it_is_told():
    scene = plain(400, 60, 128)
    without = caption(scene, "hand the green cube to the left arm")
    np.testing.assert_array_equal(without[:60], scene)
    assert (caption(scene, "hand the red cube over") != without).any()
    assert (caption(scene, "hand the green cube to the left arm", 1.5) != without).any()
    for outcome, (_, colour) in OUTCOMES.items():
        badged = caption(scene, "go", 1.5, outcome)[60:]
        assert (badged == colour).all(axis=-1).sum() > 200
        assert not (caption(scene, "go", 1.5)[60:] == colour).all(axis=-1).any()
    long = caption(scene, "word " * 200, 1.5, "strict")
    assert long.shape == without.shape
    with pytest.raises(ConfigError, match=r"Outcome 'won' does not exist\. Available: strict"):
        caption(scene, "go", outcome="won")


def test_bad_frames(tmp_path):
    with pytest.raises(ConfigError, match="at least one camera"):
        compose({})
    with pytest.raises(ConfigError, match="needs frames and columns"):
        contact_sheet([], 3, tmp_path / "a.png")


def test_contact_sheet_is_in_reading_order(tmp_path):
    frames = [plain(40, 30, 50), plain(80, 60, 100), plain(40, 30, 150)]
    contact_sheet(frames, 2, tmp_path / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (64, 84, 3)
    assert [sheet[10, 10, 0], sheet[10, 60, 0], sheet[50, 10, 0], sheet[50, 60, 0]] == [50, 100, 150, 255]


def test_video_of_a_bag(tmp_path):
    robot = load_robot("aloha")
    with EpisodeWriter(tmp_path / "bag", robot, EpisodeMetadata(outcome="strict")) as writer:
        writer.instruction(0, "go")
        for k in range(5):
            images = {"top": plain(64, 48, 40 * k)}
            if k in (1, 3):
                images |= {"left_wrist": plain(32, 24, 40 * k), "right_wrist": plain(32, 24, 40 * k)}
            writer.observation(Observation(k * 100_000_000, dict.fromkeys(robot.names, 0.0), {}, images))
    write_episode_video(open_episode(tmp_path / "bag", robot), tmp_path / "a.mp4", hold_s=0.3)
    header, frames = read(tmp_path / "a.mp4")
    assert header["fps"] == 10
    assert len(frames) == 8
    wrist = [int(frame[80, -60, 0].astype(int)) for frame in frames]
    np.testing.assert_allclose(wrist, [40, 40, 40, 120, 120, 120, 120, 120], atol=10)
    green = np.array(OUTCOMES["strict"][1])
    shown = [(np.abs(frame[-40:].astype(int) - green).sum(axis=-1) < 40).sum() > 100 for frame in frames]
    assert shown == [False] * 5 + [True] * 3
