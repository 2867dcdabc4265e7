"""Rooms and streets with several things at once, as a robot's calibrated sensors see them. Free of ROS and torch.

:mod:`.surfaces` (triangles and how they look), :mod:`.cutouts` (photographs as bodies), :mod:`.stage` (rays and what
they meet), :mod:`.catalogue` (which things there are), :mod:`.places` (what is around them), :mod:`.layout` (where they
stand), :mod:`.robot` (its sensors and how it moves), :mod:`.views` (what these see), :mod:`.truth` (where things are).
"""
