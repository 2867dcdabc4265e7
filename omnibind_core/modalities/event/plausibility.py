"""What speaks against events."""

from __future__ import annotations

from omnibind_core.modalities.base import Doubt, Events

_EVENTS = 50  # training and validation samples have 134 and more


def doubt(raw: Events) -> Doubt | None:
    """The doubt about a checked window: a few events are noise, and nothing moves."""
    if len(raw) >= _EVENTS:
        return None
    return Doubt(f"nothing moves, {len(raw)} events, expected {_EVENTS} and more", empty=True)
