"""Confidence is monotone and calibrated; the threshold refuses what it was asked to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from intern.routing.calibrate import BUILT_IN, FEATURES, Calibration, _copies, calibrate, fit_model

features = st.tuples(st.floats(-6, 6), st.floats(-8, 8), st.floats(-1, 1), st.floats(-1, 1))


def measured(
    count: int, *, seed: int = 0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Requests of a known logistic law: in scope mostly right, out of scope never."""
    random = np.random.default_rng(seed)
    inside = np.c_[random.normal(3, 2, count), random.normal(3, 2, count), random.normal(0.7, 0.1, (count, 2))]
    outside = np.c_[random.normal(0, 2, count), random.normal(-1, 2, count), random.normal(0.4, 0.1, (count, 2))]
    right = random.random(count) < 1 / (1 + np.exp(-(inside[:, 0] + 0.5)))
    return (
        np.concatenate([inside, outside]),
        np.r_[right, np.zeros(count, dtype=bool)],
        np.repeat([0, 2], [count, count]),
    )


FITTED = fit_model(*measured(2000))


@given(features, st.integers(0, len(FEATURES) - 1), st.floats(0, 4), st.sampled_from([BUILT_IN, FITTED]))
def test_more_of_a_feature_never_means_less_confidence(
    values: tuple[float, ...], which: int, more: float, calibration: Calibration
) -> None:
    raised = np.asarray(values)
    raised[which] += more
    low, high = calibration.confidence(np.stack([np.asarray(values), raised]))
    assert 0 <= low <= high + 1e-12
    assert high <= 1


@given(st.floats(0, 0.5), st.floats(0, 0.5), st.sampled_from([BUILT_IN, FITTED]))
def test_a_higher_rate_never_refuses_less(one: float, other: float, calibration: Calibration) -> None:
    low, high = sorted((one, other))
    assert 0 <= calibration.threshold(low) <= calibration.threshold(high) <= 0.8


def test_a_misleading_feature_counts_for_nothing_rather_than_against() -> None:
    values, right, kind = measured(2000, seed=3)
    values[:, 3] = np.where(kind == 0, 0.3, 0.9) + np.random.default_rng(0).normal(0, 0.1, len(kind))
    assert fit_model(values, right, kind).coefficients[:-1].min() >= 0


def test_rate_zero_refuses_nothing() -> None:
    assert BUILT_IN.threshold(0.0) == FITTED.threshold(0.0) == 0.0


def test_at_most_the_wanted_share_of_in_scope_requests_is_refused() -> None:
    values, _, kind = measured(2000, seed=1)
    confidence = FITTED.confidence(values)
    threshold = FITTED.threshold(0.04)
    assert 0.005 < (confidence[kind == 0] < threshold).mean() <= 0.045
    assert (confidence[kind == 2] < threshold).mean() > 0.8


def test_confidence_is_the_share_that_is_right() -> None:
    values, right, kind = measured(4000, seed=2)
    random = np.random.default_rng(0)
    # As many out-of-scope requests as the calibration expects.
    mixed = (kind == 0) | (random.random(len(kind)) < 0.05 / 0.95)
    confidence = FITTED.confidence(values[mixed])
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 0.9), (0.9, 1.0)):
        chosen = (confidence >= low) & (confidence < high)
        assert abs(confidence[chosen].mean() - right[mixed][chosen].mean()) < 0.08, (low, high)


def test_too_few_texts_use_the_built_in_model() -> None:
    random = np.random.default_rng(0)
    few = random.standard_normal((12, 8)).astype(np.float32)
    owners = np.zeros(12, dtype=np.int32)
    assert calibrate(few, owners, 1, few) is BUILT_IN
    assert calibrate(few[:0], owners[:0], 0, few) is BUILT_IN
    assert BUILT_IN.threshold(0.04) == 0.5


def test_near_copies_of_near_copies_are_in_one_group_and_skills_never_share_one() -> None:
    degrees = np.radians([0, 40, 20, 90, 0])
    vectors = np.stack([np.cos(degrees), np.sin(degrees)], axis=1).astype(np.float32)
    groups = _copies(vectors, np.asarray([0, 0, 0, 0, 1], dtype=np.int32))
    assert groups[0] == groups[1] == groups[2]
    assert len({groups[0], groups[3], groups[4]}) == 3
    assert len(_copies(vectors[:0], np.zeros(0, dtype=np.int32))) == 0
