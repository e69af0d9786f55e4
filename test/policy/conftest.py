"""Policy directories of every shipped family description, made once."""

from itertools import count

import pytest


@pytest.fixture(scope="session")
def directories(tmp_path_factory):
    from tiny_families import SHIPPED, make_family_directory

    root = tmp_path_factory.mktemp("families")
    return {name: make_family_directory(name, root / name) for name in SHIPPED}


@pytest.fixture(scope="module")
def policies(directories):
    from dit_policy_ros.policy.checkpoint import load_policy

    return {name: load_policy(directory) for name, directory in directories.items()}


@pytest.fixture
def edited(directories, tmp_path):
    """Makes copies of a policy directory with other entries in its policy.yaml."""
    from tiny_families import settle

    numbers = count()
    return lambda name, **changes: settle(directories[name], tmp_path / str(next(numbers)), **changes)
