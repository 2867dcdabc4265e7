"""Cross-validation folds to splits."""

from __future__ import annotations

from collections.abc import Sequence

from omnibind_core.errors import ConfigError


def split_of_folds(source: str, folds: int, val: Sequence[int], test: Sequence[int]) -> dict[str, str]:
    """Which split each fold is, by the fold's number as text.

    Args:
        source: Name of the source, for the error message.
        folds: How many there are, numbered from 1.
        val: Folds for validation.
        test: Folds for testing; the others are for training.

    Raises:
        ConfigError: A number is no fold, or for both.
    """
    wrong = sorted({fold for fold in (*val, *test) if not 1 <= fold <= folds} | set(val) & set(test))
    if wrong:
        raise ConfigError(
            f"source '{source}': val_folds {list(val)} and test_folds {list(test)}, expected different numbers from 1 "
            f"to {folds}"
        )
    return {str(fold): "val" if fold in val else "test" if fold in test else "train" for fold in range(1, folds + 1)}
