"""The rules of docs/architecture.md, read off the source."""

import ast
import importlib
import importlib.util
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from functools import cache
from pathlib import Path

import pytest
import yaml

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.strict_yaml import load_yaml_mapping

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dit_policy_ros"

# A module may import its own folder and rows above; names on one row are strangers.
ROWS = (
    ("errors",),
    ("types", "strict_yaml", "resources"),
    ("space", "controllers", "calibration"),
    ("robot",),
    ("actions",),
    ("policy", "runtime", "data"),
    ("sim", "train", "evaluate"),
    ("ros",),
    ("commands",),
    ("__main__",),
)
ROW_OF = {name: row for row, names in enumerate(ROWS) for name in names}

HOMES = {
    "torch": {"policy", "train", "evaluate"},
    "transformers": {"policy"},
    "mujoco": {"sim"},
    "gym_aloha": {"sim"},
    "mink": {"sim"},
    "rosbags": {"data"},
    "av": {"data"},
    "pyarrow": {"data"},
    "h5py": {"data"},
    "rerun": {"evaluate"},
    "matplotlib": {"evaluate"},
}
"""Third-party package to the only folders that may import it as they load; commands may inside functions."""
ROS_PACKAGE = re.compile(r"rcl\w*|rosidl\w*|rosbag2_\w+|ament_\w+|launch\w*|tf2_\w+|\w+_(msgs|srvs|interfaces)")
PICKLES = {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 80

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
module_files = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())


@cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def dotted(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def home(path):
    """Returns 'sim' for sim/body.py, 'robot' for robot.py, '' for the package's own __init__.py."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def runs_later(node):
    """Whether the node's body does not run when the module loads."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.dump(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def imports(path, lazy):
    """Returns the dotted names a module imports; ``lazy`` adds those inside functions."""
    names = []
    pending = list(tree_of(path).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; write the full name"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif lazy or not runs_later(node):
            pending += ast.iter_child_nodes(node)
    return names


def test_every_module_has_a_row():
    assert {home(path) for path in MODULES} - {""} <= set(ROW_OF)


@module_files
def test_imports_go_one_direction(path):
    mine = home(path)
    for name in imports(path, lazy=True):
        parts = name.split(".")
        if parts[0] != "dit_policy_ros" or len(parts) == 1 or parts[1] == "__version__":
            continue
        assert mine, "dit_policy_ros/__init__.py imports nothing of the package"
        assert parts[1] == mine or ROW_OF[parts[1]] < ROW_OF[mine], f"{mine} may not import {name}"


@module_files
def test_third_party_packages_stay_at_home(path):
    mine = home(path)
    for name in imports(path, lazy=mine != "commands"):
        package = name.split(".")[0]
        assert mine in HOMES.get(package, {mine}), f"only {HOMES[package]} may import {package}"
    for name in imports(path, lazy=True):
        package = name.split(".")[0]
        assert mine == "ros" or not ROS_PACKAGE.fullmatch(package), f"only ros/ may import {package}"


@module_files
def test_nothing_unpickles(path):
    for name in imports(path, lazy=True):
        assert name.split(".")[0] not in PICKLES or name == "pickle", f"{name} runs code that is hidden in data"
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pickle":
            assert node.attr == "UnpicklingError", f"line {node.lineno} does more than catch pickle's error"
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load"):
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert options.get("allow_pickle", "False") == "False"
            assert ast.unparse(node.func) != "torch.load" or options.get("weights_only") == "True"


@module_files
def test_files_and_functions_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, f"{node.name} is too long"


@module_files
def test_every_module_says_what_it_is_for(path):
    assert ast.get_docstring(tree_of(path))


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if any("__all__" in ast.unparse(node) for node in tree_of(path).body)],
    ids=lambda path: dotted(path),
)
def test_all_names_resolve(path):
    module = importlib.import_module(dotted(path))
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def registries():
    """Yields (module, name) of every module-level dict named in capitals with string keys."""
    for path in MODULES:
        for node in tree_of(path).body:
            target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
            if not isinstance(target, ast.Name) or not target.id.isupper() or not isinstance(node.value, ast.Dict):
                continue
            if all(isinstance(key, ast.Constant) and isinstance(key.value, str) for key in node.value.keys):
                yield dotted(path), target.id


