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


def test_the_nearest_of_several_rows_counts():
    bank = LabelBank.from_names(["cup", "dog"], embed, ("a {}", "the {}"), {"cup": ["mug"]}, "max")
    query = embed(["x", "y"])
    cosines = query @ bank.rows.T
    want = torch.stack([cosines[:, :4].amax(dim=1), cosines[:, 4:].amax(dim=1)], dim=1)
    torch.testing.assert_close(bank.similarities(query), want)


def test_the_mean_of_several_rows_has_no_disadvantage_against_a_single_row():
    bank = LabelBank.from_names(["cup", "dog"], embed, ("a {}",), {"cup": ["mug", "beaker"]}, "mean")
    means = torch.stack([bank.rows[:3].mean(dim=0), bank.rows[3]])
    want = embed(["x", "y"]) @ torch.nn.functional.normalize(means, dim=-1).T
    torch.testing.assert_close(bank.similarities(embed(["x", "y"])), want)
    torch.testing.assert_close(bank.similarities(bank.prototypes()).diagonal(), torch.ones(2))


def test_prototypes_made_in_inference_can_be_trained_with():
    bank = LabelBank.from_names(["cup", "dog"], embed)
    with torch.inference_mode():
        bank.similarities(embed(["x"]))
    query = embed(["x"]).clone().requires_grad_()
    bank.similarities(query).sum().backward()
    assert query.grad is not None


def test_round_trip():
    bank = LabelBank.from_names(["cup", "dog"], embed, ("a {}", "the {}"), {"cup": ["mug"]}, "max")
    again = LabelBank.from_dict(bank.to_dict(), bank.rows)
    query = embed(["x"])
    assert again.names == bank.names
    torch.testing.assert_close(again.similarities(query), bank.similarities(query))


def test_descriptions_are_one_more_row():
    told = {"cup": ["cup: a vessel", "cup: a hole on a green"], " dog ": (), "cat": ["not in the vocabulary"]}
    bank = LabelBank.from_names(["dog", "cup"], embed, ("a {}", "the {}"), descriptions=told)
    assert bank.owner.tolist() == [0, 0, 1, 1, 1]
    plain = embed(["a dog", "the dog", "a cup", "the cup"])
    torch.testing.assert_close(bank.rows[:4], plain)
    torch.testing.assert_close(bank.rows[4], F.normalize(embed(told["cup"]).mean(dim=0), dim=0))
    torch.testing.assert_close(bank.prototypes()[1], F.normalize(bank.rows[2:].sum(dim=0), dim=0))
    assert bank.descriptions == {"cup": tuple(told["cup"])}
    query = embed(["x"])
    torch.testing.assert_close(bank.similarities(query)[0, 1], query[0] @ bank.prototypes()[1])


def test_descriptions_are_saved_and_kept_when_labels_are_added():
    bank = LabelBank.from_names(["cup"], embed, descriptions={"cup": ["cup: a vessel"]})
    assert LabelBank.from_dict(bank.to_dict(), bank.rows).descriptions == bank.descriptions
    more = bank.extended(["cup", "ketch"], embed, {"cup": ["other"], "ketch": ["ketch: a ship"]})
    assert more.descriptions == {"cup": ("cup: a vessel",), "ketch": ("ketch: a ship",)}
    assert torch.equal(more.rows[:2], bank.rows) and more.owner.tolist() == [0, 0, 1, 1]
    older = {key: value for key, value in bank.to_dict().items() if key != "descriptions"}
    assert LabelBank.from_dict(older, bank.rows).descriptions == {}


def test_names_are_cleaned_and_unique():
    assert LabelBank.from_names([" cup ", "cup", "red  apple"], embed).names == ("cup", "red apple")


@pytest.mark.parametrize("names", [[], ["", " "]])
def test_an_empty_vocabulary_is_refused(names):
    with pytest.raises(ConfigError, match="empty"):
        LabelBank.from_names(names, embed)


def test_a_template_without_a_place_for_the_label_is_refused():
    with pytest.raises(ConfigError, match=r"no '\{\}'"):
        LabelBank.from_names(["cup"], embed, ("a photo",))


def test_what_belongs_to_a_label_is_found_however_its_name_is_written():
    wanted = LabelBank.from_names(["tea cup", "dog"], embed, aliases={"tea cup": ["mug"]})
    bank = LabelBank.from_names(["tea  cup", "dog"], embed, aliases={"cat": ["puss"], " tea cup\n": ["mug"]})
    assert bank.aliases == wanted.aliases == {"tea cup": ("mug",)}
    torch.testing.assert_close(bank.rows, wanted.rows)


def test_labels_that_stand_there_twice_are_named():
    names = [f"label {number // 2}" for number in range(20)]
    with pytest.raises(ConfigError, match=r"twice.*: label 0, label 1, label 2, label 3, label 4 and 5 more$"):
        LabelBank(tuple(names), embed(names), torch.arange(20))
    with pytest.raises(ConfigError, match=r"twice.*: dog$"):
        LabelBank.from_dict(
            {**LabelBank.from_names(["dog", "cup"], embed).to_dict(), "names": ["dog", " dog"]}, embed("ab")
        )
