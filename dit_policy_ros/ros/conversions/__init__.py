"""ROS messages to and from the package's values. Arrays cross by buffer, never element by element."""
