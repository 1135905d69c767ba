"""Training rows are what serving would send and what the model should write."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from made_examples import no_passages

from intern import prompt as prompts
from intern.engines.fake import FakeEngine
from intern.learning.examples.rows import make_pairs, make_rows, written
from intern.skill import Skill, write_skill
from intern.types import Example, Message, Passage

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["found", "answer", "sources"],
    "properties": {
        "found": {"type": "boolean"},
        "answer": {"type": "string"},
        "sources": {"type": "array", "items": {"type": "string"}},
        "detail": {"$ref": "#/$defs/detail"},
    },
    "$defs": {"detail": {"type": "object", "properties": {"first": {"type": "string"}, "second": {"type": "string"}}}},
}
SHOWN = Passage(id="p", document="leave.md", heading="Days", start=0, end=20, score=1, text="Everyone gets 28 days.")


@pytest.fixture
def skill(tmp_path: Path) -> Skill:
    spec = {
        "title": "Handbook",
        "description": "Answers.",
        "instructions": "Answer from the passages.",
        "retrieval": {"enabled": True, "citations": "sources"},
    }
    return write_skill(tmp_path, "handbook", spec, schema=SCHEMA)


async def leave(skill: Skill, conversation: Sequence[Message]) -> Sequence[Passage]:
    return (SHOWN,)


def example(sources: Sequence[str], found: bool = True) -> Example:
    output = {"sources": list(sources), "answer": "28 days.", "found": found}
    return Example(id="e", input="How many days?", output=output)


def test_the_prompt_is_the_one_of_serving_with_its_passages(skill: Skill) -> None:
    engine = FakeEngine()
    rows, dropped = asyncio.run(make_rows(skill, [example(["leave.md"])], leave, engine, passage_tokens=200))
    asked = [Message(role="user", content="How many days?")]
    served = asyncio.run(prompts.build(skill, asked, [SHOWN], engine, passage_tokens=200))
    assert dropped == []
    assert rows[0].messages == served.messages
    assert "28 days" in rows[0].messages[-1].content


def test_an_answer_whose_source_is_not_shown_teaches_nothing_good_and_is_left_out(skill: Skill) -> None:
    examples = [example(["pay.md"]), example([], found=False)]
    rows, dropped = asyncio.run(make_rows(skill, examples, leave, FakeEngine(), passage_tokens=200))
    assert len(rows) == 1
    assert [(row.reason, "pay.md" in row.detail) for row in dropped] == [("source_not_found", True)]


def test_a_prompt_that_exceeds_the_context_is_left_out(skill: Skill) -> None:
    long = Example(id="long", input="word " * 9000, output=example([]).output)
    rows, dropped = asyncio.run(make_rows(skill, [long], no_passages, FakeEngine(), passage_tokens=200))
    assert rows == []
    assert dropped[0].reason == "too_long"


def test_the_completion_is_json_as_decoding_writes_it_in_the_schemas_order(skill: Skill) -> None:
    output = {"detail": {"second": "b", "first": "a"}, "sources": ["leave.md"], "answer": "Überall 28", "found": True}
    text = written(skill, output)
    assert text == (
        '{"found": true, "answer": "Überall 28", "sources": ["leave.md"], "detail": {"first": "a", "second": "b"}}'
    )
    assert json.loads(text) == output


def test_what_is_written_keeps_the_grammar_that_decoding_is_held_to(skill: Skill) -> None:
    assert skill.schema is not None
    value, problems = skill.schema.parse(written(skill, example(["leave.md"]).output))
    assert problems == ()
    assert value == example(["leave.md"]).output


def test_an_answer_that_broke_off_makes_no_pair(skill: Skill) -> None:
    """It is kept as the text that it was, which as JSON would be a quoted string that no grammar allows."""
    pairs = [(example(["leave.md"]), '{"found": true, "answer": "You have thi')]
    assert asyncio.run(make_pairs(skill, pairs, leave, FakeEngine(), passage_tokens=200)) == []


def test_a_wrong_answer_that_is_a_string_by_its_schema_makes_a_pair(tmp_path: Path) -> None:
    spec = {"title": "T", "description": "D", "instructions": "I"}
    made = write_skill(tmp_path, "kinds", spec, schema={"type": "string", "enum": ["paid", "sick"]})
    right = Example(id="ex_1", input="a day off", output="paid")
    pairs = asyncio.run(make_pairs(made, [(right, "sick"), (right, '"si')], leave, FakeEngine(), passage_tokens=200))
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [('"paid"', '"sick"')]


def test_a_correction_makes_a_pair_of_the_right_and_the_wrong_answer(skill: Skill) -> None:
    right = example(["leave.md"])
    wrong = {"found": False, "answer": "The handbook does not say.", "sources": []}
    pairs = asyncio.run(
        make_pairs(skill, [(right, wrong), (right, right.output)], leave, FakeEngine(), passage_tokens=200)
    )
    assert len(pairs) == 1
    assert json.loads(pairs[0].chosen) == right.output
    assert json.loads(pairs[0].rejected) == wrong
