"""Where a LeRobotDataset v3 keeps what: file names, columns, and its ``info.json``.

Facts of the format: https://huggingface.co/docs/lerobot/lerobot-dataset-v3. The columns ``stamp_ns`` and
``stamp_ns.CAMERA`` are ours; LeRobot loads and ignores them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dit_policy_ros.data.video_file import CODEC, pixel_format

VERSION = "v3.0"
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
FILES_PER_CHUNK, DATA_FILE_MB, VIDEO_FILE_MB = 1000, 100, 200
STATE, ACTION, IMAGES, STAMP = "observation.state", "action", "observation.images.", "stamp_ns"
_INDICES = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64"}
SCALARS = {**_INDICES, "task_index": "int64", STAMP: "int64"}
"""Columns of one number."""


def place(number: int) -> dict[str, int]:
    """Returns chunk and file index of the n-th file."""
    return {"chunk_index": number // FILES_PER_CHUNK, "file_index": number % FILES_PER_CHUNK}


def features(names: Iterable[str], sizes: Mapping[str, tuple[int, int]], fps: int) -> dict[str, Any]:
    """Returns the description of all columns and videos.

    Args:
        names: joints, the columns of state and action.
        sizes: camera name to (width, height).
    """
    joints = list(names)
    described: dict[str, Any] = {
        key: {"dtype": "float32", "shape": [len(joints)], "names": joints} for key in (STATE, ACTION)
    }
    for camera, (width, height) in sizes.items():
        described[IMAGES + camera] = {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": height,
                "video.width": width,
                "video.codec": CODEC,
                "video.pix_fmt": pixel_format(width, height),
                "video.is_depth_map": False,
                "video.fps": fps,
                "video.channels": 3,
                "has_audio": False,
            },
        }
    scalars = SCALARS | {f"{STAMP}.{camera}": "int64" for camera in sizes}
    return described | {name: {"dtype": kind, "shape": [1], "names": None} for name, kind in scalars.items()}


def info(robot: str, fps: int, episodes: int, frames: int, tasks: int, described: Mapping[str, Any]) -> dict[str, Any]:
    """Returns ``info.json``."""
    has_videos = any(feature["dtype"] == "video" for feature in described.values())
    return {
        "codebase_version": VERSION,
        "robot_type": robot,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": DATA_FILE_MB,
        "video_files_size_in_mb": VIDEO_FILE_MB,
        "fps": fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA,
        "video_path": VIDEO if has_videos else None,
        "features": dict(described),
    }
