"""Rows through a mapping: what becomes of them, and every row that does not fit named by line and column."""

from __future__ import annotations

import json
import re
import sys
import tracemalloc
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import pytest

from intern.errors import InvalidInput
from intern.learning.imports.importing import MAX_INPUT, MAX_INPUTS, MAX_ROWS, Import, apply_mapping, check_whole
from intern.learning.imports.mapping import (
    MAX_FIELDS,
    OWN,
    Layout,
    Mapping,
    dump_mapping,
    load_mapping,
    make_mapping,
)
from intern.learning.imports.nulls import NULL_WORDS, NullRule
from intern.learning.imports.rowfile import open_rows
from intern.schema import OutputSchema, check_schema

TICKET = check_schema(
    {
        "type": "object",
        "properties": {
            "category": {"enum": ["hardware", "network", "none"]},
            "summary": {"type": ["string", "null"], "maxLength": 20},
            "room": {"type": "string"},
            "code": {"type": ["string", "number"]},
            "tags": {"type": "array", "items": {"enum": ["new", "vip"]}},
            "count": {"type": ["integer", "null"]},
            "cost": {"type": ["number", "null"]},
            "solved": {"type": ["boolean", "null"]},
            "device": {"type": "object", "properties": {"name": {"type": "string"}}},
        },
        "required": ["category"],
        "additionalProperties": False,
    }
)


def read(rows: Any, mapping: Mapping | dict[str, Any], schema: OutputSchema | None = None) -> Import:
    """`rows`: objects, or the text of a CSV."""
    text = rows if isinstance(rows, str) else "\n".join(json.dumps(row) for row in rows)
    return apply_mapping(
        open_rows(text.encode()), mapping if isinstance(mapping, Mapping) else make_mapping(mapping), schema
    )


def one(row: dict[str, Any], mapping: dict[str, Any], schema: OutputSchema | None = None) -> dict[str, Any]:
    found = read([row], mapping, schema)
    check_whole(found)
    return found.examples[0].row


def problem(row: dict[str, Any], mapping: dict[str, Any], schema: OutputSchema | None = None) -> str:
    """The problem of the second of two rows, of which the first is good."""
    (bad,) = read([row], mapping, schema).problems
    return str(bad)


# --- inputs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "keys", "expected"),
    [
        ({"a": "x"}, {"input": "a"}, "x"),
        ({"a": "x", "b": "y"}, {"input": ["b", "a"]}, "y\n\nx"),
        ({"a": "x", "b": ""}, {"input": ["a", "b"]}, "x"),
        ({"a": "x", "b": None}, {"input": ["a", "b"], "labels": True}, "a: x\nb: null"),
        ({"a": "x", "b": "n/a"}, {"input": ["a", "b"], "labels": True, "nulls": "drop"}, "a: x"),
        ({"a": "x"}, {"input": ["a", "b"], "labels": True, "nulls": "explain"}, "a: x\nb: not stated"),
        ({"a": "x", "b": "none"}, {"input": ["a", "b"]}, "x\n\nnone"),
        ({"a": "x", "b": 5}, {"template": "{{{a}}} of {b}"}, "{x} of 5"),
        ({"a": "x", "b": None}, {"template": "{a}\n\n{b}"}, "x"),
        ({"a": {"deep": [{"er": "x"}]}}, {"input": "a.deep.0.er"}, "x"),
        ({"a": {"k": 1, "l": ["m", 2], "n": {"o": None}}}, {"input": "a"}, 'k: 1\nl: m, 2\nn: {"o": null}'),
        ({"a": 5}, {"input": "a"}, "5"),
        ({"a": "null"}, {"input": "a"}, "null"),  # a person may well have written it
        ({"a": [{"role": "user", "content": "x"}]}, {"input": "a"}, [{"role": "user", "content": "x"}]),
    ],
)
def test_columns_make_the_input(row: dict[str, Any], keys: dict[str, Any], expected: Any) -> None:
    columns = {name for name in ("a", "b") if name in str(keys)}
    other = {**dict.fromkeys(columns, "z"), "out": "y"}  # a row in which every column is there
    found = read([{**row, "out": "y"}, other], {**keys, "output": "out"})
    assert found.examples[0].row == {"input": expected, "output": "y"}


