"""Brightness changes from an event camera."""
