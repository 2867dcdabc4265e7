"""What speaks against a thermal picture."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.base import Doubt

_PIXELS = 32  # rows and columns of the grid that is looked at
_COLDEST, _HOTTEST = -273.15, 2000.0  # °C; 2000 K fits, too
_COLD = -90.0  # °C, colder than any place: nothing measured is below it as a whole
_CONTRAST = {"f": 0.3, "u": 1.0}  # °C: six times the noise of a microbolometer; counts
_STANDS_OUT = 1.0  # °C, between a thing and its surroundings: what reflects and emits otherwise differs by less
_SHARES = (0.05, 0.95)  # of the values, that the difference is between
_CENTIKELVIN, _DECIKELVIN = (22_000, 60_000), (2_200, 6_000)  # -53 to 327 °C


def doubt(raw: NDArray[Any]) -> Doubt | None:
    """The doubt about a checked picture: one without contrast says nothing, values in no unit of temperature little.

    8-bit pictures have no unit.
    """
    row, column = (-(-side // _PIXELS) for side in raw.shape[:2])
    values = np.sort(raw[::row, ::column], axis=None)
    if raw.dtype == np.uint8 and values[-1] > values[0]:
        return None
    low, middle, high = (float(values[round(share * (len(values) - 1))]) for share in (0.01, 0.5, 0.99))
    least = _CONTRAST[raw.dtype.kind]
    if high - low < least and float(raw.max()) - float(raw.min()) < least:  # a small hot spot is no constant picture
        return Doubt(f"a constant picture, all values {low:.4g} to {high:.4g}: is the shutter closed?")
    if raw.dtype == np.uint8 or (low >= _COLDEST and _COLD <= high <= _HOTTEST):
        return None
    if high < _COLD:
        hint = "is the offset added to values that are 0?"
    elif _CENTIKELVIN[0] <= middle <= _CENTIKELVIN[1]:
        hint = "hundredths of a kelvin? scale: 0.01, offset: -273.15"
    elif _DECIKELVIN[0] <= middle <= _DECIKELVIN[1]:
        hint = "tenths of a kelvin? scale: 0.1, offset: -273.15"
    else:
        hint = "counts? Give scale and offset"
    return Doubt(f"values {low:.5g} to {high:.5g}, expected temperatures, °C or K: {hint}", excludes=False)


def part_doubt(raw: NDArray[Any]) -> Doubt | None:
    """The doubt about a part that was cut out because there is a thing: that one, or that it is as warm as the rest.

    8-bit pictures have no unit, so what is faint in them may still be warm.
    """
    found = doubt(raw)
    if found is not None or raw.dtype.kind != "f":
        return found
    low, high = (float(value) for value in np.quantile(cv2.GaussianBlur(raw, (0, 0), 1.0), _SHARES))
    if high - low >= _STANDS_OUT:
        return None
    told = f"{high - low:.1f} °C between a thing and its surroundings"
    return Doubt(f"{told}, expected {_STANDS_OUT:g} and more: it is as warm as they are", empty=True)
