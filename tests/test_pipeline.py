"""The serving half: every request leaves one record, and no answer is delivered as what it is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from intern.engines.base import EngineRequest, Token
from intern.engines.fake import FakeEngine, Reply
from intern.errors import DeadlineExceeded, EngineFailure, InvalidInput, NotFound, OutputInvalid
from intern.library import SkillLibrary
from intern.pipeline import BaseOnly, Closed, Opened, Pipeline
from intern.prompt import cite_only
from intern.skill import Skill, write_skill
from intern.types import Ask, Caller, Candidate, Lease, Message, Passage, Record, Route, Sampling

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

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()

    async def ready(self, team: str) -> None:
        await self.open.wait()

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

    async def ready(self, team: str, skill: str) -> None:
        pass

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
        return self.on(FakeEngine(replies, **how))

    def on(self, engine: FakeEngine, **more: Any) -> tuple[Pipeline, FakeEngine]:
        parts: Any = {"library": self.library, "knowledge": self.shelf, "recorder": self.notebook}
        parts["router"] = Signposts()
        return Pipeline(engine=engine, **parts, **more), engine


class Scripted(FakeEngine):
    """Gives exactly these tokens, whatever they are."""

    def __init__(self, *tokens: Token) -> None:
        super().__init__(tools=True)
        self.tokens = tokens

    async def generate(self, request: EngineRequest) -> AsyncGenerator[Token, None]:
        self.requests.append(request)
        for token in self.tokens:
            yield token


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


def test_an_answer_that_never_ends_gets_four_times_the_room_and_no_more(setting: Setting) -> None:
    endless = json.dumps({"answer": "word " * 20_000, "sources": []})
    pipeline, engine = setting.pipeline(endless)
    with pytest.raises(OutputInvalid):
        asyncio.run(pipeline.answer(ask("docs please")))
    limits = [r.sampling.max_tokens or 0 for r in engine.requests]
    assert limits == [limits[0], 4 * limits[0]]


class Shown:
    async def shown(self, team: str, skill: Skill, request: object, *, room: int) -> list[tuple[Message, ...]]:
        return [(Message(role="user", content="label that"), Message(role="assistant", content='{"label": "b"}'))]


@pytest.mark.parametrize("examples", ["none", "nearest"])
def test_a_prompt_has_examples_only_where_the_skill_asks_for_them(tmp_path: Path, examples: str) -> None:
    setting = Setting(tmp_path)
    spec = {"title": "Labels", "description": "D", "instructions": "Label.", "prompting": {"examples": examples}}
    write_skill(tmp_path / "skills", "shown", spec, schema=LABEL)
    setting.library.refresh()
    pipeline, engine = setting.on(FakeEngine(['{"label": "a"}']), examples=Shown())
    asyncio.run(pipeline.answer(ask(skill="shown")))
    said = [m.content for m in engine.requests[0].messages]
    assert said == ["Label.", *(["label that", '{"label": "b"}'] if examples == "nearest" else []), "label this"]
    (record,) = setting.notebook.records
    assert [m.content for m in record.prompt] == ["Label.", "label this"], "a record keeps no other person's words"


def test_worked_examples_make_way_where_an_answer_needs_more_room(tmp_path: Path) -> None:
    class Many:
        async def shown(self, team: str, skill: Skill, request: object, *, room: int) -> list[tuple[Message, ...]]:
            one = Message(role="user", content="word " * 40)
            return [(one, Message(role="assistant", content='{"label": "b"}'))] * (room // 60)

    setting = Setting(tmp_path)
    spec: dict[str, Any] = {"title": "Labels", "description": "D", "instructions": "Label."}
    spec |= {"prompting": {"examples": "fixed"}, "generation": {"max_tokens": 100}}
    schema = {"type": "object", "required": ["label"], "properties": {"label": {"type": "string"}}}
    write_skill(tmp_path / "skills", "many", spec, schema=schema)
    setting.library.refresh()
    long = json.dumps({"label": "word " * 250})
    pipeline, engine = setting.on(FakeEngine([long], context=1000), examples=Many())
    answer = asyncio.run(pipeline.answer(ask("label this", skill="many")))
    assert answer.choices[0].valid
    first, second = engine.requests
    assert len(first.messages) > 10
    assert [m.content for m in second.messages] == ["Label.", "label this"]
    assert second.sampling.max_tokens == 400


def test_an_adapter_answers_without_examples_as_it_learned_to(tmp_path: Path) -> None:
    class Adapter(BaseOnly):
        async def acquire(self, team: str, skill: str, version: str | None) -> Lease:
            return Lease(name=f"{skill}@v1", engine_name="a")

    setting = Setting(tmp_path)
    spec = {"title": "Labels", "description": "D", "instructions": "Label.", "prompting": {"examples": "nearest"}}
    write_skill(tmp_path / "skills", "shown", spec, schema=LABEL)
    setting.library.refresh()
    engine = FakeEngine(['{"label": "a"}'])
    asyncio.run(engine.set_adapters({"a": "file"}))
    pipeline, engine = setting.on(engine, examples=Shown(), adapters=Adapter())
    asyncio.run(pipeline.answer(ask(skill="shown")))
    assert [m.content for m in engine.requests[0].messages] == ["Label.", "label this"]


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
    assert (record.choices[0].text, record.choices[0].valid) == ("one two", False)


def test_leaving_a_stream_stops_the_engine_and_is_recorded(setting: Setting) -> None:
    async def scenario() -> FakeEngine:
        pipeline, engine = setting.pipeline("one two three four")
        async with aclosing(pipeline.stream(ask("chat with me"))) as stream:
            await anext(stream)
            await anext(stream)
        return engine

    engine = asyncio.run(scenario())
    assert engine.closed_early == 1
    assert engine.turns.running == 0
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
    assert engine.turns.running == 0


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


@pytest.mark.parametrize("said", [(), (Token(text='{"label": "a"}'),)])
@pytest.mark.parametrize("name", ["label", "chat"])
def test_an_answer_whose_end_was_not_seen_is_no_answer(setting: Setting, said: tuple[Token, ...], name: str) -> None:
    pipeline, _ = setting.on(Scripted(*said))
    with pytest.raises(EngineFailure, match="broke off"):
        asyncio.run(pipeline.answer(ask(skill=name)))
    with pytest.raises(EngineFailure, match="broke off"):
        asyncio.run(drain(pipeline, ask(skill=name)))
    for record in setting.notebook.records:
        assert (record.error or "").startswith("engine_failure")
        assert not any(choice.valid for choice in record.choices)


def test_every_one_of_n_choices_must_be_there(setting: Setting) -> None:
    first = iter([True, False])

    class Half(Scripted):
        async def generate(self, request: EngineRequest) -> AsyncGenerator[Token, None]:
            if next(first):
                yield Token(text="whole")
                yield Token(finish_reason="stop")

    pipeline, _ = setting.on(Half())
    with pytest.raises(EngineFailure, match="broke off"):
        asyncio.run(pipeline.answer(ask("chat", sampling=Sampling(n=2))))


def test_a_stream_that_was_heard_to_its_end_is_no_cancelled_one(setting: Setting) -> None:
    async def scenario() -> None:
        pipeline, _ = setting.pipeline("one two")
        async with aclosing(pipeline.stream(ask("chat with me"))) as stream:
            while not isinstance(await anext(stream), Closed):
                pass
            (record,) = setting.notebook.records  # it is there before the last piece
            assert (record.error, record.choices[0].text) == (None, "one two")
        async with aclosing(pipeline.stream(ask("what is love"))) as stream:
            while not isinstance(await anext(stream), Closed):
                pass
        assert [record.error for record in setting.notebook.records] == [None, None]

    asyncio.run(scenario())


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("form", [{"skill": "label"}, {"skill": "chat", "output_schema": LABEL}])
def test_a_stop_sequence_does_not_loosen_the_schema(setting: Setting, form: dict[str, Any], streamed: bool) -> None:
    request = ask(sampling=Sampling(stop=("zzz",)), **form)
    pipeline, engine = setting.pipeline("this is not json")
    with pytest.raises(OutputInvalid):
        asyncio.run(drain(pipeline, request) if streamed else pipeline.answer(request))
    assert engine.requests[0].sampling.stop == ()


def test_stop_sequences_are_for_texts_and_a_form_says_that_it_needs_none(setting: Setting) -> None:
    pipeline, engine = setting.pipeline('{"label": "a"}')
    sampling = Sampling(stop=("a",))
    answer = asyncio.run(pipeline.answer(ask(sampling=sampling)))
    assert answer.choices[0].parsed == {"label": "a"}
    assert any("stop" in note for note in answer.notes)
    asyncio.run(pipeline.answer(ask("chat", sampling=sampling)))
    assert [r.sampling.stop for r in engine.requests] == [(), ("a",)]


CALL = Token(tool_calls=({"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},))
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.mark.parametrize("reason", ["stop", "tool_calls"])
def test_a_call_is_delivered_whatever_reason_the_engine_gives(setting: Setting, reason: Any) -> None:
    pipeline, _ = setting.on(Scripted(CALL, Token(finish_reason=reason)))
    answer = asyncio.run(pipeline.answer(ask(tools=(TOOL,), tool_choice={"type": "function"})))
    assert answer.choices[0].tool_calls[0]["function"] == {"name": "f", "arguments": "{}"}


def test_a_text_is_checked_whatever_reason_the_engine_gives(setting: Setting) -> None:
    pipeline, _ = setting.on(Scripted(Token(text="garbage"), Token(finish_reason="tool_calls")))
    with pytest.raises(OutputInvalid):
        asyncio.run(pipeline.answer(ask(tools=(TOOL,))))
    answer = asyncio.run(pipeline.answer(ask("chat", tools=(TOOL,))))
    assert answer.choices[0].finish_reason == "stop"


def test_calls_that_nobody_asked_for_are_no_way_around_the_schema(setting: Setting) -> None:
    pipeline, _ = setting.on(Scripted(CALL, Token(finish_reason="tool_calls")))
    with pytest.raises(OutputInvalid):
        asyncio.run(pipeline.answer(ask()))


@pytest.mark.parametrize("streamed", [False, True])
def test_the_deadline_holds_for_what_comes_before_the_engine(setting: Setting, streamed: bool) -> None:
    async def scenario() -> None:
        pipeline, engine = setting.on(FakeEngine(), deadline=0.05)
        pipeline.router.open.clear()  # type: ignore[attr-defined]
        with pytest.raises(DeadlineExceeded):
            await (drain(pipeline, ask("chat")) if streamed else pipeline.answer(ask("chat")))
        assert engine.requests == []

    asyncio.run(scenario())
    assert (setting.notebook.records[0].error or "").startswith("deadline_exceeded")


def test_a_stream_ends_at_its_deadline_however_slowly_it_is_heard(setting: Setting) -> None:
    async def scenario() -> list[Any]:
        pipeline, engine = setting.on(FakeEngine(["one two three four"]), deadline=0.2)
        heard: list[Any] = []

        async def listen() -> None:
            async with aclosing(pipeline.stream(ask("chat"))) as stream:
                async for piece in stream:
                    heard.append(piece)
                    await asyncio.sleep(0.15)  # what a slow reader does

        with pytest.raises(DeadlineExceeded):
            await listen()
        assert engine.turns.running == 0
        return heard

    assert len(asyncio.run(scenario())) < 4
