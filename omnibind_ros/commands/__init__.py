"""Sub-commands of ``omnibind`` that this package adds; none of them needs ROS."""
