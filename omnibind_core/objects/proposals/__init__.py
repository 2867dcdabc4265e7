"""Where things may be, whatever they are: for robots without a detector, and for when their camera is dead."""