@pytest.mark.parametrize(("module", "name"), list(registries()))
def test_registry_entries_exist(module, name):
    if module.split(".")[1] == "ros":
        pytest.importorskip("rclpy")
    registry = getattr(importlib.import_module(module), name)
    assert registry
    for value in registry.values():
        if isinstance(value, str) and value.startswith("dit_policy_ros."):
            imported, _, attribute = value.partition(":")
            found = importlib.import_module(imported)
            assert not attribute or hasattr(found, attribute)
        else:
            assert value is not None


def loaded_after(*modules):
    """Returns the modules a fresh interpreter holds after importing these."""
    code = f"import sys, {', '.join(modules)}; print('\\n'.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_the_probe_sees_what_is_imported():
    assert {"numpy", "torch"} <= loaded_after("torch")


@pytest.mark.parametrize(
    "module",
    ["dit_policy_ros.runtime.executor", pytest.param("dit_policy_ros.ros.executor_node", marks=pytest.mark.ros)],
)
def test_the_executor_process_holds_no_torch(module):
    if module.split(".")[1] == "ros":
        pytest.importorskip("rclpy")
    assert "torch" not in loaded_after(module)


def test_the_core_holds_no_ros():
    core = [dotted(path) for path in MODULES if home(path) in {"errors", "types", "space", "robot", "actions"}]
    core += [dotted(path) for path in MODULES if home(path) in {"policy", "runtime", "data", "commands"}]
    loaded = loaded_after(*core)
    assert "dit_policy_ros.robot" in loaded
    assert not {name for name in loaded if ROS_PACKAGE.fullmatch(name)}


def files_below(*folders, suffixes):
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in suffixes)


@pytest.mark.parametrize(
    "path",
    files_below("config", "launch", "models", suffixes={".yaml", ".yml", ".json", ".rviz", ".xml"}),
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_every_configuration_file_parses(path):
    if path.suffix == ".json":
        assert json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".xml":
        assert len(ElementTree.parse(path).getroot())
    elif path.suffix == ".rviz":
        assert yaml.safe_load(path.read_text(encoding="utf-8"))
    else:
        assert load_yaml_mapping(path, ConfigError)


def test_no_file_names_a_private_path():
    private = re.compile("|".join("/" + name + "/" for name in (r"home/\w+", "root", "work", "opt/k", r"Users/\w+")))
    suffixes = {".py", ".md", ".rst", ".sh", ".txt", ".yaml", ".json", ".xml", ".cfg", ".toml", ".html"}
    folders = ("dit_policy_ros", "test", "docs", "config", "launch", "models", "scripts", ".ci")
    files = [*files_below(*folders, suffixes=suffixes), *(path for path in ROOT.iterdir() if path.suffix in suffixes)]
    assert len(files) > 20
    guilty = [path for path in files if private.search(path.read_text(encoding="utf-8"))]
    assert guilty == []


def node_topics():
    """Yields (node, name) of every topic and service a node names in its source."""
    for path in sorted((PACKAGE / "ros").glob("*_node.py")):
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr in ("publish_on", "listen_to", "serve") and isinstance(node.args[1], ast.Constant):
                yield path.stem, node.args[1].value


@pytest.mark.parametrize(("node", "topic"), list(node_topics()))
def test_the_graph_page_names_every_topic(node, topic):
    page = (ROOT / "docs" / "ros_graph.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith(f"| `{node}` |"))
    assert f"`{topic}`" in row


def test_pages_refer_to_files_that_exist():
    for page in [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]:
        text = page.read_text(encoding="utf-8")
        links = [page.parent / link for link in re.findall(r"\]\((?!http|#)([^)#]+)", text)]
        named = [ROOT / name for name in re.findall(r"`((?:config|test|scripts|docs|models)/[\w/.]+\.\w+)`", text)]
        assert [path for path in (*links, *named) if not path.exists()] == [], page
