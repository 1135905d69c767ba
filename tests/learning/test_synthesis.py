"""What a teacher writes counts only if it rests on its passage."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from intern.engines.base import EngineRequest
from intern.engines.fake import FakeEngine
from intern.errors import EngineFailure, InternError, StoreFailure
from intern.learning.synthesis import DEAD, MUTE, Synthesis, Synthesized, by_turns
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
    reply: str | InternError | Callable[[EngineRequest], str],
    passages: Sequence[Passage] = (passage(1),),
    *,
    found: Sequence[Passage] | None = None,
    existing: Sequence[Example] = (),
    most: int = 0,
    file: Path | None = None,
) -> Synthesized:
    async def retrieve(skill: Skill, conversation: Sequence[Message]) -> Sequence[Passage]:
        return passages if found is None else found

    teacher = FakeEngine([reply])
    synthesis = Synthesis(skill, teacher, retrieve, existing=existing, file=file)
    return asyncio.run(synthesis.write(passages, most=most))


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
        (pair("employees get 28 days", "28 days of leave", "Employees get 28 days of annual leave"), "no_request"),
        (pair("You get 28 days.", "You get 28 days", "Employees get 28 days of annual leave"), "no_request"),
        (pair("How many days do I get?", "Employees get 28 days.", "Everyone gets thirty days"), "no_quote"),
        (
            pair("How many days do I get?", "Employees get 30 days of annual leave.", "days of annual leave"),
            "not_grounded",
        ),
        (
            pair("How do I book a hotel?", "Hotels are booked through the travel portal.", "days of annual leave"),
            "not_grounded",
        ),
        (pair("Is annual leave unlimited for us?", "Unlimited", "days of annual leave"), "not_grounded"),
        (
            pair("Do I get 99 days of annual leave?", "You get 99 days of annual leave.", "days of annual leave"),
            "not_grounded",
        ),
        (pair("How many days do I get?", "Employees get 28 days.", "28 days of"), "no_quote"),
        (pair("How many days do I get?", "Employees get 28 days.", "go to the line manager"), "no_quote"),
    ],
)
def test_a_pair_that_does_not_is_refused_with_the_reason(skill: Skill, bad: dict[str, object], reason: str) -> None:
    done = written(skill, said(GOOD, bad))
    assert len(done.examples) == 1
    assert reasons(done) == [reason]


def test_a_question_may_stand_in_its_passage_as_lists_of_questions_do(skill: Skill) -> None:
    answered = passage(1, text=f"{GOOD['input']} {LEAVE}")
    assert [example.input for example in written(skill, said(GOOD), [answered]).examples] == [GOOD["input"]]


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


def test_a_passage_shorter_than_a_quote_may_be_quoted_whole(skill: Skill) -> None:
    hotline = passage(1, "phone.md", "Hotline: 4300")
    there = pair("Which number is the hotline?", "The hotline is 4300.", "Hotline: 4300")
    assert len(written(skill, said(there), [hotline]).examples) == 1


def test_numbers_of_an_output_are_checked_and_labels_are_not(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {
            "days": {"type": "integer"},
            "kind": {"enum": ["time off", "pay"]},
            "found": {"type": "boolean"},
        },
    }
    spec = {"title": "T", "description": "D", "instructions": "I", "retrieval": {"enabled": True}}
    made = write_skill(tmp_path, "days", spec, schema=schema)
    quote = "Employees get 28 days"
    right = {"days": 28, "kind": "time off", "found": True}
    wrong = {"days": 99, "kind": "time off"}
    done = written(
        made,
        said(
            {"input": "How many days do I get?", "output": right, "quote": quote},
            {"input": "What about all those interns?", "output": wrong, "quote": quote},
        ),
    )
    assert [example.output for example in done.examples] == [right]
    assert reasons(done) == ["not_grounded"]


# --- balance over what is said -----------------------------------------------------------------------------------


@pytest.fixture
def sorting(tmp_path: Path) -> Skill:
    topics = ["leave", "pay", "travel", "sickness", "other"]
    schema = {"type": "object", "required": ["topic"], "properties": {"topic": {"enum": topics}}}
    spec = {"title": "T", "description": "D", "instructions": "I", "retrieval": {"enabled": True}}
    return write_skill(tmp_path, "topics", spec, schema=schema)


def sorted_as(skill: Skill, given: Sequence[str]) -> Synthesized:
    """One request for each topic that is given, each of another document."""
    left = iter(enumerate(given))

    def reply(request: EngineRequest) -> str:
        number, topic = next(left)
        asked = " ".join(f"word{number}{letter}" for letter in "abcdef")
        return said({"input": asked, "output": {"topic": topic}, "quote": "Employees get 28 days"})

    return written(skill, reply, [passage(number, f"{number}.md") for number in range(len(given))])


def test_no_value_of_the_first_enumerated_field_has_more_than_twice_an_even_share(sorting: Skill) -> None:
    done = sorted_as(sorting, ["leave"] * 38 + ["pay"] * 2)
    values = [example.output["topic"] for example in done.examples]
    assert (values.count("leave"), values.count("pay")) == (2 * 40 // 5, 2)
    assert reasons(done) == ["share"] * 22
    assert done.refused[0].detail == 'topic = "leave" has 16 already'


def test_where_all_have_the_same_value_none_is_left_out(sorting: Skill) -> None:
    assert len(sorted_as(sorting, ["leave"] * 20).examples) == 20


# --- interruptions and failures ----------------------------------------------------------------------------------

Fails = Callable[[int], str | InternError | None]
MANY = [passage(number, f"doc{number:02}.md") for number in range(20)]


def numbered(asked: list[int], *, fails: Fails = lambda _: None) -> Callable[[EngineRequest], str]:
    """A teacher that writes another pair for each of MANY; `fails` says what it does instead."""

    def reply(request: EngineRequest) -> str:
        number = int(request.messages[-1].content.split("[doc")[1].split(".")[0])
        asked.append(number)
        instead = fails(number)
        if isinstance(instead, InternError):
            raise instead
        words = " ".join(f"word{number}{letter}" for letter in "abcdef")
        return instead or said(pair(words, "Employees get 28 days.", "Employees get 28 days"))

    return reply


class Killed(BaseException):
    """The process ends."""


def test_passages_that_were_read_are_not_asked_again_after_an_interruption(skill: Skill, tmp_path: Path) -> None:
    file, first, second = tmp_path / "written.jsonl", list[int](), list[int]()

    def killed(number: int) -> None:
        if number == 7:
            raise Killed

    with pytest.raises(Killed):
        written(skill, numbered(first, fails=killed), MANY, file=file)
    done = written(skill, numbered(second), MANY, file=file)
    assert (first, second) == (list(range(8)), list(range(7, 20)))
    assert [example.passage for example in done.examples] == [p.id for p in MANY]
    assert written(skill, numbered([]), MANY) == done, "as if nothing had been in between"


def test_what_was_refused_before_an_interruption_is_still_said(skill: Skill, tmp_path: Path) -> None:
    bad = said(pair("How many days do I get?", "Employees get 99 days.", "Employees get 28 days"))
    file = tmp_path / "written.jsonl"
    assert reasons(written(skill, bad, file=file)) == ["not_grounded"]
    assert reasons(written(skill, EngineFailure("not asked"), file=file)) == ["not_grounded"]


def test_what_the_run_had_added_itself_is_no_copy(skill: Skill, tmp_path: Path) -> None:
    file = tmp_path / "written.jsonl"
    done = written(skill, said(GOOD), file=file)
    assert written(skill, said(GOOD), file=file, existing=done.examples).examples == done.examples
    assert reasons(written(skill, said(GOOD), existing=done.examples)) == ["copy"]


def test_kept_pairs_must_keep_todays_schema_and_have_todays_passages(skill: Skill, tmp_path: Path) -> None:
    file = tmp_path / "written.jsonl"
    written(skill, numbered([]), MANY[:2], file=file)
    other = write_skill(tmp_path / "other", "handbook", {"title": "T", "description": "D", "instructions": "I"})
    assert written(other, numbered([]), MANY[:2], file=file).examples == ()
    assert len(written(skill, numbered([]), MANY[1:2], file=file).examples) == 1


def test_a_teacher_that_dies_is_not_asked_for_every_passage_and_what_it_wrote_counts(skill: Skill) -> None:
    asked, dead = list[int](), EngineFailure("It does not answer.")
    done = written(skill, numbered(asked, fails=lambda number: dead if number >= 5 else None), MANY)
    assert len(asked) == 5 + DEAD
    assert len(done.examples) == 5
    assert (done.passages, done.failed, done.ended) == (5 + DEAD, DEAD, "It does not answer.")


def test_failures_that_are_not_in_a_row_end_nothing(skill: Skill) -> None:
    failure = EngineFailure("It does not answer.")
    done = written(skill, numbered([], fails=lambda number: failure if number % 3 else None), MANY)
    assert (len(done.examples), done.failed, done.ended) == (7, 13, None)


def test_answers_without_the_form_are_borne_for_longer(skill: Skill) -> None:
    asked: list[int] = []
    done = written(skill, numbered(asked, fails=lambda number: "nonsense" if number >= 5 else None), MANY)
    assert len(asked) == 5 + MUTE
    assert len(done.examples) == 5
    assert done.ended is not None


def test_what_cannot_be_kept_ends_the_asking(skill: Skill, tmp_path: Path) -> None:
    asked: list[int] = []
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFailure):
        written(skill, numbered(asked), MANY, file=tmp_path / "file" / "written.jsonl")
    assert asked == []


def test_a_disk_that_fills_up_costs_nothing_that_was_written(skill: Skill, tmp_path: Path) -> None:
    file, asked = tmp_path / "written.jsonl", list[int]()

    def fills_up(number: int) -> None:
        if number == 5:
            file.unlink()
            file.mkdir()

    done = written(skill, numbered(asked, fails=fills_up), MANY, file=file)
    assert len(asked) == 6
    assert len(done.examples) == 5
    assert done.ended is not None
    assert "cannot be kept" in done.ended
