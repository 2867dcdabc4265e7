"""AF with and without what it knows of other sensors: each part of the answer alone, and both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from omnibind_core.features.calibration import calibrate
from omnibind_core.features.combinations import EmbeddedSplit
from omnibind_core.fusion import Fusion
from omnibind_core.labels import LabelBank
from omnibind_core.model import OmniBind

BOTH, ONE_CERTAIN = "both", "the certainty alone"
RELIABILITY, FAMILIARITY = {"preset": "reliability"}, {"preset": "familiarity"}
WAYS: Mapping[str, tuple[Mapping[str, Any], bool]] = {
    BOTH: (FAMILIARITY, True),
    "the fusion alone": (FAMILIARITY, False),
    ONE_CERTAIN: ({**FAMILIARITY, "agreement": False}, True),
    "neither": (RELIABILITY, False),
}
"""By name: the fusion, and whether its answers have a certainty or only temperatures. The certainty alone has a
familiarity to ask, but weighs the tokens as without."""


@dataclass(frozen=True)
class Way:
    """A fusion with its calibration.

    Attributes:
        name: Of :data:`WAYS`.
        model: The encoders with it, and its calibration.
        certain: Whether its answers have a certainty.
    """

    name: str
    model: OmniBind
    certain: bool


def ways(
    fused: Callable[[EmbeddedSplit, EmbeddedSplit, LabelBank, Mapping[str, Any], int], Fusion],
    model: OmniBind,
    train: EmbeddedSplit,
    held_out: EmbeddedSplit,
    clean: EmbeddedSplit,
    count: int,
    seed: int,
) -> list[Way]:
    """All of :data:`WAYS` on the same encoders.

    Args:
        fused: Trains a fusion, see :meth:`Comparison.fused`.
        model: The encoders and the vocabulary.
        train: What the fusions learn on.
        held_out: What they are settled on, with its variants.
        clean: What they are calibrated on.
        count: Combinations of each size for the calibration.
        seed: Of the initial weights and everything drawn.
    """
    found = []
    for name, (part, certain) in WAYS.items():
        module = fused(train, held_out, model.labels, part, seed)
        if name == ONE_CERTAIN:
            _weigh_by_the_network_alone(module)
        calibration = calibrate(clean, model.labels, module, count, seed, held_out if certain else None)
        found.append(Way(name, OmniBind(model.config, model.encoders, module, model.labels, calibration), certain))
    return found


def _weigh_by_the_network_alone(module: Fusion) -> None:
    gains = module.gains
    assert gains is not None
    gains.data[1:] = 0.0
