"""A real policy directory whose network is tiny and untrained: every chunk is the middle of its action range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dit_policy_ros.policy.cameras import CameraView
from dit_policy_ros.policy.checkpoint import save_dual_policy
from dit_policy_ros.policy.dual_policy import DualPolicyConfig, Range
from dit_policy_ros.policy.dual_system import DualSystem, DualSystemConfig
from dit_policy_ros.sim.body import IMAGE_SIZES, JOINT_NAMES

HOME = np.array([0.0, -0.96, 1.16, 0.0, -0.3, 0.0, 0.5] * 2)
TARGET = HOME + np.array([0.1, 0.0, 0.1, 0.0, 0.1, 0.0, 0.0] * 2)


def save_tiny_policy(directory: Path) -> Path:
    """Writes a policy that moves both arms to ``TARGET``."""
    sizes = DualSystemConfig(
        width=32, blocks=1, heads=2, slow_keypoints=4, fast_keypoints=4, text_width=16, condition=16
    )
    torch.manual_seed(0)
    everything = (0.0, 0.0, 1.0, 1.0)
    config = DualPolicyConfig(
        joint_names=JOINT_NAMES,
        slow_camera=CameraView("top", IMAGE_SIZES["top"], everything, (64, 48)),
        fast_cameras=tuple(
            CameraView(name, IMAGE_SIZES[name], everything, (64, 48)) for name in ("left_wrist", "right_wrist")
        ),
        states=Range(HOME - 2.0, HOME + 2.0),
        actions=Range(TARGET - 1.0, TARGET + 1.0),
        network=sizes,
        solver_steps=1,
        noise_scale=0.0,
    )
    save_dual_policy(directory, config, DualSystem(sizes), {"made by": "a test"})
    return directory
