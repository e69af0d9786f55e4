#!/usr/bin/env bash
# Lints, then runs a smoke suite on ROS 2 Jazzy and the whole suite on Kilted; sets up both environments itself.
# Usage: scripts/test.sh [--kilted-only] [arguments for pytest on Kilted, such as test/actions -k fuse]
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"

jazzy=yes
if [[ "${1:-}" == "--kilted-only" ]]; then
  jazzy=no
  shift
fi
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
export PYTHONDONTWRITEBYTECODE=1

scripts/setup_env.sh kilted
.venv/bin/ruff check .
.venv/bin/ruff format --check .
if [[ $jazzy == yes ]]; then
  scripts/setup_env.sh jazzy
  echo "Smoke suite on ROS 2 Jazzy"
  .venv-jazzy/bin/python -m pytest -q -m "not slow" test/ros test/test_architecture.py test/test_command_line.py
fi
echo "Whole suite on ROS 2 Kilted"
.venv/bin/python -m pytest -q -n 2 "$@"
