"""One rival's outcomes come to one summary, and its mistakes on a field to one table."""

from __future__ import annotations

import pytest

from intern.errors import InvalidInput
from intern.learning.judging.outcomes import Outcome, Summary
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
    outcome("1", {"intent": "card"}, {"intent": "card"}, 1.0, tokens=10, seconds=1.0, support=1.0, sources=0.5),
    outcome("2", {"intent": "card"}, {"intent": "pin"}, 0.0, tokens=20, seconds=9.0, support=0.4),
    outcome("3", {"intent": None}, {"intent": None}, 1.0, tokens=30, seconds=2.0),
    outcome("4", {"intent": "card"}, "{bro", 0.0, valid=False, seconds=3.0),
    outcome("5", {"intent": "pin"}, {"intent": None}, 0.0, seconds=2.0),
]


def test_a_summary_by_hand() -> None:
    summary = summarise(OUTCOMES, confidence=0.9)
    assert (summary.n, summary.valid, summary.tokens, summary.seconds) == (5, 0.8, 12.0, 2.0)
    assert summary.score == summary.metrics["intent"] == clustered_mean([1, 0, 1, 0, 0], list("12345"), 0.9)
    assert (summary.null_precision, summary.null_recall) == (0.5, 1.0)
    assert (summary.support, summary.support_expected, summary.sources) == (0.7, None, 0.5)
    assert (summary.distinct_2, summary.failed, summary.prompt_tokens, summary.texts) == (None, 0, 0.0, {})
    assert summarise([OUTCOMES[0]]).null_recall is None


def test_variety_is_of_the_outputs() -> None:
    texts = [outcome(str(i), "x", "so it goes", 0.5) for i in range(4)]
    found = summarise(texts)
    assert (found.distinct_1, found.distinct_2, found.distinct_3) == pytest.approx((3 / 12, 2 / 8, 1 / 4))


def test_the_halves_of_a_text_s_score_are_told_apart() -> None:
    halves = [{"body": {"chrf": 0.2, "token_f1": 0.6}}, {"body": {"chrf": 0.4, "token_f1": 1.0}}, {}]
    found = summarise([outcome(str(n), "x", "y", 0.5, texts=texts) for n, texts in enumerate(halves)])
    assert (found.texts["body"].chrf, found.texts["body"].token_f1) == pytest.approx((0.3, 0.8))


def test_answers_that_were_remembered_have_no_time() -> None:
    times = [0.0, 0.0, 2.0, 4.0, 9.0]
    assert summarise([outcome(str(n), "x", "y", 1.0, seconds=s) for n, s in enumerate(times)]).seconds == 4.0
    assert summarise([outcome("1", "x", "y", 1.0)]).seconds == 0.0


def test_what_the_engine_did_not_answer_is_counted() -> None:
    rows = [outcome(str(n), "x", "", 0.0, valid=False, failed=n < 2, prompt_tokens=100 * n) for n in range(4)]
    assert (summarise(rows).failed, summarise(rows).prompt_tokens) == (2, 150.0)


def test_what_former_versions_kept_can_be_read() -> None:
    kept = summarise(OUTCOMES).model_dump(mode="json")
    new = ("support", "support_expected", "sources", "texts", "distinct_1", "distinct_3", "prompt_tokens", "failed")
    former = {name: value for name, value in kept.items() if name not in new} | {"grounded": 1.0}
    assert Summary.model_validate(former).support is None
    row = OUTCOMES[0].model_dump_json(exclude={"support", "support_expected", "sources", "texts", "failed"})
    assert Outcome.model_validate_json(row.replace("{", '{"cited": true, ', 1)).support is None


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