# --- outputs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "cell", "expected"),
    [
        ("category", "hardware", "hardware"),
        ("category", " Hardware ", "hardware"),
        ("category", "None", "none"),  # the schema's choice, and so no word for null
        ("summary", " as it is ", " as it is "),
        ("summary", "=SUM(A1:A9)", "=SUM(A1:A9)"),
        ("summary", "N/A", None),
        ("summary", 7, "7"),
        ("room", "007", "007"),
        ("code", "007", "007"),
        ("code", "7.0", 7.0),
        ("code", "x7", "x7"),
        ("tags", "new; vip", ["new", "vip"]),
        ("tags", '["vip", "new"]', ["vip", "new"]),
        ("tags", "NEW", ["new"]),
        ("tags", "", []),
        ("tags", ["new"], ["new"]),
        ("count", "1,234", 1234),
        ("count", "+3", 3),
        ("count", "05", 5),
        ("count", "none", None),
        ("cost", "-1,234.50", -1234.5),
        ("cost", "1e3", 1000.0),
        ("cost", 3, 3),
        ("solved", "Yes", True),
        ("solved", "0", False),
        ("solved", "", None),
        ("solved", True, True),
        ("device", '{"name": "X1"}', {"name": "X1"}),
    ],
)
def test_cells_become_what_their_field_takes(field: str, cell: Any, expected: Any) -> None:
    schema = check_schema({**TICKET.schema, "required": []})
    output = one({"in": "x", "cell": cell}, {"input": "in", "output": {field: "cell"}}, schema)["output"]
    assert output == {field: expected}
    assert type(output[field]) is type(expected)


def test_decimal_mark_and_separator_are_declared() -> None:
    keys = {"input": "in", "output": {"cost": "c", "tags": "t", "category": "k"}, "decimal": ",", "separator": "|"}
    row = one({"in": "x", "c": "1.234,5", "t": "new|vip", "k": "network"}, keys, TICKET)
    assert row["output"] == {"cost": 1234.5, "tags": ["new", "vip"], "category": "network"}


@pytest.mark.parametrize(
    ("field", "cell", "said"),
    [
        ("category", "kitchen", "'kitchen' is none of hardware, network, none"),
        ("count", "many", "'many' is no whole number such as 3"),
        ("count", "2.5", "'2.5' is no whole number such as 3"),
        ("cost", "12,5", "'12,5' is no number such as 3.5"),
        ("cost", "1e999", "'1e999' is no number"),
        ("solved", "maybe", "'maybe' is no boolean such as true, false, yes or no"),
        ("room", "", "'' counts as null, and the field 'room' takes no null"),
        ("room", None, "is null, and the field 'room' takes no null"),
        ("summary", "x" * 21, "is longer than 20 characters"),
        ("tags", "new;old", "'old' is none of new, vip"),
        ("device", "X1", "'X1' is no JSON object or list"),
        ("device", "{broken", "not valid JSON"),
        ("device", {"name": 5}, "breaks the schema: device/name: 5 is not of type"),
        ("summary", "half \ud800", "holds half of a surrogate pair"),
        ("summary", "nul \x00", "holds a NUL character"),
    ],
)
def test_a_cell_that_does_not_fit_is_named_with_what_would(field: str, cell: Any, said: str) -> None:
    keys = {"input": "in", "output": {"category": "k", field: "cell"}}
    good: dict[str, Any] = {
        "in": "x",
        "k": "network",
        "cell": None if field in ("count", "cost", "solved", "summary") else [],
    }
    if field == "category":
        keys, good = {"input": "in", "output": {"category": "cell"}}, {"in": "x", "cell": "network"}
    elif field in ("room", "device"):
        good["cell"] = "r" if field == "room" else {}
    found = read([good, {"in": "x", "k": "network", "cell": cell}], keys, TICKET)
    (bad,) = found.problems
    assert (bad.line, bad.column) == (2, "cell")
    assert said in bad.message
    assert str(bad).startswith("line 2")
    assert "cell" in str(bad)
    assert len(found.examples) == 1


