"""Every engine keeps the protocol's rules: the scripted one, the embedded one, and an OpenAI-compatible endpoint.

The endpoint is llama.cpp's own HTTP server, so all of it is real.
"""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from intern.engines.base import Engine, EngineRequest, Token
from intern.engines.fake import FakeEngine
from intern.engines.llamacpp import LlamaCppEngine
from intern.engines.openai import OpenAIEngine
from intern.errors import (
    ContextOverflow,
    DeadlineExceeded,
    EngineFailure,
    EngineUnavailable,
    InvalidInput,
    Overloaded,
    SchemaRefused,
)
from intern.types import Message, Sampling

SCHEMA = {
    "type": "object",
    "properties": {"mood": {"enum": ["good", "bad"]}, "count": {"type": "integer"}},
    "required": ["mood", "count"],
    "additionalProperties": False,
}


def say(text: str, **more: Any) -> EngineRequest:
    sampling = Sampling(temperature=0, max_tokens=more.pop("max_tokens", 12), **more.pop("sampling", {}))
    return EngineRequest(messages=(Message(role="user", content=text),), sampling=sampling, **more)


async def collect(engine: Engine, request: EngineRequest) -> list[Token]:
    async with aclosing(engine.generate(request)) as stream:
        return [token async for token in stream]


@asynccontextmanager
async def opened(kind: str, path: Path, slots: int = 2, queue: int = 4) -> AsyncGenerator[Engine, None]:
    if kind == "fake":
        yield FakeEngine(["one two three four five six seven eight"], context=1024, slots=slots, queue=queue)
        return
    inner = LlamaCppEngine(path, model="m", context=1024, slots=slots, queue=queue, threads=2)
    await inner.start()
    try:
        if kind == "llamacpp":
            yield inner
        else:
            http = inner._server().http
            key = http.headers["authorization"].removeprefix("Bearer ")
            outer = OpenAIEngine(f"{http.base_url}/v1", model="m", key=key, context=1024, slots=slots, queue=queue)
            yield outer
            await outer.close()
    finally:
        await inner.close()


Scenario = Callable[[Engine], Awaitable[None]]


def runner(kind: str, path: Path) -> Callable[..., None]:
    def run(scenario: Scenario, **how: int) -> None:
        async def main() -> None:
            async with opened(kind, path, **how) as engine:
                await asyncio.wait_for(scenario(engine), 60)

        asyncio.run(main())

    return run


@pytest.fixture(params=["fake", "llamacpp", "openai"])
def on_engine(request: pytest.FixtureRequest, model_path: Path) -> Callable[..., None]:
    return runner(request.param, model_path)


@pytest.fixture(params=["llamacpp", "openai"])
def on_real_engine(request: pytest.FixtureRequest, model_path: Path) -> Callable[..., None]:
    return runner(request.param, model_path)


@pytest.fixture
def on_llamacpp(model_path: Path) -> Callable[..., None]:
    return runner("llamacpp", model_path)


def test_a_stream_is_text_then_a_finish_then_the_usage(on_engine: Callable[..., None]) -> None:
    async def scenario(engine: Engine) -> None:
        tokens = await collect(engine, say("Tell me a long story.", max_tokens=5))
        assert "".join(t.text for t in tokens)
        assert [t.finish_reason for t in tokens if t.finish_reason] == ["length"]
        assert tokens[-1].usage is not None
        assert tokens[-1].usage.completion_tokens == 5
        assert tokens[-1].usage.prompt_tokens > 0

    on_engine(scenario)


def test_a_prompt_that_does_not_fit_is_a_context_overflow(on_engine: Callable[..., None]) -> None:
    async def scenario(engine: Engine) -> None:
        with pytest.raises(ContextOverflow) as caught:
            await collect(engine, say("word " * 3000))
        assert caught.value.limit == 1024
        assert caught.value.tokens > 1024

    on_engine(scenario)


