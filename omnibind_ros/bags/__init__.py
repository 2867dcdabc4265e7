"""Bag files: reading, writing, recovering, inspecting, playing, recording and making them."""