def test_a_field_that_lacks_in_a_row_is_left_out_unless_it_is_required() -> None:
    keys = {"input": "in", "output": {"category": "k", "room": "r"}}
    found = read([{"in": "x", "k": "network", "r": "1"}, {"in": "y", "k": "network"}, {"in": "z"}], keys, TICKET)
    assert [good.row["output"] for good in found.examples] == [
        {"category": "network", "room": "1"},
        {"category": "network"},
    ]
    assert [str(bad) for bad in found.problems] == ["line 3, column 'k': is missing; the field 'category' needs it"]


def test_nested_fields_are_filled_by_their_path() -> None:
    keys = {"input": "in", "output": {"category": "k", "device.name": "d"}}
    assert one({"in": "x", "k": "network", "d": "X1"}, keys, TICKET)["output"] == {
        "category": "network",
        "device": {"name": "X1"},
    }


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ({"category": "network"}, {"category": "network"}),
        ('{"category": "network", "count": null}', {"category": "network", "count": None}),
    ],
)
def test_one_column_can_hold_the_whole_output(cell: Any, expected: Any) -> None:
    assert one({"in": "x", "out": cell}, {"input": "in", "output": "out"}, TICKET)["output"] == expected


@pytest.mark.parametrize(
    ("cell", "schema", "said"),
    [
        ("network", TICKET, "line 1, column 'out': must be JSON: the skill has a schema"),
        ({"category": "x"}, TICKET, "line 1, column 'out': breaks the schema: category: "),
        ({"a": 1}, None, "line 1, column 'out': must be a text: the skill has no schema"),
        ("  ", None, "line 1, column 'out': is empty; an output is needed"),
        (None, None, "line 1, column 'out': is empty; an output is needed"),
    ],
)
def test_a_whole_output_that_does_not_fit_is_explained(cell: Any, schema: OutputSchema | None, said: str) -> None:
    assert problem({"in": "x", "out": cell}, {"input": "in", "output": "out"}, schema).startswith(said)


@pytest.mark.parametrize(("cell", "text"), [(3, "3"), (True, "true"), ("N/A", "N/A"), (2.5, "2.5")])
def test_the_output_of_a_text_skill_is_the_cell_as_text(cell: Any, text: str) -> None:
    assert one({"in": "x", "out": cell}, {"input": "in", "output": "out"})["output"] == text


# --- the null rule ---------------------------------------------------------------------------------------------


def test_one_null_rule_holds_for_csv_cells_json_cells_and_whole_outputs() -> None:
    csv = "in,k,s,r\nx,network,N/A,\n"
    cells = [{"in": "x", "k": "network", "s": None, "r": None}]
    whole = [{"in": "x", "out": {"category": "network", "summary": None, "room": None}}]
    fields = {"input": "in", "output": {"category": "k", "summary": "s", "room": "r"}}
    for rule, expected in (
        ("drop", {"category": "network"}),
        ("explain", {"category": "network", "summary": "not stated", "room": "not stated"}),
    ):
        for rows, keys in ((csv, fields), (cells, fields), (whole, {"input": "in", "output": "out"})):
            (good,) = read(rows, {**keys, "nulls": rule}, TICKET).examples
            assert good.row["output"] == expected
    for rows, keys in ((csv, fields), (cells, fields), (whole, {"input": "in", "output": "out"})):
        (bad,) = read(rows, keys, TICKET).problems
        assert "room" in bad.message, "kept, it breaks the schema"


