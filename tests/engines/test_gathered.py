"""Tokens become choices, and only those that were finished count."""

from __future__ import annotations

import pytest

from intern.engines.base import Token
from intern.engines.gathered import Gathered
from intern.errors import EngineFailure
from intern.types import Usage


def gathered(*tokens: Token, count: int = 1) -> Gathered:
    all_of_it = Gathered(count)
    for token in tokens:
        all_of_it.add(token)
    return all_of_it


def call(**delta: object) -> Token:
    return Token(tool_calls=({"index": 0, **delta},))


def test_texts_are_put_together_choice_by_choice() -> None:
    tokens = (Token(text="a"), Token(index=1, text="x"), Token(text="b", finish_reason="stop"))
    first, second = gathered(*tokens, Token(index=1, finish_reason="length"), count=2).finished()
    assert (first.text, first.finish_reason) == ("ab", "stop")
    assert (second.text, second.finish_reason) == ("x", "length")


@pytest.mark.parametrize("tokens", [(), (Token(text="a"),), (Token(text="a", finish_reason="stop"),)])
def test_two_choices_with_fewer_ends_are_no_answer(tokens: tuple[Token, ...]) -> None:
    with pytest.raises(EngineFailure):
        gathered(*tokens, count=2).finished()


def test_what_broke_off_is_kept_as_invalid() -> None:
    (choice,) = gathered(Token(text="half an")).unfinished()
    assert (choice.text, choice.valid, choice.finish_reason) == ("half an", False, "length")
    assert choice.problems


def test_deltas_of_a_call_are_one_call() -> None:
    deltas = (call(id="c1", function={"name": "f", "arguments": '{"a"'}), call(function={"arguments": ": 1}"}))
    (choice,) = gathered(*deltas, Token(finish_reason="tool_calls")).finished()
    (made,) = choice.tool_calls
    assert made == {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    assert choice.finish_reason == "tool_calls"


def test_the_prompt_of_several_choices_counts_once() -> None:
    tokens = [Token(index=i, usage=Usage(prompt_tokens=9, completion_tokens=2)) for i in range(3)]
    assert gathered(*tokens).usage == Usage(prompt_tokens=9, completion_tokens=6)
