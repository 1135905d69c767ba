"""What a request to the intern looks like in the own API: a text, or a conversation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from intern.errors import InvalidInput
from intern.pipeline import AUTO
from intern.types import Answer, Json, Message
from server.body import at_most


class Turn(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str


MAX_MESSAGES = 1_000

Input = Annotated[str | Annotated[list[Turn], Field(min_length=1, fail_fast=True)], at_most(MAX_MESSAGES, "messages")]


def as_messages(value: str | Sequence[Turn]) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message(role="user", content=value),)
    return tuple(Message(role=turn.role, content=turn.content) for turn in value)


def as_given(value: str | Sequence[Turn]) -> Json:
    """The input as it came, for the answer that repeats it."""
    return value if isinstance(value, str) else [turn.model_dump() for turn in value]


@contextmanager
def input_named() -> Iterator[None]:
    """Where the pipeline speaks of `messages`, the callers of the own API know it as `input`."""
    try:
        yield
    except InvalidInput as error:
        if error.param == "messages":
            error.param = "input"
        raise


def output_of(answer: Answer) -> Json:
    """The parsed JSON where there is a schema, the text where there is none, None for a refusal."""
    if not answer.choices:
        return None
    first = answer.choices[0]
    return first.text if first.parsed is None and first.valid else first.parsed


def page(rows: Sequence[Mapping[str, Json]], limit: int) -> dict[str, Json]:
    """A page of a list whose rows have ids; `next` is the `before` of the following page, None on the last."""
    return {"data": list(rows), "next": rows[-1]["id"] if len(rows) == limit else None}


__all__ = ["AUTO", "Input", "Turn", "as_given", "as_messages", "input_named", "output_of", "page"]
