"""A virtual camera in a furnished room: scenes, colour, exact depth, a walk. Knows no ROS."""
