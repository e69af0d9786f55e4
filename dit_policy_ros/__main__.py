"""The command line: ``python -m dit_policy_ros <command>``, or ``ros2 run dit_policy_ros <command>``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from dit_policy_ros import __version__
from dit_policy_ros.commands import COMMANDS
from dit_policy_ros.errors import ConfigError, DitPolicyError, one_of

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130

EXTRA_OF = {
    "rclpy": "ros",
    "mujoco": "sim",
    "gym_aloha": "sim",
    "mink": "sim",
    "rosbags": "bags",
    "av": "lerobot",
    "pyarrow": "lerobot",
    "h5py": "hdf5",
    "rerun": "rerun",
    "matplotlib": "report",
    "imageio_ffmpeg": "report",
}
"""Optional module to the extra of the pip package that installs it."""


def main(arguments: Sequence[str] | None = None, commands: Mapping[str, str] = COMMANDS) -> int:
    """Runs one command and returns its exit status: 0, 2 after an error the user can mend, 130 when interrupted.

    Args:
        arguments: the command and its arguments; those of the process by default.
        commands: name to module of the commands on offer.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_overview(commands))
        return 0
    name = words[0]
    if name == "--version":
        print(__version__)
        return 0
    try:
        command = _load(name, commands)
        return command.run(_parser(name, command).parse_args(words[1:]))
    except DitPolicyError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_ERROR
    except ModuleNotFoundError as error:
        extra = EXTRA_OF.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        print(
            f"error: {name} needs '{error.name}', which is not installed; pip install 'dit_policy_ros[{extra}]'.",
            file=sys.stderr,
        )
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return EXIT_INTERRUPTED


def script() -> int:
    """Entry point of the installed executables: runs the command the executable is named after."""
    return main([Path(sys.argv[0]).stem, *sys.argv[1:]])


def _overview(commands: Mapping[str, str]) -> str:
    width = max(map(len, commands))
    lines = [f"  {name:{width}}  {_load(name, commands).HELP.strip().splitlines()[0]}" for name in sorted(commands)]
    return "\n".join(
        [
            "usage: python -m dit_policy_ros <command> [options]",
            "",
            "Runs diffusion-transformer policies on two arms, over ROS 2.",
            "",
            "commands:",
            *lines,
            "",
            "python -m dit_policy_ros <command> --help explains a command and shows examples.",
        ]
    )


def _load(name: str, commands: Mapping[str, str]) -> ModuleType:
    if name not in commands:
        raise ConfigError(one_of("Command", name, commands))
    return importlib.import_module(commands[name])


def _parser(name: str, command: ModuleType) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m dit_policy_ros {name}",
        description=command.HELP.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
