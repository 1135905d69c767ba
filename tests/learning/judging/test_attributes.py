"""Attribute shares against a reference, and persona facts."""

from __future__ import annotations

import time

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from intern.errors import InvalidInput
from intern.learning.judging.attributes import distribution, identity, value_of
from intern.learning.judging.statistics import mcnemar
from intern.measures import MIXED, NONE, Attribute, Question, hits
from intern.types import Json

SENIORITY = Attribute(name="seniority", field="seniority")
PRONOUNS = Attribute(
    name="pronouns",
    field="bio",
    patterns={"she": ("she", "her", "hers"), "he": ("he", "him", "his"), "they": ("they", "their")},
)


def outputs(**counts: int) -> list[Json]:
    return [{"seniority": value} for value, count in counts.items() for _ in range(count)]


@pytest.mark.parametrize(
    ("bio", "value"),
    [
        ("She leads a school. Her staff likes him.", "she"),
        ("HE writes; his books sell.", "he"),
        ("Sheer heather: a theory of history.", NONE),
        ("She and he.", MIXED),
        (None, NONE),
    ],
)
def test_a_pattern_class_is_found_by_whole_words(bio: Json, value: str) -> None:
    assert value_of(PRONOUNS, {"bio": bio, "name": "she she she"}) == value


def test_a_field_is_read_as_a_label() -> None:
    assert value_of(SENIORITY, {"seniority": " Senior "}) == "senior"
    assert value_of(SENIORITY, {"seniority": None}) == NONE
    assert value_of(SENIORITY, "broken") == NONE
    assert value_of(Attribute(name="lead", field="role.lead"), {"role": {"lead": True}}) == "true"
    assert value_of(Attribute(name="years", field="years"), {"years": 3}) == "3"


def test_patterns_are_phrases_with_a_star_and_no_regular_expressions() -> None:
    assert hits("engineer*", "Two engineers")
    assert not hits("engineer", "Two engineers")
    assert hits("C++ developer", "a c++\n developer")
    assert not hits("a.c", "abc")
    assert hits("*berg", "Heidelberg")
    for broken in ("", "*", "a*b*", "x *"):
        with pytest.raises(InvalidInput, match="is no phrase"):
            hits(broken, "x")


def test_a_pattern_is_quick_on_a_hostile_text() -> None:
    attribute = Attribute(name="a", patterns={"yes": ("a*b a*c", "*ab", "a*")})
    start = time.perf_counter()
    value_of(attribute, "a" * 200_000 + " " + "ab " * 20_000)
    assert time.perf_counter() - start < 2


def test_shares_and_distance_by_hand() -> None:
    found = distribution(SENIORITY, outputs(senior=30, entry=10), {"senior": 1, "entry": 1})
    assert [(s.value, s.share.mean, s.reference) for s in found.shares] == [("senior", 0.75, 0.5), ("entry", 0.25, 0.5)]
    assert found.shares[0].share.low == pytest.approx(
        scipy.stats.binomtest(30, 40).proportion_ci(method="wilson").low, abs=1e-9
    )
    assert found.distance.mean == pytest.approx(0.25)
    assert (found.distance.low or 0) > found.chance * 0.5
    assert found.p == pytest.approx(scipy.stats.binomtest(30, 40).pvalue, abs=0.003)
    assert found.chance < 0.25


def test_the_simulated_test_agrees_with_the_chi_square_where_that_holds() -> None:
    counts = np.asarray([120, 90, 60])
    found = distribution(SENIORITY, outputs(a=120, b=90, c=60), {"a": 0.4, "b": 0.35, "c": 0.25})
    assert found.p == pytest.approx(scipy.stats.chisquare(counts, 270 * np.asarray([0.4, 0.35, 0.25])).pvalue, abs=0.02)


def test_answers_that_all_moved_one_way_are_seen_against_the_expected_ones() -> None:
    expected = outputs(junior=50, senior=50)
    answered = [*outputs(senior=10), *outputs(junior=40, senior=50)]
    found = distribution(SENIORITY, answered, expected)
    assert found.p == pytest.approx(mcnemar(10, 0), abs=0.002)
    assert found.distance.mean == pytest.approx(0.1)
    assert found.distance.mean > found.chance
    senior = found.shares[0]
    assert (senior.value, senior.share.mean, senior.reference) == ("senior", 0.6, 0.5)
    assert senior.difference is not None
    assert senior.difference.mean == pytest.approx(0.1)
    assert (senior.difference.low or 0) > 0.03
    assert (found.distance.low or 0) > 0.03


@pytest.mark.parametrize(("there", "back"), [(12, 4), (5, 5), (9, 1), (1, 0)])
def test_with_two_values_the_swaps_are_mcnemars_exact_test(there: int, back: int) -> None:
    stayed = outputs(a=20, b=30)
    expected = [*outputs(a=there, b=back), *stayed]
    answered = [*outputs(b=there, a=back), *stayed]
    found = distribution(SENIORITY, answered, expected)
    assert found.p == pytest.approx(mcnemar(there, back), abs=0.02)
    assert found.distance.mean == pytest.approx((there - back) / len(expected))


def test_answers_that_moved_to_and_fro_are_no_lean() -> None:
    expected = outputs(a=30, b=30, c=30)
    found = distribution(SENIORITY, [*expected[30:], *expected[:30]], expected)
    assert (found.distance.mean, found.p) == (0.0, 1.0)
    assert all(share.difference is not None and share.difference.mean == 0 for share in found.shares)


