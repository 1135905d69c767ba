"""The questions that make a skill, asked on a terminal: the same fields as POST /api/skills.

In: what is known already. Out: the whole body. Knows nothing of where answers come from: `ask` puts one question.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from intern.errors import InvalidInput
from intern.skill import check_name

KINDS: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "number": {"type": "number"},
    "yes/no": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "list": {"type": "array", "items": {"type": "string"}},
}
_ASKED = (
    ("title", "Title, a few words for people"),
    ("description", "Description, one sentence; routing uses it"),
    ("instructions", "Instructions: what to do and how"),
)

Ask = Callable[[str], str]


def _prompt(question: str) -> str:
    return str(typer.prompt(question, default="", show_default=False, err=True)).strip()


def complete(known: dict[str, Any], ask: Ask = _prompt) -> dict[str, Any]:
    """`known` with everything asked that is missing. Required questions are put again until they are answered."""
    spec = dict(known)
    if "name" not in spec:
        spec["name"] = _name(ask)
    for field, question in _ASKED:
        if field not in spec:
            spec[field] = _required(question, ask)
    if "schema" not in spec and (fields := _fields(ask)):
        spec["schema"] = schema_of(fields)
    if "retrieval" not in spec:
        spec["retrieval"] = {"enabled": ask("Does it answer from documents? (y/N)").lower() in ("y", "yes")}
    if "utterances" not in spec and (texts := _several("Sample request (empty: no more)", ask)):
        spec["utterances"] = texts
    return spec


def _name(ask: Ask) -> str:
    while True:
        name = _required("Name (a-z, 0-9 and -)", ask)
        problems: list[str] = []
        check_name(name, problems)
        if not problems:
            return name
        typer.echo(f"  {problems[0].removeprefix('folder ')}", err=True)


def _required(question: str, ask: Ask) -> str:
    while not (answer := ask(question)):
        pass
    return answer


def _several(question: str, ask: Ask) -> list[str]:
    found: list[str] = []
    while answer := ask(question):
        found.append(answer)
    return found


def _fields(ask: Ask) -> list[tuple[str, dict[str, Any]]]:
    """(name, schema) of each output field; none: the skill answers in text."""
    question = f"Output field as NAME: KIND; KIND is {', '.join(KINDS)} or a|b|c (empty: no more; none at all: text)"
    found: list[tuple[str, dict[str, Any]]] = []
    while answer := ask(question):
        try:
            found.append(parse_field(answer))
        except InvalidInput as error:
            typer.echo(f"  {error.message}", err=True)
    return found


def parse_field(text: str) -> tuple[str, dict[str, Any]]:
    """(name, JSON Schema) of `NAME: KIND`; no kind means text. Raises InvalidInput."""
    name, _, kind = (part.strip() for part in text.partition(":"))
    if not name.isidentifier():
        raise InvalidInput(f"'{name}' is no field name: use letters, digits and _.")
    if "|" in kind:
        choices = list(dict.fromkeys(choice.strip() for choice in kind.split("|") if choice.strip()))
        return name, {"type": "string", "enum": choices}
    if (kind or "text") not in KINDS:
        raise InvalidInput(f"'{kind}' is no kind: take {', '.join(KINDS)}, or choices with | between them.")
    return name, dict(KINDS[kind or "text"])


def schema_of(fields: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """The JSON Schema of an object with exactly these fields."""
    return {
        "type": "object",
        "properties": dict(fields),
        "required": [name for name, _ in fields],
        "additionalProperties": False,
    }
