"""Texts and numbers are claims; labels are none."""

from __future__ import annotations

from typing import Any

import pytest

from intern.learning.claims import claims, is_content
from intern.schema import check_schema
from intern.types import Json

SCHEMA = check_schema(
    {
        "type": "object",
        "properties": {
            "found": {"type": "boolean"},
            "answer": {"type": ["string", "null"]},
            "amount": {"type": "number"},
            "kind": {"allOf": [{"enum": ["leave", "sickness"]}]},
            "level": {"anyOf": [{"$ref": "#/$defs/level"}, {"type": "null"}]},
            "fixed": {"const": "v1"},
            "steps": {"type": "array", "items": {"type": "object", "properties": {"by": {"$ref": "#/$defs/level"}}}},
        },
        "$defs": {"level": {"enum": ["urgent", "calm"]}},
    }
)


@pytest.mark.parametrize(
    ("output", "stated"),
    [
        ({"answer": "28 days", "amount": 28}, ["28 days", "28"]),
        ({"found": True, "answer": None, "kind": "leave", "level": "urgent", "fixed": "v1"}, []),
        ({"steps": [{"by": "calm", "what": "ask"}, {"what": "wait"}]}, ["ask", "wait"]),
        ({"unknown": {"deep": ["x"]}}, ["x"]),
        ("a text", ["a text"]),
    ],
)
def test_all_but_labels_is_stated_wherever_the_schema_enumerates_them(output: Json, stated: list[str]) -> None:
    assert list(claims(output, SCHEMA)) == stated


def test_without_a_schema_there_are_no_labels() -> None:
    assert list(claims({"kind": "leave"}, None)) == ["leave"]


def test_free_properties_are_passed_over() -> None:
    assert list(claims({"answer": "x", "sources": ["a.md"]}, SCHEMA, frozenset({"sources"}))) == ["x"]


@pytest.mark.parametrize(
    ("number", "digits"),
    [
        (-7.25, "7.25"),
        (2500.0, "2500"),
        (0.1234567, "0.1234567"),
        (1e-7, "0.0000001"),
        (4006381333931, "4006381333931"),
        (1e15, "1000000000000000"),
        (0, "0"),
    ],
)
def test_a_number_comes_as_the_digits_that_a_passage_would_have(number: Any, digits: str) -> None:
    assert list(claims({"amount": number}, SCHEMA)) == [digits]


def test_a_letter_is_a_word_where_a_script_has_no_spaces() -> None:
    assert is_content("leave", 4)
    assert not is_content("the", 4)
    assert is_content("年", 4)
