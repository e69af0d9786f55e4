"""The command ``verify``."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = """Prove that an architecture or method here gives what its official implementation gives.

Reads a directory with reference.json, cases.safetensors and, for a network, weights.safetensors, runs every case,
and prints its worst error beside the tolerance. The exit status is 0 only when every case passes, 1 when one fails or
is unknown, 2 when the directory cannot be read. `test/golden` in the source tree holds such directories.

Examples:
  python -m dit_policy_ros verify test/golden/rdt
  python -m dit_policy_ros verify test/golden/*
"""

EXIT_FAILED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIR", help="reference directory")


def run(args: argparse.Namespace) -> int:
    """Verifies each directory and prints a table of its cases."""
    from dit_policy_ros.policy.references.verdicts import OK, verify

    failed = 0
    for directory in args.directories:
        verdicts = []
        for verdict in verify(directory):
            if not verdicts:
                print(f"{directory}\n  {'case':36} {'worst error':>12} {'tolerance':>10}  ok")
            verdicts.append(verdict)
            row = f"  {verdict.case:36} {verdict.error:12.2e} {verdict.tolerance:10.1e}  {verdict.status}"
            print(row if verdict.status == OK else f"{row}: {verdict.reason}", flush=True)
        passed = sum(verdict.status == OK for verdict in verdicts)
        print(f"  {passed} of {len(verdicts)} cases pass.")
        failed += passed < len(verdicts)
    return EXIT_FAILED if failed else 0
