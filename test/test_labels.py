"""The label bank: rows, reduction, swapping."""

from __future__ import annotations

import zlib

import pytest
import torch
from torch.nn import functional as F

from omnibind_core.errors import ConfigError
from omnibind_core.labels import LabelBank


def embed(sentences):
    """One fixed random direction per sentence."""
    rows = [torch.randn(16, generator=torch.Generator().manual_seed(zlib.crc32(s.encode()))) for s in sentences]
    return F.normalize(torch.stack(rows), dim=-1)


def test_one_row_per_label_scores_are_cosines():
    bank = LabelBank.from_names(["cup", "dog"], embed)
    query = embed(["a photo of a dog"])
    scores = bank.similarities(query)
    assert scores.shape == (1, 2)
    assert scores[0, 1].item() == pytest.approx(1.0, abs=1e-6)
    torch.testing.assert_close(scores, query @ bank.rows.T)


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_several_rows_are_reduced(reduce):
    bank = LabelBank.from_names(["cup", "dog"], embed, ("a {}", "the {}"), {"cup": ["mug"]}, reduce)
    query = embed(["x", "y"])
    cosines = query @ bank.rows.T
    cup, dog = cosines[:, :4], cosines[:, 4:]
    want = torch.stack([getattr(part, "amax" if reduce == "max" else "mean")(dim=1) for part in (cup, dog)], dim=1)
    torch.testing.assert_close(bank.similarities(query), want)


def test_round_trip():
    bank = LabelBank.from_names(["cup", "dog"], embed, ("a {}", "the {}"), {"cup": ["mug"]}, "max")
    again = LabelBank.from_dict(bank.to_dict(), bank.rows)
    query = embed(["x"])
    assert again.names == bank.names
    torch.testing.assert_close(again.similarities(query), bank.similarities(query))


def test_names_are_cleaned_and_unique():
    assert LabelBank.from_names([" cup ", "cup", "red  apple"], embed).names == ("cup", "red apple")


@pytest.mark.parametrize("names", [[], ["", " "]])
def test_an_empty_vocabulary_is_refused(names):
    with pytest.raises(ConfigError, match="empty"):
        LabelBank.from_names(names, embed)


def test_a_template_without_a_place_for_the_label_is_refused():
    with pytest.raises(ConfigError, match=r"no '\{\}'"):
        LabelBank.from_names(["cup"], embed, ("a photo",))
