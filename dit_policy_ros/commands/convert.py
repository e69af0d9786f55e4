"""The command ``convert``."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

HELP = """Turn an official checkpoint into a directory of safetensors that this package loads.

Reads .pt, .pth, .ckpt and .bin files with the weights-only loader, safetensors files, and directories with one of them
or with shards of either kind. The family is told by the parameter names. The result is loaded once as a proof; a file
that holds code, is damaged, incomplete or of no known family is refused, and nothing is written.

Examples:
  python -m dit_policy_ros convert downloads/CogACT-Base.pt models/cogact
  python -m dit_policy_ros convert downloads/pytorch_model.bin models/h_rdt --family h_rdt
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("source", type=Path, help="official checkpoint, file or directory")
    parser.add_argument("directory", type=Path, help="directory to make")
    parser.add_argument("--family", help="refuse any other family")


def run(args: argparse.Namespace) -> int:
    """Converts, and says what it was."""
    from dit_policy_ros.policy.convert import convert
    from dit_policy_ros.policy.weights import read_shapes

    family = convert(args.source, args.directory, args.family)
    shapes = read_shapes(args.directory).values()
    count = sum(math.prod(shape) for shape in shapes)
    print(f"{args.directory} holds a {family} with {len(shapes)} parameters, {count / 1e6:.1f} million numbers.")
    return 0
