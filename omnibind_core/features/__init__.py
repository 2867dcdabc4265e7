"""What training and evaluation share: features of samples, combinations of them, calibration."""
