"""Repeated experiments over seeds, and their tables."""
