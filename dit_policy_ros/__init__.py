"""Run diffusion-transformer robot policies on two arms, asynchronously and safely, over ROS 2."""

__version__ = "0.1.0"
