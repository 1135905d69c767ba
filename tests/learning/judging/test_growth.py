"""The parts of the examples that are trained on, and what the curve through their scores says."""

from __future__ import annotations

import pytest

from intern.errors import InvalidInput
from intern.learning.judging.growth import Growth, forecast, parts
from intern.learning.judging.outcomes import Interval
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


def test_a_score_without_bounds_hardly_counts() -> None:
    unknown = Interval(mean=0.1, low=None, high=None, n=1, groups=1)
    found = forecast({50: score(0.40), 100: unknown, 200: score(0.68)})
    assert found.gain.mean > 0.01


def test_two_sizes_are_too_few() -> None:
    with pytest.raises(InvalidInput, match="3 or more sizes"):
        forecast({50: score(0.4), 100: score(0.5)})
