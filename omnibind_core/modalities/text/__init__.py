"""Written descriptions of what is perceived."""
