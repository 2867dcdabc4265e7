"""Which groups of a data set without a validation split are held back to validate on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from omnibind_core.data.samples import Sample


def hold_out(samples: Sequence[Sample], kind: Callable[[Sample], Hashable], share: float, seed: int) -> set[str]:
    """Draws whole groups, so that of every kind about the same share is held out.

    Args:
        samples: To draw from.
        kind: What is to be on both sides, such as the label; sorts by its text.
        share: Of the groups of each kind, 0..1; at least one of two or more, and never all. 0 holds nothing out.
        seed: Of the draw.

    Returns:
        The groups that are held out. Of a kind with one group it is learned from, unless another kind needs it.
    """
    groups: dict[Hashable, dict[str, None]] = defaultdict(dict)
    for sample in samples:
        groups[kind(sample)][sample.group] = None
    rng, side = np.random.default_rng(seed), dict[str, bool]()
    for one in sorted(groups, key=lambda one: (len(groups[one]), str(one))):  # where there is least choice first
        of = list(groups[one])
        count = min(max(round(share * len(of)), 1), len(of) - 1) if share else 0
        free = [of[place] for place in rng.permutation(len(of)) if of[place] not in side]
        missing = count - sum(side.get(group, False) for group in of)
        side.update({group: place < missing for place, group in enumerate(free)})
    return {group for group, held in side.items() if held}
