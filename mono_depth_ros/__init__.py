"""Metric depth from one camera: engines, geometry, and a ROS 2 node."""
