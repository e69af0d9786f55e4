"""Recordings: writing, reading, and arrays for training. No ROS, no torch."""
