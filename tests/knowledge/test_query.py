"""What is searched for: the last turn, the turns it points back at, and long texts in pieces."""

from __future__ import annotations

import re

import pytest

from intern.knowledge.query import MAX_PIECES, PIECE_TOKENS, pieces, queries, stands_alone
from intern.types import Message


def count(text: str) -> int:
    return len(re.findall(r"\w+", text))


def said(*turns: str) -> list[Message]:
    return [Message(role="assistant" if n % 2 else "user", content=turn) for n, turn in enumerate(turns)]


@pytest.mark.parametrize(
    "text",
    [
        "And for part-time staff?",
        "What about Germany?",
        "How long does it take to process?",
        "Does this apply to contractors abroad?",
        "Why?",
        "How many of them?",
        "part-time?",
    ],
)
def test_a_turn_that_points_back_does_not_stand_alone(text: str) -> None:
    assert not stands_alone(text)


@pytest.mark.parametrize(
    "text",
    [
        "How many days of annual leave do full-time staff get?",
        "When is pay day?",
        "And can I borrow a pool car?",
        "I ordered a keyboard last week, they sent me a phone case instead, and the shop says that the return "
        "window is closed. What can I do?",
    ],
)
def test_a_whole_question_stands_alone(text: str) -> None:
    assert stands_alone(text)


def test_a_follow_up_is_searched_for_alone_and_with_the_users_recent_turns() -> None:
    found = queries(said("Old topic of long ago?", "x", "First?", "a", "Second?", "b", "And third?"), count)
    assert [query.text for query in found] == ["And third?", "First?\nSecond?\nAnd third?"]
    assert found[0].weight < found[1].weight


def test_a_question_that_stands_alone_is_searched_for_alone() -> None:
    last = "Which portal books trains for business travel?"
    assert [query.text for query in queries(said("Annual leave?", "28 days.", last), count)] == [last]
    assert [query.text for query in queries(last, count)] == [last]


def test_nothing_asked_is_nothing_searched() -> None:
    assert queries("  ", count) == []
    assert queries([], count) == []
    assert queries([Message(role="assistant", content="hello")], count) == []


def test_a_short_text_is_one_piece_and_a_long_one_is_cut_between_sentences() -> None:
    assert pieces("A short question.", count) == ("A short question.",)
    sentences = [f"Sentence number {n} has exactly seven words." for n in range(60)]
    cut = pieces(" ".join(sentences), count)
    assert " ".join(cut) == " ".join(sentences)
    assert all(piece.endswith(".") for piece in cut)
    assert all(count(piece) <= PIECE_TOKENS for piece in cut)


def test_a_sentence_longer_than_a_piece_is_cut_between_words() -> None:
    words = [f"word{n}" for n in range(3 * PIECE_TOKENS)]
    cut = pieces(" ".join(words), count)
    assert " ".join(cut).split() == words
    assert all(count(piece) <= PIECE_TOKENS for piece in cut)


def test_a_huge_text_is_searched_for_by_its_beginning_and_its_end() -> None:
    [query] = queries("opening " + "word " * 500_000 + "closing", count)
    assert len(query.pieces) <= MAX_PIECES
    assert len(query.text) < 20_000
    assert query.pieces[0].startswith("opening")
    assert query.pieces[-1].endswith("closing")
