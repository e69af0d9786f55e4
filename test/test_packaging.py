"""The package as others install it: metadata, pip, colcon and the scripts."""

import ast
import importlib
import os
import re
import shutil
import stat
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import dit_policy_ros
from dit_policy_ros.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
SHIPPED_FILES = ("CHANGELOG.rst", "LICENSE", "MANIFEST.in", "package.xml", "setup.py", "setup.cfg")
SHIPPED_FOLDERS = ("config", "dit_policy_ros", "launch", "models", "resource")
DISTRIBUTION_OF = {
    "backports": "backports.zstd",
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "yaml": "pyyaml",
    "gym_aloha": "gym-aloha",
    "imageio_ffmpeg": "imageio-ffmpeg",
    "rerun": "rerun-sdk",
}
OPTIONAL = {"compression", "launch", "launch_ros", "transformers"}
"""Used where they exist; the package works without them. compression is in Python's own library from 3.14 on."""

COME_WITH_RCLPY = {"rclpy", "builtin_interfaces", "rcl_interfaces"}


def setup_constant(name):
    """Returns a literal assigned at the top of setup.py."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"setup.py has no {name}")


def imported_packages(folder):
    names = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"dit_policy_ros"}


def manifest():
    return ElementTree.parse(ROOT / "package.xml").getroot()


def dependencies():
    return {element.text for element in manifest() if element.tag.endswith("depend")}


def is_ros(name):
    return name == "rclpy" or name.endswith(("_msgs", "_srvs", "_interfaces"))


def test_manifest_is_what_colcon_and_rosdep_expect():
    root = manifest()
    assert root.get("format") == "3"
    assert root.findtext("export/build_type") == "ament_python"
    assert root.findall("buildtool_depend") == []  # ament_python has no rosdep key
    assert (ROOT / "resource" / root.findtext("name")).exists()


def test_the_version_is_the_same_everywhere():
    version = dit_policy_ros.__version__
    assert manifest().findtext("version") == version
    assert f'version="{version}"' in (ROOT / "setup.py").read_text()
    assert re.findall(r"^(\d+\.\d+\.\d+|Forthcoming)", (ROOT / "CHANGELOG.rst").read_text(), re.M)[0] in (
        version,
        "Forthcoming",
    )


def test_everything_imported_is_declared():
    setup = (ROOT / "setup.py").read_text()
    imported = imported_packages(ROOT / "dit_policy_ros") - OPTIONAL
    ros = {name for name in imported if is_ros(name)}
    assert ros - dependencies() == set()
    wheels = {f"ros-{name.replace('_', '-')}" for name in ros - COME_WITH_RCLPY}
    others = {DISTRIBUTION_OF.get(name, name) for name in imported - ros}
    assert {name for name in wheels | others if f'"{name}' not in setup} == set()


def test_every_command_and_node_is_an_executable():
    assert set(setup_constant("COMMANDS")) == set(COMMANDS)
    nodes = {path.stem for path in (ROOT / "dit_policy_ros" / "ros").glob("*_node.py")}
    assert set(setup_constant("NODES")) == nodes


@pytest.mark.ros
@pytest.mark.parametrize("node", setup_constant("NODES"))
def test_node_entry_points_resolve(node):
    pytest.importorskip("rclpy")
    assert callable(importlib.import_module(f"dit_policy_ros.ros.{node}").main)


def copy_of_the_package(destination):
    destination.mkdir(parents=True)
    for name in SHIPPED_FILES:
        shutil.copy(ROOT / name, destination)
    for name in SHIPPED_FOLDERS:
        shutil.copytree(ROOT / name, destination / name, ignore=shutil.ignore_patterns("__pycache__"))
    return destination


def run(command, cwd, **environment):
    """Runs a command and returns its standard output; a failure shows all it said."""
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment})
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


WHERE = "import dit_policy_ros.resources as r; print(r.__file__, r.share_directory(), r.find_config('robots', 'aloha'))"


@pytest.mark.slow
def test_pip_installs_code_and_configuration(tmp_path):
    source, target = copy_of_the_package(tmp_path / "source"), tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    run([*pip, "--target", str(target), "."], source)
    code, share, _ = run([sys.executable, "-c", WHERE], tmp_path, PYTHONPATH=str(target)).split()
    assert Path(code).is_relative_to(target)
    assert Path(share).is_relative_to(target)
    run([sys.executable, "-m", "dit_policy_ros", "--help"], tmp_path, PYTHONPATH=str(target))


@pytest.mark.slow
@pytest.mark.ros
@pytest.mark.parametrize("options", [(), ("--symlink-install",)], ids=["copied", "symlinked"])
def test_colcon_builds_what_ros2_run_needs(tmp_path, options):
    pytest.importorskip("ament_index_python")
    colcon = Path(sys.executable).with_name("colcon")
    colcon = str(colcon) if colcon.exists() else shutil.which("colcon")
    if colcon is None:
        pytest.skip("colcon is not installed; pip install colcon-common-extensions")
    source = copy_of_the_package(tmp_path / "src" / "dit_policy_ros")
    run([colcon, "build", *options, "--event-handlers", "console_direct-"], tmp_path)

    def sourced(command):
        return run(["bash", "-c", f"source install/setup.bash && {command}"], tmp_path)

    prefix = tmp_path / "install" / "dit_policy_ros"
    python = shutil.which(sys.executable)
    index = "from ament_index_python.packages import get_package_prefix as p; print(p('dit_policy_ros'))"
    assert sourced(f'{python} -c "{index}"').strip() == str(prefix)
    assert (prefix / "share" / "dit_policy_ros" / "package.xml").exists()
    assert (prefix / "share" / "dit_policy_ros" / "config" / "robots" / "aloha.yaml").exists()
    executables = {path.name for path in (prefix / "lib" / "dit_policy_ros").iterdir()}
    assert executables == {*setup_constant("COMMANDS"), *setup_constant("NODES")}
    for command in COMMANDS:
        assert f"dit_policy_ros {command}" in sourced(f"{prefix}/lib/dit_policy_ros/{command} --help")
    code = Path(sourced(f'cd / && {python} -c "{WHERE}"').split()[0])
    assert code.resolve().is_relative_to(source if options else prefix)


def executable(path, body):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def stubbed_checkout(tmp_path):
    """A checkout with the real scripts, in which every tool they call only writes down that it was called."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    stubs = {"scripts/setup_env.sh": "setup", ".venv/bin/ruff": "ruff"}
    stubs |= {".venv/bin/python": "kilted", ".venv-jazzy/bin/python": "jazzy"}
    for path, name in stubs.items():
        executable(tmp_path / path, f'echo "{name} $*" >> {tmp_path}/calls')
    return tmp_path


