"""What runs between policy and robot: synchroniser, schedule, executor. No torch, no ROS; clocks are injected."""
