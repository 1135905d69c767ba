"""One rival's outcomes come to one summary, and its mistakes on a field to one table."""

from __future__ import annotations

import pytest

from intern.errors import InvalidInput
from intern.learning.judging.outcomes import Outcome
from intern.learning.judging.statistics import clustered_mean
from intern.learning.judging.summary import BROKEN, confusion, summarise
from intern.types import Json


def outcome(example: str, expected: Json, output: Json, score: float, **more: object) -> Outcome:
    return Outcome.model_validate(
        {
            "example": example,
            "group": example,
            "valid": True,
            "fields": {"intent": score},
            "score": score,
            "expected": expected,
            "output": output,
            "request": "?",
            **more,
        }
    )


OUTCOMES = [
    outcome("1", {"intent": "card"}, {"intent": "card"}, 1.0, tokens=10, seconds=1.0, cited=True),
    outcome("2", {"intent": "card"}, {"intent": "pin"}, 0.0, tokens=20, seconds=9.0, cited=False),
    outcome("3", {"intent": None}, {"intent": None}, 1.0, tokens=30, seconds=2.0),
    outcome("4", {"intent": "card"}, "{bro", 0.0, valid=False, seconds=3.0),
    outcome("5", {"intent": "pin"}, {"intent": None}, 0.0, seconds=2.0),
]


def test_a_summary_by_hand() -> None:
    summary = summarise(OUTCOMES, confidence=0.9)
    assert (summary.n, summary.valid, summary.tokens, summary.seconds) == (5, 0.8, 12.0, 2.0)
    assert summary.score == summary.metrics["intent"] == clustered_mean([1, 0, 1, 0, 0], list("12345"), 0.9)
    assert (summary.null_precision, summary.null_recall, summary.grounded) == (0.5, 1.0, 0.5)
    assert summary.distinct_2 is None
    assert summarise([OUTCOMES[0]]).null_recall is None


def test_variety_is_of_the_outputs() -> None:
    texts = [outcome(str(i), "x", "so it goes", 0.5) for i in range(4)]
    assert summarise(texts).distinct_2 == pytest.approx(2 / 8)


def test_a_field_is_summed_up_over_the_outcomes_that_have_it() -> None:
    summary = summarise([*OUTCOMES, outcome("6", {"intent": "pin"}, {}, 0.5, fields={"other": 0.5})])
    assert (summary.metrics["intent"].n, summary.metrics["other"].n, summary.score.n) == (5, 1, 6)


def test_nothing_to_sum_up_is_an_error() -> None:
    with pytest.raises(InvalidInput):
        summarise([])


def test_confusion_counts_what_was_taken_for_what() -> None:
    table = confusion([*OUTCOMES, outcome("6", {"intent": True}, {"intent": 1}, 0.0)], "intent")
    assert table == {
        "card": {BROKEN: 1, "card": 1, "pin": 1},
        "null": {"null": 1},
        "pin": {"null": 1},
        "true": {"1": 1},
    }
    assert next(iter(table)) == "card"
    assert confusion([outcome("1", "text", "text", 1.0)], "intent") == {}
