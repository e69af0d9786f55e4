"""The ROS 2 edge: message conversions, parameters, lifecycle nodes and the node graph. The only rclpy."""
