"""Schemas are bounded before use, compiled to a grammar that is never wrong silently, and validate afterwards."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intern.errors import SchemaRefused
from intern.schema import MAX_DEPTH, OutputSchema, canonical, check_schema, followed, parse_json, pointed
from intern.types import Json

SUITE = Path(__file__).parents[2] / "shared" / "data" / "json-schema-test-suite" / "tests" / "draft2020-12"


def nested(depth: int, name: str = "a") -> dict[str, object]:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {name: schema}, "required": [name]}
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
    "reads the network through content": ({"contentSchema": {"$ref": "http://127.0.0.1/x"}}, "leaves the schema"),
    "of a dialect that is elsewhere": ({"$schema": "http://127.0.0.1/meta", "type": "string"}, "not known"),
    "bounds hidden in an unknown place": ({"$ref": "#/x", "x": {"enum": list(range(7_000))}}, "no subschema"),
    "the same, written with escapes": ({"$ref": "#/%78", "x": {"enum": list(range(7_000))}}, "no subschema"),
    "bounds hidden in data": ({"$ref": "#/const", "const": {"enum": list(range(7_000))}}, "no subschema"),
    "requires itself by another name": ({"$ref": "#me", "$anchor": "me"}, "without end"),
    "requires itself, escaped": ({"$ref": "#/$defs/%61", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "without end"),
    "endless names": (nested(3, name="n" * 5_000), "names are too long"),
    "not a number JSON has": ({"maximum": float("inf")}, "not plain JSON"),
    "large": ({"type": "string", "description": "x" * 70_000}, "bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_is_refused_with_its_reason(name: str) -> None:
    schema, reason = HOSTILE[name]
    with pytest.raises(SchemaRefused, match=reason) as caught:
        check_schema(schema, param="response_format")
    assert caught.value.param == "response_format"
    assert len(caught.value.message) < 500


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """(address, paths asked for) of a web server that has a schema at every path."""
    asked: list[str] = []

    class Schemas(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"type": "string"}')

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Schemas) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


WAYS_OUT: dict[str, Any] = {
    "directly": {"$ref": "URL"},
    "dynamically": {"$dynamicRef": "URL"},
    "from content": {"type": "string", "contentSchema": {"$ref": "URL"}},
    "from dependencies": {"dependencies": {"a": {"$ref": "URL"}}},
    "from an unknown keyword": {"properties": {"a": {"$ref": "#/x"}}, "x": {"$ref": "URL"}},
    "from deep in an unknown keyword": {"$ref": "#/x/y", "x": {"y": {"properties": {"z": {"$ref": "URL"}}}}},
    "from an unknown keyword that is not used": {"type": "string", "x": {"$ref": "URL"}},
    "by its dialect": {"$schema": "URL", "type": "string"},
    "by a dialect within": {"properties": {"a": {"$schema": "URL"}}},
    "by its identity": {"$id": "URL", "$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}},
    "relative to its identity": {"$id": "URL", "$ref": "other.json"},
}


@pytest.mark.parametrize("way", WAYS_OUT)
def test_no_schema_makes_the_platform_read_the_network_or_a_file(
    listener: tuple[str, list[str]], tmp_path: Path, way: str
) -> None:
    address, asked = listener
    (tmp_path / "x.json").write_text('{"type": "string"}')
    said = []
    for target in (f"{address}/x.json", (tmp_path / "x.json").as_uri(), (tmp_path / "missing.json").as_uri()):
        try:
            check_schema(json.loads(json.dumps(WAYS_OUT[way]).replace("URL", target)))
            said.append("accepted")
        except SchemaRefused as error:
            said.append(error.message.replace(target, "URL"))
    assert asked == []
    assert len(set(said)) == 1  # and nothing tells what is there from what is not


@pytest.mark.parametrize(
    "dialect", ["https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema#"]
)
def test_dialects_that_generators_write_are_read_as_2020_12(dialect: str) -> None:
    schema = check_schema({"$schema": dialect, "$id": "https://example.com/x", "prefixItems": [{"type": "integer"}]})
    assert schema.problems([1]) == ()
    assert schema.problems(["1"])
    assert schema.schema["$schema"] == dialect


REFERENCES: dict[str, Any] = {
    "definition": {"$ref": "#/$defs/a", "$defs": {"a": {"enum": ["yes"]}}},
    "escaped": {"$ref": "#/definitions/a~1b%25~0", "definitions": {"a/b%~": {"enum": ["yes"]}}},
    "of a list": {"anyOf": [{"$ref": "#/anyOf/1"}, {"enum": ["yes"]}]},
    "anchor": {"$ref": "#here", "$defs": {"a": {"$anchor": "here", "enum": ["yes"]}}},
}


@pytest.mark.parametrize("name", REFERENCES)
def test_references_within_the_schema_hold(name: str) -> None:
    schema = check_schema(REFERENCES[name])
    assert schema.problems("yes") == ()
    assert schema.problems("no")


KEYWORDS = (
    *("items", "contains", "additionalProperties", "not", "if", "allOf", "anyOf", "oneOf", "prefixItems", "properties"),
    *("patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies", "contentSchema", "enum", "type"),
    *("required", "minItems", "maxItems", "minLength", "pattern", "format", "$ref", "$dynamicRef", "$id", "$schema"),
    *("$anchor", "uniqueItems", "multipleOf", "dependentRequired", "x-guidance", "description"),
)
VALUES: tuple[Json, ...] = (
    *(None, True, -1, 1.0, 1.5, 10**30, "a", "#", "#/%"),
    *([], [1], ["a"], [["a"]], [{}], {}, {"a": 1}, {"a": [1]}),
)


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_a_keyword_of_any_value_is_either_read_or_refused(keyword: str) -> None:
    for value in VALUES:
        for base in (
            {},
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            {"type": "array", "uniqueItems": True, "items": {"enum": ["a", "b"]}},
        ):
            for schema in ({**base, keyword: value}, {"type": "object", "properties": {"p": {**base, keyword: value}}}):
                outcome = None
                with contextlib.suppress(SchemaRefused):
                    outcome = check_schema(schema)
                assert outcome is None or isinstance(outcome, OutputSchema)


def test_sizes_may_be_written_as_decimals() -> None:
    tags = {"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True, "minItems": 1.0, "maxItems": 2.0}
    schema = check_schema(tags)
    assert schema.problems(["a", "b"]) == ()
    assert '["a", "a"]' not in schema.grammar


def test_data_that_looks_like_a_schema_stays_data() -> None:
    looks = {"type": "array", "items": {"enum": ["a"]}, "uniqueItems": True, "minItems": "one", "$ref": "http://x/"}
    schema = check_schema({"type": "object", "properties": {"a": {"type": "string"}}, "default": looks})
    assert json.dumps(looks) in schema.grammar


def test_entangled_references_are_refused_in_bounded_time() -> None:
    names = [f"d{i}" for i in range(12)]
    defs = {n: {"allOf": [{"anyOf": [{"$ref": f"#/$defs/{m}"} for m in names if m != n]}]} for n in names}
    with pytest.raises(SchemaRefused):
        check_schema({"$ref": "#/$defs/d0", "$defs": defs})


def test_a_chain_of_references_that_nothing_could_walk_is_refused() -> None:
    chain = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(1_500)} | {"d1500": {"type": "string"}}
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": chain}
    with pytest.raises(SchemaRefused, match="too long a chain"):
        check_schema(schema)


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


# --- references ------------------------------------------------------------------------------------------------

REFERRING: dict[str, Any] = {
    "properties": {"a": {"$ref": "#/$defs/odd~1na%6De", "title": "nearer"}, "b": {"$ref": "#/properties/c"}},
    "$defs": {"odd/name": {"enum": ["x"], "title": "farther"}, "loop": {"$ref": "#/$defs/loop", "type": "string"}},
    "anyOf": [{"const": 1}, {"const": 2}],
}


@pytest.mark.parametrize(
    ("reference", "part"),
    [
        ("#", REFERRING),
        ("#/$defs/odd~1name/enum", ["x"]),
        ("#/anyOf/1", {"const": 2}),
        ("#/anyOf/2", None),
        ("#/$defs/none/there", None),
        ("#anchor", None),
    ],
)
def test_a_reference_leads_to_a_part_or_nowhere(reference: str, part: Any) -> None:
    assert pointed(reference, REFERRING) == part


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (REFERRING["properties"]["a"], {"enum": ["x"], "title": "nearer"}),
        ({"anyOf": [{"$ref": "#/$defs/odd~1name"}, {"type": "null"}]}, {"enum": ["x"], "title": "farther"}),
        (
            {"anyOf": [{"$ref": "#/$defs/odd~1name"}, {"type": "null", "title": "none"}]},
            {"enum": ["x"], "title": "farther"},
        ),
        ({"oneOf": [{"const": None}, {"enum": [None]}, {"type": ["null"]}, {"const": 1}]}, {"const": 1}),
        ({"anyOf": [True, {"type": "null"}]}, {}),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, {}),
        ({"$ref": "#/$defs/loop"}, {"type": "string"}),
        (REFERRING["properties"]["b"], {}),
        (True, {}),
    ],
)
def test_a_part_says_what_its_references_lead_to(part: Any, said: dict[str, Any]) -> None:
    found = followed(part, REFERRING)
    assert {key: value for key, value in found.items() if key not in ("$ref", "anyOf", "oneOf")} == said


def test_a_long_chain_of_references_costs_no_more_than_a_short_one() -> None:
    chain: dict[str, Any] = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}", f"x{n}": 1} for n in range(650)}
    schema = {"$defs": chain | {"d650": {"type": "string"}}}
    found = followed({"$ref": "#/$defs/d0"}, schema)
    assert len(found) == MAX_DEPTH
    assert "type" not in found
    assert followed({"$ref": f"#/$defs/d{650 - MAX_DEPTH + 2}"}, schema)["type"] == "string"
