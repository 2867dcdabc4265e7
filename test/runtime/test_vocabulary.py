"""A vocabulary is embedded beside the predictions, which go on by the one before."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace

import pytest

from omnibind_core.errors import ConfigError, WeightsError
from omnibind_core.runtime.vocabulary import VocabularyChanges, check_labels

PATIENCE = 20.0  # s that anything may take before a test fails


class SlowModel:
    """Embeds a label in each slice, when it is allowed to."""

    def __init__(self):
        self.labels = SimpleNamespace(names=("old",))
        self.allowed = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)

    def set_labels(self, names, between):
        for done, name in enumerate(names):
            between(done, len(names))
            self.begun.release()
            assert self.allowed.acquire(timeout=PATIENCE)
            if name == "bad":
                raise WeightsError("no text tower")
            if name == "bug":
                raise KeyError("a bug")
        between(len(names), len(names))
        self.labels = SimpleNamespace(names=tuple(names))


@pytest.fixture
def model():
    return SlowModel()


@pytest.fixture
def changes():
    changes = VocabularyChanges()
    yield changes
    assert changes.close(PATIENCE)


def ask(changes, model, *names):
    changes.request(len(names), lambda between: model.set_labels(names, between))


def begun(model):
    assert model.begun.acquire(timeout=PATIENCE)


def test_the_old_vocabulary_answers_until_the_new_one_is_whole(changes, model):
    ask(changes, model, "a", "b", "c", "d")
    begun(model)
    assert changes.busy == "embedding a vocabulary of 4 labels, 0 % done"
    model.allowed.release()
    begun(model)
    assert model.labels.names == ("old",) and changes.busy.endswith("25 % done")
    assert not changes.wait(0)
    model.allowed.release(3)
    assert changes.wait(PATIENCE) and model.labels.names == ("a", "b", "c", "d")
    assert changes.busy == changes.failure == ""


def test_of_several_changes_the_last_counts_and_the_others_are_told(changes, model, caplog):
    caplog.set_level(logging.INFO)
    ask(changes, model, *"abcdefgh")
    begun(model)
    ask(changes, model, "never", "begun")
    ask(changes, model, "last")
    assert "of 1 labels" in changes.busy
    model.allowed.release(2)  # one slice of the first and all of the last
    assert changes.wait(PATIENCE) and model.labels.names == ("last",)
    told = [record.getMessage() for record in caplog.records if "given up" in record.getMessage()]
    assert told == [
        "labels changed again: the 8 of the change before, 0 % done, are given up for the 2 of this one",
        "labels changed again: the 2 of the change before, 0 % done, are given up for the 1 of this one",
    ]
    assert "1 labels answer now" in caplog.text


@pytest.mark.parametrize(("name", "reason"), [("bad", "no text tower"), ("bug", "KeyError: 'a bug'")])
def test_what_fails_is_logged_and_the_old_vocabulary_stays(changes, model, caplog, name, reason):
    model.allowed.release(9)
    ask(changes, model, "good", name)
    assert changes.wait(PATIENCE) and model.labels.names == ("old",)
    assert changes.failure == reason and changes.busy == ""
    assert f"what was before stays: {reason}" in caplog.text and ("Traceback" in caplog.text) == (name == "bug")
    ask(changes, model, "good")
    assert changes.wait(PATIENCE) and model.labels.names == ("good",) and changes.failure == ""


def test_predictions_come_before_each_slice(model):
    calls = []
    changes = VocabularyChanges(lambda: calls.append(len(model.labels.names)))
    model.allowed.release(3)
    ask(changes, model, "a", "b", "c")
    assert changes.wait(PATIENCE) and calls == [1] * 4
    assert changes.close(PATIENCE)


def test_the_end_does_not_wait_for_the_rest(model):
    changes = VocabularyChanges()
    ask(changes, model, *"abcdefgh")
    begun(model)
    assert not changes.close(0)  # a slice is being embedded
    model.allowed.release()
    assert changes.close(PATIENCE) and model.labels.names == ("old",)


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        (["cup", " "], "'labels' has a blank one at place 2"),
        (["cup", "dog", "cup"], "'labels' has one twice: cup"),
        (["tea  cup", "dog", "tea cup "], "'labels' has one twice: tea cup"),
        (["cup", "cup\u200e"], "'labels' has one twice: cup"),
        (["cup", "\u202e"], "'labels' has a blank one at place 2"),
        (["dog"], "'labels' has one, 'dog', expected two or more"),
        (["cup", "dog" * 1000], "'labels' has one of 3000 characters, expected at most 2000"),
        (["cup", "dog"] * 30_000, "'labels' has 60000, expected at most 50000"),
        ([str(number // 2) for number in range(40_000)], "'labels' has one twice: 0, 1, .* and 19990 more"),
    ],
)
def test_labels_that_are_no_vocabulary_are_refused_at_once(labels, complaint):
    check_labels(["cup", "Cup", "tea cup"])
    check_labels([])
    with pytest.raises(ConfigError, match=complaint):
        check_labels(labels)
