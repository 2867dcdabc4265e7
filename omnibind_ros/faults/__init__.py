"""Made-up sensors that come, go and lie, and what the fusion node makes of them: for tests, and ``make soak``."""
