"""Variety, overused phrases, loops and consistency, each on answers where people would agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intern.learning.judging.repetition import consistency, distinct_n, loops, overused, self_repetition, texts
from intern.types import Metric

sentences = st.lists(st.sampled_from(["one", "two", "three", "four", "five"]), max_size=30).map(" ".join)


def test_distinct_bigrams_by_hand() -> None:
    assert distinct_n(["a cat sat", "a cat ran"]) == pytest.approx(3 / 4)
    assert distinct_n(["A cat sat.", "a CAT sat"]) == pytest.approx(2 / 4)
    assert distinct_n(["a cat sat"], n=1) == 1.0


def test_labels_and_names_make_no_bigrams() -> None:
    assert distinct_n([{"category": "email", "tags": ["one", "two"]}, None, 3]) is None
    assert list(texts({"a": "x", "b": ["y", {"c": "z"}], "d": 1})) == ["x", "y", "z"]


@given(st.lists(sentences, min_size=1), st.integers(1, 4))
def test_saying_everything_twice_halves_the_distinct_share(outputs: list[str], n: int) -> None:
    once = distinct_n(outputs, n)
    assert distinct_n(outputs * 2, n) == (None if once is None else pytest.approx(once / 2))


def test_a_loop_is_told_from_an_answer_that_repeats_a_term() -> None:
    looping = "Please contact the People team. " * 8
    fine = "Ask your manager first. Your manager asks the People team, and the People team answers within two days."
    assert loops(looping)
    assert self_repetition(looping) > 0.8
    assert not loops(fine)
    assert self_repetition(fine) < 0.2
    assert not loops("Yes.")
    assert self_repetition("") == 0.0


def test_a_loop_through_the_items_of_an_array_is_seen() -> None:
    assert loops({"skills": ["planning", "budget"] * 10})
    assert not loops({"skills": ["planning", "budget", "timetables", "conflict talks"]})


def test_the_overused_phrase_is_found_and_the_usual_one_is_not() -> None:
    training = [f"Thank you for your mail. Ticket {n} is with the network team now." for n in range(60)]
    outputs = [f"Thank you for your mail. I am happy to help you with ticket {n}." for n in range(40)]
    found = overused(outputs, training)
    assert "happy to help you" in found[0].text
    assert (found[0].outputs, found[0].of_outputs, found[0].training, found[0].of_training) == (40, 40, 0, 60)
    assert found[0].z > 2.58
    assert not any("thank you" in phrase.text for phrase in found)
    assert len(found) < 4, "phrases that share most of their words stand for each other"


def test_one_looping_answer_overuses_nothing() -> None:
    assert overused(["so it goes on and on " * 50, "fine"], ["fine"] * 20) == []


def test_answers_like_the_training_outputs_overuse_nothing() -> None:
    training = [f"The {word} is in room {n}." for n in range(30) for word in ("printer", "scanner")]
    random = np.random.default_rng(0)
    for _ in range(20):
        mixed = list(random.permutation(training))
        assert overused(mixed[:20], mixed[20:]) == []
    assert overused([], training) == []


METRICS: dict[str, Metric] = {"intent": "exact", "summary": "text"}


def test_consistency_is_the_mean_agreement_of_pairs() -> None:
    one = {"intent": "card", "summary": "Card lost"}
    other = {"intent": "pin", "summary": "Card lost"}
    assert consistency([one, one, one], METRICS) == 1.0
    assert consistency([one, other], METRICS) == 0.5
    assert consistency([one, one, other], METRICS) == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert consistency([one], METRICS) is None


def test_broken_answers_agree_with_nothing_but_themselves() -> None:
    one = {"intent": "card", "summary": "Card lost"}
    assert consistency([one, "{broken"], METRICS) == 0.0
    assert consistency(["{broken", "{broken"], METRICS) == 1.0
    assert 0 < (consistency(["Card lost", "Card is lost"], {"text": "text"}) or 0) < 1