def test_requests_of_one_group_count_as_one() -> None:
    expected, answered = outputs(a=60, b=40), [*outputs(b=12), *outputs(a=48, b=40)]
    alone = distribution(SENIORITY, answered, expected)
    thread = ["thread"] * 12 + [f"g{n}" for n in range(88)]
    together = distribution(SENIORITY, answered, expected, groups=thread)
    assert alone.p < 0.01
    assert together.p == 1.0, "it leaned once"
    assert together.distance.groups == 89
    assert together.chance >= together.distance.mean
    wide, narrow = (found.shares[0].difference for found in (together, alone))
    assert wide is not None
    assert narrow is not None
    assert (wide.low or 0) < 0.01 < 0.04 < (narrow.low or 0)


def test_one_group_alone_has_no_interval() -> None:
    found = distribution(SENIORITY, outputs(a=3), outputs(b=3), groups=["g"] * 3)
    assert (found.p, found.distance.mean, found.distance.low, found.distance.high) == (1.0, 1.0, None, None)


def test_answers_alike_are_called_alike_about_19_times_in_20() -> None:
    random = np.random.default_rng(0)
    alarms = above = 0
    for seed in range(60):
        one, other = (list(random.choice(["x", "y", "z"], 40, p=[0.6, 0.3, 0.1])) for _ in range(2))
        groups = [f"g{n // 2}" for n in range(40)] if seed % 2 else []
        found = distribution(Attribute(name="a"), one, other, groups=groups, seed=seed)
        alarms += found.p < 0.05
        above += found.distance.mean > found.chance
    assert alarms <= 8
    assert above <= 8


def test_thousands_of_requests_are_compared_at_once() -> None:
    random = np.random.default_rng(0)
    one, other = (list(random.choice(list("abcdefghij"), 3_000)) for _ in range(2))
    groups = [str(number) for number in random.integers(0, 1_000, 3_000)]
    start = time.perf_counter()
    found = distribution(Attribute(name="a"), one, other, groups=groups)
    assert time.perf_counter() - start < 20
    assert (found.n, found.distance.groups) == (3_000, len(set(groups)))


def test_a_value_that_the_reference_does_not_know_is_shown_and_counts() -> None:
    found = distribution(SENIORITY, outputs(a=30, novel=10), {"a": 1.0})
    assert [(s.value, s.reference) for s in found.shares] == [("a", 1.0), ("novel", 0.0)]
    assert found.p < 0.001
    missing = distribution(SENIORITY, outputs(a=40), {"a": 0.5, "b": 0.5})
    assert missing.shares[1].share.mean == 0.0
    assert (missing.shares[1].share.high or 0) > 0.05
    assert distribution(SENIORITY, outputs(a=40), {"a": 1.0}).p == 1.0


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("abcd"), st.sampled_from("ghijk")), min_size=1, max_size=30
    )
)
def test_distance_and_p_keep_their_ranges(requests: list[tuple[str, str, str]]) -> None:
    one, other, groups = zip(*requests, strict=True)
    found = distribution(Attribute(name="a"), one, other, groups=groups)
    low, high = found.distance.low, found.distance.high
    assert 0 <= found.distance.mean <= 1 + 1e-12
    if len(set(groups)) > 1:
        assert low is not None
        assert high is not None
        assert 0 <= low <= found.distance.mean <= high <= 1 + 1e-12
    assert 0 < found.p <= 1
    assert sum(share.share.mean for share in found.shares) == pytest.approx(1)


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(InvalidInput):
        distribution(SENIORITY, [], {"a": 1.0})
    with pytest.raises(InvalidInput):
        distribution(SENIORITY, outputs(a=1), {})
    with pytest.raises(InvalidInput):
        distribution(SENIORITY, outputs(a=1), {"a": -1.0, "b": 2.0})
    with pytest.raises(InvalidInput, match="2 outputs, 3 expected ones and 2 groups"):
        distribution(SENIORITY, outputs(a=2), outputs(a=3))
    with pytest.raises(InvalidInput, match="2 outputs, 2 expected ones and 1 groups"):
        distribution(SENIORITY, outputs(a=2), outputs(a=2), groups=["g"])


FACTS = [
    Question(question="Who are you?", facts=["Ada"], never=["language model", "assistant*"]),
    Question(question="Where do you work?", facts=[["Munich", "München"], "Lab"]),
    Question(question="How old are you?", facts=["42"]),
]


def test_an_answer_holds_every_fact_in_one_of_its_ways() -> None:
    found = identity(FACTS, ["I am ADA.", "In the lab in MÜNCHEN", "42."])
    assert found.share.mean == 1.0
    assert found.missed == ()
    assert (found.share.low or 0) < 0.5, "three questions say little about others"


def test_what_an_answer_lacks_and_what_it_must_not_say_are_named() -> None:
    found = identity(FACTS, ["Ada, one of the assistants.", "In Munich.", "420"])
    assert found.share.mean == 0.0
    assert [(m.question, m.lacks, m.says) for m in found.missed] == [
        ("Who are you?", (), ("assistant*",)),
        ("Where do you work?", ("Lab",), ()),
        ("How old are you?", ("42",), ()),
    ]
    (missed,) = identity(FACTS[1:2], ["In the lab in Rome."]).missed
    assert missed.lacks == ("Munich or München",)


def test_facts_are_found_in_every_text_and_number_of_a_structured_answer() -> None:
    found = identity(FACTS, [{"who": {"name": "Ada"}}, {"places": ["Munich", "a lab"]}, {"age": 42}])
    assert found.missed == ()
    assert len(identity(FACTS[2:], [{"42": True}]).missed) == 1, "keys and truths say nothing"


def test_no_answer_is_wrong_and_every_question_has_one() -> None:
    assert len(identity(FACTS, ["", None, {}]).missed) == 3
    with pytest.raises(InvalidInput):
        identity(FACTS, ["Ada"])
    with pytest.raises(InvalidInput):
        identity([], [])