def test_beyond_its_queue_an_engine_is_overloaded_and_recovers(on_engine: Callable[..., None]) -> None:
    async def scenario(engine: Engine) -> None:
        streams = [engine.generate(say("Tell me a long story.", max_tokens=200))]
        await anext(streams[0])
        with pytest.raises(Overloaded):
            await collect(engine, say("hello"))
        await streams[0].aclose()
        while True:  # the slot is free once the engine has really stopped
            try:
                tokens = await collect(engine, say("hello", max_tokens=2))
                break
            except Overloaded:
                await asyncio.sleep(0)
        assert tokens

    on_engine(scenario, slots=1, queue=0)


def test_many_at_once_all_come_back(on_engine: Callable[..., None]) -> None:
    async def scenario(engine: Engine) -> None:
        answers = await asyncio.gather(*(collect(engine, say(f"Count to {i}.", max_tokens=4)) for i in range(6)))
        assert all(a[-1].usage for a in answers)

    on_engine(scenario, slots=2, queue=8)


@pytest.mark.parametrize("kind", ["llamacpp", "openai"])
def test_a_schema_is_kept(kind: str, model_path: Path) -> None:
    async def main() -> None:
        async with opened(kind, model_path) as engine:
            tokens = await collect(engine, say("How are you? Answer in JSON.", schema_=SCHEMA, max_tokens=60))
            value = json.loads("".join(t.text for t in tokens))
            assert set(value) == {"mood", "count"}
            assert value["mood"] in ("good", "bad")

    asyncio.run(main())


def test_structured_answers_are_written_without_spare_whitespace(on_llamacpp: Callable[[Scenario], None]) -> None:
    async def scenario(engine: Engine) -> None:
        tokens = await collect(engine, say("How are you?", schema_=SCHEMA, max_tokens=60))
        text = "".join(t.text for t in tokens)
        assert text == json.dumps(json.loads(text))

    on_llamacpp(scenario)


def test_a_schema_that_cannot_be_enforced_is_refused_not_ignored(on_llamacpp: Callable[[Scenario], None]) -> None:
    async def scenario(engine: Engine) -> None:
        with pytest.raises(SchemaRefused):
            await collect(engine, say("hi", schema_={"type": "string", "pattern": "(?=a)b"}))

    on_llamacpp(scenario)


def test_leaving_the_stream_stops_the_generation(on_llamacpp: Callable[[Scenario], None]) -> None:
    async def scenario(engine: Engine) -> None:
        assert isinstance(engine, LlamaCppEngine)
        stream = engine.generate(say("Tell me a very long story.", max_tokens=900))
        await anext(stream)
        assert engine.load == (1, 0)
        await stream.aclose()
        while engine.load != (0, 0):  # noqa: ASYNC110 - far less than the ten seconds that 900 tokens take
            await asyncio.sleep(0)

    on_llamacpp(scenario)


def test_the_event_loop_keeps_turning_while_tokens_are_made(on_llamacpp: Callable[[Scenario], None]) -> None:
    async def scenario(engine: Engine) -> None:
        turns = 0
        task = asyncio.create_task(collect(engine, say("Tell me a long story.", max_tokens=30)))
        while not task.done():
            turns += 1
            await asyncio.sleep(0)
        assert turns > 100

    on_llamacpp(scenario)


def test_a_deadline_ends_the_answer(on_real_engine: Callable[..., None]) -> None:
    async def scenario(engine: Engine) -> None:
        with pytest.raises(DeadlineExceeded):
            await collect(engine, say("Tell me a long story.", max_tokens=900, deadline=0.2))

    on_real_engine(scenario)


def test_the_deadline_holds_in_the_queue_too(on_engine: Callable[..., None]) -> None:
    async def scenario(engine: Engine) -> None:
        async with aclosing(engine.generate(say("Tell me a long story.", max_tokens=900))) as stream:
            await anext(stream)
            with pytest.raises(DeadlineExceeded):
                await collect(engine, say("hello", deadline=0.1))
            assert engine.load == (1, 0)

    on_engine(scenario, slots=1)


def test_a_request_whose_time_is_up_is_not_begun(on_engine: Callable[..., None]) -> None:
    async def scenario(engine: Engine) -> None:
        with pytest.raises(DeadlineExceeded):
            await collect(engine, say("hello", deadline=0.0))
        assert engine.load == (0, 0)

    on_engine(scenario)


