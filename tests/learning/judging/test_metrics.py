"""Scores of answers: each metric on answers that are right, partly right, and wrong in the ways that models are."""

from __future__ import annotations

from random import Random

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from intern.errors import InvalidInput
from intern.learning.judging.metrics import (
    chrf,
    exact_match,
    mean_score,
    null_precision_recall,
    score_fields,
    score_value,
    text_fields,
    text_score,
    token_f1,
    words,
)
from intern.types import Json, Metric

plain = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9)
)
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=8,
)
metrics = st.sampled_from(["exact", "text", "number", "set"])

ITEMS: list[dict[str, Json]] = [
    {"description": "Oak shelf", "quantity": 6, "unit_price": 48, "amount": 288},
    {"description": "Bracket", "quantity": 12, "unit_price": 7.5, "amount": 90},
]
INVOICE = {"vendor": "Brackenfield Joinery Ltd", "due_date": None, "items": ITEMS, "total": 453.6}
METRICS: dict[str, Metric] = {"vendor": "exact", "due_date": "exact", "items": "set", "total": "number"}


@given(values, metrics)
def test_the_right_answer_scores_one(value: Json, metric: Metric) -> None:
    assert score_value(value, value, metric) == 1.0
    assert exact_match(value, value)


@given(values, values, metrics)
def test_any_answer_scores_between_nothing_and_one(expected: Json, output: Json, metric: Metric) -> None:
    assert 0.0 <= score_value(expected, output, metric) <= 1.0


@given(
    st.dictionaries(st.sampled_from("abcd"), values, max_size=4),
    values,
    st.dictionaries(st.sampled_from("abcd"), metrics, min_size=1),
)
def test_every_field_that_is_not_ignored_gets_a_score(
    expected: Json, output: Json, declared: dict[str, Metric]
) -> None:
    scores = score_fields(expected, output, {**declared, "e": "ignore"})
    assert scores.keys() == declared.keys()
    assert 0.0 <= mean_score(scores) <= 1.0


# --- exact -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "output", "score"),
    [
        ("Card  lost", " card lost\n", 1.0),
        ("Müller", "Mu\u0308ller", 1.0),
        (1, 1.0, 1.0),
        ("1", 1, 0.0),
        (1, True, 0.0),
        (0, None, 0.0),
        (None, None, 1.0),
        (None, "", 0.0),
        ("x", None, 0.0),
        (["a", "b"], ["b", "a"], 0.0),
        (["a", "b"], ["A", "b "], 1.0),
    ],
)
def test_exact(expected: Json, output: Json, score: float) -> None:
    assert score_value(expected, output, "exact") == score


def test_a_nested_object_scores_the_mean_over_its_leaves() -> None:
    expected = {"name": "Ada", "address": {"city": "Otterby", "zip": "1", "state": None}}
    assert score_value(expected, {"name": "Ada", "address": {"city": "Otterby", "zip": "2"}}, "exact") == 0.75
    assert score_value(expected, {"name": "Ada", "address": None}, "exact") == 0.25
    assert score_value(expected, "Ada", "exact") == 0.0
    assert score_value(expected, {**expected, "more": "x"}, "exact") == 0.8


# --- numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "output", "score"),
    [
        (453.6, 453.6000001, 1.0),
        (453.6, 453.61, 0.0),
        (0, 0.0, 1.0),
        (0, 0.01, 0.0),
        (453.6, "453.6", 0.0),
        (1, True, 0.0),
        (10**400, 1.5, 0.0),
        (None, 0, 0.0),
    ],
)
def test_number(expected: Json, output: Json, score: float) -> None:
    assert score_value(expected, output, "number") == score


# --- sets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "output", "score"),
    [
        ([], [], 1.0),
        ([], ["a"], 0.0),
        (["a"], [], 0.0),
        (["a", "b"], ["B", "a"], 1.0),
        (["a", "b"], ["a"], 2 / 3),
        (["a", "a"], ["a"], 2 / 3),
        (["a"], ["a", "a", "a"], 0.5),
        (["a"], "a", 0.0),
        (["a"], None, 0.0),
    ],
)
def test_set(expected: Json, output: Json, score: float) -> None:
    assert score_value(expected, output, "set") == pytest.approx(score)


def test_an_invoice_line_with_one_wrong_number_still_counts_in_part() -> None:
    first, second = ITEMS
    wrong = {**second, "amount": 99}
    assert score_value([first, second], [wrong, first], "set") == pytest.approx((4 + 3) / 8)
    assert score_value([first, second], [first], "set") == pytest.approx(2 / 3)
    assert score_value([first], [first, second], "set") == pytest.approx(2 / 3)
    assert score_value([first], ["Oak shelf"], "set") == 0.0


def test_items_are_matched_as_well_as_all_together_can_be() -> None:
    """The best partner of the first output line is the second's only one."""
    expected = [{"a": 1, "b": 1, "c": 1, "d": 1}, {"a": 1, "b": 1, "c": 2, "d": 2}]
    output = [{"a": 1, "b": 1, "c": 1, "d": 2}, {"a": 1, "b": 9, "c": 1, "d": 1}]
    assert score_value(expected, output, "set") == pytest.approx(2 * (0.75 + 0.75) / 4)


@given(st.lists(st.dictionaries(st.sampled_from("ab"), plain, min_size=1), max_size=5), st.randoms())
def test_the_order_of_items_makes_no_difference(items: list[Json], random: Random) -> None:
    mixed = list(items)
    random.shuffle(mixed)
    assert score_value(items, mixed, "set") == pytest.approx(1.0)


