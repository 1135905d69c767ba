"""The learning curve finds a known law, foretells within its interval, and admits what it cannot know."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from intern.errors import InvalidInput
from intern.learning.judging.curve import fit_learning_curve

SIZES = [25, 50, 100, 200]


def law(size: int) -> float:
    return 0.9 - 1.6 / math.sqrt(size)


def test_a_known_law_is_found_again() -> None:
    curve = fit_learning_curve(SIZES, [law(size) for size in SIZES], [0.01] * 4)
    for size in (*SIZES, 400):
        assert curve.at(size).mean == pytest.approx(law(size), abs=0.01)
    gain = curve.gain(200, 50)
    assert gain.mean == pytest.approx(law(250) - law(200), abs=0.004)
    assert 0 <= gain.low <= gain.mean <= gain.high


@pytest.mark.parametrize("scores", [[0.2, 0.55, 0.85, 1.0], [0.4, 0.55, 0.63, 0.7]])
def test_exact_points_are_fitted_as_scipy_fits_them(scores: list[float]) -> None:
    """The first would rise past 1 but for the bound on the ceiling."""

    def power_law(size: npt.NDArray[np.float64], ceiling: float, drop: float, rate: float) -> npt.NDArray[np.float64]:
        return np.asarray(ceiling - drop * (size / 25) ** -rate)

    best, _ = curve_fit(power_law, np.asarray(SIZES), scores, p0=[0.9, 0.5, 0.5], bounds=([0, 0, 0.05], [1, 2, 2]))
    curve = fit_learning_curve(SIZES, scores, [0.002] * 4)
    for size in SIZES:
        assert curve.at(size).mean == pytest.approx(float(power_law(np.asarray(size), *best)), abs=0.01)


def test_what_comes_lies_in_the_interval_about_as_often_as_promised() -> None:
    random = np.random.default_rng(0)
    held = 0
    for seed in range(60):
        scores = [law(size) + random.normal(0, 0.02) for size in SIZES]
        forecast = fit_learning_curve(SIZES, scores, [0.02] * 4, seed=seed).at(400)
        held += forecast.low <= law(400) <= forecast.high
    assert held / 60 >= 0.85


def test_without_known_errors_few_points_leave_more_open() -> None:
    random = np.random.default_rng(1)
    scores = [law(size) + random.normal(0, 0.01) for size in SIZES]
    known = fit_learning_curve(SIZES, scores, [0.01] * 4).at(400)
    unknown = fit_learning_curve(SIZES, scores).at(400)
    assert unknown.high - unknown.low > 1.5 * (known.high - known.low)


def test_one_bad_point_does_not_turn_the_curve_down() -> None:
    curve = fit_learning_curve(SIZES, [0.6, 0.7, 0.55, 0.75])
    assert curve.at(100).mean <= curve.at(200).mean <= curve.at(1000).mean


def test_noisy_points_leave_the_rate_where_it_usually_is() -> None:
    assert fit_learning_curve(SIZES[:3], [0.3, 0.6, 0.7], [0.2] * 3).rate == pytest.approx(0.5, abs=0.15)
    assert fit_learning_curve(SIZES[:3], [0.3, 0.6, 0.7], [0.005] * 3).rate > 1


def test_a_flat_curve_promises_nothing() -> None:
    curve = fit_learning_curve(SIZES, [0.8, 0.8, 0.8, 0.8], [0.01] * 4)
    assert curve.gain(200, 50).mean == pytest.approx(0.0, abs=1e-6)
    assert curve.gain(200, 50).high < 0.02


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 1)), min_size=3, max_size=8, unique_by=lambda p: p[0]),
    st.integers(1, 10_000),
    st.integers(1, 1000),
)
def test_more_examples_never_foretell_less_and_scores_stay_scores(
    points: list[tuple[int, float]], size: int, more: int
) -> None:
    curve = fit_learning_curve([s for s, _ in points], [v for _, v in points])
    assert curve.ceiling <= 1
    assert curve.drop >= 0
    now, then = curve.at(size), curve.at(size + more)
    assert 0 <= now.low <= now.mean <= now.high <= 1
    assert now.mean <= then.mean + 1e-12
    assert curve.gain(size, more).mean == pytest.approx(then.mean - now.mean)


def test_the_same_points_give_the_same_forecast() -> None:
    scores = [0.5, 0.62, 0.7, 0.71]
    assert fit_learning_curve(SIZES, scores).at(300) == fit_learning_curve(SIZES, scores).at(300)


@pytest.mark.parametrize("sizes", [[], [50, 100], [50, 50, 100]])
def test_fewer_than_three_sizes_are_too_few(sizes: list[int]) -> None:
    with pytest.raises(InvalidInput, match="3 or more sizes"):
        fit_learning_curve(sizes, [0.5] * len(sizes))


def test_sizes_and_scores_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidInput):
        fit_learning_curve([0, 50, 100], [0.1, 0.2, 0.3])
    with pytest.raises(InvalidInput):
        fit_learning_curve([25, 50, 100], [0.1, 0.2, 1.3])
    with pytest.raises(InvalidInput):
        fit_learning_curve([25, 50, 100], [0.1, 0.2])
    with pytest.raises(InvalidInput):
        fit_learning_curve(SIZES, [0.1, 0.2, 0.3, 0.4]).at(0)
