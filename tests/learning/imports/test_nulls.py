"""The null rule: one of three, declared, and the same wherever a value is null."""

from __future__ import annotations

from typing import Any

import pytest

from intern.errors import InvalidInput
from intern.learning.fields import leaves, top
from intern.learning.imports.nulls import NullRule, apply_null_rule, is_null_word
from intern.schema import check_schema

VENDOR = {"type": "object", "properties": {"name": {"type": ["string", "null"]}, "vat": {"type": "string"}}}
INVOICE = check_schema(
    {
        "type": "object",
        "properties": {
            "vendor": {"$ref": "#/$defs/vendor"},
            "total": {"type": ["number", "null"]},
            "note": {"type": "string"},
            "currency": {"enum": ["EUR", "USD", None]},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["total"],
        "$defs": {"vendor": VENDOR},
    }
)


def test_keep_leaves_every_null_where_it_is() -> None:
    value = {"vendor": {"name": None}, "total": None, "tags": ["a", None]}
    assert apply_null_rule(value, "keep", INVOICE) == value


def test_drop_leaves_out_null_fields_and_items_at_any_depth() -> None:
    value = {"vendor": {"name": None, "vat": "1"}, "total": 5, "note": None, "tags": ["a", None]}
    assert apply_null_rule(value, "drop", INVOICE) == {"vendor": {"vat": "1"}, "total": 5, "tags": ["a"]}


def test_explain_says_it_in_text_fields() -> None:
    value = {"vendor": {"name": None}, "total": 5, "note": None, "tags": [None]}
    explained = {"vendor": {"name": "unknown"}, "total": 5, "note": "unknown", "tags": ["unknown"]}
    assert apply_null_rule(value, "explain", INVOICE, text="unknown") == explained


@pytest.mark.parametrize(
    ("value", "rule", "param"),
    [
        ({"total": None}, "drop", "total"),  # required
        ({"total": None}, "explain", "total"),  # a number
        ({"currency": None, "total": 1}, "explain", "currency"),  # closed choices
        (None, "drop", None),
        (None, "explain", None),  # an object is wanted
    ],
)
def test_where_a_rule_cannot_hold_the_field_is_named(value: Any, rule: NullRule, param: str | None) -> None:
    with pytest.raises(InvalidInput) as caught:
        apply_null_rule(value, rule, INVOICE)
    assert caught.value.param == param
    assert param is None or f"'{param}'" in caught.value.message


def test_a_text_skill_can_explain_a_missing_answer_but_not_drop_it() -> None:
    assert apply_null_rule(None, "explain", None) == "not stated"
    assert apply_null_rule("yes", "drop", None) == "yes"
    with pytest.raises(InvalidInput):
        apply_null_rule(None, "drop", None)


def test_a_value_without_bottom_is_refused_and_no_crash() -> None:
    value: list[Any] = []
    for _ in range(10_000):
        value = [value]
    with pytest.raises(InvalidInput, match="deeper"):
        apply_null_rule(value, "drop", None)


def test_words_for_nothing_are_null_and_others_are_not() -> None:
    assert all(is_null_word(word) for word in ("", "  ", "NULL", " N/A ", "None", "NaN"))
    assert not any(is_null_word(word) for word in ("0", "no", "nil", "Null & Co"))


def test_what_a_schema_says_of_a_place_is_read_through_references_and_alternatives() -> None:
    schema = check_schema(
        {
            "type": "object",
            "properties": {
                "who": {"anyOf": [{"$ref": "#/$defs/who"}, {"type": "null"}]},
                "level": {"oneOf": [{"const": 1}, {"const": 2}]},
                "amount": {"allOf": [{"type": ["number", "string"]}, {"type": ["number", "null"]}]},
            },
            "$defs": {
                "who": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "boss": {"$ref": "#/$defs/who"}},
                    "required": ["name"],
                }
            },
        }
    )
    place = top(schema)
    assert place.at("who").kinds == {"object", "null"}
    assert place.at("who").required == {"name"}
    assert place.at("who.boss.name").kinds == {"string"}
    assert place.at("level").choices == (1, 2)
    assert place.at("amount").kinds == {"number", "integer"}
    assert "string" in place.at("anything").kinds
    paths = [path for path, _ in leaves(place)]
    assert paths == ["who", "who.name", "who.boss", "who.boss.name", "who.boss.boss", "level", "amount"]


def test_an_alternative_to_null_that_is_anything_at_all_says_nothing() -> None:
    place = top(check_schema({"type": "object", "properties": {"a": {"anyOf": [True, {"type": "null"}]}}})).child("a")
    assert (place.names, place.choices) == ((), ())
    assert "string" in place.kinds