@pytest.mark.parametrize("script", ["scripts/test.sh", ".ci/run"])
def test_both_distributions_are_tested(stubbed_checkout, script):
    run([str(stubbed_checkout / script)], "/")
    calls = (stubbed_checkout / "calls").read_text()
    assert "setup jazzy" in calls
    assert "jazzy -m pytest" in calls
    assert calls.splitlines()[-1].startswith("kilted -m pytest")  # its closing line ends the output


def test_kilted_only_leaves_jazzy_out_and_hands_on_the_rest(stubbed_checkout):
    run([str(stubbed_checkout / "scripts" / "test.sh"), "--kilted-only", "-k", "fuse"], "/")
    calls = (stubbed_checkout / "calls").read_text()
    assert "jazzy" not in calls
    assert calls.splitlines()[-1].endswith("-k fuse")


def test_demo_script_hands_its_arguments_on(stubbed_checkout):
    run([str(stubbed_checkout / "scripts" / "demo.sh"), "--world", "aloha_insertion"], "/")
    calls = (stubbed_checkout / "calls").read_text().splitlines()
    assert calls == ["setup kilted", "kilted -m dit_policy_ros demo --world aloha_insertion"]


def test_unknown_distribution_is_refused():
    script = [str(ROOT / "scripts" / "setup_env.sh"), "foxy"]
    result = subprocess.run(script, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == "error: unknown ROS distribution 'foxy'; use kilted or jazzy.\n"


def test_missing_python_is_explained(tmp_path):
    for name in ("python3", "python3.10", "python3.11", "python3.12"):
        executable(tmp_path / name, "exit 1")
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = [str(ROOT / "scripts" / "setup_env.sh")]
    result = subprocess.run(script, capture_output=True, text=True, env=environment)
    assert result.returncode == 1
    assert "no Python 3.10, 3.11 or 3.12 was found" in result.stderr
