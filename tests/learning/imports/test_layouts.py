"""What a file's columns are: known layouts by name and shape, others by likeness, and an honest no."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from intern.errors import InvalidInput
from intern.learning.imports import layouts
from intern.learning.imports.coercion import coerce
from intern.learning.imports.importing import apply_mapping
from intern.learning.imports.layouts import guess_mapping
from intern.learning.imports.mapping import OWN, Mapping, dump_mapping, load_mapping
from intern.learning.imports.rowfile import open_rows
from intern.schema import OutputSchema, check_schema

SHARED = Path(__file__).parents[4] / "shared" / "data"
TICKET = check_schema(
    {
        "type": "object",
        "properties": {
            "category": {"enum": ["hardware", "software", "network"]},
            "priority": {"enum": ["low", "normal", "high", None]},
            "summary": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "cost": {"type": ["number", "null"]},
            "solved": {"type": "boolean"},
        },
        "required": ["category", "summary"],
        "additionalProperties": False,
    }
)
INTENT = check_schema({"type": "object", "properties": {"intent": {"type": "string"}}, "required": ["intent"]})
CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHAREGPT = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


def guess(*rows: dict[str, Any], schema: OutputSchema | None = None, **given: Any) -> Mapping:
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    return guess_mapping(columns, rows, schema, given=given)


def keys(mapping: Mapping) -> dict[str, Any]:
    """What the mapping says beyond the defaults."""
    found = mapping.model_dump(mode="json", exclude_defaults=True)
    return {**found, "input": " + ".join(mapping.input)} if mapping.input else found


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": CHAT}, {"layout": "openai", "messages": "messages"}),
        ({"turns": CHAT, "n": 1}, {"layout": "openai", "messages": "turns"}),
        ({"messages": json.dumps(CHAT)}, {"layout": "openai", "messages": "messages"}),
        ({"conversations": SHAREGPT}, {"layout": "sharegpt", "messages": "conversations"}),
        (
            {"instruction": "i", "input": "", "output": "o"},
            {"layout": "alpaca", "input": "instruction + input", "output": "output"},
        ),
        ({"instruction": "i", "output": "o"}, {"layout": "alpaca", "input": "instruction", "output": "output"}),
        (
            {"instruction": "i", "context": "c", "response": "r", "category": "qa"},
            {"layout": "dolly", "input": "instruction + context", "output": "response"},
        ),
        (
            {"prompt": "p", "completion": "c"},
            {"layout": "prompt-completion", "input": "prompt", "output": "completion"},
        ),
        (
            {"prompt": CHAT[:1], "completion": CHAT[1:]},
            {"layout": "prompt-completion", "input": "prompt", "output": "completion"},
        ),
        ({"Question": "q", "Answer": "a"}, {"layout": "question-answer", "input": "Question", "output": "Answer"}),
        ({"text": "t", "label": "l"}, {"layout": "text-label", "input": "text", "output": "label"}),
        ({"prompt": "p", "chosen": "c", "rejected": "r"}, {"input": "prompt", "output": "chosen"}),
        ({"subject": "s", "body": "b", "reply": "r"}, {"input": "subject + body", "labels": True, "output": "reply"}),
        ({"Frage": "f", "Antwort": "a"}, {"input": "Frage", "output": "Antwort"}),
        ({"text": "t", "Zielwert": "z", "id": 7}, {"input": "text", "output": "Zielwert", "id": "id"}),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else None,
)
def test_layouts_are_recognised_by_name_and_shape(row: dict[str, Any], said: dict[str, Any]) -> None:
    assert keys(guess(row)) == said


def test_the_own_layout_is_itself_with_a_schema_and_without() -> None:
    assert guess({"input": "a", "output": "b"}) == OWN
    assert guess({"input": "a", "output": {"intent": "b"}, "group": "g"}, schema=INTENT) == OWN
    assert guess({"input": "a"}) == OWN, "so that the row is told what it lacks"
    assert guess({"input": "a", "output": "b", "score": 1}).layout == "columns"


def test_columns_like_the_fields_become_the_output() -> None:
    row = {
        "Ticket Category": "Hardware",
        "prio": "HIGH",
        "Body": "the printer burns",
        "summary": "Printer burns",
        "tags": "a|b",
        "cost": "1.200,50",
        "is_solved": "yes",
    }
    found = guess(row, {**row, "prio": "low"}, schema=TICKET)
    fields = {
        **{"category": "Ticket Category", "priority": "prio", "summary": "summary", "tags": "tags", "cost": "cost"},
        "solved": "is_solved",
    }
    assert keys(found) == {"input": "Body", "output": fields, "separator": "|", "decimal": ","}


def test_a_name_is_no_field_when_its_cells_do_not_fit() -> None:
    row = {"text": "t", "summary": "s", "category": "network", "cost_center": "Berlin"}
    assert "cost" not in guess(row, schema=TICKET).fields


def test_bare_records_are_read_as_lines_of_their_other_columns() -> None:
    found = guess({"device": "X1", "room": "2b", "category": "network", "summary": "no net"}, schema=TICKET)
    assert keys(found) == {
        "layout": "records",
        "input": "device + room",
        "labels": True,
        "output": {"category": "category", "summary": "summary"},
    }


def test_nested_fields_are_matched_by_their_whole_name() -> None:
    place = {"type": "object", "properties": {"city": {"type": "string"}, "zip": {"type": "string"}}}
    schema = check_schema({"type": "object", "properties": {"place": place}})
    found = guess({"body": "b", "place_city": "Rome", "placeZip": "00100"}, schema=schema)
    assert found.fields == {"place.city": "place_city", "place.zip": "placeZip"}


@pytest.mark.parametrize(
    ("row", "output"),
    [
        ({"text": "t", "label": "billing"}, {"intent": "label"}),
        ({"input": "t", "output": "billing"}, {"intent": "output"}),
        ({"text": "t", "label": "billing", "intent": "pay"}, {"intent": "intent"}),
        ({"text": "t", "label": '{"intent": "pay"}'}, "label"),
        ({"messages": CHAT}, {"intent": "messages"}),
        ({"messages": [CHAT[0], {"role": "assistant", "content": '{"intent": "a"}'}]}, None),
    ],
)
def test_one_label_is_the_only_field_of_a_schema(row: dict[str, Any], output: Any) -> None:
    assert guess(row, schema=INTENT).output == output


def test_further_columns_are_found_by_name_and_content() -> None:
    row = {"text": "t", "label": "l", "ID": "1", "split": "Test", "thread_id": "9", "annotator": "eve"}
    found = guess(row)
    assert (found.id, found.split, found.group, found.contributor) == ("ID", "split", "thread_id", "annotator")
    assert guess({**row, "split": "blue"}).split is None
    owned = check_schema({"type": "object", "properties": {"group": {"type": "string"}}})
    assert guess({"text": "t", "group": "g"}, schema=owned).output == {"group": "group"}


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("Customer", ["Anna Maria Nowak", "Bob"]),
        ("customer_id", [17, 4]),
        ("user_id", ["u-1", "u-2"]),
        ("from", ["Ann Lee <ann@example.com>", "bob@example.com"]),
        ("email", ["ann@example.com", ""]),
        ("Author", ["ann", None]),
    ],
)
def test_who_wrote_a_request_is_guessed_by_name_and_cells(column: str, cells: list[Any]) -> None:
    rows = [{"text": "what a long and windy day it was", "label": "l", column: cell} for cell in cells]
    assert keys(guess(*rows)) == {"layout": "text-label", "input": "text", "output": "label", "person": column}


@pytest.mark.parametrize(
    ("row", "schema"),
    [
        ({"email": "Dear team, where is my parcel?", "label": "l", "id": "1"}, None),
        ({"user": "where is my parcel, please?", "reply": "here", "id": "1"}, None),
        ({"user": "hello", "assistant": "hi"}, None),
        ({"text": "t", "label": "l", "email": "no address"}, None),
        ({"text": "t", "label": "l", "by": "ann"}, None),
        ({"text": "t", "customer": "ann", "category": "network"}, {"customer_name": {}, "category": {}}),
        ({"text": "t", "sender": "ann", "category": "network"}, {"sender": {}, "category": {}}),
    ],
)
def test_what_people_wrote_and_what_is_a_field_of_the_output_names_nobody(row: Any, schema: Any) -> None:
    fields = {name: {"type": "string"} for name in schema or ()}
    found = guess(row, schema=check_schema({"type": "object", "properties": fields}) if schema else None)
    assert found.person is None
    assert keys(found)


ASKED = ["turn on the lights", "play a song", "what time is it", "set an alarm", "lock the door", "call mum"]
ADDRESSES = [f"p{n}@example.com" for n in range(6)]


def file(rows: int = 6, **columns: list[Any]) -> list[dict[str, Any]]:
    """Rows whose cells go round in those of each column."""
    return [{name: cells[n % len(cells)] for name, cells in columns.items()} for n in range(rows)]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (file(id=[*range(6)], user=ASKED, intent=["a", "b"]), {"input": "user", "output": "intent", "id": "id"}),
        (file(email=ADDRESSES, intent=["a", "b"], lang=["en"]), {"input": "email", "output": "intent"}),
        (file(user=ASKED, response=["yes"], lang=["en"], id=[*range(6)]), {"output": "response", "id": "id"}),
        (file(email=ADDRESSES, body=ASKED, reply=["a"]), {"input": "body", "output": "reply", "person": "email"}),
        (file(remark=ASKED, customer=list("123456"), verdict=["a", "b"]), {"output": "verdict", "person": "customer"}),
        (file(remark=ASKED, user_id=[*range(6)], verdict=["a", "b"]), {"output": "verdict", "person": "user_id"}),
    ],
)
def test_who_wrote_a_request_is_guessed_from_what_is_no_request(rows: Any, said: dict[str, Any]) -> None:
    found = keys(guess(*rows))
    assert found == {**found, **said}
    assert found.get("person") == said.get("person")


@pytest.mark.parametrize("other", ["system", "lang"])
def test_what_a_user_said_to_an_assistant_is_nobodys_name(other: str) -> None:
    columns: dict[str, Any] = {"user": ASKED, "assistant": ["yes"], other: ["be nice"]}
    with pytest.raises(InvalidInput, match="which column holds the output"):
        guess(*file(**columns))


@pytest.mark.parametrize(
    ("column", "cells", "rows"),
    [
        ("from", ["en", "fr", "de", "it"], 40),
        ("customer", ["new", "vip"], 6),
        ("sender", ["agent", "customer"], 4),
        ("customer", ["true", "false"], 2),
        ("user_id", [1, 2, 3, 4, 5, 6, 7], 200),
    ],
)
def test_a_column_of_few_kinds_names_no_authors(column: str, cells: list[Any], rows: int) -> None:
    few = file(rows, text=ASKED, label=["a", "b"], **{column: cells})
    assert guess(*few).person is None
    many = [{**row, "author": f"ann {n % (rows // 5 + 5)}"} for n, row in enumerate(few)]
    assert guess(*many).person == "author"


def test_where_one_column_of_people_is_taken_the_next_one_names_the_authors() -> None:
    rows = file(customer=ASKED, author=ADDRESSES, label=["a", "b"])
    assert guess(*rows, input="customer").person == "author"


def test_what_is_given_stands_and_the_rest_is_guessed() -> None:
    row = {"a": "1", "b": "2", "c": "3", "split": "train"}
    assert keys(guess(row, input="c", output="a")) == {"input": "c", "output": "a", "split": "split"}
    assert guess(row, output="a").input == ("b", "c")
    assert guess({"a": "1", "b": "2"}, input=["b"]).output == "a"
    assert guess({"text": "t", "label": "l"}, nulls="drop").nulls == "drop"
    assert guess({"a": "1", "b": "2", "answer": "3"}, template="{a} and {b}").output == "answer"
    for bad in ({"input": 5}, {"output": {"x": 5}}, {"inptu": "a"}, {"input": "a", "messages": "b"}):
        with pytest.raises(InvalidInput):
            guess(row, **bad)


@pytest.mark.parametrize(
    ("row", "schema", "told"),
    [
        ({"a": 1, "b": 2, "c": 3}, None, ["'a', 'b', 'c'", "which column holds the output"]),
        ({"text": "t", "mood": "bad"}, TICKET, ["'text', 'mood'", "'category', 'priority'"]),
        ({"category": "network", "summary": "s"}, TICKET, ["no column is left for the input"]),
        ({"data": [{"input": "a", "output": "b"}]}, None, ["If the rows are the list in 'data'"]),
    ],
)
def test_what_cannot_be_told_is_said_with_the_columns(
    row: dict[str, Any], schema: OutputSchema | None, told: list[str]
) -> None:
    with pytest.raises(InvalidInput) as caught:
        guess(row, schema=schema)
    assert all(words in caught.value.message for words in told), caught.value.message


def test_many_columns_against_a_wide_schema_are_compared_by_their_names_alone() -> None:
    def compared(columns: int, fields: int) -> tuple[int, int]:
        """How many pairs of names, and cells with fields."""
        options = {f"field {n}": {"enum": [f"{n}a", f"{n}b"]} for n in range(fields)}
        schema = check_schema({"type": "object", "properties": options})
        row: dict[str, Any] = {**{f"column {n}": "y" for n in range(columns)}, "field 3": "3a", "text": "t"}
        with (
            mock.patch.object(difflib, "SequenceMatcher", wraps=difflib.SequenceMatcher) as names,
            mock.patch.object(layouts, "coerce", wraps=coerce) as cells,
        ):
            assert guess(*[row] * 5, schema=schema).fields == {"field 3": "field 3"}
        return names.call_count, cells.call_count

    names, cells = compared(columns=10, fields=10)
    assert names > 50
    assert cells > 500
    assert compared(columns=200, fields=60) == (0, 0)


def test_a_thousand_columns_of_long_names_are_guessed_from() -> None:
    options = {f"field {n}": {"enum": [f"{n}a", f"{n}b"]} for n in range(150)}
    schema = check_schema({"type": "object", "properties": options})
    row: dict[str, Any] = {f"column {n} {'x' * 400}": "y" for n in range(998)}
    assert guess(*[{**row, "field 3": "3a", "text": "t"}] * 50, schema=schema).fields == {"field 3": "field 3"}


def test_every_guess_prints_and_comes_back_the_same() -> None:
    for row in ({"messages": CHAT}, {"instruction": "i", "output": "o"}, {"input": "a", "output": "b"}):
        found = guess(row)
        assert load_mapping(dump_mapping(found)) == found
        assert load_mapping(found.model_dump_json()) == found


# --- real files ------------------------------------------------------------------------------------------------


def sample(name: str, schema: OutputSchema | None = None, **given: Any) -> Iterator[dict[str, Any]]:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not there")
    file = open_rows(path.read_bytes(), name=name)
    mapping = guess_mapping(file.columns, file.sample, schema, given=given)
    found = apply_mapping(file, mapping, schema)
    assert found.problems == ()
    return (good.row for good in found.examples)


def test_utterances_with_intents_become_a_label_skills_examples() -> None:
    row = next(sample("clinc150/val.jsonl", INTENT))
    assert row["output"].keys() == {"intent"}
    assert isinstance(row["input"], str)


def test_utterances_with_slots_keep_their_nested_slots() -> None:
    slots = {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}}
    schema = check_schema(
        {"type": "object", "properties": {"intent": {"type": "string"}, "slots": slots}, "required": ["intent"]}
    )
    row = next(sample("snips/train.jsonl", schema))
    assert isinstance(row["output"]["slots"], dict)


def test_instances_inside_rows_are_reached_by_paths() -> None:
    rows = list(
        sample(
            "self-instruct/seed_tasks.jsonl",
            input=["instruction", "instances.0.input"],
            output="instances.0.output",
        )
    )
    assert len(rows) > 100
    assert all(row["input"] and row["output"] for row in rows)
