"""The serving half: every request leaves one record, and no answer is delivered as what it is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from intern.engines.base import EngineRequest, Token
from intern.engines.fake import FakeEngine, Reply
from intern.errors import EngineFailure, InvalidInput, NotFound, OutputInvalid
from intern.library import SkillLibrary
from intern.pipeline import Closed, Opened, Pipeline, cite_only
from intern.skill import write_skill
from intern.types import Ask, Caller, Candidate, Message, Passage, Record, Route, Sampling

LABEL = {
    "type": "object",
    "properties": {"label": {"enum": ["a", "b"]}},
    "required": ["label"],
    "additionalProperties": False,
}
SOURCED = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "sources": {"type": "array", "items": {"type": "string"}}},
    "required": ["answer", "sources"],
}


class Signposts:
    """A router that goes by the first word."""

    def embed(self, text: str) -> object:
        return text

    def route(self, team: str, text: str, *, vector: object = None) -> Route:
        name = text.split()[0]
        if name not in ("label", "chat", "docs"):
            return Route(skill=None, confidence=0.1, reason="Closest to 'label it'.")
        return Route(skill=name, confidence=0.7, candidates=(Candidate(skill=name, score=0.7),))


class Shelf:
    """A knowledge base of two passages."""

    def __init__(self) -> None:
        self.queries: list[Sequence[Message] | str] = []

    def retrieve(self, team: str, skill: str, query: Any, *, limit: int, vector: object = None) -> list[Passage]:
        self.queries.append(query)
        return [
            Passage(id=n, document=f"{n}.md", heading="H", start=0, end=9, score=1, text=f"text of {n}") for n in "xy"
        ][:limit]


class Notebook:
    """A recorder that keeps records in memory."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def put(self, record: Record) -> None:
        self.records.append(record)


class Setting:
    def __init__(self, home: Path) -> None:
        spec = {"title": "Labels", "description": "D", "instructions": "Label."}
        write_skill(home / "skills", "label", spec | {"review": {"mode": "always"}}, schema=LABEL)
        write_skill(home / "skills", "chat", spec | {"generation": {"temperature": 0.5, "max_tokens": 9}})
        grounded = {"retrieval": {"enabled": True, "citations": "sources"}}
        write_skill(home / "skills", "docs", spec | grounded, schema=SOURCED)
        write_skill(home / "teams" / "blue" / "skills", "theirs", spec)
        self.library = SkillLibrary(home)
        self.library.refresh()
        self.shelf, self.notebook = Shelf(), Notebook()

    def pipeline(self, *replies: Reply, **how: Any) -> tuple[Pipeline, FakeEngine]:
        engine = FakeEngine(replies, **how)
        parts = {"library": self.library, "router": Signposts(), "knowledge": self.shelf, "recorder": self.notebook}
        return Pipeline(engine=engine, **parts), engine  # type: ignore[arg-type]


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


def ask(text: str = "label this", **more: Any) -> Ask:
    return Ask(messages=(Message(role="user", content=text),), **more)


async def drain(pipeline: Pipeline, request: Ask) -> list[Opened | Token | Closed]:
    async with aclosing(pipeline.stream(request)) as stream:
        return [piece async for piece in stream]


def test_a_routed_request_is_answered_validated_and_recorded(setting: Setting) -> None:
    pipeline, engine = setting.pipeline('{"label": "a"}')
    answer = asyncio.run(pipeline.answer(ask(caller=Caller(person="eve"))))
    assert (answer.model, answer.skill, answer.choices[0].parsed) == ("intern/label@base", "label", {"label": "a"})
    assert answer.review == "always"
    assert engine.requests[0].schema_ == LABEL
    (record,) = setting.notebook.records
    assert (record.id, record.person, record.error) == (answer.record, "eve", None)
    assert record.prompt == engine.requests[0].messages
    assert record.config == setting.library.get("default", "label").digest
    assert {"route", "prompt", "generate", "validate", "total"} <= set(record.timings)


def test_when_nothing_fits_it_says_so_and_asks_no_engine(setting: Setting) -> None:
    pipeline, engine = setting.pipeline("never")
    answer = asyncio.run(pipeline.answer(ask("what is love")))
    assert (answer.skill, answer.model, answer.choices) == (None, "intern-auto", ())
    assert "Labels" in (answer.refusal or "")
    assert "label it" in (answer.refusal or "")
    assert engine.requests == []
    assert setting.notebook.records[0].refusal == answer.refusal


