"""Point clouds of a LiDAR or a depth camera."""
