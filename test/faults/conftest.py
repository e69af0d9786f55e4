from __future__ import annotations

import os

import pytest

pytest.importorskip("rclpy")

from dit_policy_ros.ros.environment import local_environment

os.environ.update(local_environment())
