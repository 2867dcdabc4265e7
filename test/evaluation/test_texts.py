"""Text as an input of an evaluation: what it may say, and noise in it."""

from __future__ import annotations

import torch

from omnibind_core.evaluation import texts
from omnibind_core.labels import LabelBank


class Dictionary:
    """Two words of it."""

    glosses = {"car": "a motor vehicle; cars have four wheels", "dog": "a dog or canines"}  # noqa: RUF012
    synonyms = {"car": ("automobile", "motorcar", "motor"), "dog": ("canine",)}  # noqa: RUF012

    def things(self, name):
        return (name,) if name in self.glosses else ()

    senses = things

    def names(self, sense):
        return self.synonyms[sense]

    def definition(self, sense):
        return self.glosses[sense]


def bank(*names, **more):
    return LabelBank.from_names(names, lambda sentences: torch.eye(4)[: len(sentences)], **more)


def test_a_description_has_no_word_of_the_label():
    assert texts.masked("the Motorcars of a bell ringer; bells", ["motorcar", "bell"]) == (
        "the thing of a thing ringer; thing"
    )
    assert texts.masked("a carton beside two cars", ["car"]) == "a carton beside two thing"
    assert texts.masked("any dog or a doghouse", ["dog"]) == "any thing or a doghouse"
    assert texts.masked("what a violinist plays", ["violin"]) == "what a thing plays"
    assert texts.masked("a dog", ["dog"]) == ""


def test_descriptions_hide_synonyms_and_aliases_and_leave_out_what_says_nothing_else():
    found = texts.descriptions(bank("car", "dog", "rain"), Dictionary())
    assert found == {"car": "a thing vehicle; thing have four wheels"}
    told = bank("rain", aliases={"rain": ["drizzle"]}, descriptions={"rain": ["rain: drizzle from clouds"]})
    assert texts.descriptions(told, None) == {"rain": "thing from clouds"}
    assert texts.descriptions(bank("car"), None) == {}


def test_noise_in_text_is_as_many_words_of_other_labels():
    noisy = texts.random_words("a photo of a car", "car", ("car", "cup", "zebra crossing"), 0)
    assert len(noisy.split()) == 5 and {*noisy.split()} <= {"cup", "zebra", "crossing"}
    assert noisy == texts.random_words("a photo of a car", "car", ("car", "cup", "zebra crossing"), 0)
    assert noisy != texts.random_words("a photo of a car", "car", ("car", "cup", "zebra crossing"), 1)
