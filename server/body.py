"""Request bodies: JSON read strictly, so that nothing behind this point meets text or numbers it cannot keep.

In: the bytes of a body. Out: a JSON value without NUL, lone surrogates, NaN, infinities or bottomless nesting, and of a
bounded number of parts. Raises InvalidInput that says what is wrong and where. Knows no route and no model.

Bodies are read and validated on the event loop, where everybody waits meanwhile. A few megabytes can hold millions of
values, each with an error of its own, which took most of a minute and gigabytes: hence bounds on numbers, not bytes
alone, and `at_most` for lists that are validated one by one.
"""

from __future__ import annotations

import json
import re

from pydantic import BeforeValidator

from intern import strict_json
from intern.errors import InvalidInput
from intern.types import Json

MAX_DEPTH = 64  # serialisers give up or overflow somewhere beyond 200
MAX_VALUES = 250_000  # ten thousand examples of a dozen fields are half of it
MAX_KEYS = 10_000

_DECODER = strict_json.decoder(repeated_keys=True)
_SUSPECT = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)")


def parse(body: bytes) -> Json:
    """The value of a JSON text in UTF-8 (RFC 8259). Raises InvalidInput."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"The body is not UTF-8: byte {error.start} cannot be read.") from error
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InvalidInput(f"The body is not valid JSON: {error.msg} at {place}.") from error
    except RecursionError as error:
        raise InvalidInput(_too_deep()) from error
    except ValueError as error:
        raise InvalidInput(f"The body is not valid JSON: {error}.") from error
    _check_shape(value)
    if _SUSPECT.search(body):
        _check_text(value)
    return value


def at_most(number: int, what: str) -> BeforeValidator:
    """For a request model's list or object: one of more than `number` entries is refused before any is looked at."""

    def check(value: Json) -> Json:
        if isinstance(value, list | dict) and len(value) > number:
            raise ValueError(f"it holds {len(value)} {what}; at most {number} are allowed")
        return value

    return BeforeValidator(check)


def is_text(text: str) -> bool:
    """Whether `text` can be kept everywhere: no NUL (PostgreSQL takes none) and no half of a surrogate pair."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _too_deep() -> str:
    return f"The body nests deeper than {MAX_DEPTH} levels."


def _check_shape(value: Json) -> None:
    level = [value] if isinstance(value, dict | list) else []
    values = 1
    for _ in range(MAX_DEPTH + 1):
        for node in level:
            values += len(node)
            if isinstance(node, dict) and len(node) > MAX_KEYS:
                raise InvalidInput(f"An object of the body has {len(node)} keys; at most {MAX_KEYS} are allowed.")
        if values > MAX_VALUES:
            raise InvalidInput(f"The body holds more than {MAX_VALUES} values. Send it in parts.")
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise InvalidInput(_too_deep())


def _check_text(value: Json) -> None:
    nodes = [value]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            nodes += [*node, *node.values()]
        elif isinstance(node, list):
            nodes += node
        elif isinstance(node, str) and not is_text(node):
            raise InvalidInput(
                "The body holds \\u0000 or half of a surrogate pair (\\ud800 to \\udfff); neither is text."
            )