def test_a_broken_answer_is_repaired_once_with_its_problems_named(setting: Setting) -> None:
    pipeline, engine = setting.pipeline('{"label": "z"}', '{"label": "b"}')
    answer = asyncio.run(pipeline.answer(ask()))
    assert answer.choices[0].parsed == {"label": "b"}
    assert '"z"' in engine.requests[1].messages[-2].content
    assert "not in the required form" in engine.requests[1].messages[-1].content
    assert setting.notebook.records[0].attempts == ('{"label": "z"}',)
    assert answer.usage.completion_tokens == 4, "both attempts were paid for"


def test_an_answer_that_stays_broken_is_an_error_with_the_raw_output_kept(setting: Setting) -> None:
    pipeline, _ = setting.pipeline("no json", "still none")
    with pytest.raises(OutputInvalid) as caught:
        asyncio.run(pipeline.answer(ask()))
    (record,) = setting.notebook.records
    assert caught.value.record == record.id
    assert (record.attempts, record.choices[0].text) == (("no json",), "still none")
    assert (record.error or "").startswith("output_invalid")


def test_an_answer_cut_by_the_callers_own_limit_is_delivered_as_cut(setting: Setting) -> None:
    pipeline, engine = setting.pipeline('{"label": "a"}')
    answer = asyncio.run(pipeline.answer(ask(sampling=Sampling(max_tokens=1))))
    assert (answer.choices[0].finish_reason, answer.choices[0].valid) == ("length", False)
    assert len(engine.requests) == 1


def test_an_answer_cut_by_the_skills_limit_gets_more_room(setting: Setting) -> None:
    long = json.dumps({"answer": "word " * 300, "sources": []})
    pipeline, engine = setting.pipeline(long)
    answer = asyncio.run(pipeline.answer(ask("docs please")))
    assert answer.choices[0].valid
    limits = [r.sampling.max_tokens or 0 for r in engine.requests]
    assert limits[1] > 1000 > limits[0]


def test_a_stream_opens_with_the_route_and_closes_with_the_answer(setting: Setting) -> None:
    pipeline, _ = setting.pipeline('{"label": "a"}')
    pieces = asyncio.run(drain(pipeline, ask()))
    opened, closed = pieces[0], pieces[-1]
    assert isinstance(opened, Opened)
    assert isinstance(closed, Closed)
    assert opened.answer.route.skill == "label"
    assert "".join(p.text for p in pieces if isinstance(p, Token)) == closed.answer.choices[0].text
    assert closed.answer.choices[0].valid


def test_a_stream_whose_answer_is_invalid_ends_in_an_error(setting: Setting) -> None:
    pipeline, _ = setting.pipeline("no json")
    with pytest.raises(OutputInvalid):
        asyncio.run(drain(pipeline, ask()))
    assert setting.notebook.records[0].choices[0].text == "no json"


def test_an_engine_that_fails_in_mid_stream_leaves_what_was_said_in_the_record(setting: Setting) -> None:
    pipeline, _ = setting.pipeline("one two three four", fail_after=2, failure=EngineFailure("it broke"))
    with pytest.raises(EngineFailure):
        asyncio.run(drain(pipeline, ask("chat with me")))
    (record,) = setting.notebook.records
    assert record.error == "engine_failure: it broke"
    assert record.choices[0].text == "one two"


def test_leaving_a_stream_stops_the_engine_and_is_recorded(setting: Setting) -> None:
    async def scenario() -> FakeEngine:
        pipeline, engine = setting.pipeline("one two three four")
        async with aclosing(pipeline.stream(ask("chat with me"))) as stream:
            await anext(stream)
            await anext(stream)
        return engine

    engine = asyncio.run(scenario())
    assert engine.closed_early == 1
    assert engine.gate.running == 0
    assert (setting.notebook.records[0].error or "").startswith("cancelled")


def test_cancelling_a_request_stops_the_engine(setting: Setting) -> None:
    async def scenario() -> FakeEngine:
        pipeline, engine = setting.pipeline("one two")
        engine.pause.clear()
        task = asyncio.create_task(pipeline.answer(ask("chat with me")))
        while not engine.requests:  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return engine

    assert asyncio.run(scenario()).closed_early == 1


def test_n_choices_are_made_with_seeds_of_their_own(setting: Setting) -> None:
    def reply(request: EngineRequest) -> str:
        return f"seed {request.sampling.seed}"

    pipeline, engine = setting.pipeline(reply)
    answer = asyncio.run(pipeline.answer(ask("chat", sampling=Sampling(n=3, seed=7))))
    assert [c.text for c in answer.choices] == ["seed 7", "seed 8", "seed 9"]
    assert answer.usage.prompt_tokens == sum(len(m.content.split()) for m in engine.requests[0].messages)
    assert answer.usage.completion_tokens == 6


