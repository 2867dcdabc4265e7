"""Measuring a model: accuracy by combination of modalities, calibration."""
