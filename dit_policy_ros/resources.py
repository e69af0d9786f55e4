"""Finds the files the package ships: ``config``, ``launch`` and ``models``, from source or installed."""

from __future__ import annotations

from pathlib import Path

from dit_policy_ros.errors import ConfigError


def share_directory() -> Path:
    """Returns the folder that holds ``config``, ``launch`` and ``models``.

    Raises:
        ConfigError: the package was copied without them.
    """
    here = Path(__file__).resolve()
    candidates = [here.parents[1], *(parent / "share" / "dit_policy_ros" for parent in here.parents)]
    for candidate in candidates:
        if (candidate / "config" / "robots").is_dir():
            return candidate
    raise ConfigError("The package's config folder was not found; install it with pip or colcon, or run from source.")


def find_config(folder: str, name: str | Path) -> Path:
    """Returns the path of a configuration file given as a path or as a bare shipped name.

    Args:
        folder: folder below ``config``, such as 'robots'.

    Raises:
        ConfigError: no such file; the text lists the shipped ones.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.exists():
        return path
    directory = share_directory() / "config" / folder
    shipped = directory / f"{path.stem}.yaml"
    if path.parent == Path() and shipped.exists():
        return shipped
    names = ", ".join(sorted(file.stem for file in directory.glob("*.yaml"))) or "none"
    raise ConfigError(f"No file '{name}'. Give a path to a YAML file, or one of the shipped {folder}: {names}.")
