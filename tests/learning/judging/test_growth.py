"""The parts of the examples that are trained on, and what the curve through their scores says."""

from __future__ import annotations

import pytest

from intern.errors import InvalidInput
from intern.learning.judging.growth import LEAST_COMMON, Growth, common, forecast, parts
from intern.learning.judging.outcomes import Interval, Outcome
from intern.types import Example


def examples(count: int) -> list[Example]:
    return [Example(id=f"ex_{number}", input=f"input {number}", output="x") for number in range(count)]


def score(mean: float, reach: float = 0.04) -> Interval:
    return Interval(mean=mean, low=mean - reach, high=mean + reach, n=100, groups=100)


def test_a_smaller_part_is_within_a_larger_and_the_same_whenever_it_is_made() -> None:
    whole = examples(200)
    small, large = parts(whole)
    assert (len(small), len(large)) == (50, 100)
    assert {e.id for e in small} < {e.id for e in large} < {e.id for e in whole}
    assert parts(whole[::-1]) == [small, large]


def test_there_are_no_parts_of_too_few_examples() -> None:
    assert parts(examples(37)) == []
    assert [len(part) for part in parts(examples(40))] == [10, 20]


def test_scores_that_still_rise_foretell_a_gain_and_scores_that_stand_foretell_none() -> None:
    rising = forecast({50: score(0.40), 100: score(0.55), 200: score(0.68)})
    standing = forecast({50: score(0.80), 100: score(0.80), 200: score(0.80)})
    assert 0.01 < rising.gain.mean < 0.1
    assert standing.gain.mean == pytest.approx(0.0, abs=0.005)
    assert rising.gain.low <= rising.gain.mean <= rising.gain.high
    assert rising.words == (
        f"50 more examples would add about {rising.gain.mean:.2f} to the score "
        f"({rising.gain.low:.2f} to {rising.gain.high:.2f})."
    )


def test_it_is_the_same_after_it_was_kept() -> None:
    found = forecast({200: score(0.68), 50: score(0.40), 100: score(0.55)})
    assert list(found.scores) == [50, 100, 200]
    again = Growth.model_validate(found.model_dump(mode="json"))
    assert again == found
    assert again.curve.gain(200, 50) == found.gain
    assert "trained on parts of the examples" in again.how


def test_a_score_without_bounds_hardly_counts() -> None:
    unknown = Interval(mean=0.1, low=None, high=None, n=1, groups=1)
    found = forecast({50: score(0.40), 100: unknown, 200: score(0.68)})
    assert found.gain.mean > 0.01


def test_two_sizes_are_too_few() -> None:
    with pytest.raises(InvalidInput, match="3 or more sizes"):
        forecast({50: score(0.4), 100: score(0.5)})


# --- versions --------------------------------------------------------------------------------------------------


def outcomes(numbers: range, *, score: float = 1.0, expected: str = "x") -> list[Outcome]:
    return [
        Outcome(
            example=f"ex_{n}", group=f"g_{n}", valid=True, fields={"text": score}, score=score, expected=expected,
            output="x", request=f"request {n}",
        )
        for n in numbers
    ]  # fmt: skip


def test_versions_are_compared_on_the_examples_that_all_of_them_answered() -> None:
    found = common(
        {
            200: outcomes(range(100), score=0.8),
            150: outcomes(range(80), score=0.7),
            100: outcomes(range(60), score=0.6),
            50: outcomes(range(10, 90), score=0.3),
        }
    )
    assert list(found) == [200, 150, 100, 50]
    assert {tuple(outcome.example for outcome in rows) for rows in found.values()} == {
        tuple(f"ex_{n}" for n in range(10, 60))
    }
    assert [rows[0].score for rows in found.values()] == [0.8, 0.7, 0.6, 0.3]


def test_three_earlier_versions_are_needed() -> None:
    versions = {size: outcomes(range(100)) for size in (200, 150, 100)}
    assert common(versions) == {}
    assert len(common({**versions, 50: outcomes(range(100))})) == 4
    assert common({}) == {}


def test_a_version_that_answered_other_examples_is_left_out_and_spoils_nothing() -> None:
    few = LEAST_COMMON - 1
    versions = {size: outcomes(range(100)) for size in (200, 150, 100, 50)}
    found = common({200: versions[200], 190: outcomes(range(few)), **versions})
    assert list(found) == [200, 150, 100, 50]
    assert all(len(rows) == 100 for rows in found.values())
    assert common({size: rows[:few] for size, rows in versions.items()}) == {}


def test_an_example_that_was_corrected_in_between_is_not_the_same() -> None:
    before = outcomes(range(50), expected="y") + outcomes(range(50, 100))
    found = common({200: outcomes(range(100)), 150: before, 100: before, 50: before})
    assert {len(rows) for rows in found.values()} == {50}
    reworded = [o.model_copy(update={"request": "other"}) for o in outcomes(range(100))]
    assert common({200: outcomes(range(100)), 150: reworded, 100: reworded, 50: reworded}) == {}


def test_a_forecast_over_versions_says_so() -> None:
    found = forecast({50: score(0.40), 100: score(0.55), 150: score(0.62), 200: score(0.68)}, of="versions")
    assert "this version and 3 earlier ones on the 100 held-out examples" in found.how
    assert found.words.startswith("50 more examples would add about 0.0")
