"""What a teacher writes counts only if it rests on its passage."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from intern.engines.base import EngineRequest
from intern.engines.fake import FakeEngine
from intern.errors import EngineFailure
from intern.learning.synthesis import Synthesis, Synthesized, by_turns, grounded
from intern.skill import Skill, write_skill
from intern.types import Example, Message, Passage

LEAVE = "Employees get 28 days of annual leave. Requests go to the line manager two weeks before."
PAY = "Salaries are paid on the 25th of each month. Questions about pay go to the payroll team."


def passage(number: int, document: str = "leave.md", text: str = LEAVE) -> Passage:
    return Passage(
        id=f"p{number}",
        document=document,
        heading="Rules",
        start=number * 100,
        end=number * 100 + 90,
        score=1,
        text=text,
    )


@pytest.fixture
def skill(tmp_path: Path) -> Skill:
    schema = {
        "type": "object",
        "required": ["answer", "sources"],
        "additionalProperties": False,
        "properties": {"answer": {"type": "string"}, "sources": {"type": "array", "items": {"type": "string"}}},
    }
    spec = {
        "title": "Handbook",
        "description": "Answers from the handbook.",
        "instructions": "Answer from the passages.",
        "retrieval": {"enabled": True, "citations": "sources"},
    }
    return write_skill(tmp_path, "handbook", spec, schema=schema)


def pair(asked: str, answer: str, quote: str, sources: Sequence[str] = ("leave.md",)) -> dict[str, object]:
    return {"input": asked, "output": {"answer": answer, "sources": list(sources)}, "quote": quote}


GOOD = pair(
    "How many days off do I get?", "Employees get 28 days of annual leave.", "Employees get 28 days of annual leave"
)


def said(*pairs: dict[str, object]) -> str:
    return json.dumps({"examples": list(pairs)})


def written(
    skill: Skill,
    reply: str | Callable[[EngineRequest], str],
    passages: Sequence[Passage] = (passage(1),),
    *,
    found: Sequence[Passage] | None = None,
    existing: Sequence[Example] = (),
    most: int = 0,
) -> Synthesized:
    async def retrieve(skill: Skill, conversation: Sequence[Message]) -> Sequence[Passage]:
        return passages if found is None else found

    teacher = FakeEngine([reply])
    return asyncio.run(Synthesis(skill, teacher, retrieve, existing=existing).write(passages, most=most))


def reasons(done: Synthesized) -> list[str]:
    return [refused.reason for refused in done.refused]


def test_a_pair_that_rests_on_its_passage_becomes_an_example_tied_to_it(skill: Skill) -> None:
    done = written(skill, said(GOOD))
    (example,) = done.examples
    assert example.input == GOOD["input"]
    assert (example.provenance, example.passage, example.group) == ("synthesis", "p1", "leave.md")
    assert done.refused == ()


def test_the_citation_is_the_passages_own_document(skill: Skill) -> None:
    invented = pair(str(GOOD["input"]), "Employees get 28 days of annual leave.", str(GOOD["quote"]), ["other.md"])
    assert written(skill, said(invented)).examples[0].output["sources"] == ["leave.md"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (pair("Days?", "Employees get 28 days.", "Employees get 28 days"), "no_form"),
        (pair("How many days do I get?", "28 days\0", "Employees get 28 days"), "no_form"),
        ({"input": "How many days do I get?", "output": "28 days", "quote": "Employees get 28 days"}, "no_form"),
        (pair("How many days do I get?", "Employees get 28 days.", "Everyone gets thirty days"), "no_quote"),
        (
            pair("How many days do I get?", "Employees get 30 days of annual leave.", "days of annual leave"),
            "not_grounded",
        ),
        (
            pair("How do I book a hotel?", "Hotels are booked through the travel portal.", "days of annual leave"),
            "not_grounded",
        ),
    ],
)
def test_a_pair_that_does_not_is_refused_with_the_reason(skill: Skill, bad: dict[str, object], reason: str) -> None:
    done = written(skill, said(GOOD, bad))
    assert len(done.examples) == 1
    assert reasons(done) == [reason]


def test_a_request_that_retrieval_does_not_answer_with_the_passage_is_refused(skill: Skill) -> None:
    done = written(skill, said(GOOD), found=[passage(2)])
    assert done.examples == ()
    assert reasons(done) == ["not_found"]


def test_what_there_is_already_is_not_written_again(skill: Skill) -> None:
    there = Example(id="e", input="how many days off do I get", output={"answer": "28 days", "sources": ["leave.md"]})
    done = written(skill, said(GOOD), existing=[there])
    assert done.examples == ()
    assert reasons(done) == ["copy"]


def test_no_document_has_more_than_twice_an_even_share(skill: Skill) -> None:
    passages = [passage(n) for n in range(12)] + [passage(50, "pay.md", PAY)]

    def reply(request: EngineRequest) -> str:
        asked = request.messages[-1].content
        if "pay.md" in asked:
            answer = "Salaries are paid on the 25th of each month."
            return said(pair("When are salaries paid to us?", answer, answer[:-1], ["pay.md"]))
        number = len(engine_calls)
        engine_calls.append(asked)
        words = [f"word{number}{letter}" for letter in "abcdefg"]
        return said(pair(" ".join([*words, "days?"]), "Employees get 28 days.", "Employees get 28 days"))

    engine_calls: list[str] = []
    done = written(skill, reply, passages)
    documents = [example.group for example in done.examples]
    assert documents.count("pay.md") == 1
    assert documents.count("leave.md") <= 13
    assert by_turns(passages)[1].document == "pay.md"


def test_a_teacher_that_always_fails_is_an_error_and_a_single_failure_is_counted(skill: Skill) -> None:
    with pytest.raises(EngineFailure):
        written(skill, "no JSON at all", [passage(n) for n in range(5)])
    replies = iter(["nonsense", said(GOOD)])
    done = written(skill, lambda _: next(replies), [passage(1), passage(2)])
    assert (done.failed, len(done.examples)) == (1, 1)


def test_it_stops_when_there_are_enough(skill: Skill) -> None:
    calls = []

    def reply(request: EngineRequest) -> str:
        calls.append(request)
        words = " ".join(f"w{len(calls)}{letter}" for letter in "abcdef")
        return said(pair(words, "Employees get 28 days.", "Employees get 28 days"))

    done = written(skill, reply, [passage(n) for n in range(40)], most=5)
    assert len(done.examples) == 5
    assert len(calls) < 10


def test_the_teacher_is_held_to_the_skills_schema(skill: Skill) -> None:
    asked = []

    def reply(request: EngineRequest) -> str:
        asked.append(request)
        return said(GOOD)

    written(skill, reply)
    assert asked[0].schema_ is not None
    inner = asked[0].schema_["properties"]["examples"]["items"]["properties"]["output"]
    assert inner["properties"]["sources"]["type"] == "array"
    assert LEAVE in asked[0].messages[-1].content


@pytest.mark.parametrize(
    ("output", "share"),
    [
        ({"answer": "28 days of leave"}, 1.0),
        ({"answer": "31 days of leave"}, 0.0),
        ({"label": "unheard"}, 1.0),
        ("Nothing whatsoever stands written", 0.0),
    ],
)
def test_grounding_is_the_share_of_words_found_with_every_number_among_them(output: object, share: float) -> None:
    assert grounded(output, LEAVE) == share
