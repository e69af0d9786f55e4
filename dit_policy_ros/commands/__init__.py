"""The commands of ``python -m dit_policy_ros``, one module each.

A command module has ``HELP`` (a line that says what it does, a blank line, then explanation and examples),
``add_arguments(parser)`` and ``run(args)``, which returns the exit status. Its imports are light, so that help is
instant: torch, MuJoCo and ROS are imported inside ``run``.
"""

COMMANDS = {
    "bench": "dit_policy_ros.commands.bench",
    "compare": "dit_policy_ros.commands.compare",
    "convert": "dit_policy_ros.commands.convert",
    "demo": "dit_policy_ros.commands.demo",
    "evaluate": "dit_policy_ros.commands.evaluate",
    "export": "dit_policy_ros.commands.export",
    "import": "dit_policy_ros.commands.import_episodes",
    "inspect": "dit_policy_ros.commands.inspect",
    "play": "dit_policy_ros.commands.play",
    "record": "dit_policy_ros.commands.record",
    "replay": "dit_policy_ros.commands.replay",
    "train": "dit_policy_ros.commands.train",
    "verify": "dit_policy_ros.commands.verify",
}
"""Name to module. A new command is a line here and one in setup.py."""