def test_the_null_rule_holds_for_the_own_layout_too() -> None:
    row = {"input": "x", "output": {"category": "network", "summary": None}}
    dropped = read([row], OWN.model_copy(update={"nulls": "drop"}), TICKET)
    assert dropped.examples[0].row["output"] == {"category": "network"}
    assert read([row], OWN, TICKET).examples[0].row["output"] == row["output"]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("drop", "line 1, column 'k': field 'category' is null and required: the rule drop cannot leave it out"),
        ("explain", "line 1, column 'k': field 'category' is null and cannot be 'not stated'"),
    ],
)
def test_where_the_rule_cannot_hold_the_row_is_bad(rule: str, said: str) -> None:
    keys = {"input": "in", "output": {"category": "k"}, "nulls": rule}
    assert problem({"in": "x", "k": None}, keys, TICKET).startswith(said)


def test_the_words_for_null_and_its_text_are_declared() -> None:
    keys = {
        **{"input": "in", "output": {"category": "k", "summary": "s"}},
        **{"nulls": "explain", "null_words": ["?"], "null_text": "unknown"},
    }
    assert one({"in": "x", "k": "network", "s": "?"}, keys, TICKET)["output"]["summary"] == "unknown"
    assert one({"in": "x", "k": "network", "s": "N/A"}, keys, TICKET)["output"]["summary"] == "N/A"


# --- conversations ---------------------------------------------------------------------------------------------


def turns(*said: str) -> list[dict[str, str]]:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[text[0]], "content": text} for text in said]


@pytest.mark.parametrize(
    ("conversation", "keys", "given", "answer"),
    [
        (turns("u1", "a1"), {}, "u1", "a1"),
        (turns("s", "u1", "a1"), {}, turns("s", "u1"), "a1"),
        (turns("s", "u1", "a1"), {"system": "drop"}, "u1", "a1"),
        (turns("u1", "a1", "u2", "a2", "u3"), {}, turns("u1", "a1", "u2"), "a2"),
        ([{"from": "human", "value": "u1"}, {"from": "gpt", "value": "a1"}], {}, "u1", "a1"),
        (json.dumps(turns("u1", "a1")), {}, "u1", "a1"),
        (
            [*turns("u1", "a1", "u2"), {"role": "assistant", "content": "a2", "weight": 0}],
            {},
            "u1",
            "a1",
        ),
        (
            [
                {"role": "developer", "content": "s"},
                {"role": "user", "content": [{"type": "text", "text": "u"}]},
                *turns("a"),
            ],
            {},
            turns("s", "u"),
            "a",
        ),
    ],
)
def test_the_last_assistant_turn_is_the_output(
    conversation: Any, keys: dict[str, Any], given: Any, answer: str
) -> None:
    row = one({"chat": conversation}, {"messages": "chat", **keys})
    assert row == {"input": given, "output": answer}


def test_an_answer_is_json_or_the_only_field_of_a_schema() -> None:
    keys = {"messages": "chat"}
    answer = [*turns("u"), {"role": "assistant", "content": '{"category": "network"}'}]
    assert one({"chat": answer}, keys, TICKET)["output"] == {"category": "network"}
    label = [*turns("u"), {"role": "assistant", "content": "Network"}]
    assert one({"chat": label}, {**keys, "output": {"category": "chat"}}, TICKET)["output"] == {"category": "network"}
    assert "must be JSON" in problem({"chat": label}, keys, TICKET)


@pytest.mark.parametrize(
    ("conversation", "said"),
    [
        ("hello", "must be a list of turns: not valid JSON"),
        (["hello"], "must be a list of turns with role and content, or from and value"),
        (turns("u1"), "has no assistant turn"),
        (turns("a1"), "turn 1 is the output; a user's turn must stand before it"),
        (turns("u1", "a1", "a2"), "turn 3 is the output; a user's turn must stand before it"),
        ([*turns("u1"), {"role": "assistant", "content": " "}], "turn 2 is the output and has no text"),
        ([*turns("u1"), {"role": "assistant", "content": None, "tool_calls": [{}]}], "turn 2 calls a tool"),
        ([*turns("u1"), {"role": "tool", "content": "x"}, *turns("a1")], "turn 2 is of the role 'tool'"),
        ([{"role": "user", "content": [{"type": "image_url"}]}, *turns("a1")], "turn 1 has no text"),
        ([{"role": 5, "content": "x"}, *turns("a1")], "turn 1 is of the role '5'"),
    ],
)
def test_a_conversation_that_teaches_nothing_is_named_by_its_turn(conversation: Any, said: str) -> None:
    assert problem({"chat": conversation}, {"messages": "chat"}).startswith(f"line 1, column 'chat': {said}")


