"""How the view is arranged: the sensors above, what they add up to below, over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omnibind_core.optional import require

VIEWER = "rerun+http://127.0.0.1:9876/proxy"
"""Address at which a viewer on the same machine listens."""

TIMELINE = "time"
SENSORS, PREDICTION, WEIGHTS, CONFIDENCES = "sensors", "prediction", "weights", "confidences"
STATES, LOG, TRUTH = "states", "log", "prediction/truth"
THINGS = "things"

PALETTE: Sequence[tuple[int, int, int]] = (
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (0, 114, 178),
    (150, 150, 150),
)
"""Colours that the colour-blind tell apart (Okabe and Ito, 2008; black replaced by grey), one per sensor in turn."""

_SOUND_SHOWN = 5.0  # s of a waveform on the screen


def blueprint(sensors: Mapping[str, str], lanes: bool, things: bool = False) -> Any:
    """The arrangement, a ``rerun.blueprint.Blueprint``.

    Args:
        sensors: Modality of each sensor, by name.
        lanes: Whether this version of Rerun draws states as lanes over time.
        things: Whether things are told of, which are shown in space.
    """
    rrb = require("rerun.blueprint", "The live view")
    views = [_sensor_view(rrb, name, modality) for name, modality in sensors.items()]
    if things:
        views.append(rrb.Spatial3DView(origin=THINGS, name="things"))
    fixed = rrb.ScalarAxis(range=(0.0, 1.0), zoom_lock=True)
    shares = rrb.TimeSeriesView(origin=WEIGHTS, name="share of each sensor", axis_y=fixed)
    confidences = rrb.TimeSeriesView(origin=CONFIDENCES, name="confidence, fused and of each sensor", axis_y=fixed)
    log = rrb.TextLogView(origin=LOG, name="what happened", **_log_columns(rrb))
    text = rrb.TextDocumentView(origin=f"{PREDICTION}/text", name="what is perceived")
    history = [rrb.Vertical(shares, confidences)]
    if lanes:
        contents = [f"/{PREDICTION}/label", f"/{TRUTH}", f"/{STATES}/**"]
        history.append(rrb.StateTimelineView(origin="/", contents=contents, name="label and states of the sensors"))
    return rrb.Blueprint(
        rrb.Vertical(
            rrb.Horizontal(rrb.Grid(*views), rrb.Vertical(text, log, row_shares=[3, 2]), column_shares=[5, 2]),
            rrb.Horizontal(*history),
            row_shares=[3, 2],
        ),
        collapse_panels=True,
    )


def _sensor_view(rrb: Any, name: str, modality: str) -> Any:
    """The view of one sensor."""
    origin = f"{SENSORS}/{name}"
    if modality == "point_cloud":
        return rrb.Spatial3DView(origin=origin, name=name)
    if modality == "audio":
        boundary = rrb.TimeRangeBoundary
        shown = rrb.VisibleTimeRange(
            TIMELINE, start=boundary.cursor_relative(seconds=-_SOUND_SHOWN), end=boundary.cursor_relative()
        )
        full = rrb.ScalarAxis(range=(-1.0, 1.0), zoom_lock=True)
        return rrb.TimeSeriesView(origin=f"{origin}/waveform", name=name, axis_y=full, time_ranges=[shown])
    if modality == "text":
        return rrb.TextDocumentView(origin=origin, name=name)
    return rrb.Spatial2DView(origin=origin, name=name)


def _log_columns(rrb: Any) -> dict[str, Any]:
    """Time and words only; older versions of Rerun have no choice of columns."""
    if not hasattr(rrb, "TextLogColumns"):
        return {}
    return {"columns": rrb.TextLogColumns(text_log_columns=["LogLevel", "Body"])}
