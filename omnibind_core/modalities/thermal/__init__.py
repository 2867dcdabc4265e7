"""Pictures of a thermal camera."""
