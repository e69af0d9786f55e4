"""Reads the episodes of a LeRobotDataset v3."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dit_policy_ros.data import lerobot_layout as layout
from dit_policy_ros.data.grid_episode import Frames, GridEpisode
from dit_policy_ros.data.video_file import read_frames
from dit_policy_ros.errors import BagError
from dit_policy_ros.types import NS_PER_S


class LeRobotFolder:
    """A dataset on disk. Only the rows of one episode are in memory, and one image."""

    def __init__(self, path: Path, joints: tuple[str, ...] = ()) -> None:
        """Reads what describes it.

        Args:
            path: folder with ``meta``, ``data`` and, where there are cameras, ``videos``.
            joints: names of the columns of state and action; needed only where the dataset does not name them.

        Raises:
            BagError: there is no dataset of version 3, it has no state or action, or its columns have no names.
        """
        self.path = path
        self.info = self._read_info()
        self.fps = float(self.info["fps"])
        features = self.info["features"]
        missing = [key for key in (layout.STATE, layout.ACTION) if key not in features]
        if missing:
            raise BagError(f"{path} lacks {', '.join(missing)}; its columns: {', '.join(features)}.")
        self.names = _names(path, features, joints)
        self.cameras = {
            key.removeprefix(layout.IMAGES): feature["dtype"]
            for key, feature in features.items()
            if key.startswith(layout.IMAGES) and feature["dtype"] in ("video", "image")
        }
        """Camera name to 'video' or 'image'."""
        tables = [pq.read_table(file) for file in sorted((path / "meta" / "episodes").glob("*/*.parquet"))]
        self._rows = [row for table in tables for row in _without_statistics(table).to_pylist()]
        self._tasks = _read_tasks(path / layout.TASKS)

    def __len__(self) -> int:
        return len(self._rows)

    def episode(self, index: int, cameras: Mapping[str, str]) -> GridEpisode:
        """Returns one episode.

        Args:
            cameras: name in the dataset to the name it gets.

        Raises:
            BagError: there is no such episode, camera or file.
        """
        if not 0 <= index < len(self._rows):
            raise BagError(f"{self.path} has no episode {index}; it has 0 to {len(self._rows) - 1}.")
        unknown = [name for name in cameras if name not in self.cameras]
        if unknown:
            known = ", ".join(sorted(self.cameras)) or "none"
            raise BagError(f"{self.path} has no camera {', '.join(unknown)}; it has {known}.")
        row = self._rows[index]
        table = self._table(row, index)
        if layout.STAMP in table.column_names:
            times_ns = table[layout.STAMP].to_numpy()
        else:  # From zero, as LeRobot counts.
            times_ns = np.round(np.arange(table.num_rows) * (NS_PER_S / self.fps)).astype(np.int64) + NS_PER_S
        tasks = table["task_index"].to_pylist()
        return GridEpisode(
            names=self.names,
            times_ns=times_ns.astype(np.int64),
            states=_matrix(table[layout.STATE]),
            actions=_matrix(table[layout.ACTION]),
            instructions=tuple(self._tasks[task] for task in tasks),
            cameras={new: lambda name=name: self._frames(row, table, name, times_ns) for name, new in cameras.items()},
        )

    def _table(self, row: Mapping[str, Any], index: int) -> pa.Table:
        name = self.info["data_path"].format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
        if not (self.path / name).exists():
            raise BagError(f"{self.path} lacks {name}; download or export it again.")
        table = pq.read_table(self.path / name, filters=[("episode_index", "=", index)])
        if table.num_rows != row["length"]:
            raise BagError(f"{self.path}: {name} has {table.num_rows} rows of episode {index}, not {row['length']}.")
        return table

    def _frames(self, row: Mapping[str, Any], table: pa.Table, camera: str, times_ns: np.ndarray) -> Frames:
        key = layout.IMAGES + camera
        own = f"{layout.STAMP}.{camera}"
        stamps_ns = table[own].to_pylist() if own in table.column_names else times_ns.tolist()
        images = self._video(row, key) if self.cameras[camera] == "video" else _stills(table[key], self.path)
        yield from zip(stamps_ns, images, strict=True)

    def _video(self, row: Mapping[str, Any], key: str) -> Iterator[np.ndarray]:
        name = self.info["video_path"].format(
            video_key=key, chunk_index=row[f"videos/{key}/chunk_index"], file_index=row[f"videos/{key}/file_index"]
        )
        return read_frames(self.path / name, row[f"videos/{key}/from_timestamp"], row["length"], self.fps)

    def _read_info(self) -> dict[str, Any]:
        try:
            info = json.loads((self.path / layout.INFO).read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            raise BagError(f"{self.path} is no LeRobotDataset: {layout.INFO} cannot be read.") from problem
        version = str(info.get("codebase_version", ""))
        if not version.startswith("v3."):
            raise BagError(
                f"{self.path} is a LeRobotDataset of version '{version}'; version 3 is read. LeRobot converts older "
                "ones: python -m lerobot.datasets.v30.convert_dataset_v21_to_v30."
            )
        return info


def _names(path: Path, features: Mapping[str, Any], joints: tuple[str, ...]) -> tuple[str, ...]:
    named = {key: _flat(features[key].get("names")) for key in (layout.STATE, layout.ACTION)}
    width = features[layout.STATE]["shape"][0]
    if joints:
        if len(joints) != width:
            raise BagError(f"{path} has {width} joints; {len(joints)} names were given.")
        return joints
    if len(named[layout.STATE]) != width or set(named[layout.STATE]) != set(named[layout.ACTION]):
        raise BagError(
            f"{path} does not name its joints (state: {', '.join(named[layout.STATE]) or 'nothing'}; action: "
            f"{', '.join(named[layout.ACTION]) or 'nothing'}); say that they are in the robot's order if they are."
        )
    if named[layout.STATE] != named[layout.ACTION]:
        raise BagError(f"{path} has the joints of state and action in different orders; such datasets are not read.")
    return named[layout.STATE]


def _flat(names: Any) -> tuple[str, ...]:
    """Names are a list, or a mapping of one kind to its list."""
    if isinstance(names, Mapping):
        names = [name for group in names.values() for name in (group if isinstance(group, list) else [group])]
    return tuple(str(name).removesuffix(".pos") for name in names or ())


def _without_statistics(table: pa.Table) -> pa.Table:
    return table.select([name for name in table.column_names if not name.startswith("stats/")])


def _read_tasks(path: Path) -> dict[int, str]:
    table = pq.read_table(path)
    (text,) = [name for name in table.column_names if name != "task_index"]
    return dict(zip(table["task_index"].to_pylist(), table[text].to_pylist(), strict=True))


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    return np.array(column.to_pylist(), dtype=np.float64)


def _stills(column: pa.ChunkedArray, path: Path) -> Iterator[np.ndarray]:
    """Images that lie in the table as files."""
    for entry in column:
        data = entry.as_py()["bytes"]
        image = cv2.imdecode(np.frombuffer(data or b"", np.uint8), cv2.IMREAD_COLOR) if data else None
        if image is None:
            raise BagError(f"{path}: an image in the table cannot be decoded; download it again.")
        yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
