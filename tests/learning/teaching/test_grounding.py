"""An output counts only where its passage says the same, in words and in numbers, whatever was asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from intern.learning.teaching.grounding import problem, unquoted
from intern.schema import OutputSchema, check_schema
from intern.skill import read_skill
from intern.types import Example, Json

SKILL = Path(__file__).parents[3] / "skills" / "policy-answers"
LEAVE = (
    "Employees get 28 days of annual leave. Requests go to the line manager two weeks before. Up to 12.5 percent may "
    "be carried over until 31 March 2027. The office opens at 07:30; a locker costs 2,500 EUR, or 0.32 EUR a kilometre."
)
SCHEMA = check_schema(
    {
        "type": "object",
        "properties": {
            "found": {"type": "boolean"},
            "kind": {"enum": ["leave", "sickness", 7]},
            "level": {"$ref": "#/$defs/level"},
            "answer": {"type": "string"},
            "amount": {"type": "number"},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "$defs": {"level": {"enum": ["urgent", "calm"]}},
    }
)


def refused(output: Json, asked: str = "What does the handbook say?", quote: str = LEAVE, **more: Any) -> str | None:
    return problem(output, passage=LEAVE, quote=quote, asked=asked, schema=SCHEMA, **more)


@pytest.mark.parametrize(
    "output",
    [
        {"answer": "You get 28 days of annual leave."},
        {"answer": "Ask your line manager 2 weeks before."},
        {"answer": "Ask the line manager two weeks before.", "amount": 28},
        {"answer": "Up to 12.5% may be carried over until 31 March."},
        {"answer": "Leave may be carried over until 2027-03-31."},
        {"answer": "Leave may be carried over until 31.03.2027."},
        {"answer": "The office opens at 7:30."},
        {"answer": "A locker costs 2500 EUR."},
        {"answer": "A locker costs 2 500 EUR."},
        {"amount": 2500},
        {"amount": 2500.0},
        {"amount": 0.125},
        {"amount": 0.32},
        {"found": True, "answer": "Yes, annual leave."},
        {"found": False},
        {"kind": "sickness", "level": "urgent"},
        {"kind": 7},
        {"tags": ["leave", "manager"]},
        {"answer": None},
        {"sources": ["another.md"]},
    ],
)
def test_what_the_passage_says_is_grounded(output: Json) -> None:
    assert refused(output, free=frozenset({"sources"})) is None


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ({"answer": "You get 30 days of annual leave."}, "'30'"),
        ({"answer": "Requests go to the line manager three weeks before."}, "'three'"),
        ({"answer": "Up to 3.5% may be carried over."}, "'3.5'"),
        ({"answer": "Leave may be carried over until 2027-04-30."}, "'04'"),
        ({"answer": "The office opens at 08:30."}, "'08:30'"),
        ({"answer": "Leave is form ab12 at the line manager."}, "'ab12'"),
        ({"amount": 99}, "'99'"),
        ({"amount": 250}, "'250'"),
        ({"amount": -7.25}, "'7.25'"),
        ({"answer": "Unlimited"}, "shares no word"),
        ({"tags": ["leave", "sabbatical"]}, "shares no word"),
        ({"answer": "Employees book hotels through the travel portal."}, "of its words"),
        ("Unlimited", "shares no word"),
    ],
)
def test_what_it_does_not_say_is_not(output: Json, why: str) -> None:
    assert why in str(refused(output))


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("Do I get 99 days of annual leave?", "Yes, you get 99 days of annual leave."),
        ("Is the parental allowance unlimited?", "Yes, the parental allowance is unlimited."),
        ("Is it unlimited?", "Unlimited"),
    ],
)
def test_a_request_proves_nothing(asked: str, answer: str) -> None:
    assert refused({"answer": answer}, asked) is not None


def test_words_of_the_request_count_neither_for_an_output_nor_against_it() -> None:
    answer = {"answer": "Lifeguards seasonal apprentices get annual leave."}
    assert refused(answer) is not None
    assert refused(answer, "What do lifeguards and seasonal apprentices get?") is None


def test_a_number_may_follow_by_one_calculation_from_the_quote_and_the_request() -> None:
    paid, quote = {"answer": "You get 80 EUR a kilometre in all.", "amount": 80}, "or 0.32 EUR a kilometre"
    assert refused(paid, "What do I get for 250 km?", quote) is None
    assert refused(paid, "What do I get for 250 km?", "The office opens at 07:30") is not None
    assert refused(paid, "What do I get for my trip?", quote) is not None
    assert refused({"amount": 250}, "What do I get for 250 km?", quote) is not None, "the request alone proves nothing"


def test_a_calculation_that_changes_nothing_proves_nothing() -> None:
    rule = "Rule 0 says that employees get leave"
    assert problem({"amount": 99}, passage=rule, quote=rule, asked="Do I get 99 days?", schema=SCHEMA) is not None


def test_without_a_schema_every_text_states_something() -> None:
    assert problem("Leave: 28 days", passage=LEAVE, quote=LEAVE, asked="How long?") is None
    assert problem({"kind": "sickness"}, passage=LEAVE, quote=LEAVE, asked="How long?") is not None


def test_letters_are_words_where_a_script_has_no_spaces() -> None:
    passage = "员工每年有28天年假。"
    assert problem("每年28天年假", passage=passage, quote=passage, asked="多少天?") is None
    assert problem("公司报销酒店费用", passage=passage, quote=passage, asked="多少天?") is not None


@pytest.mark.parametrize(
    ("output", "quote", "other"),
    [
        ({"answer": "You get 28 days."}, "Employees get 28 days", False),
        ({"amount": 28}, "Employees get 28 days", False),
        ({"answer": "The locker costs money."}, "a locker costs 2,500 EUR", False),
        ({"answer": "You get 28 days."}, "The office opens at 07:30", True),
        ({"answer": "Ask the line manager."}, "Employees get the 28 days of", True),
        ({"found": True, "kind": "leave"}, "The office opens at 07:30", False),
    ],
)
def test_a_quote_has_to_do_with_what_the_output_states(output: Json, quote: str, other: bool) -> None:
    assert unquoted(output, quote, SCHEMA) is other


@pytest.mark.parametrize("number", ["9" * 400, "1." * 200 + "1", "00", "1:2:3", "1,2,3", "0.0"])
def test_odd_numbers_are_read(number: str) -> None:
    assert refused({"answer": f"annual leave {number}"}) is not None
    said = f"annual leave {number}"
    assert problem({"answer": said}, passage=said, quote=said, asked=said, schema=SCHEMA) is None


# --- real answers: those of the skill that answers from a handbook -----------------------------------------------


def answers() -> Iterator[tuple[Example, str, str]]:
    """(example, its answer, the one document that it cites)"""
    for example in read_skill(SKILL).examples:
        assert isinstance(example.output, dict)
        if len(example.output["sources"]) == 1:
            yield example, example.output["answer"], example.output["sources"][0]


@pytest.fixture(scope="module")
def sections() -> dict[str, list[str]]:
    return {file.name: file.read_text().split("\n## ") for file in (SKILL / "docs").glob("*.md")}


@pytest.fixture(scope="module")
def form() -> OutputSchema:
    return check_schema(json.loads((SKILL / "schema.json").read_text()))


def stands(example: Example, output: Json, passage: str, form: OutputSchema) -> bool:
    quote = passage[:150]
    free = frozenset({"sources"})
    return problem(output, passage=passage, quote=quote, asked=example.text, schema=form, free=free) is None


def test_good_answers_stand_in_a_section_of_the_document_that_they_cite(
    sections: dict[str, list[str]], form: OutputSchema
) -> None:
    found = [any(stands(e, e.output, s, form) for s in sections[cited]) for e, _, cited in answers()]
    assert len(found) > 290
    assert sum(found) >= 0.98 * len(found)


def test_they_do_not_stand_in_what_other_documents_say(sections: dict[str, list[str]], form: OutputSchema) -> None:
    others = [
        stands(example, example.output, section, form)
        for number, (example, _, cited) in enumerate(answers())
        for document in sorted(sections)[number % 3 :: 3]
        if document != cited
        for section in sections[document][::4]
    ]
    assert len(others) > 2_000
    assert sum(others) < 0.01 * len(others)


def test_with_another_number_they_do_not_stand(sections: dict[str, list[str]], form: OutputSchema) -> None:
    caught = []
    for example, answer, cited in answers():
        wrong = re.sub(r"\d+", lambda number: str(int(number[0]) + 7), answer, count=1)
        there = [section for section in sections[cited] if stands(example, example.output, section, form)]
        if wrong != answer and there:
            caught.append(not stands(example, {"found": True, "answer": wrong, "sources": [cited]}, there[0], form))
    assert len(caught) > 190
    assert sum(caught) > 0.93 * len(caught), "the others happen to stand in the section for something else"
