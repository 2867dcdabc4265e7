"""Events as a picture for people."""

from __future__ import annotations

import numpy as np

from omnibind_core.modalities.base import Events
from omnibind_core.modalities.drawing import Picture


def draw(events: Events) -> Picture:
    """All events on the whole sensor: red pixels became brighter, blue ones darker, black ones both."""
    picture = np.full((events.height, events.width, 3), 255, np.uint8)
    brighter = events.p > 0
    picture[events.y[brighter], events.x[brighter], 1:] = 0
    picture[events.y[~brighter], events.x[~brighter], :2] = 0
    return picture
