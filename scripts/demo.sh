#!/usr/bin/env bash
# Sets up the environment where needed, then runs the demo. Arguments go to the demo; see scripts/demo.sh --help.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
"$root/scripts/setup_env.sh" kilted
exec "$root/.venv/bin/python" -m dit_policy_ros demo "$@"
