"""What a thing is taken for over time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from omnibind_core.objects.evidence import Evidence

S = 1_000_000_000
NAMES = ("cup", "chair", "dog", "car")


def answer(label: str, confidence: float, second: str | None = None, names: tuple[str, ...] = NAMES) -> np.ndarray:
    values = np.full(len(names), (1 - confidence) / (len(names) - 1))
    if second is not None:
        values[:] = (1 - confidence) * 0.1 / max(len(names) - 2, 1)
        values[names.index(second)] = (1 - confidence) * 0.9
    values[names.index(label)] = confidence
    return values


def told(evidence: Evidence) -> tuple[str, float]:
    values = evidence.probabilities
    return evidence.names[int(values.argmax())], float(values.max())


def fed(answers: Any, memory: float = 4.0, step: float = 0.2, names: tuple[str, ...] = NAMES) -> Evidence:
    evidence = Evidence(memory)
    for number, values in enumerate(answers):
        evidence.add(values, names, round(number * step * S))
    return evidence


@pytest.mark.parametrize("second", [None, "dog"])
def test_what_is_said_ten_times_is_no_surer_than_what_is_said_once(second: str | None) -> None:
    assert told(fed([answer("cup", 0.6, second)])) == ("cup", pytest.approx(0.6, abs=1e-6))
    assert told(fed([answer("cup", 0.6, second)] * 10)) == ("cup", pytest.approx(0.6, abs=1e-6))


def test_answers_that_agree_on_one_label_only_make_it_no_surer() -> None:
    turns = [answer("cup", 0.6, ("chair", "dog", "car")[number % 3]) for number in range(10)]
    assert told(fed(turns)) == ("cup", pytest.approx(0.6, abs=0.01))


@pytest.mark.parametrize("place", [0, 5, 9, 10])
@pytest.mark.parametrize("step", [0.2, 1.0, 5.0])
def test_one_that_lies_among_ten_changes_no_label(place: int, step: float) -> None:
    answers = [answer("cup", 0.6)] * 10
    answers.insert(place, answer("dog", 0.99))
    evidence = fed(answers, step=step)
    assert told(evidence)[0] == "cup"
    assert told(evidence)[1] < 0.61


@pytest.mark.parametrize(("before", "after"), [(0.6, 0.6), (0.9, 0.9), (0.99, 0.7)])
def test_what_has_changed_wins_within_the_memory(before: float, after: float) -> None:
    answers = [answer("cup", before)] * 50 + [answer("dog", after)] * 20  # 20 of 0.2 s are the memory of 4 s
    assert told(fed(answers))[0] == "dog"
    assert told(fed(answers[:53]))[0] == "cup"


def test_time_counts_not_the_number_of_ticks() -> None:
    def after(rate: int) -> float:
        answers = [answer("cup", 0.8)] * (4 * rate) + [answer("dog", 0.8)] * rate
        return float(fed(answers, step=1 / rate).probabilities[NAMES.index("dog")])

    assert after(5) == pytest.approx(after(20), abs=0.03)
    evidence = fed([answer("cup", 0.8)] * 10)
    for _ in range(100):
        evidence.add(answer("dog", 0.9), NAMES, round(9 * 0.2 * S))  # all at once
    assert told(evidence)[0] == "cup"


def test_an_answer_of_more_sensors_takes_the_place_of_that_of_some_of_them() -> None:
    evidence = fed([answer("cup", 0.6)] * 3)
    whole = fed([answer("cup", 0.6)] * 3 + [answer("dog", 0.9)])
    evidence.add(answer("car", 0.9), NAMES, round(0.6 * S))
    evidence.add(answer("dog", 0.9), NAMES, round(0.6 * S), completes=True)
    assert evidence.probabilities == pytest.approx(whole.probabilities)
    alone = fed([answer("car", 0.9)])
    alone.add(answer("dog", 0.9), NAMES, round(0.2 * S), completes=True)
    assert told(alone) == ("dog", pytest.approx(0.9))


def test_other_labels_begin_anew() -> None:
    evidence = fed([answer("cup", 0.9)] * 10)
    evidence.add(answer("tree", 0.4, names=("cup", "tree")), ("cup", "tree"), 3 * S)
    assert evidence.names == ("cup", "tree")
    assert evidence.probabilities == pytest.approx(np.array([0.6, 0.4]))


def test_that_nothing_fits_stays_possible_and_many_labels_change_nothing() -> None:
    assert fed([answer("cup", 0.6) * 0.5] * 10).probabilities.sum() == pytest.approx(0.5, abs=0.01)
    names = tuple(f"label {number}" for number in range(5000))
    assert told(fed([answer("label 7", 0.6, names=names)] * 10, names=names)) == (
        "label 7",
        pytest.approx(0.6, abs=1e-3),
    )


def test_an_answer_of_zero_excludes_no_label_for_ever() -> None:
    never = np.array([0.0, 1, 0, 0])
    assert told(fed([never] * 50 + [np.array([1.0, 0, 0, 0])] * 20))[0] == "cup"
    assert np.isfinite(fed([np.zeros(4)] * 3).probabilities).all()
