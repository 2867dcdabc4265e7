"""What the validation figures do not say, or say against a model: in sentences, before anybody uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from omnibind_core.training.dataset import TrainingData

POOR = 0.5
"""Share of right answers on validation samples below which a model is not ready for use."""
OFFER = (
    "give some groups the split 'val', or have a quarter of them drawn by --set holdout=0.25, which takes two groups "
    "of a label at least; a file outside a further folder is one"
)


def doubts(data: TrainingData, single: Mapping[str, Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What speaks against using a trained model as it is; nothing if its figures are there and good.

    Args:
        data: What it was trained and validated on.
        single: See :func:`omnibind_core.training.align.accuracy`.
        rows: See :func:`omnibind_core.features.combinations.accuracy_by_size`.
    """
    found = []
    for name, samples in data.train.items():
        if len(only := np.unique(samples.concept)) == 1 and len(data.vocabulary) > 1:
            label = data.vocabulary[int(only[0])]
            found.append(f"{name}: '{label}' alone was learned, and is what anything on this sensor may be taken for")
    if len(data.vocabulary) == 1:
        found.append(f"'{data.vocabulary[0]}' is the only label: whatever is shown, the answer is that")
    if not data.val:
        return [*found, f"there are no validation samples, so nothing says how right or how sure it may be: {OFFER}"]
    if missing := [name for name in data.train if name not in data.val]:
        found.append(f"nothing says how right {', '.join(missing)} is: no validation samples; {OFFER}")
    for name, samples in data.val.items():
        if len(only := np.unique(samples.concept)) == 1 and len(data.vocabulary) > 1:
            label = data.vocabulary[int(only[0])]
            found.append(f"{name}: all validation samples are '{label}', so its figure does not say what it confuses")
    for name, row in single.items():
        if row["top1"] < POOR:
            found.append(f"{name}: only {row['top1']:.1%} of {row['n']} validation samples are right")
    for row in rows:
        if row["modalities"] > 1 and row["fused"] < POOR:
            found.append(f"{row['modalities']} modalities together are right on only {row['fused']:.1%}")
    return found
