"""Makes a part of control_msgs for the wheels of ROS 2, which have none, so that what needs it can be tested.

Needs gcc, and ``pip install 'empy<4' catkin_pkg``. Takes a few minutes.

    python scripts/make_control_msgs.py build/control_msgs
    PYTHONPATH=build/control_msgs python -m pytest test/ros/test_controller_messages.py

On an ordinary installation of ROS 2 the real package is one ``apt install`` away; use that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

PACKAGE = "control_msgs"
PREFIX = Path(sys.prefix)
SHARE, LIBRARIES, INCLUDE = PREFIX / "share", PREFIX / "lib", PREFIX / "include"
SUPPORT = "rosidl_typesupport_fastrtps_c"
USED = ("action_msgs", "builtin_interfaces", "geometry_msgs", "sensor_msgs", "service_msgs", "std_msgs")
USED += ("trajectory_msgs", "unique_identifier_msgs")
KINDS = ("rosidl_generator_c", "rosidl_generator_py", "rosidl_typesupport_c", SUPPORT)
RUNTIME = ("rosidl_runtime_c", "rosidl_typesupport_c", SUPPORT, "rosidl_typesupport_fastrtps_cpp", "fastcdr", "rcutils")
_GRIP = ("float64 position", "float64 effort", "bool stalled", "bool reached_goal")
_POINT = "trajectory_msgs/JointTrajectoryPoint"
DEFINITIONS = {
    "msg/GripperCommand.msg": ("float64 position", "float64 max_effort"),
    "msg/JointJog.msg": (
        *("std_msgs/Header header", "string[] joint_names"),
        *("float64[] displacements", "float64[] velocities", "float64 duration"),
    ),
    "msg/JointTrajectoryControllerState.msg": (
        *("std_msgs/Header header", "string[] joint_names"),
        *(f"{_POINT} {name}" for name in ("reference", "feedback", "error", "output")),
    ),
    "action/GripperCommand.action": ("GripperCommand command", "---", *_GRIP, "---", *_GRIP),
    "action/ParallelGripperCommand.action": (
        *("sensor_msgs/JointState command", "---"),
        *("sensor_msgs/JointState state", *_GRIP[2:], "---", "sensor_msgs/JointState state"),
    ),
}
"""Interface file to its fields, as far as we use them."""


def describe(folder: Path) -> list[str]:
    """Writes the definitions and translates them to IDL; returns what the generators call them."""
    manifest = (
        '<package format="3"><name>control_msgs</name><version>0.0.0</version><description>A part.</description>'
        '<maintainer email="nobody@example.com">nobody</maintainer><license>Apache-2.0</license></package>'
    )
    for name, lines in DEFINITIONS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "package.xml").write_text(manifest, encoding="utf-8")
    from rosidl_cli.command.translate.api import translate

    files = [f"{folder}:{name}" for name in DEFINITIONS]
    output = folder / "idl"
    translate(
        package_name=PACKAGE, interface_files=files, include_paths=[SHARE], output_format="idl", output_path=output
    )
    return [f"{output}:{Path(name).with_suffix('.idl')}" for name in DEFINITIONS]


def generate(files: list[str], folder: Path) -> None:
    """Writes C, C++ and Python sources below ``folder``, a part for each generator."""
    from rosidl_generator_c.cli import GenerateC
    from rosidl_generator_py.cli import GeneratePython
    from rosidl_generator_type_description.cli import HashTypeDescription
    from rosidl_typesupport_c.cli import GenerateCTypesupport
    from rosidl_typesupport_fastrtps_c.cli import GenerateFastRTPSCTypesupport

    given = (PACKAGE, files, [str(SHARE)])
    hashes = HashTypeDescription("hashes").generate_type_hashes(*given, folder / "hashes" / PACKAGE)
    for part in ("msg", "action"):
        # Together they would mix up a message and an action of the same name.
        mine = [file for file in files if f":{part}/" in file]
        described = [path for path in hashes if path.parent.name == part]
        GenerateC("c").generate(PACKAGE, mine, [str(SHARE)], folder / "c" / PACKAGE, type_description_files=described)
    GenerateCTypesupport("c", typesupport_implementations=[SUPPORT]).generate(*given, folder / "support" / PACKAGE)
    GenerateFastRTPSCTypesupport("c").generate(*given, folder / "fastrtps" / PACKAGE)
    GeneratePython("py", typesupport_implementations=["rosidl_typesupport_c"]).generate(*given, folder / "py" / PACKAGE)


def build(folder: Path, target: Path) -> None:
    """Compiles the sources into the Python package ``target``."""
    import numpy

    shutil.copytree(folder / "py" / PACKAGE, target, dirs_exist_ok=True)
    headers = [folder / part for part in ("c", "support", "fastrtps")]
    headers += [INCLUDE, *(path for path in INCLUDE.iterdir() if path.is_dir())]
    headers += [sysconfig.get_paths()["include"], numpy.get_include()]
    options = ["-O1", "-fPIC", "-w", *(f"-I{path}" for path in headers)]
    linking = ["-shared", f"-L{LIBRARIES}", f"-Wl,-rpath,{LIBRARIES}", f"-L{target}", "-Wl,-rpath,$ORIGIN"]
    names = [*(f"{package}__{kind}" for package in USED for kind in KINDS), *RUNTIME]
    linking += [f"-l{name}" for name in names if (LIBRARIES / f"lib{name}.so").exists()]
    sources = [path for part in ("c", "support", "fastrtps") for path in (folder / part).rglob("*.c*")]
    objects = []
    for source in [*sources, *(folder / "py").rglob("*_s.c")]:
        objects.append(folder / f"{len(objects)}.o")
        compiler = "g++" if source.suffix == ".cpp" else "gcc"
        subprocess.run([compiler, "-c", *options, source, "-o", objects[-1]], check=True)
    subprocess.run(["g++", *objects, *linking, "-o", target / f"lib{PACKAGE}.so"], check=True)
    (entry,) = (folder / "py").rglob("*.ep.rosidl_typesupport_c.c")
    module = target / f"{PACKAGE}_s__rosidl_typesupport_c.so"
    subprocess.run(["gcc", entry, *options, f"-l{PACKAGE}", *linking, "-o", module], check=True)


def main() -> int:
    """Makes the package in the folder that is named."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    os.environ.setdefault("AMENT_PREFIX_PATH", str(PREFIX))
    with tempfile.TemporaryDirectory() as scratch:
        generate(describe(Path(scratch)), Path(scratch) / "made")
        build(Path(scratch) / "made", Path(sys.argv[1]).resolve() / PACKAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
