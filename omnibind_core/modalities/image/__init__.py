"""Colour pictures of a camera."""
