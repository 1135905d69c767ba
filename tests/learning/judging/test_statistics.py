"""Intervals agree with the reference implementations where those apply, and stay honest where they do not."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats
from hypothesis import example, given
from hypothesis import strategies as st

from intern.errors import InvalidInput
from intern.learning.judging.outcomes import Difference, Interval
from intern.learning.judging.statistics import (
    MOST_NEEDED,
    clustered_mean,
    confidence_for,
    mcnemar,
    paired_difference,
    wilson,
)

scores = st.floats(0, 1)


def ids(n: int) -> list[str]:
    return [str(i) for i in range(n)]


def holds(interval: Interval, value: float) -> bool:
    assert interval.low is not None
    assert interval.high is not None
    return interval.low <= value <= interval.high


def difference(mine: npt.NDArray[np.float64] | list[float], other: npt.NDArray[np.float64] | list[float]) -> Difference:
    names = ids(len(mine))
    return paired_difference(dict(zip(names, mine, strict=True)), dict(zip(names, other, strict=True)), {})


# --- one mean --------------------------------------------------------------------------------------------------


def test_groups_of_one_give_students_interval() -> None:
    values = np.random.default_rng(0).beta(2, 1, 40)
    interval = clustered_mean(list(values), ids(40), confidence=0.9)
    reference = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    assert (interval.low, interval.high) == pytest.approx((reference.low, reference.high), rel=1e-9)
    assert (interval.mean, interval.n, interval.groups) == pytest.approx((values.mean(), 40, 40))


def test_groups_of_one_size_count_as_their_means() -> None:
    values = np.random.default_rng(1).beta(2, 1, (20, 3))
    interval = clustered_mean(list(values.ravel()), [str(i // 3) for i in range(60)])
    reference = scipy.stats.ttest_1samp(values.mean(axis=1), 0.0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((reference.low, reference.high), rel=1e-9)
    assert (interval.n, interval.groups) == (60, 20)


def test_copies_of_an_example_add_no_certainty() -> None:
    values = list(np.random.default_rng(2).beta(2, 1, 30))
    once = clustered_mean(values, ids(30))
    thrice = clustered_mean(values * 3, ids(30) * 3)
    assert (once.low, once.high) == pytest.approx((thrice.low, thrice.high))


@pytest.mark.parametrize("right", [0, 1, 3, 57, 60])
def test_nearly_equal_scores_get_wilsons_interval(right: int) -> None:
    interval = clustered_mean([1.0] * right + [0.0] * (60 - right), ids(60))
    reference = scipy.stats.binomtest(right, 60).proportion_ci(method="wilson")
    assert (interval.low, interval.high) == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_all_right_is_not_certainty_and_groups_count_rather_than_examples() -> None:
    alone = clustered_mean([1.0] * 60, ids(60))
    grouped = clustered_mean([1.0] * 60, [str(i // 3) for i in range(60)])
    assert alone.low is not None
    assert grouped.low is not None
    assert grouped.low < alone.low < 1.0 == alone.high
    # A score that is nearly 1 says no more than 1 does about what was not seen.
    for nearly in ([1.0] * 59 + [0.9], [1.0 - i / 5000 for i in range(60)]):
        assert clustered_mean(nearly, ids(60)).low == pytest.approx(alone.low, abs=0.015)


def test_one_group_says_nothing_about_others() -> None:
    interval = clustered_mean([0.2, 0.4], ["a", "a"])
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.3, None, None))


def test_a_group_with_most_of_the_examples_widens_the_interval() -> None:
    random = np.random.default_rng(3)
    values = random.beta(2, 2, 60)
    even = clustered_mean(list(values), [str(i // 2) for i in range(60)])
    lopsided = clustered_mean(list(values), ["big"] * 31 + ids(29))
    assert even.low is not None
    assert lopsided.low is not None
    assert even.mean - even.low < 0.7 * (lopsided.mean - lopsided.low)


@example([(0.0, "a"), (0.0, "a"), (0.0, "a"), (7.035648235455926e-35, "b")])
@given(st.lists(st.tuples(scores, st.sampled_from("abcdefghijkl")), min_size=1, max_size=40))
def test_an_interval_holds_its_mean_and_stays_within_the_scale(sample: list[tuple[float, str]]) -> None:
    interval = clustered_mean([s for s, _ in sample], [g for _, g in sample])
    if interval.groups < 2:
        assert interval.low is interval.high is None
    else:
        assert interval.low is not None
        assert interval.high is not None
        assert 0 <= interval.low <= interval.mean <= interval.high <= 1
        assert interval.high - interval.low > 0


@pytest.mark.parametrize(
    ("values", "groups"), [([], []), ([0.5], []), ([1.2, 0.1], ["a", "b"]), ([math.nan, 0.1], ["a", "b"])]
)
def test_what_is_no_score_is_refused(values: list[float], groups: list[str]) -> None:
    with pytest.raises(InvalidInput):
        clustered_mean(values, groups)


@pytest.mark.parametrize(("share", "size", "shared"), [(0.5, 1, 0.0), (0.9, 1, 0.0), (0.98, 1, 0.0), (0.7, 4, 0.6)])
def test_19_of_20_intervals_hold_the_truth(share: float, size: int, shared: float) -> None:
    """60 right-or-wrong scores; in groups of `size`, of which a share `shared` follows the group's first score."""
    random = np.random.default_rng(4)
    groups = [str(i // size) for i in range(60)]
    held = 0
    for _ in range(400):
        own = random.random(60) < share
        first = np.repeat(own[::size], size)
        values = np.where(random.random(60) < shared, first, own)
        interval = clustered_mean(list(values.astype(float)), groups)
        held += holds(interval, share)
    assert held / 400 >= 0.92


def test_forgetting_the_groups_would_hold_the_truth_less_often() -> None:
    """The claim that makes clustering worth its trouble: the test above could fail."""
    random = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        values = list(np.repeat(random.random(15) < 0.7, 4).astype(float))
        interval = clustered_mean(values, ids(60))
        held += holds(interval, 0.7)
    assert held / 200 < 0.8


# --- paired differences ----------------------------------------------------------------------------------------


def test_a_paired_difference_is_students_paired_test() -> None:
    random = np.random.default_rng(6)
    mine, other = random.beta(3, 1, 50), random.beta(2, 1, 50)
    found = difference(mine, other)
    reference = scipy.stats.ttest_rel(mine, other).confidence_interval(0.95)
    assert (found.interval.low, found.interval.high) == pytest.approx((reference.low, reference.high), rel=1e-9)
    assert found.p is None
    assert (found.wins, found.losses, found.ties) == ((mine > other).sum(), (mine < other).sum(), 0)


def test_pairing_beats_two_separate_intervals() -> None:
    random = np.random.default_rng(7)
    other = random.beta(2, 2, 60)
    mine = np.clip(other + random.normal(0.05, 0.05, 60), 0, 1)
    found = difference(mine, other).interval
    alone, rival = clustered_mean(list(mine), ids(60)), clustered_mean(list(other), ids(60))
    assert found.low is not None
    assert alone.low is not None
    assert rival.high is not None
    assert found.low > 0 > alone.low - rival.high


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemars_p_is_the_binomial_tests(wins: int, losses: int) -> None:
    if wins + losses:
        assert mcnemar(wins, losses) == pytest.approx(scipy.stats.binomtest(wins, wins + losses).pvalue, rel=1e-9)
    else:
        assert mcnemar(0, 0) == 1.0


@pytest.mark.parametrize(("wins", "shown"), [(5, False), (6, True)])
def test_few_discordant_pairs_are_judged_as_mcnemars_test_does(wins: int, shown: bool) -> None:
    """Student's t alone would call five wins in sixty a difference."""
    found = difference([1.0] * 60, [0.0] * wins + [1.0] * (60 - wins))
    assert found.p is not None
    assert found.interval.low is not None
    assert (found.p < 0.05) is shown
    assert (found.interval.low > 0) is shown
    away = [1.0] * wins + [0.0] * (60 - wins)
    assert scipy.stats.ttest_1samp(away, 0.0).confidence_interval(0.95).low > 0


@pytest.mark.parametrize("by", [0.0, 0.2])
def test_equal_differences_are_not_certainty(by: float) -> None:
    found = difference([0.5 + by] * 40, [0.5] * 40)
    assert found.interval.low is not None
    assert found.interval.high is not None
    assert found.interval.low < by - 0.02
    assert found.interval.high > by + 0.02
    assert found.needed is None
    assert found.interval.mean == pytest.approx(by)


def test_only_common_examples_count_and_none_is_an_error() -> None:
    found = paired_difference({"a": 1.0, "b": 0.0, "c": 1.0}, {"b": 1.0, "c": 0.0, "d": 1.0}, {}, name="base")
    assert (found.rival, found.interval.n, found.wins, found.losses) == ("base", 2, 1, 1)
    with pytest.raises(InvalidInput, match="no example in common"):
        paired_difference({"a": 1.0}, {"b": 1.0}, {})


def test_the_interval_of_a_difference_is_clustered() -> None:
    random = np.random.default_rng(8)
    mine, other = np.repeat(random.random(30), 2), np.repeat(random.random(30), 2)
    alone = difference(mine, other).interval
    names = ids(60)
    grouped = paired_difference(
        dict(zip(names, mine, strict=True)), dict(zip(names, other, strict=True)), {e: str(int(e) // 2) for e in names}
    ).interval
    assert grouped.groups == 30
    assert (grouped.high or 0) - (grouped.low or 0) > 1.3 * ((alone.high or 0) - (alone.low or 0))


@given(st.lists(st.tuples(scores, scores), min_size=2, max_size=30))
def test_the_other_way_round_the_difference_has_the_other_sign(pairs: list[tuple[float, float]]) -> None:
    one = difference([m for m, _ in pairs], [o for _, o in pairs])
    other = difference([o for _, o in pairs], [m for m, _ in pairs])
    assert one.interval.low is not None
    assert other.interval.high is not None
    assert one.interval.low == pytest.approx(-other.interval.high, abs=1e-9)
    assert (one.wins, one.losses) == (other.losses, other.wins)
    assert one.interval.low <= one.interval.mean <= (one.interval.high or 0)


def test_a_rival_that_is_as_good_is_seldom_beaten() -> None:
    random = np.random.default_rng(9)
    beaten = 0
    for _ in range(400):
        right = random.random((2, 60)) < np.where(random.random(60) < 0.5, 0.95, 0.3)
        low = difference(right[0].astype(float), right[1].astype(float)).interval.low
        beaten += low is not None and low > 0
    assert 0 < beaten / 400 <= 0.04  # 0.025 is promised


def test_needed_examples_reach_the_promised_power() -> None:
    random = np.random.default_rng(10)

    def sample(n: int) -> Difference:
        return difference(np.clip(random.normal(0.6, 0.2, n), 0, 1), np.clip(random.normal(0.5, 0.2, n), 0, 1))

    undecided = [found.needed for _ in range(200) if (found := sample(30)).needed and 0.08 < found.interval.mean < 0.12]
    assert undecided
    needed = int(np.median(undecided))
    shown = sum((sample(needed).interval.low or -1.0) > 0 for _ in range(300)) / 300
    assert 0.7 <= shown <= 0.9


def test_needed_is_beyond_what_there_is_and_bounded() -> None:
    random = np.random.default_rng(11)
    found = difference(random.random(40), random.random(40))
    assert found.needed is not None
    assert found.needed > 40
    values = random.random(40)
    away = np.where(np.arange(40) % 2 == 0, 0.1, -0.1) + 0.0001
    assert difference(0.1 + 0.8 * values + away, 0.1 + 0.8 * values).needed == MOST_NEEDED


# --- proportions -----------------------------------------------------------------------------------------------


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilson_is_scipys(counts: tuple[int, int], confidence: float) -> None:
    found = wilson(*counts, confidence)
    reference = scipy.stats.binomtest(*counts).proportion_ci(confidence, method="wilson")
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=1e-9)


@pytest.mark.parametrize("counts", [(1, 0), (3, 2), (-1, 2)])
def test_what_is_no_share_is_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(InvalidInput):
        wilson(*counts)


# --- many looks ------------------------------------------------------------------------------------------------


def test_all_looks_together_spend_no_more_than_alpha() -> None:
    spent = [1 - confidence_for(look) for look in range(1, 2000)]
    assert spent == sorted(spent, reverse=True)
    assert 0.0499 < sum(spent) < 0.05
    with pytest.raises(InvalidInput):
        confidence_for(0)
