"""Writes episodes as a LeRobotDataset v3: parquet for numbers, MP4 for images, JSON for what describes them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dit_policy_ros.data import lerobot_layout as layout
from dit_policy_ros.data.grid_episode import GridEpisode
from dit_policy_ros.data.lerobot_statistics import ColumnStatistics
from dit_policy_ros.data.video_file import FrameWriter
from dit_policy_ros.errors import BagError

_STATISTICS_EVERY = 10
"""Only every n-th image enters the statistics."""
_MB = 1_000_000


class LeRobotWriter:
    """Context manager that writes episode after episode; memory does not grow with their number, but for a row each.

    While it is written the folder is called ``<name>.writing``; it gets its name when it is complete.
    """

    def __init__(self, path: Path, robot: str, fps: int) -> None:
        """Prepares a folder.

        Args:
            path: of the dataset.
            robot: name, kept as ``robot_type``.
            fps: of all episodes.

        Raises:
            BagError: the folder exists, or the rate is below 1.
        """
        if path.exists():
            raise BagError(f"{path} exists already; move or delete it, or choose another name.")
        if fps < 1:
            raise BagError(f"A dataset of {fps} frames per second is impossible; give a whole number from 1 on.")
        self._path, self._robot, self._fps = path, robot, fps
        self._root = path.with_name(path.name + ".writing")
        self._names: tuple[str, ...] = ()
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._frames = 0
        self._statistics: dict[str, ColumnStatistics] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._videos: dict[str, FrameWriter] = {}
        self._stack = ExitStack()
        self._data: pq.ParquetWriter | None = None
        self._data_number, self._video_numbers = 0, {}

    def __enter__(self) -> LeRobotWriter:
        if self._root.exists():
            raise BagError(f"{self._root} is left of an export that did not end; delete it.")
        self._root.mkdir(parents=True)
        return self

    @property
    def episodes(self) -> int:
        """Episodes so far."""
        return len(self._episodes)

    def add(self, episode: GridEpisode) -> None:
        """Writes one episode.

        Raises:
            BagError: its joints or cameras are not those of the first, or an image has another size.
        """
        if not self._episodes:
            self._begin(episode)
        if episode.names != self._names or set(episode.cameras) != set(self._video_numbers):
            raise BagError("The episodes differ in their joints or cameras; a dataset has one robot.")
        row: dict[str, Any] = {}
        columns = self._columns(episode)
        for camera in sorted(episode.cameras):
            row |= self._video(camera, episode, columns)
        row |= self._numbers(columns, len(episode.times_ns))
        texts = list(dict.fromkeys(episode.instructions))
        count = len(episode.times_ns)
        self._episodes.append(
            {
                "episode_index": len(self._episodes),
                "tasks": texts,
                "length": count,
                "dataset_from_index": self._frames,
                "dataset_to_index": self._frames + count,
                **row,
                **{f"meta/episodes/{key}": value for key, value in layout.place(0).items()},
                **{
                    f"stats/{name}/{kind}": value
                    for name, statistics in self._statistics.items()
                    for kind, value in statistics.end_episode().items()
                },
            }
        )
        self._frames += count

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._stack.close()
        for video in self._videos.values():
            video.__exit__(kind, None, None)
        if kind is not None:
            return
        if not self._episodes:
            raise BagError(f"No episode was added to {self._path}; a dataset needs at least one.")
        self._finish()
        os.rename(self._root, self._path)

    def _begin(self, episode: GridEpisode) -> None:
        self._names = episode.names
        self._video_numbers = dict.fromkeys(sorted(episode.cameras), 0)
        for key in (layout.STATE, layout.ACTION):
            self._statistics[key] = ColumnStatistics(len(episode.names))
        for camera in self._video_numbers:
            self._statistics[layout.IMAGES + camera] = ColumnStatistics(3, is_image=True)
        for key in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
            self._statistics[key] = ColumnStatistics(1)

    def _columns(self, episode: GridEpisode) -> dict[str, np.ndarray]:
        count = len(episode.times_ns)
        for text in episode.instructions:
            self._tasks.setdefault(text, len(self._tasks))
        return {
            layout.STATE: episode.states.astype(np.float32),
            layout.ACTION: episode.actions.astype(np.float32),
            "timestamp": (np.arange(count) / self._fps).astype(np.float32),
            "frame_index": np.arange(count),
            "episode_index": np.full(count, len(self._episodes)),
            "index": self._frames + np.arange(count),
            "task_index": np.array([self._tasks[text] for text in episode.instructions]),
            layout.STAMP: episode.times_ns,
        }

    def _video(self, camera: str, episode: GridEpisode, columns: dict[str, np.ndarray]) -> dict[str, Any]:
        """Encodes one camera and returns where its frames lie."""
        key = layout.IMAGES + camera
        video = self._open_video(camera)
        begin, stamps_ns = video.count, []
        for stamp_ns, image in episode.cameras[camera]():
            video.add(image)
            if len(stamps_ns) % _STATISTICS_EVERY == 0:
                self._statistics[key].add(image)
            stamps_ns.append(stamp_ns)
            self._sizes[camera] = (image.shape[1], image.shape[0])
        columns[f"{layout.STAMP}.{camera}"] = np.array(stamps_ns, dtype=np.int64)
        entry = layout.place(self._video_numbers[camera])
        entry |= {"from_timestamp": begin / self._fps, "to_timestamp": video.count / self._fps}
        return {f"videos/{key}/{name}": value for name, value in entry.items()}

    def _open_video(self, camera: str) -> FrameWriter:
        """Returns the file that is being written, or the next one where that is large enough."""
        video = self._videos.get(camera)
        if video is not None and video.size_bytes > layout.VIDEO_FILE_MB * _MB:
            video.__exit__(None, None, None)
            self._video_numbers[camera] += 1
            video = None
        if video is None:
            name = layout.VIDEO.format(video_key=layout.IMAGES + camera, **layout.place(self._video_numbers[camera]))
            video = self._videos[camera] = FrameWriter(self._root / name, self._fps).__enter__()
        return video

    def _numbers(self, columns: Mapping[str, np.ndarray], count: int) -> dict[str, Any]:
        """Writes one row group and returns where it lies."""
        arrays = {}
        for name, values in columns.items():
            if values.ndim == 2:
                arrays[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
            else:
                arrays[name] = pa.array(values)
            if name in self._statistics:
                self._statistics[name].add(values.reshape(count, -1))
        table = pa.table(arrays)
        if self._data is not None and self._data_path.stat().st_size > layout.DATA_FILE_MB * _MB:
            self._stack.close()
            self._data, self._data_number = None, self._data_number + 1
        if self._data is None:
            self._data_path.parent.mkdir(parents=True, exist_ok=True)
            self._data = self._stack.enter_context(pq.ParquetWriter(self._data_path, table.schema))
        self._data.write_table(table)
        return {f"data/{key}": value for key, value in layout.place(self._data_number).items()}

    @property
    def _data_path(self) -> Path:
        return self._root / layout.DATA.format(**layout.place(self._data_number))

    def _finish(self) -> None:
        """Writes what describes the data."""
        described = layout.features(self._names, self._sizes, self._fps)
        counts = (len(self._episodes), self._frames, len(self._tasks))
        _write_json(self._root / layout.INFO, layout.info(self._robot, self._fps, *counts, described))
        _write_json(self._root / layout.STATS, {name: s.total() for name, s in self._statistics.items()})
        episodes = self._root / layout.EPISODES.format(**layout.place(0))
        episodes.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(self._episodes), episodes)
        pq.write_table(_task_table(self._tasks), self._root / layout.TASKS)


def _task_table(tasks: Mapping[str, int]) -> pa.Table:
    """LeRobot reads it with pandas and finds the text in the index, which pandas keeps as metadata of the schema."""
    table = pa.table({"task_index": pa.array(tasks.values(), pa.int64()), "task": pa.array(tasks.keys(), pa.string())})
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
        for name, kind, numpy in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    described = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
    return table.replace_schema_metadata({"pandas": json.dumps(described)})


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=4, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def export_episodes(path: Path, robot: str, fps: int, episodes: Iterable[GridEpisode]) -> int:
    """Writes a dataset and returns the number of its episodes.

    Raises:
        BagError: see ``LeRobotWriter``.
    """
    with LeRobotWriter(path, robot, fps) as writer:
        for episode in episodes:
            writer.add(episode)
        return writer.episodes
