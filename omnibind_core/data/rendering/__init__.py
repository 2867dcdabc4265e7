"""Sensor data rendered from meshes and photographs, for the demo where nothing was recorded. Free of ROS and torch.

What each sensor's picture of the world is computed from: LiDAR scans and touch from a mesh (:mod:`.meshes`,
:mod:`.touch`), events from a photograph and a moving camera (:mod:`.events`), temperatures from an outline and an
assumed temperature (:mod:`.thermal`).
"""
