"""What ``tools/fuzz.py`` consists of: inputs to begin with, changes to them, what reads them, and its processes."""
