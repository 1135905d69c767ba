"""What a skill wants measured beside its score, as `evaluation` in skill.yaml declares it: sameness, attributes, facts.

In: declarations. Out: checked models, and whether an output could have what they name. Does not know how anything is
measured; `intern/learning/` does that.

A declared phrase is made of whole words; capitals and spacing make no difference, and a `*` in a word stands for any
letters ("engineer*"). It is no regular expression: what people declare can be neither slow nor hostile.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from intern.errors import InvalidInput
from intern.schema import alternatives, followed, pointed
from intern.types import Json, Model

NONE = "none"  # an output that has no value of an attribute
MIXED = "mixed"  # one that has two alike
MOST_VALUES = 50  # of a field that is counted as it is

# --- phrases ---------------------------------------------------------------------------------------------------


def hits(phrase: str, text: str) -> int:
    """How often a phrase stands in a text. Raises InvalidInput for what is no phrase."""
    return len(_compiled(phrase).findall(collapsed(text)))


def collapsed(text: str) -> str:
    """A text as phrases see it: composed, in small letters, with one space between words."""
    return " ".join(unicodedata.normalize("NFC", text).split()).casefold()


def label(value: Json) -> str:
    """The name under which a value is counted."""
    if isinstance(value, str):
        return collapsed(value)
    return NONE if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)


@lru_cache(maxsize=1024)
def _compiled(phrase: str) -> re.Pattern[str]:
    parts = collapsed(phrase).split()
    if not parts or any(part.count("*") > 1 or part == "*" for part in parts):
        raise InvalidInput(
            f"'{phrase[:100]}' is no phrase: use words, each with one '*' at most beside its letters", param="patterns"
        )
    # One star a word: with more, a long word could be cut in very many ways.
    pattern = " ".join(re.escape(part).replace(r"\*", r"\w*") for part in parts)
    return re.compile(rf"(?<!\w){pattern}(?!\w)")


# --- declarations ----------------------------------------------------------------------------------------------


def _phrase(value: str) -> str:
    try:
        _compiled(value)
    except InvalidInput as error:
        raise ValueError(error.message) from error
    return value


def _class_names(value: Json) -> Json:
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise ValueError("names are texts; put names such as 'yes', 'no' and '1' in quotes")
            if not name.strip() or name.strip().casefold() in (NONE, MIXED):
                raise ValueError(f"'{name}' cannot be a name; '{NONE}' and '{MIXED}' are for outputs that fit no other")
        if len({collapsed(name) for name in value}) < len(value):
            raise ValueError("two of the names are the same; keep one")
    return value


def _reference(value: Json) -> Json:
    if value == "heldout":
        return value
    if not isinstance(value, Mapping):
        raise ValueError("use 'heldout', or a share for each value such as {she: 0.5, he: 0.5}")
    numbers = [share for share in value.values() if isinstance(share, int | float) and not isinstance(share, bool)]
    # Written so that nan is refused as well.
    if len(numbers) < len(value) or not all(0 <= share < 1e9 for share in numbers) or not sum(numbers) > 0:
        raise ValueError("shares are numbers from 0 on, not all of them 0, such as {she: 0.5, he: 0.5}")
    names = [label(name) for name in value]
    if len(set(names)) < len(names):
        raise ValueError("two of the values are the same; give each one share")
    return dict(zip(names, map(float, numbers), strict=True))


def _alternatives(value: Json) -> Json:
    return (value,) if isinstance(value, str) else value


Phrase = Annotated[str, Field(max_length=200), AfterValidator(_phrase)]
Alternatives = Annotated[tuple[Phrase, ...], Field(min_length=1, max_length=20), BeforeValidator(_alternatives)]


class Attribute(Model):
    """One attribute of an output: the value of a field, or the class whose patterns its texts have most of.

    `field` is a key, or keys joined by points. With `patterns`, class name to phrases, the texts under `field` (or the
    whole output) are searched; no hit is NONE, a tie is MIXED. `reference` is how often each value should come, or
    "heldout": as often as in the expected outputs of the held-out examples.
    """

    name: str = Field(min_length=1, max_length=80)
    field: str | None = Field(default=None, min_length=1)
    patterns: Annotated[dict[str, Alternatives], Field(max_length=20), BeforeValidator(_class_names)] = Field(
        default_factory=dict
    )
    reference: Annotated[Literal["heldout"] | dict[str, float], BeforeValidator(_reference)] = "heldout"


class Question(Model):
    """A question about itself that a persona must answer: with each of `facts`, and without any of `never`.

    A fact that can be said in several ways is a list of them, such as ["Munich", "München"].
    """

    question: str = Field(min_length=1, max_length=2_000)
    facts: tuple[Alternatives, ...] = Field(min_length=1, max_length=20)
    never: tuple[Phrase, ...] = Field(default=(), max_length=20)


def _not_one(value: int) -> int:
    if value == 1:
        raise ValueError("one answer has no other to agree with; use 0 (off), or 2 to 10")
    return value


class Measures(Model):
    """`repeats` is how many sampled answers are given to each request, at `temperature`; 0: none."""

    repeats: Annotated[int, AfterValidator(_not_one)] = Field(default=0, ge=0, le=10)
    temperature: float = Field(default=0.7, gt=0, le=2)
    attributes: tuple[Attribute, ...] = Field(default=(), max_length=10)
    identity: tuple[Question, ...] = Field(default=(), max_length=50)


# --- against a schema ------------------------------------------------------------------------------------------


def misfits(measures: Measures, schema: Mapping[str, Json] | None) -> Iterator[str]:
    """What is declared and cannot be measured of outputs with this schema (None: outputs are texts), a line each."""
    yield from _twice("attributes", "name", [attribute.name for attribute in measures.attributes])
    yield from _twice("identity", "question", [asked.question for asked in measures.identity])
    for place, attribute in enumerate(measures.attributes):
        key = f"key 'evaluation.attributes.{place}"
        node = _at(schema, attribute.field.split(".")) if attribute.field and schema is not None else schema
        if attribute.field and node is None:
            yield f"{key}.field': the output has no field '{attribute.field}'"
            continue
        values = list(attribute.patterns) if attribute.patterns else _choices(node, schema) if attribute.field else None
        if values is None or not 0 < len(values) <= MOST_VALUES:
            yield (
                f"{key}' needs patterns: as it is, a field is counted only where its schema has an 'enum' of "
                f"at most {MOST_VALUES} values, or it is true or false"
            )
            continue
        if isinstance(attribute.reference, Mapping):
            known = dict.fromkeys([*map(label, values), NONE, *([MIXED] if attribute.patterns else [])])
            for name in attribute.reference:
                if name not in known:
                    yield f"{key}.reference': '{name}' is none of its values: {', '.join(known)}"


def _twice(section: str, key: str, names: Sequence[str]) -> Iterator[str]:
    seen: set[str] = set()
    for place, name in enumerate(names):
        if collapsed(name) in seen:
            yield f"key 'evaluation.{section}.{place}.{key}': '{name[:80]}' is there already; keep one"
        seen.add(collapsed(name))


def _at(schema: Mapping[str, Json], path: Sequence[str]) -> Mapping[str, Json] | None:
    node: Json = schema
    for name in path:
        node = followed(node, schema).get("properties", {}).get(name)
    return {} if node is True else node if isinstance(node, Mapping) else None


def _choices(
    node: Json, schema: Mapping[str, Json] | None, known: dict[str, list[Json] | None] | None = None
) -> list[Json] | None:
    """The values that a part of a schema allows, null aside; None where they are no closed list. `known`: of
    references that were followed, or are being."""
    known = {} if known is None else known
    if not isinstance(node, Mapping):
        return None
    kinds = node.get("type")
    if isinstance(node.get("enum"), list):
        return [value for value in node["enum"] if value is not None]
    if "const" in node:
        return [node["const"]]
    if kinds == "boolean" or (isinstance(kinds, list) and {*kinds} <= {"boolean", "null"} and "boolean" in kinds):
        return [True, False]
    if isinstance(ref := node.get("$ref"), str) and schema is not None:
        if ref not in known:
            known[ref] = None  # a reference to itself says nothing new
            known[ref] = _choices(pointed(ref, schema), schema, known)
        return known[ref]
    parts = [_choices(some, schema, known) for some in alternatives(node)]
    if not parts or any(part is None for part in parts):
        return None
    return [value for part in parts for value in part or ()]
