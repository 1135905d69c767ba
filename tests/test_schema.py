"""Schemas are bounded before use, compiled to a grammar that is never wrong silently, and validate afterwards."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intern.errors import SchemaRefused
from intern.schema import OutputSchema, canonical, check_schema, parse_json

SUITE = Path(__file__).parents[2] / "shared" / "data" / "json-schema-test-suite" / "tests" / "draft2020-12"


def nested(depth: int) -> dict[str, object]:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


HOSTILE = {
    "no object": ([], "must be an object"),
    "too deep": (nested(100), "deeper than"),
    "deep as a document": (nested(400), "deeper than"),
    "recursive without end": ({"$ref": "#"}, "without end"),
    "requires itself": ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "without end"),
    "array of itself": ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "without end"),
    "huge enum": ({"enum": [f"value {i}" for i in range(20_000)]}, "bytes|1000 values"),
    "many enums": ({"anyOf": [{"enum": list(range(i, i + 300))} for i in range(0, 1500, 300)]}, "1000 values"),
    "many parts": ({"anyOf": [{"type": "string"}] * 3_000}, "2000 parts"),
    "look-ahead": ({"type": "string", "pattern": "(?=a)b"}, "regex"),
    "exploding pattern": ({"type": "string", "pattern": "(((a{1,1000}){1,1000}){1,100})"}, "regex"),
    "broken pattern": ({"type": "string", "pattern": "("}, "regex"),
    "long pattern": ({"type": "string", "pattern": "a" * 501}, "pattern is longer"),
    "leaves the document": ({"$ref": "http://127.0.0.1/schema.json"}, "leaves the schema"),
    "reads a file": ({"$ref": "file:///etc/passwd"}, "leaves the schema"),
    "dangling reference": ({"$ref": "#/$defs/nothing"}, "does not exist"),
    "unknown type": ({"type": "nonsense"}, "Not a valid JSON Schema"),
    "long string": ({"type": "string", "maxLength": 10_000_000}, "at most 10000"),
    "never satisfied": ({"type": "string", "minLength": 5, "maxLength": 3}, "cannot be used"),
    "required but forbidden": ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "cannot be used"),
    "large": ({"type": "string", "description": "x" * 70_000}, "bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_is_refused_with_its_reason(name: str) -> None:
    schema, reason = HOSTILE[name]
    with pytest.raises(SchemaRefused, match=reason) as caught:
        check_schema(schema, param="response_format")
    assert caught.value.param == "response_format"
    assert len(caught.value.message) < 500


def test_entangled_references_are_refused_in_bounded_time() -> None:
    names = [f"d{i}" for i in range(12)]
    defs = {n: {"allOf": [{"anyOf": [{"$ref": f"#/$defs/{m}"} for m in names if m != n]}]} for n in names}
    with pytest.raises(SchemaRefused):
        check_schema({"$ref": "#/$defs/d0", "$defs": defs})


def test_recursion_that_can_stop_is_allowed() -> None:
    tree = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["name", "next"],
        "additionalProperties": False,
    }
    schema = check_schema(tree)
    assert schema.problems({"name": "a", "next": {"name": "b", "next": None}}) == ()
    assert schema.problems({"name": "a", "next": {"name": "b"}})


def test_what_decoding_cannot_enforce_is_named_and_still_validated() -> None:
    schema = check_schema({"type": "array", "items": {"type": "integer"}, "uniqueItems": True})
    assert any("uniqueItems" in note for note in schema.unenforced)
    assert schema.problems([1, 1])
    assert schema.problems([1, 2]) == ()


def test_a_short_array_of_different_choices_cannot_repeat_one_while_decoding() -> None:
    tags = {"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True, "maxItems": 2}
    schema = check_schema({"type": "object", "properties": {"tags": tags}, "required": ["tags"]})
    assert schema.unenforced == ()
    assert '["a", "b"]' in schema.grammar
    assert '["a", "a"]' not in schema.grammar
    assert schema.problems({"tags": ["c", "a"]}) == ()
    assert schema.problems({"tags": ["a", "a"]})


def test_the_grammar_writes_json_the_way_examples_are_stored() -> None:
    schema = check_schema({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
    assert '"whitespace_flexible": false' in schema.grammar
    assert canonical({"a": 1, "b": ["ü"]}) == '{"a": 1, "b": ["ü"]}'


def test_a_caller_cannot_change_the_grammars_options() -> None:
    schema = check_schema({"x-guidance": {"whitespace_flexible": True}, "type": "integer"})
    assert '"whitespace_flexible": true' not in schema.grammar


@pytest.mark.parametrize("text", ["", "{", '{"a": NaN}', '{"a": 1, "a": 2}', '{"a": 1} and more', "[" * 5000])
def test_text_that_is_no_json_has_a_problem_and_no_value(text: str) -> None:
    value, problems = parse_json(text)
    assert value is None
    assert problems[0].startswith("not valid JSON")


@pytest.mark.parametrize("text", ['{"a": 1e999}', '"\\ud800"', '{"\\udfff": 1}', "[" * 300 + "]" * 300])
def test_json_that_nothing_could_keep_is_a_problem(text: str) -> None:
    value, problems = parse_json(text)
    assert value is None
    assert problems


@pytest.mark.parametrize("text", ['"\\ud83d\\ude00"', "1e308", "[" * 60 + "]" * 60])
def test_json_that_only_looks_unusual_is_none(text: str) -> None:
    assert parse_json(text)[1] == ()


def test_problems_name_the_place() -> None:
    schema = check_schema({"type": "object", "properties": {"items": {"type": "array", "items": {"type": "integer"}}}})
    assert schema.problems({"items": [1, "two"]})[0].startswith("items/1: ")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_any_json_is_either_a_schema_or_refused(value: object) -> None:
    outcome = None
    with contextlib.suppress(SchemaRefused):
        outcome = check_schema(value)
    assert outcome is None or isinstance(outcome, OutputSchema)


@pytest.mark.skipif(not SUITE.is_dir(), reason="needs the JSON Schema test suite beside the project")
def test_accepted_schemas_of_the_official_suite_validate_as_it_says() -> None:
    accepted = wrong = 0
    for path in sorted(set(SUITE.glob("*.json")) - {SUITE / "format.json"}):  # formats are asserted here, on purpose
        for group in json.loads(path.read_text()):
            try:
                schema = check_schema(group["schema"])
            except SchemaRefused:
                continue
            for case in group["tests"]:
                accepted += 1
                wrong += (not schema.problems(case["data"])) != case["valid"]
    assert accepted > 700
    assert wrong == 0
