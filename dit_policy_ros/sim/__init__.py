"""Simulated bodies: a two-arm ALOHA in MuJoCo, its worlds, controllers and scripted experts."""

import os

# MuJoCo chooses how to render when it is imported; a user's own choice stands.
os.environ.setdefault("MUJOCO_GL", "egl")