# --- texts -----------------------------------------------------------------------------------------------------


def test_a_text_scores_the_mean_of_chrf_and_token_f1() -> None:
    expected, output = "You may carry five days over until March.", "Five days may be carried over to March."
    assert chrf(expected, output) == pytest.approx(sacrebleu.sentence_chrf(output, [expected]).score / 100)
    assert text_score(expected, output) == pytest.approx((chrf(expected, output) + token_f1(expected, output)) / 2)
    assert 0.3 < text_score(expected, output) < 0.9


def test_token_f1_knows_neither_articles_nor_punctuation_nor_capitals() -> None:
    assert token_f1("The bank, please!", "bank please") == 1.0
    assert token_f1("five days", "five weeks") == 0.5
    assert token_f1("days days", "days") == pytest.approx(2 / 3)
    assert token_f1("the", "a") == 0.0
    assert token_f1("the", "The") == 1.0


def test_numbers_keep_their_points_and_scripts_without_spaces_their_characters() -> None:
    assert words("It’s 1.5 days, up to £2,000 (state-of-the-art).") == [
        "it's", "1.5", "days", "up", "to", "2,000", "state-of-the-art"
    ]  # fmt: skip
    assert token_f1("15 days", "1.5 days") == 0.5
    assert words("請求書 No.7") == ["請", "求", "書", "no.7"]
    assert 0.3 < token_f1("請求書を送る", "請求書を見る") < 1


@pytest.mark.parametrize(
    ("expected", "output", "score"), [("", " ", 1.0), ("a", "", 0.0), ("", "a", 0.0), ("!", "!", 1.0)]
)
def test_empty_texts(expected: str, output: str, score: float) -> None:
    assert text_score(expected, output) == score


def test_better_texts_score_higher() -> None:
    expected = "Receipts are needed for anything above 25 pounds."
    answers = [
        "Receipts are needed for anything over 25 pounds.",
        "You need receipts above 25 pounds.",
        "You need to keep things.",
        "Bananas!",
    ]
    scores = [text_score(expected, answer) for answer in answers]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.8 > 0.1 > scores[-1]


# --- whole answers ---------------------------------------------------------------------------------------------


def test_an_answer_is_scored_field_by_field() -> None:
    output = {"vendor": "brackenfield joinery ltd", "items": ITEMS, "total": 453.0}
    assert score_fields(INVOICE, output, METRICS) == {"vendor": 1.0, "due_date": 1.0, "items": 1.0, "total": 0.0}


@pytest.mark.parametrize("output", [None, "Brackenfield", [INVOICE], 3])
def test_what_is_no_object_scores_nothing_on_every_field(output: Json) -> None:
    assert score_fields(INVOICE, output, METRICS) == dict.fromkeys(METRICS, 0.0)


def test_a_text_skill_has_one_field() -> None:
    assert score_fields("Hello there", "hello there", {"text": "text"})["text"] > 0.8
    assert score_fields("Hello there", {"text": "Hello there"}, {"text": "text"}) == {"text": 0.0}


def test_a_schema_without_properties_is_compared_whole() -> None:
    assert score_fields([1, 2], [1, 2], {}) == {"output": 1.0}
    assert score_fields([1, 2], [2, 1], {}) == {"output": 0.0}


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="ignored"):
        score_fields({"a": 1}, {"a": 1}, {"a": "ignore"})
    with pytest.raises(InvalidInput, match="no object"):
        score_fields("text", "text", {"a": "exact", "b": "exact"})


def test_exact_match_takes_the_whole_answer() -> None:
    assert exact_match({"a": "X ", "b": None}, {"a": "x"})
    assert not exact_match({"a": "x"}, {"a": "x", "b": 1})


# --- nulls and slots -------------------------------------------------------------------------------------------


def test_null_precision_and_recall() -> None:
    pairs = [
        ({"a": None, "b": "x"}, {"a": None, "b": None}),  # one null rightly, one needlessly
        ({"a": None, "b": "y"}, {"a": "made up", "b": "y"}),  # one missed
        ({"a": None, "b": "y"}, {"b": "y"}),  # a missing key is null
        ({"a": None, "b": "y"}, "no object"),  # says something, and leaves nothing out
    ]
    assert null_precision_recall(pairs) == pytest.approx((2 / 3, 2 / 4))
    assert null_precision_recall(pairs, ["b"]) == (0.0, None)
    assert null_precision_recall([("text", "text")]) == (None, None)
    assert null_precision_recall([({"a": {"b": None, "c": 1}}, {"a": None})]) == (0.5, 1.0)


# --- the two halves of text ------------------------------------------------------------------------------------


@given(values, values)
def test_the_score_of_a_text_field_is_the_mean_of_its_halves(expected: Json, output: Json) -> None:
    fields: dict[str, Metric] = {"a": "text", "b": "exact"}
    found = text_fields({"a": expected}, {"a": output}, fields)
    assert list(found) == ["a"]
    assert (found["a"].chrf + found["a"].token_f1) / 2 == pytest.approx(score_value(expected, output, "text"))


def test_halves_of_texts_by_hand() -> None:
    (found,) = text_fields("two words", "words two", {"text": "text"}).values()
    assert found.token_f1 == 1.0
    assert found.chrf == pytest.approx(chrf("two words", "words two"))
    assert found.chrf < 1.0
    assert text_fields({"a": "x"}, "no object", {"a": "text"})["a"].chrf == 0.0
    assert text_fields({"a": 1}, {"a": 1}, {"a": "number"}) == {}
