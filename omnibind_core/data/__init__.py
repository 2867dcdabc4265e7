"""Data sets: samples and their sources, matching of labels, scenes and modality combinations."""
