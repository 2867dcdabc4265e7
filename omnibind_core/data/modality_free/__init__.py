"""The modality-free data set: building, reading, exporting and checking it."""