# --- the rest of a row -----------------------------------------------------------------------------------------


def test_group_person_split_and_contributor_come_along() -> None:
    keys = {"input": "a", "output": "b", "id": "i", "group": "g", "person": "p", "split": "s", "contributor": "who"}
    row = {"a": "x", "b": "y", "i": 7, "g": 12, "p": 4, "s": "Validation", "who": "eve"}
    (good,) = read([row], keys).examples
    assert good.row == {"input": "x", "output": "y", "id": "7", "group": "12", "person": "4", "split": "heldout"}
    assert (good.example.provenance, good.example.contributor) == ("import", "eve")
    assert good.example.person == "4"
    assert "person" not in good.example.model_dump(), "it is kept beside the example"
    bare = read([row, {"a": "x", "b": "y", "g": "", "s": None}], keys).examples[1]
    assert bare.row == {"input": "x", "output": "y"}


@pytest.mark.parametrize(
    ("cells", "column", "said"),
    [
        ({"s": "purple"}, "s", "'purple' must be train or heldout"),
        ({"g": ["x"]}, "g", "must be a text or a number"),
        ({"i": "x" * 201}, "i", "key 'id'"),
        ({"p": "x" * 201}, "p", "key 'person'"),
        ({"p": ["x"]}, "p", "must be a text or a number"),
        ({"who": "x" * 65}, "who", "must have at most 64 characters"),
        ({"a": "  "}, "a", "is empty; an input is needed"),
        ({"a": [{"role": "assistant", "content": "x"}]}, "a", "the last message must be the user's"),
        ({"a": "nul \x00"}, "a", "holds a NUL character"),
    ],
)
def test_what_is_odd_about_a_row_is_named_with_its_column(cells: dict[str, Any], column: str, said: str) -> None:
    keys = {"input": "a", "output": "b", "id": "i", "group": "g", "person": "p", "split": "s", "contributor": "who"}
    good = {"a": "x", "b": "y", "i": 7, "g": 12, "p": 4, "s": "train", "who": "eve"}
    (bad,) = read([good, {**good, **cells}], keys).problems
    assert (bad.line, bad.column) == (2, column)
    assert said in bad.message


def test_a_column_that_is_not_there_refuses_the_mapping() -> None:
    keys = {"input": "a", "output": "b", "split": "splitt"}
    for rows in ("a,b,split\nx,y,train\n", [{"a": "x", "b": "y", "split": "train"}]):
        with pytest.raises(InvalidInput, match="The file has no column 'splitt'; it has 'a', 'b', 'split'"):
            read(rows, keys)
    late = [{"a": "x", "b": "y"}] * 300 + [{"a": "x", "b": "y", "splitt": "train"}]
    assert len(read(late, keys).examples) == 301


def test_late_columns_are_looked_for_in_one_pass() -> None:
    names = [f"k{n}" for n in range(150)]
    rows = [{"a": "x", "b": "y"}] * 8_000 + [{"a": "x", "b": "y", **dict.fromkeys(names, "1")}]
    file = open_rows("\n".join(map(json.dumps, rows)).encode())
    keys = {"template": "{a}" + "".join(f"{{{name}}}" for name in names), "output": "b"}
    with mock.patch.object(file, "rows", wraps=file.rows) as passes:
        assert len(apply_mapping(file, make_mapping(keys), None).examples) == len(rows)
    assert passes.call_count == 2, "one to find the columns, one to read the rows"