def test_when_one_of_n_fails_all_are_stopped(setting: Setting) -> None:
    pipeline, engine = setting.pipeline("fine", EngineFailure("it broke"))
    with pytest.raises(EngineFailure):
        asyncio.run(pipeline.answer(ask("chat", sampling=Sampling(n=2))))
    assert engine.gate.running == 0


def test_the_request_decides_over_the_skills_settings(setting: Setting) -> None:
    pipeline, engine = setting.pipeline("hi")
    asyncio.run(pipeline.answer(ask("chat")))
    asyncio.run(pipeline.answer(ask("chat", sampling=Sampling(temperature=0.0, max_tokens=3))))
    first, second = (r.sampling for r in engine.requests)
    assert (first.temperature, first.max_tokens) == (0.5, 9)
    assert (second.temperature, second.max_tokens) == (0.0, 3)


def test_the_skills_schema_beats_the_callers(setting: Setting) -> None:
    pipeline, engine = setting.pipeline('{"label": "a"}')
    reordered = {k: LABEL[k] for k in reversed(LABEL)}
    asyncio.run(pipeline.answer(ask(output_schema=reordered)))
    with pytest.raises(InvalidInput, match="its own schema") as caught:
        asyncio.run(pipeline.answer(ask(output_schema={"type": "string"})))
    assert caught.value.param == "response_format"
    assert len(engine.requests) == 1


def test_a_skill_without_schema_takes_the_callers(setting: Setting) -> None:
    pipeline, engine = setting.pipeline('{"label": "b"}')
    answer = asyncio.run(pipeline.answer(ask("chat", output_schema=LABEL)))
    assert answer.choices[0].parsed == {"label": "b"}
    assert engine.requests[0].schema_ == LABEL


def test_json_object_must_be_an_object(setting: Setting) -> None:
    pipeline, _ = setting.pipeline("[1]", '{"a": 1}')
    answer = asyncio.run(pipeline.answer(ask("chat", json_object=True)))
    assert answer.choices[0].parsed == {"a": 1}


def test_only_shown_documents_can_be_cited(setting: Setting) -> None:
    pipeline, engine = setting.pipeline('{"answer": "yes", "sources": ["y.md"]}')
    answer = asyncio.run(pipeline.answer(ask("docs please")))
    assert [p.document for p in answer.passages] == ["x.md", "y.md"]
    assert [p.document for p in answer.citations] == ["y.md"]
    schema = engine.requests[0].schema_
    assert schema is not None
    assert schema["properties"]["sources"]["items"] == {"enum": ["x.md", "y.md"]}
    assert cite_only(SOURCED, "sources", [])["properties"]["sources"]["maxItems"] == 0


def test_a_follow_up_is_retrieved_with_the_conversation(setting: Setting) -> None:
    pipeline, _ = setting.pipeline('{"answer": "yes", "sources": []}')
    turns = (
        Message(role="user", content="docs on leave"),
        Message(role="assistant", content="25 days"),
        Message(role="user", content="and part-time?"),
    )
    answer = asyncio.run(pipeline.answer(Ask(messages=turns)))
    assert answer.skill == "docs", "the last turn alone fits nothing, the conversation does"
    assert setting.shelf.queries == [list(turns)]


def test_another_teams_skill_does_not_exist(setting: Setting) -> None:
    pipeline, _ = setting.pipeline("hi")
    with pytest.raises(NotFound):
        asyncio.run(pipeline.answer(ask(skill="theirs")))
    answer = asyncio.run(pipeline.answer(ask(skill="theirs", caller=Caller(team="blue"))))
    assert answer.skill == "theirs"
    assert [r.team for r in setting.notebook.records] == ["default", "blue"]


def test_a_version_that_does_not_exist_is_not_replaced_by_another(setting: Setting) -> None:
    pipeline, engine = setting.pipeline("hi")
    with pytest.raises(NotFound):
        asyncio.run(pipeline.answer(ask(skill="chat", version="v7")))
    assert engine.requests == []


@pytest.mark.parametrize(
    "messages", [(), (Message(role="user", content="  "),), (Message(role="system", content="x"),)]
)
def test_a_request_without_words_is_refused(setting: Setting, messages: tuple[Message, ...]) -> None:
    pipeline, _ = setting.pipeline("hi")
    with pytest.raises(InvalidInput):
        asyncio.run(pipeline.answer(Ask(messages=messages)))
