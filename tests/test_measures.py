"""What a skill has measured is declared in plain words, and refused where its outputs could not have it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from intern.measures import Attribute, Measures, Question, label, misfits
from intern.types import Json

SCHEMA = {
    "type": "object",
    "properties": {
        "level": {"enum": ["entry", "Senior", None]},
        "lead": {"type": ["boolean", "null"]},
        "kind": {"anyOf": [{"enum": ["a", "b"]}, {"const": "c"}, {"type": "null"}]},
        "name": {"type": "string"},
        "bio": {"type": "object", "properties": {"text": {"type": "string"}, "tone": {"enum": ["dry", "warm"]}}},
        "many": {"enum": [str(n) for n in range(51)]},
    },
}


def problems(*attributes: dict[str, Any], schema: Json = SCHEMA) -> list[str]:
    measures = Measures.model_validate({"attributes": [{"name": f"a{n}", **a} for n, a in enumerate(attributes)]})
    return list(misfits(measures, schema))


def test_nothing_is_measured_unless_it_is_declared() -> None:
    measures = Measures()
    assert (measures.repeats, measures.attributes, measures.identity) == (0, (), ())
    assert list(misfits(measures, None)) == []


@pytest.mark.parametrize("field", ["level", "lead", "kind", "bio.tone"])
def test_a_field_with_a_closed_list_is_counted_as_it_is(field: str) -> None:
    assert problems({"field": field}) == []


@pytest.mark.parametrize("field", ["name", "bio", "bio.text", "many"])
def test_any_other_field_needs_patterns_so_that_a_verdict_quotes_no_answer(field: str) -> None:
    assert "'evaluation.attributes.0' needs patterns" in problems({"field": field})[0]
    assert problems({"field": field, "patterns": {"x": ["word"]}}) == []


REFERRING = {
    "$defs": {
        "level": {"enum": ["entry", "senior", None]},
        "same": {"$ref": "#/$defs/level"},
        "person/role": {"type": "object", "properties": {"lead": {"$ref": "#/properties/lead"}, "name": {}}},
        "round": {"$ref": "#/$defs/and-round"},
        "and-round": {"$ref": "#/$defs/round"},
        "itself": {"anyOf": [{"$ref": "#/$defs/itself"}, {"const": "a"}]},
        "free": {"type": "string"},
    },
    "properties": {
        "level": {"$ref": "#/$defs/level", "description": "How far somebody has come."},
        "again": {"$ref": "#/$defs/same"},
        "either": {"anyOf": [{"$ref": "#/$defs/level"}, {"const": "head"}, {"type": "null"}]},
        "lead": {"type": "boolean"},
        "role": {"$ref": "#/$defs/person~1role"},
        "free": {"$ref": "#/$defs/free"},
        "round": {"$ref": "#/$defs/round"},
        "itself": {"$ref": "#/$defs/itself"},
        "anchored": {"$ref": "#somewhere"},
    },
}


@pytest.mark.parametrize("field", ["level", "again", "either", "role.lead"])
def test_a_closed_list_that_a_reference_leads_to_is_counted_as_it_is(field: str) -> None:
    assert problems({"field": field}, schema=REFERRING) == []


@pytest.mark.parametrize("field", ["free", "round", "itself", "anchored", "role.name"])
def test_a_reference_that_leads_to_no_closed_list_needs_patterns(field: str) -> None:
    assert "'evaluation.attributes.0' needs patterns" in problems({"field": field}, schema=REFERRING)[0]


@pytest.mark.parametrize("null", [{"type": "null"}, {"type": "null", "description": "none"}, {"const": None}])
def test_an_alternative_to_null_is_a_closed_list_however_null_is_written(null: Json) -> None:
    schema = {"properties": {"level": {"anyOf": [{"enum": ["entry", "senior"]}, null]}}}
    attribute = {"field": "level", "reference": {"junior": 1}}
    (found,) = problems(attribute, schema=schema)
    assert found.endswith("'junior' is none of its values: entry, senior, none")


def test_shares_and_fields_behind_references_are_checked_too() -> None:
    found = problems({"field": "either", "reference": {"junior": 1}}, schema=REFERRING)
    assert found == [
        "key 'evaluation.attributes.0.reference': 'junior' is none of its values: entry, senior, head, none"
    ]
    for field in ("role.nothing", "round.x", "level.x", "anchored.level"):
        assert f"no field '{field}'" in problems({"field": field}, schema=REFERRING)[0]


def test_a_field_must_be_there() -> None:
    assert "no field 'bio.nothing'" in problems({"field": "bio.nothing"})[0]
    assert "no field 'level'" in problems({"field": "level"}, schema=None)[0]
    assert problems({"patterns": {"x": ["word"]}}, schema=None) == []


def test_shares_are_of_values_that_can_be_whatever_their_capitals() -> None:
    assert problems({"field": "level", "reference": {"senior": 2, "ENTRY": 1, "none": 1}}) == []
    assert problems({"field": "lead", "reference": {True: 0.5, False: 0.5}}) == []
    found = problems({"field": "level", "reference": {"junior": 1}})
    assert found == ["key 'evaluation.attributes.0.reference': 'junior' is none of its values: entry, senior, none"]
    assert "mixed" not in found[0]


def test_names_are_given_once() -> None:
    assert "'A0 ' is there already" in problems({"field": "level"}, {"name": "A0 ", "field": "lead"})[0]
    with pytest.raises(ValidationError, match="two of the names are the same"):
        Attribute(name="a", patterns={"She": ["she"], "she": ["her"]})
    with pytest.raises(ValidationError, match="two of the values are the same"):
        Attribute(name="a", reference={"She": 1, "she": 1})


def test_one_phrase_needs_no_list() -> None:
    asked = Question.model_validate({"question": "Who?", "facts": ["Ada", ["Munich", "München"]]})
    assert asked.facts == (("Ada",), ("Munich", "München"))
    assert Attribute.model_validate({"name": "a", "patterns": {"she": "she"}}).patterns == {"she": ("she",)}
    again = Question.model_validate(asked.model_dump(mode="json"))
    assert again == asked


def test_a_label_is_the_same_however_it_is_written() -> None:
    assert label(" Senior  Staff ") == label("senior staff")
    assert (label(None), label(True), label(3)) == ("none", "true", "3")


def test_the_declaration_in_the_documentation_can_be_used() -> None:
    text = (Path(__file__).parents[1] / "docs" / "measuring.md").read_text()
    (block,) = re.findall(r"```yaml\n(evaluation:.*?)```", text, re.S)
    measures = Measures.model_validate(yaml.safe_load(block)["evaluation"])
    schema = {"properties": {"level": {"enum": ["entry", "senior"]}, "biography": {"type": "string"}}}
    assert list(misfits(measures, schema)) == []
    assert (len(measures.attributes), len(measures.identity), measures.repeats) == (2, 1, 3)
