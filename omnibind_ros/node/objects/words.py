"""Things for people: a colour and a few words for each. Imports no ROS."""

from __future__ import annotations

from omnibind_core.objects.types import ObjectPrediction

# Colours of ids, so that neighbours differ (Okabe and Ito, for all eyes), RGB 0..1.
_COLOURS = ((0.34, 0.71, 0.91), (0.9, 0.62, 0), (0, 0.62, 0.45), (0.94, 0.89, 0.26), (0.84, 0.37, 0), (0.8, 0.47, 0.65))


def colour(id: int) -> tuple[float, float, float]:
    """Colour of a thing, RGB 0..1."""
    return _COLOURS[id % len(_COLOURS)]


def words(thing: ObjectPrediction) -> str:
    """Its id and label, for people."""
    said = thing.prediction
    likely = f"{said.labels[0]}? " if said.labels else "? "
    return f"{thing.id} {likely if said.unknown else f'{said.label} {said.confidence:.2f}'}".strip()
