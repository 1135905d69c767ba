"""Two runs' candidates are compared on the examples that both answered, pair by pair."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from intern.errors import InvalidInput
from intern.learning.judging.outcomes import Outcome
from intern.learning.judging.side_by_side import side_by_side


def outcomes(scores: Sequence[float], *, start: int = 0, fields: Sequence[str] = ("label", "note")) -> list[Outcome]:
    return [
        Outcome(
            example=f"ex_{number}", group=f"g_{number}", valid=True, score=score, expected="", output="", request="",
            fields=dict.fromkeys(fields, score),
        )
        for number, score in enumerate(scores, start)
    ]  # fmt: skip


def test_the_difference_is_the_first_minus_the_other_with_its_interval() -> None:
    found = side_by_side(outcomes([1.0] * 30 + [0.0] * 10), outcomes([1.0] * 15 + [0.0] * 25))
    assert (found.n, found.score.mean, found.other_score.mean) == (40, 0.75, 0.375)
    interval = found.difference.interval
    assert interval.mean == pytest.approx(0.375)
    assert interval.low is not None
    assert interval.low > 0
    assert (found.difference.wins, found.difference.losses) == (15, 0)
    assert set(found.fields) == {"label", "note"}
    assert found.fields["note"].interval.mean == pytest.approx(0.375)


def test_only_examples_that_both_answered_count() -> None:
    found = side_by_side(outcomes([1.0] * 20), outcomes([0.0] * 20, start=10))
    assert (found.n, found.difference.interval.mean) == (10, 1.0)


def test_one_whose_right_answer_was_corrected_in_between_is_no_difference_between_them() -> None:
    corrected = [row.model_copy(update={"expected": "another", "score": 0.0}) for row in outcomes([1.0] * 5)]
    found = side_by_side(
        [*outcomes([1.0] * 5), *outcomes([1.0] * 30, start=5)], corrected + outcomes([1.0] * 30, start=5)
    )
    assert (found.n, found.corrected, found.failed, found.difference.losses, found.difference.wins) == (30, 5, 0, 0, 0)


def test_what_an_engine_failed_to_answer_is_no_difference_between_them() -> None:
    rows = outcomes([1.0] * 30)
    failed = [row.model_copy(update={"failed": True, "score": 0.0}) for row in rows]
    found = side_by_side(failed[:3] + rows[3:], rows[:5] + failed[5:7] + rows[7:])
    assert (found.n, found.corrected, found.failed, found.difference.interval.mean) == (25, 0, 5, 0.0)


def test_a_field_that_only_one_has_is_left_out() -> None:
    found = side_by_side(outcomes([1.0] * 5), outcomes([1.0] * 5, fields=("label", "new")))
    assert set(found.fields) == {"label"}


def test_nothing_in_common_is_said() -> None:
    with pytest.raises(InvalidInput, match="no held-out example in common"):
        side_by_side(outcomes([1.0]), outcomes([1.0], start=5))
    with pytest.raises(InvalidInput, match="no field in common"):
        side_by_side(outcomes([1.0], fields=("a",)), outcomes([1.0], fields=("b",)))
