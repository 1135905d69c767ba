"""A teacher's answer has the form of the skill's outputs, however the skill's schema is written."""

from __future__ import annotations

from typing import Any

import pytest

from intern.errors import EngineFailure
from intern.learning.teaching.asking import answer_schema, pairs_of
from intern.schema import check_schema
from intern.types import Json

MONEY = {
    "type": "object",
    "required": ["eur"],
    "properties": {"eur": {"type": "integer"}},
    "additionalProperties": False,
}


def schema(**parts: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, **parts}


@pytest.mark.parametrize(
    ("made", "right", "wrong"),
    [
        (
            schema(properties={"a": {"$ref": "#/$defs/money"}}, **{"$defs": {"money": MONEY}}),
            {"a": {"eur": 3}},
            {"a": {"eur": "three"}},
        ),
        (
            schema(properties={"a": {"$ref": "#/definitions/money"}}, definitions={"money": MONEY}),
            {"a": {"eur": 3}},
            {"a": {"pln": 3}},
        ),
        (
            schema(properties={"a": MONEY, "b": {"$ref": "#/properties/a"}}),
            {"a": {"eur": 3}, "b": {"eur": 4}},
            {"a": {"eur": 3}, "b": 4},
        ),
        (
            schema(properties={"name": {"type": "string"}, "parts": {"type": "array", "items": {"$ref": "#"}}}),
            {"name": "x", "parts": [{"name": "y", "parts": []}]},
            {"name": "x", "parts": [{"name": 1}]},
        ),
        (
            schema(properties={"a": {"$ref": "#/%24defs/of~1all"}}, **{"$defs": {"of/all": MONEY}}),
            {"a": {"eur": 3}},
            {"a": 3},
        ),
        (
            schema(
                properties={
                    "$ref": {"enum": ["#/x"]},
                    "default": {"$ref": "#/$defs/money"},
                    "const": {"const": {"$ref": "#"}},
                },
                **{"$defs": {"money": MONEY}},
            ),
            {"$ref": "#/x", "default": {"eur": 3}, "const": {"$ref": "#"}},
            {"default": 3},
        ),
        (
            {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}], "$defs": {"a": {"$ref": "#/$defs/b"}, "b": MONEY}},
            {"eur": 3},
            {"eur": None},
        ),
    ],
)  # fmt: skip
def test_references_lead_where_they_led_in_the_skills_schema(made: dict[str, Any], right: Json, wrong: Json) -> None:
    dialect = "https://json-schema.org/draft/2020-12/schema"
    own = check_schema({"$schema": dialect, **made})
    asked = check_schema(answer_schema(own))

    def answer(output: Json) -> Json:
        return {"examples": [{"input": "a b c", "quote": "d", "output": output}]}

    assert (own.problems(right), asked.problems(answer(right))) == ((), ())
    assert own.problems(wrong)
    assert asked.problems(answer(wrong))


def test_without_a_schema_an_output_is_a_text() -> None:
    asked = check_schema(answer_schema(None))
    assert asked.problems({"examples": [{"input": "a", "quote": "b", "output": "c"}]}) == ()
    assert asked.problems({"examples": [{"input": "a", "quote": "b", "output": 1}]})


@pytest.mark.parametrize("text", ["no JSON", '{"examples": 1}', "[]", '{"examples": [NaN]}'])
def test_another_form_is_an_error(text: str) -> None:
    with pytest.raises(EngineFailure, match="form"):
        pairs_of(text)


def test_pairs_are_objects() -> None:
    assert pairs_of('{"examples": [1, {"input": "a"}]}') == [{"input": "a"}]
