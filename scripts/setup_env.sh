#!/usr/bin/env bash
# Makes .venv (ROS 2 Kilted, the default) or .venv-jazzy from wheels. Does nothing, offline too, when it is up to date.
# Usage: scripts/setup_env.sh [kilted|jazzy]
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"

case "${1:-kilted}" in
  kilted) venv=".venv" constraints="scripts/constraints.txt" ;;
  jazzy) venv=".venv-jazzy" constraints="scripts/constraints-jazzy.txt" ;;
  *) echo "error: unknown ROS distribution '$1'; use kilted or jazzy." >&2; exit 2 ;;
esac
common="scripts/constraints-common.txt"
stamp="$venv/.stamp"

fail() { echo "error: $*" >&2; exit 1; }

# Installs Debian packages, or says who has to.
apt_install() {
  local purpose="$1"; shift
  local sudo=()
  if [[ $EUID -ne 0 ]]; then sudo=(sudo -n); fi
  if ! command -v apt-get >/dev/null || { [[ $EUID -ne 0 ]] && ! sudo -n true 2>/dev/null; }; then
    fail "$purpose needs system packages that are missing. Ask an administrator for: apt-get install $*"
  fi
  echo "Installing $* ($purpose)"
  "${sudo[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# dm-control, which gym-aloha needs, has a dependency (labmaze) without wheels for Python 3.13 and newer.
find_python() {
  local candidate
  for candidate in python3 python3.12 python3.11 python3.10; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
}

# A virtual environment of another Python, or one that was moved here, is made anew; any other is brought up to date.
make_venv() {
  if [[ "$("$venv/bin/python" -V 2>/dev/null)" == "$("$python" -V)" ]] && grep -qsF "$root/$venv" "$venv/bin/activate"; then
    rm -f "$stamp"
    return
  fi
  rm -rf "$venv"
  if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
    apt_install "a virtual environment" python3-venv
    "$python" -m venv "$venv"
  fi
}

can_render() {
  MUJOCO_GL="${MUJOCO_GL:-egl}" "$venv/bin/python" - <<'PYTHON'
import cv2
import mujoco

with mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8) as renderer:
    renderer.render()
PYTHON
}

python="$(find_python)"
[[ -n "$python" ]] || fail "no Python 3.10, 3.11 or 3.12 was found. Install one, for example: apt-get install python3.12-venv"
# The path is part of it, since a moved environment does not work.
wanted="$(cat "$common" "$constraints" setup.py setup.cfg scripts/setup_env.sh <("$python" -V) <(echo "$root") | sha256sum)"
if [[ -f "$stamp" && "$(cat "$stamp")" == "$wanted" ]]; then exit 0; fi

echo "Making $venv with $("$python" -V); about 2 minutes and 2 GB of disk."
started=$SECONDS
make_venv
pip=("$venv/bin/python" -m pip install --disable-pip-version-check -c "$constraints")
[[ -t 1 ]] || pip+=(--quiet)
"${pip[@]}" "setuptools<80" wheel
"${pip[@]}" --no-build-isolation --editable '.[ros,sim,bags,lerobot,hdf5,rerun,encoders,report,test]'
if ! can_render 2>/dev/null; then
  apt_install "rendering without a screen" libegl1 libgl1 libgl1-mesa-dri
  can_render || fail "MuJoCo cannot render with MUJOCO_GL=${MUJOCO_GL:-egl}. Try MUJOCO_GL=osmesa with libosmesa6 installed."
fi
echo "$wanted" >"$stamp"
echo "Made $venv in $((SECONDS - started)) s."
