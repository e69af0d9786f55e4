import argparse
import importlib
import shlex
import subprocess
import sys

import pytest

from dit_policy_ros import __main__ as command_line
from dit_policy_ros.commands import COMMANDS

HEAVY = {"torch", "mujoco", "rclpy", "matplotlib", "scipy", "cv2", "rosbags"}

every_command = pytest.mark.parametrize("name", sorted(COMMANDS))


@pytest.fixture
def one_command(tmp_path, monkeypatch):
    """Returns a function that makes a table of one command, 'work', from the body of its run()."""

    def make(body):
        monkeypatch.syspath_prepend(tmp_path)
        sys.modules.pop("work_command", None)
        (tmp_path / "work_command.py").write_text(
            "from dit_policy_ros.errors import WorldError\n"
            "HELP = 'Works.'\n"
            "def add_arguments(parser):\n    parser.add_argument('--times', type=int, default=1)\n"
            f"def run(args):\n    {body}\n"
        )
        importlib.invalidate_caches()
        return {"work": "work_command"}

    return make


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_lists_every_command(arguments, capsys):
    assert command_line.main(arguments) == 0
    text = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name} " in text


def test_version(capsys):
    assert command_line.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == command_line.__version__


def test_unknown_command_lists_the_known_ones(capsys):
    assert command_line.main(["fly"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"error: Command 'fly' does not exist. Available: {', '.join(sorted(COMMANDS))}.\n"


def test_arguments_reach_the_command_and_its_status_comes_back(one_command):
    assert command_line.main(["work", "--times", "7"], one_command("return args.times")) == 7


def test_user_errors_are_one_line_without_traceback(one_command, capsys):
    commands = one_command("raise WorldError('No world.\\nTake another.')")
    assert command_line.main(["work"], commands) == 2
    assert capsys.readouterr().err == "error: No world. Take another.\n"


def test_interruption_has_its_own_status(one_command, capsys):
    assert command_line.main(["work"], one_command("raise KeyboardInterrupt")) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_missing_extra_names_the_pip_extra(one_command, capsys):
    commands = one_command("raise ModuleNotFoundError(name='mujoco.egl')")
    assert command_line.main(["work"], commands) == 2
    assert "pip install 'dit_policy_ros[sim]'" in capsys.readouterr().err


@pytest.mark.parametrize("body", ["raise ValueError('bug')", "raise ModuleNotFoundError(name='numpyy')"])
def test_programming_errors_keep_their_traceback(one_command, body):
    with pytest.raises((ValueError, ModuleNotFoundError)):
        command_line.main(["work"], one_command(body))


def test_script_runs_the_command_it_is_named_after(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/somewhere/lib/dit_policy_ros/fly", "--high"])
    assert command_line.script() == 2
    assert "'fly'" in capsys.readouterr().err


def test_help_loads_nothing_heavy():
    code = (
        "import sys, dit_policy_ros.__main__ as m; m.main(['--help']); print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(result.stderr.split())
    assert "argparse" in loaded
    assert not HEAVY & loaded


def parser_of(name):
    command = importlib.import_module(COMMANDS[name])
    parser = argparse.ArgumentParser(prog=name, exit_on_error=False)
    command.add_arguments(parser)
    return command, parser


@every_command
def test_every_option_is_explained(name):
    _, parser = parser_of(name)
    assert [action.dest for action in parser._actions if not action.help] == []


@every_command
def test_help_teaches_by_examples_that_parse(name):
    command, parser = parser_of(name)
    summary, blank, *_ = command.HELP.strip().splitlines()
    assert summary.endswith(".")
    assert not blank
    prefix = f"python -m dit_policy_ros {name}"
    examples = [line.strip() for line in command.HELP.splitlines() if line.strip().startswith(prefix)]
    assert examples
    for example in examples:
        parser.parse_args(shlex.split(example.removeprefix(prefix), comments=True))


@every_command
def test_a_wrong_option_is_refused(name, capsys):
    with pytest.raises(SystemExit, match="2"):
        command_line.main([name, "--no-such-option"])
    assert name in capsys.readouterr().err
