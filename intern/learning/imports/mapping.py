"""Which columns of a file become what: the one declaration that every import goes through.

In: YAML or JSON text, or fields. Out: a frozen `Mapping` that prints as it is read back. docs/importing.md explains
each key to people. Knows nothing of files, and guesses nothing: that is `layouts.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as Map
from typing import Annotated, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from intern.errors import InvalidInput
from intern.learning.imports.nulls import NOT_STATED, NULL_WORDS, NullRule
from intern.schema import MAX_VALUE_DEPTH
from intern.types import Json, Model

OWN_COLUMNS = ("input", "output", "id", "group", "person", "split")
MAX_TEXT = 65_536
MAX_HOLES = 200  # of a template: each is filled for every row
MAX_FIELDS = 200  # of an output that have columns of their own: each is filled for every row
_MAX_BRACKETS = 500  # PyYAML's time grows with the square of open brackets

Layout = Literal[
    "own",
    "openai",
    "sharegpt",
    "alpaca",
    "dolly",
    "prompt-completion",
    "question-answer",
    "text-label",
    "records",
    "columns",
]
Column = Annotated[str, Field(min_length=1, max_length=500)]

_HOLE = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")


class Mapping(Model):
    """How a row becomes an example.

    Exactly one of `input` (columns), `template` (a text with {column} in it) and `messages` (the column of a
    conversation) makes the input; `output` is a column, or says for each field of the output its column. Columns and
    fields may be dotted paths into nested objects and lists: `answer.text`, `instances.0.output`.
    """

    layout: Layout = "columns"  # what it was recognised as; `own` rows are read as they stand
    input: tuple[Column, ...] = Field(default=(), max_length=100)  # several: paragraphs, or lines with `labels`
    labels: bool = False  # write each input column as a line "column: value"
    template: str | None = Field(default=None, min_length=1, max_length=10_000)
    messages: Column | None = None
    system: Literal["keep", "drop"] = "keep"  # system turns of a conversation
    output: Column | Map[str, Column] | None = None
    id: Column | None = None
    group: Column | None = None
    person: Column | None = None
    split: Column | None = None
    contributor: Column | None = None
    nulls: NullRule = "keep"
    null_text: str = Field(default=NOT_STATED, min_length=1, max_length=200)  # what `explain` writes
    null_words: tuple[str, ...] = Field(default=NULL_WORDS, max_length=100)  # cells of fields that stand for null
    separator: str = Field(default=";", min_length=1, max_length=10)  # between the items of a list in one cell
    decimal: Literal[".", ","] = "."

    @field_validator("input", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("null_words")
    @classmethod
    def _folded(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(word.strip().casefold() for word in value)

    @model_validator(mode="after")
    def _whole(self) -> Mapping:
        if sum((bool(self.input), self.template is not None, self.messages is not None)) != 1:
            raise ValueError("give exactly one of input (columns), template and messages")
        if self.messages is None and not self.output:
            raise ValueError("output is missing: name a column, or a column for each field")
        if len(self.fields) > MAX_FIELDS:
            raise ValueError(
                f"output names {len(self.fields):,} fields; at most {MAX_FIELDS} can have a column each: put the whole "
                "output as JSON into one column"
            )
        if deep := next((field for field in self.fields if field.count(".") >= MAX_VALUE_DEPTH), None):
            raise ValueError(f"the field '{deep[:80]}' of the output lies deeper than {MAX_VALUE_DEPTH} levels")
        if self.layout == "own" and (self.input, self.output, self.labels) != (("input",), "output", False):
            raise ValueError("layout own has the columns input and output: leave layout out where they are others")
        if self.template is not None and not holes(self.template):
            raise ValueError("the template names no column: write {column} where its text belongs")
        if self.template is not None and len(holes(self.template)) > MAX_HOLES:
            raise ValueError(f"the template has more than {MAX_HOLES} places for columns")
        return self

    @property
    def fields(self) -> Map[str, str]:
        """Field of the output -> column; empty where one column holds the whole output."""
        return self.output if isinstance(self.output, Map) else {}

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read."""
        inputs = holes(self.template) if self.template else self.input or (self.messages or "",)
        output = (self.output,) if isinstance(self.output, str) else tuple(self.fields.values())
        extras = (self.id, self.group, self.person, self.split, self.contributor)
        return tuple(dict.fromkeys((*inputs, *output, *(name for name in extras if name))))


OWN = Mapping(layout="own", input=("input",), output="output", id="id", group="group", person="person", split="split")


def holes(template: str) -> tuple[str, ...]:
    """The columns that a template names, one for each place."""
    return tuple(found[1].strip() for found in _HOLE.finditer(template) if found[1])


def fill(template: str, values: Map[str, str]) -> str:
    """The template's text with values in place of {column}. `{{` and `}}` stand for braces."""
    return _HOLE.sub(lambda found: values[found[1].strip()] if found[1] else found[0][0], template)


def load_mapping(text: str) -> Mapping:
    """A mapping from YAML or JSON. Raises InvalidInput that names the key and what would be right."""
    return make_mapping(load_keys(text))


def load_keys(text: str) -> dict[str, object]:
    """The keys of a mapping, unchecked, so that what is missing can be guessed. Raises InvalidInput."""
    try:
        if len(text) > MAX_TEXT:
            raise InvalidInput(
                f"The mapping has {len(text):,} characters; at most {MAX_TEXT:,} are read.", param="mapping"
            )
        if text.count("[") + text.count("{") > _MAX_BRACKETS:
            raise InvalidInput(f"The mapping has more than {_MAX_BRACKETS} brackets; it needs few.", param="mapping")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise InvalidInput("The mapping uses a YAML alias (*name); write the value out.", param="mapping")
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1})" if mark else ""
        what = getattr(error, "problem", None) or str(error)
        raise InvalidInput(f"The mapping is not valid YAML{place}: {what}.", param="mapping") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InvalidInput("The mapping must hold keys such as input and output.", param="mapping")
    return value


def make_mapping(keys: Map[str, object]) -> Mapping:
    """A checked mapping. Raises InvalidInput that names the key and what would be right."""
    try:
        return Mapping.model_validate(keys)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else None
        if first["type"] == "extra_forbidden":
            what = f"key '{str(key)[:80]}' is unknown; known are {', '.join(Mapping.model_fields)}"
        else:
            reason = first["msg"].removeprefix("Value error, ")
            what = f"key '{key}': {reason[0].lower()}{reason[1:]}" if key else reason
        raise InvalidInput(f"The mapping: {what}.", param="mapping") from error


def keys_of(mapping: Mapping) -> dict[str, Json]:
    """The keys that people look at: what differs from the defaults, and always layout and null rule."""
    keys = mapping.model_dump(mode="json", exclude_defaults=True)
    keys |= {"layout": mapping.layout, "nulls": mapping.nulls}
    if len(mapping.input) == 1:
        keys["input"] = mapping.input[0]
    return {key: keys[key] for key in Mapping.model_fields if key in keys}


def dump_mapping(mapping: Mapping) -> str:
    """The mapping as YAML, which `load_mapping` takes back."""
    return yaml.safe_dump(keys_of(mapping), sort_keys=False, allow_unicode=True, width=100)
