"""ROS domains for tests: nodes of two tests must not meet, nor those of two workers that run tests side by side."""

from __future__ import annotations

import os
import random

_MOST_WORKERS = 4


def any_domain() -> int:
    """A domain that no other worker takes, 1..228."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    assert worker < _MOST_WORKERS
    return 1 + worker + _MOST_WORKERS * random.SystemRandom().randrange(57)
