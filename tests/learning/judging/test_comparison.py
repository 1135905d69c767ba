"""The cases that a report shows are the largest changes, and their marks say what differs from the expected answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from intern.learning.judging.comparison import MOST_CHARACTERS, Piece, cases, marked, shortened, written
from intern.learning.judging.outcomes import Outcome
from intern.types import Json


def outcome(example: str, score: float, output: Json = "x", expected: Json = "x", **more: object) -> Outcome:
    return Outcome.model_validate(
        {
            "example": example,
            "group": example,
            "valid": True,
            "fields": {"text": score},
            "score": score,
            "expected": expected,
            "output": output,
            "request": f"request {example}",
            **more,
        }
    )


def test_the_largest_changes_come_first_and_equal_scores_not_at_all() -> None:
    before = [outcome("a", 0.5), outcome("b", 1.0), outcome("c", 0.9), outcome("d", 0.0), outcome("e", 0.3)]
    after = [outcome("a", 0.5), outcome("b", 0.2), outcome("c", 0.8), outcome("d", 1.0), outcome("e", 0.4)]
    worse, better = cases(after, before)
    assert [case.example for case in worse] == ["b", "c"]
    assert [case.example for case in better] == ["d", "e"]
    assert (worse[0].before_score, worse[0].after_score) == (1.0, 0.2)


def test_at_most_so_many_are_shown_always_the_same_ones() -> None:
    before = [outcome(f"{i:02}", 1.0) for i in range(30)]
    after = [outcome(f"{i:02}", 0.0) for i in range(30)]
    worse, better = cases(after[::-1], before, most=3)
    assert [case.example for case in worse] == ["00", "01", "02"]
    assert better == []


def test_only_examples_that_both_answered_are_compared() -> None:
    worse, better = cases([outcome("a", 0.0), outcome("b", 0.0)], [outcome("b", 1.0), outcome("c", 0.0)])
    assert [case.example for case in worse] == ["b"]
    assert not better


def test_marks_are_word_by_word() -> None:
    assert marked("The card is lost.", "the  card was lost") == (
        Piece(kind="same", text="the  card "),
        Piece(kind="other", text="was"),
        Piece(kind="same", text=" lost"),
        Piece(kind="missing", text="."),
    )
    assert marked("12.50 card_lost", "12.40 card_lost")[0] == Piece(kind="other", text="12.40")
    assert [piece.text for piece in marked("请回复客户", "请回答客户") if piece.kind == "other"] == ["答"]
    assert marked("a b", "") == (Piece(kind="missing", text="a b"),)
    assert marked("", "") == ()


def test_what_is_new_in_a_long_answer_is_the_only_mark() -> None:
    expected = "the card and the pin and the fee " * 40
    answer = f"Well, {expected}indeed"
    assert [piece.text for piece in marked(expected, answer) if piece.kind != "same"] == ["Well,", "indeed"]


@given(st.text(max_size=60), st.text(max_size=60))
def test_the_pieces_that_are_not_missing_make_up_the_answer(expected: str, answer: str) -> None:
    pieces = marked(expected, answer)
    assert "".join(piece.text for piece in pieces if piece.kind != "missing").rstrip() == answer.rstrip()
    if expected == answer:
        assert all(piece.kind == "same" for piece in pieces)


def test_keys_in_another_order_are_no_difference() -> None:
    expected = {"intent": "card", "more": {"a": 1, "b": None}}
    given_ = {"more": {"b": None, "a": 1}, "intent": "card"}
    assert written(given_, expected) == written(expected)
    (case,) = cases([outcome("a", 0.5, given_, expected)], [outcome("a", 0.0, "{broken", expected, valid=False)])[1]
    assert [piece.kind for piece in case.after] == ["same"]
    assert not case.before_valid


def test_long_texts_are_cut_and_say_by_how_much() -> None:
    assert shortened("x" * MOST_CHARACTERS) == "x" * MOST_CHARACTERS
    assert shortened("x" * 5_000).endswith("x… (3,800 more characters)")
