"""The texts of an example, one by one, and the example made again from others.

In: an example and the schema of its output. Out: a `Leaf` for each text that a person could have written, in an order
that never changes, and the example rebuilt from what a function makes of each. Keys, numbers and enumerated values are
no texts; where they are such that they could hold personal data all the same, the leaf is `fixed`. A text that is JSON
itself is taken apart by its string literals, so that it stays JSON with every other character as it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from intern.learning.fields import Place, top
from intern.schema import OutputSchema, parse_json
from intern.types import Example, Json, Message

_MAX_LABEL = 100  # every item of a list bears it
_LEAST_NUMBER = 10**8  # shorter numbers identify nobody
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"(\s*:)?|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?')
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")
_TOP = ("input", "output")
_FUNCTION = Place({"properties": {"name": {}, "arguments": {}}}, {})


@dataclass(frozen=True)
class Leaf:
    """One text. `where` is its path, with `*` for keys that no schema declares: they may name a person. `label` is its
    key in words, which tells what it is; `fixed` names what has no room for a placeholder ('number', 'key'), None for
    what has."""

    text: str
    where: str = ""
    label: str = ""
    fixed: str | None = None


Visit = Callable[[Leaf], str]


def rebuilt(example: Example, schema: OutputSchema | None, visit: Visit) -> Example:
    """The example with each text replaced by what `visit` gives for it; what it gives for a fixed leaf is ignored."""
    input_: str | tuple[Message, ...]
    if isinstance(example.input, str):
        input_ = _text(example.input, "input", "", visit)
    else:
        input_ = tuple(_message(turn, f"input/{i}", visit) for i, turn in enumerate(example.input))
    output = _value(example.output, "output", "", top(schema), visit)
    return example.model_copy(update={"input": input_, "output": output})


def place_of(problem: str, schema: OutputSchema) -> str:
    """' at FIELD' of one of `schema.problems`, '' if the value as a whole is meant: without the value that a problem
    quotes, and with `*` for keys that the schema does not declare. What is said of an example outlives it."""
    path, colon, _ = problem.partition(": ")
    if not colon:
        return ""
    place, shown = top(schema), list[str]()
    for part in path.split("/"):
        if "object" not in place.kinds and part.isdecimal():
            shown, place = [*shown, part], place.item
        else:
            shown, place = [*shown, part if part in place.names else "*"], place.child(part)
    return "" if shown[0] == "*" and re.search(r"[\s\"']", path) else f" at {'/'.join(shown)}"


def _message(turn: Message, where: str, visit: Visit) -> Message:
    content = _text(turn.content, f"{where}/content", "", visit)
    calls = tuple(
        {key: _value(item, f"{where}/tool_calls/{i}/{key}", "", _FUNCTION, visit) if key == "function" else item
         for key, item in call.items()}
        for i, call in enumerate(turn.tool_calls)
    )  # fmt: skip
    return turn.model_copy(update={"content": content, "tool_calls": calls})


def _value(value: Json, where: str, label: str, place: Place, visit: Visit) -> Json:
    if isinstance(value, str):
        return value if value in place.choices else _text(value, where, label, visit)
    if isinstance(value, Mapping):
        made = {}
        for key, item in value.items():
            if key not in place.names:
                visit(Leaf(key, f"{where}: a key", fixed="key"))
            below = f"{where}/{key if key in place.names else '*'}"
            made[key] = _value(item, below, _label(key, where), place.child(key), visit)
        return made
    if isinstance(value, list | tuple):
        return [_value(item, f"{where}/{i}", label, place.item, visit) for i, item in enumerate(value)]
    if isinstance(value, int) and not isinstance(value, bool) and value >= _LEAST_NUMBER and value not in place.choices:
        visit(Leaf(str(value), where, label, "number"))
    return value


def _text(text: str, where: str, label: str, visit: Visit) -> str:
    if text.strip()[:1] in ("{", "[") and not parse_json(text)[1]:
        return _json_text(text, where, visit)
    return visit(Leaf(text, where, label))


def _json_text(text: str, where: str, visit: Visit) -> str:
    """JSON that is a text: its string literals one by one, each labelled by the key before it."""
    key = ""

    def made(match: re.Match[str]) -> str:
        nonlocal key
        token = match.group()
        if not token.startswith('"'):
            if token.isdigit() and int(token) >= _LEAST_NUMBER:
                visit(Leaf(token, f"{where}/*", _label(key, where), "number"))
            return token
        if match.group(1) is not None:
            key = json.loads(token[: -len(match.group(1))])
            visit(Leaf(key, f"{where}: a key", fixed="key"))
            return token
        old = json.loads(token)
        new = visit(Leaf(old, f"{where}/*", _label(key, where)))
        return token if new == old else json.dumps(new, ensure_ascii="\\u" in token)

    return _TOKEN.sub(made, text)


def _label(key: str, where: str) -> str:
    """`firstName` and `first_name` as 'first name'. A bare `name` further down may be a product's."""
    words = " ".join(word.lower() for word in _WORDS.findall(key[:_MAX_LABEL]))
    return "" if words == "name" and where not in _TOP else words