@pytest.mark.parametrize(
    "keys",
    [{"template": "{a}{a} {a}"}, {"input": ["a"] * 3}, {"input": ["a", "a", "a"], "labels": True}],
    ids=["template", "paragraphs", "lines"],
)
def test_a_mapping_that_swells_a_row_is_a_problem_of_that_row(keys: dict[str, Any]) -> None:
    rows = [{"a": "x" * 100, "b": "y"}, {"a": "x" * (MAX_INPUT // 3), "b": "y"}]
    found = read(rows, {**keys, "output": "b"})
    assert [imported.line for imported in found.examples] == [1]
    (bad,) = found.problems
    assert (bad.line, bad.column) == (2, "a")
    assert re.search(r"make an input of 200,\d\d\d characters; at most 200,000 are read", bad.message)


def test_a_mapping_that_swells_all_rows_is_refused_before_they_fill_the_memory() -> None:
    cell = "x" * (MAX_INPUT // 200)
    rows = [{"a": cell, "b": "y"}] * (MAX_INPUTS // MAX_INPUT + 10)
    tracemalloc.start()
    with pytest.raises(InvalidInput, match="inputs of more than 40,000,000 characters") as caught:
        read(rows, {"template": "{a}" * 199, "output": "b"})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.param == "mapping"
    assert peak < 2 * MAX_INPUTS


def test_notes_say_what_people_should_know() -> None:
    data = "a;b;c;d\n" + "Das Café schließt früher;ja;1;2\n" * 9
    found = apply_mapping(open_rows(data.encode("cp1252")), make_mapping({"input": "a", "output": "b"}), None)
    assert [note.partition(" ")[0] for note in found.notes] == ["The", "Columns"]
    assert "windows-1252" in found.notes[0]
    assert "'c', 'd'" in found.notes[1]
    lacking = read([{"a": "x", "b": "y"}], {"input": "a", "output": {"summary": "b"}}, TICKET)
    assert "required fields 'category'" in lacking.notes[-1]


def test_rows_are_all_good_or_the_first_bad_one_is_told_with_the_count() -> None:
    found = read([{"a": "x", "b": "y"}, {"a": "x"}, {"a": "x"}], {"input": "a", "output": "b"})
    with pytest.raises(InvalidInput) as caught:
        check_whole(found)
    assert caught.value.message == (
        "line 2, column 'b': is missing in this row (2 of 3 rows are bad). Nothing was added."
    )


def test_too_many_rows_are_refused_and_as_many_as_may_be_are_read() -> None:
    row = '{"a": "x", "b": "y"}\n'
    with pytest.raises(InvalidInput, match="more than 20,000 rows"):
        read(row * (MAX_ROWS + 1), {"input": "a", "output": "b"})
    assert len(read(row * MAX_ROWS, {"input": "a", "output": "b"}).examples) == MAX_ROWS


def test_a_row_takes_no_more_steps_among_many_than_among_few() -> None:
    def steps(many: int) -> int:
        """Calls of functions, Python's and C's."""
        rows = [{"a": f"x {n}", "b": f"y {n}"} for n in range(many)]
        called = [0]

        def count(frame: object, event: str, argument: object) -> None:
            called[0] += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            found = read(rows, {"input": "a", "output": "b"})
        finally:
            sys.setprofile(before)
        assert len(found.examples) == many
        return called[0]

    few, many, more = (steps(n) for n in (2_500, 3_000, 4_000))  # of the first 2,000, a sample is read as well
    assert many - few > 500
    assert (more - many) / (many - few) < 2.2


# --- the mapping itself ----------------------------------------------------------------------------------------


def test_only_so_many_fields_have_columns_of_their_own() -> None:
    keys: dict[str, Any] = {"input": "a", "output": {f"f{n}": "b" for n in range(MAX_FIELDS)}}
    assert len(make_mapping(keys).fields) == MAX_FIELDS
    for added, said in (
        ("one", "output names 201 fields; at most 200 can have a column each: put the whole output as JSON into one"),
        (
            ".".join("x" * 70),
            "the field 'x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x",
        ),
    ):
        if added != "one":
            keys["output"].popitem()
        with pytest.raises(InvalidInput) as caught:
            make_mapping({**keys, "output": {**keys["output"], added: "b"}})
        assert caught.value.message.startswith(f"The mapping: {said}")


def test_a_mapping_is_printed_as_it_is_read() -> None:
    keys = {
        **{"template": "{a}: {b}", "output": {"category": "k", "no": "yes"}, "split": "on", "nulls": "explain"},
        **{"null_words": ["", "-"], "separator": ",", "decimal": ","},
    }
    mapping = make_mapping(keys)
    text = dump_mapping(mapping)
    assert load_mapping(text) == mapping
    assert "nulls: explain" in text
    assert dump_mapping(make_mapping({"input": "a", "output": "b"})) == (
        "layout: columns\ninput: a\noutput: b\nnulls: keep\n"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must hold keys such as input and output"),
        ("[a]", "must hold keys such as input and output"),
        ("input: a\noutput: [", "not valid YAML (line 2)"),
        ("input: a", "output is missing"),
        ("output: a", "give exactly one of input (columns), template and messages"),
        ("input: a\ntemplate: '{b}'\noutput: c", "give exactly one of"),
        ("layout: own\ninput: a\noutput: output", "layout own has the columns input and output"),
        ("template: no hole\noutput: c", "the template names no column"),
        (f"template: '{'{a}' * 201}'\noutput: c", "the template has more than 200 places for columns"),
        ("input: a\noutput: b\nnulls: maybe", "key 'nulls'"),
        ("input: a\noutput: b\ninputs: c", "key 'inputs' is unknown; known are layout, input"),
        ("input: &a x\noutput: *a", "YAML alias"),
        ("input: " + "[" * 20_000, "more than 500 brackets"),
        ("input: " + "[" * 400, "not valid YAML"),
        ("- " * 30_000, "not valid YAML"),
        ("x" * 70_000, "at most 65,536"),
        ("input: a\noutput: b\nseparator: ''", "key 'separator'"),
    ],
)
def test_a_wrong_mapping_is_told_what_would_be_right(text: str, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_mapping(text)
    assert said in caught.value.message


PAGE = (Path(__file__).parents[3] / "docs" / "importing.md").read_text()


def test_every_key_layout_and_rule_is_documented_and_the_documented_mapping_is_one() -> None:
    for name in (*Mapping.model_fields, *get_args(Layout), *get_args(NullRule), *(word for word in NULL_WORDS if word)):
        assert (name if name in NULL_WORDS else f"`{name}`") in PAGE, name
    assert f"{MAX_ROWS:,} rows" in PAGE
    example = PAGE.split("```yaml\n")[1].split("```")[0]
    assert load_mapping(example).columns == ("subject", "body", "Queue", "Prio", "Subject", "Missing", "set")


@pytest.mark.parametrize("word", ["n/a", " NaN ", "None", "", "unknown"])
def test_a_word_for_null_is_nobodys_name_and_no_group(word: str) -> None:
    mapping = {"input": "a", "output": "b", "person": "by", "group": "t", "null_words": ["unknown"]}
    assert one({"a": "x", "b": "y", "by": word, "t": word}, mapping) == {"input": "x", "output": "y"}
    if word != "unknown":
        (found,) = read(f"input,output,person\nx,y,{word}\n", OWN).examples
        assert found.example.person is None


def test_a_mappings_own_words_for_null_add_to_the_usual_ones_for_a_person() -> None:
    mapping = {"input": "a", "output": "b", "person": "by", "null_words": ["-"]}
    assert [one({"a": "x", "b": "y", "by": by}, mapping).get("person") for by in ("-", "n/a", "ann")] == [
        None,
        None,
        "ann",
    ]