def test_what_the_engine_says_of_a_request_is_not_repeated(on_real_engine: Callable[..., None]) -> None:
    async def scenario(engine: Engine) -> None:
        secret = "DE89370400440532013000"
        turns = (Message(role="user", content="hi"), Message(role="assistant", tool_calls=({"iban": secret},)))
        with pytest.raises((InvalidInput, EngineFailure)) as caught:
            await collect(engine, EngineRequest(messages=turns))
        told = "".join(traceback.format_exception(caught.value))
        assert secret not in told
        assert "iban" not in told

    on_real_engine(scenario)


def test_logprobs_have_openais_shape(on_llamacpp: Callable[[Scenario], None]) -> None:
    async def scenario(engine: Engine) -> None:
        tokens = await collect(engine, say("Hi", max_tokens=3, sampling={"logprobs": True, "top_logprobs": 2}))
        entries = [entry for t in tokens for entry in t.logprobs]
        assert len(entries) == 3
        assert set(entries[0]) == {"token", "logprob", "bytes", "top_logprobs"}
        assert len(entries[0]["top_logprobs"]) == 2

    on_llamacpp(scenario)


def test_logprobs_come_without_alternatives_too(on_llamacpp: Callable[[Scenario], None]) -> None:
    async def scenario(engine: Engine) -> None:
        tokens = await collect(engine, say("Hi", max_tokens=3, sampling={"logprobs": True}))
        entries = [entry for t in tokens for entry in t.logprobs]
        assert [entry["top_logprobs"] for entry in entries] == [[], [], []]
        assert all(entry["logprob"] <= 0 for entry in entries)

    on_llamacpp(scenario)


def test_tools_are_refused_when_the_models_template_knows_none(on_llamacpp: Callable[[Scenario], None]) -> None:
    async def scenario(engine: Engine) -> None:
        tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
        with pytest.raises(InvalidInput, match="tools") as caught:
            await collect(engine, say("hi", tools=(tool,)))
        assert caught.value.param == "tools"

    on_llamacpp(scenario)


def test_an_engine_that_runs_the_model_here_says_by_which_version(on_llamacpp: Callable[[Scenario], None]) -> None:
    async def scenario(engine: Engine) -> None:
        assert engine.info.version == metadata.version("xllamacpp")

    on_llamacpp(scenario)


def test_what_a_tool_takes_is_bounded_as_schemas_are(
    on_llamacpp: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(engine: Engine) -> None:
        monkeypatch.setattr(engine, "_info", engine.info.model_copy(update={"tools": True}))
        wild = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(a|b)*" * 200}}}
        tool = {"type": "function", "function": {"name": "f", "parameters": wild}}
        with pytest.raises(SchemaRefused, match="pattern") as caught:
            await collect(engine, say("hi", tools=(tool,)))
        assert caught.value.param == "tools"

    on_llamacpp(scenario)


def test_tokens_are_counted_exactly(on_llamacpp: Callable[[Scenario], None]) -> None:
    async def scenario(engine: Engine) -> None:
        assert await engine.count_tokens("hello world " * 200) == 401
        assert await engine.count_tokens("") == 0

    on_llamacpp(scenario)


def test_an_adapter_that_is_not_loaded_is_never_replaced_by_the_base(on_engine: Callable[..., None]) -> None:
    async def scenario(engine: Engine) -> None:
        with pytest.raises(EngineUnavailable):
            await collect(engine, say("hi", adapter="skill@v1"))

    on_engine(scenario)


def test_health_says_nothing_when_all_is_well(on_engine: Callable[..., None]) -> None:
    async def scenario(engine: Engine) -> None:
        assert await engine.health() is None

    on_engine(scenario)


def test_an_endpoint_that_is_not_there_is_unavailable() -> None:
    async def main() -> None:
        engine = OpenAIEngine("http://127.0.0.1:9/v1", model="m", context=1024, slots=1, queue=1)
        with pytest.raises(EngineUnavailable):
            await collect(engine, say("hi"))
        assert "does not answer" in (await engine.health() or "")
        await engine.close()

    asyncio.run(main())
