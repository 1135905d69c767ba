"""The official openai client works with the server as it is: every kind of call, over a real connection."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any, Literal

import numpy as np
import openai
import pytest
from pydantic import BaseModel

from intern.engines.base import EngineRequest
from intern.errors import EngineFailure, Overloaded
from intern.models.fake import HashEmbedder
from intern.types import Usage

HELLO: Any = [{"role": "user", "content": "hello there"}]
LEAVE: Any = [{"role": "user", "content": "how many days of leave"}]
DAY: Any = [{"role": "user", "content": "what a lovely day"}]
OUTSIDE: Any = [{"role": "user", "content": "zebra quantum"}]


class Mood(BaseModel):
    mood: Literal["good", "bad"]


def field(answer: Any) -> dict[str, Any]:
    return dict(answer.model_extra["intern"])


def test_a_routed_request_is_answered(server: Any) -> None:
    server.says("Hi to you")
    answer = server.openai().chat.completions.create(model="intern-auto", messages=HELLO)
    assert answer.choices[0].message.content == "Hi to you"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "intern/chat@base"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 3
    about = field(answer)
    assert (about["skill"], about["adapter"], about["valid"]) == ("chat", None, True)
    assert about["route"]["confidence"] == 0.9
    assert about["record"].startswith("rec_")


def test_the_headers_say_what_served(server: Any) -> None:
    raw = server.openai().chat.completions.with_raw_response.create(model="intern-auto", messages=HELLO)
    assert raw.headers["x-intern-skill"] == "chat"
    assert raw.headers["x-intern-adapter"] == ""
    assert raw.headers["x-intern-confidence"] == "0.9000"
    assert raw.headers["x-intern-request-id"].startswith("req_")


def test_a_grounded_answer_carries_citations_that_a_reader_can_open(server: Any) -> None:
    server.says('{"answer": "thirty", "sources": ["leave.md"]}')
    answer = server.openai().chat.completions.create(model="intern/docs", messages=LEAVE)
    (cited, *_) = field(answer)["citations"]
    assert cited["document"] == "leave.md"
    document = server.http("user").get("/api/skills/docs/documents/leave.md").json()
    assert document["text"][cited["start"] : cited["end"]] == cited["text"]
    assert "thirty days" in cited["text"]


def test_a_stream_is_the_same_answer_in_pieces(server: Any) -> None:
    server.says("one two three")
    chunks = list(server.openai().chat.completions.create(model="intern/chat", messages=HELLO, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "one two three"
    assert [c.choices[0].finish_reason for c in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {c.id for c in chunks} == {chunks[0].id}
    assert {c.model for c in chunks} == {"intern/chat@base"}
    assert all(c.usage is None for c in chunks)
    assert field(chunks[0])["skill"] == field(chunks[-1])["skill"] == "chat"


def test_the_usage_chunk_comes_last_when_it_is_asked_for(server: Any) -> None:
    server.says("one two three")
    how: Any = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = server.openai().chat.completions.create(model="intern/chat", messages=HELLO, **how)
    assert last.choices == []
    assert last.usage.completion_tokens == 3
    assert all(c.usage is None and c.choices for c in chunks)


def test_the_stream_helper_gathers_the_answer(server: Any) -> None:
    server.says('{"mood": "good"}')
    with server.openai().chat.completions.stream(model="intern/chat", messages=HELLO, response_format=Mood) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].message.parsed == Mood(mood="good")


def test_parse_gives_an_object_on_a_skill_without_a_schema(server: Any) -> None:
    server.says('{"mood": "bad"}')
    answer = server.openai().chat.completions.parse(model="intern/chat", messages=HELLO, response_format=Mood)
    assert answer.choices[0].message.parsed == Mood(mood="bad")
    assert server.engine.requests[0].schema_["properties"]["mood"]["enum"] == ["good", "bad"]


def test_a_skills_own_schema_needs_no_response_format(server: Any) -> None:
    server.says('{"mood": "good"}')
    answer = server.openai().chat.completions.create(model="intern/mood", messages=DAY)
    assert json.loads(answer.choices[0].message.content or "") == {"mood": "good"}


def test_another_response_format_on_a_skill_with_a_schema_is_refused(server: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        server.openai().chat.completions.parse(model="intern/mood", messages=DAY, response_format=Mood)
    assert caught.value.param == "response_format"
    assert server.engine.requests == []


def test_json_object_and_text_are_response_formats(server: Any) -> None:
    server.says('{"a": 1}')
    create = server.openai().chat.completions.create
    answer = create(model="intern/chat", messages=HELLO, response_format={"type": "json_object"})
    assert json.loads(answer.choices[0].message.content or "") == {"a": 1}
    assert server.engine.requests[-1].json_object
    create(model="intern/chat", messages=HELLO, response_format={"type": "text"})
    assert not server.engine.requests[-1].json_object


def test_n_choices_with_seeds_of_their_own(server: Any) -> None:
    server.says(lambda request: f"seed {request.sampling.seed}")
    answer = server.openai().chat.completions.create(model="intern/chat", messages=HELLO, n=2, seed=7)
    assert [(c.index, c.message.content) for c in answer.choices] == [(0, "seed 7"), (1, "seed 8")]


def test_n_choices_in_a_stream(server: Any) -> None:
    server.says(lambda request: f"seed {request.sampling.seed}")
    stream = server.openai().chat.completions.create(model="intern/chat", messages=HELLO, n=2, seed=7, stream=True)
    texts = {0: "", 1: ""}
    ends: set[int] = set()
    roles: set[int] = set()
    for choice in (choice for chunk in stream for choice in chunk.choices):
        texts[choice.index] += choice.delta.content or ""
        if choice.delta.role:
            roles.add(choice.index)
        if choice.finish_reason:
            ends.add(choice.index)
    assert texts == {0: "seed 7", 1: "seed 8"}
    assert ends == roles == {0, 1}


def test_sampling_reaches_the_engine(server: Any) -> None:
    server.openai().chat.completions.create(
        model="intern/chat",
        messages=HELLO,
        temperature=0.3,
        top_p=0.5,
        stop=["END"],
        seed=3,
        max_completion_tokens=9,
        presence_penalty=0.1,
        frequency_penalty=-0.1,
    )
    sampling = server.engine.requests[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.stop, sampling.seed) == (0.3, 0.5, ("END",), 3)
    assert (sampling.max_tokens, sampling.presence_penalty, sampling.frequency_penalty) == (9, 0.1, -0.1)


def test_logprobs_come_back(server: Any, talking: Any) -> None:
    entry = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
    talking.script = [{"text": "Hi", "logprobs": (entry,)}, {"finish_reason": "stop"}]
    create = server.openai().chat.completions.create
    answer = create(model="intern/chat", messages=HELLO, logprobs=True, top_logprobs=2)
    assert answer.choices[0].logprobs.content[0].logprob == -0.5
    assert talking.requests[0].sampling.top_logprobs == 2
    chunks = list(create(model="intern/chat", messages=HELLO, logprobs=True, stream=True))
    assert [c.choices[0].logprobs.content[0].token for c in chunks if c.choices[0].logprobs] == ["Hi"]


def test_tools_are_called_where_the_engine_can(server: Any, talking: Any) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"city": "Leeds"}'}}
    talking.script = [{"tool_calls": (call,)}, {"tool_calls": (more,)}, {"finish_reason": "tool_calls"}]
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    create = server.openai().chat.completions.create
    answer = create(model="intern/chat", messages=HELLO, tools=tools, tool_choice="auto")
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"city": "Leeds"}'
    assert answer.choices[0].message.content is None
    assert dict(talking.requests[0].tools[0]) == tools[0]
    with server.openai().chat.completions.stream(model="intern/chat", messages=HELLO, tools=tools) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.name == "weather"
    # The tool's result can be given back.
    said: Any = answer.choices[0].message.model_dump(exclude_none=True, include={"role", "tool_calls"})
    turns = [*HELLO, said, {"role": "tool", "tool_call_id": "call_1", "content": "rain"}]
    talking.script = [{"text": "It rains."}, {"finish_reason": "stop"}]
    assert create(model="intern/chat", messages=turns, tools=tools).choices[0].message.content == "It rains."
    assert talking.requests[-1].messages[-1].tool_call_id == "call_1"


def test_a_request_that_fits_no_skill_is_declined(server: Any) -> None:
    answer = server.openai().chat.completions.create(model="intern-auto", messages=OUTSIDE)
    message = answer.choices[0].message
    assert message.content is None
    assert "No word is known." in (message.refusal or "")
    assert field(answer)["skill"] is None
    assert answer.model == "intern-auto"
    assert server.engine.requests == []


def test_a_request_that_fits_no_skill_is_declined_in_a_stream(server: Any) -> None:
    with server.openai().chat.completions.stream(model="intern-auto", messages=OUTSIDE) as stream:
        final = stream.get_final_completion()
    assert "I don't have a skill" in (final.choices[0].message.refusal or "")
    assert final.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    "model", ["gpt-4o", "intern/", "intern/nothing", "intern/secret", "intern/chat@v9", "intern/chat@", "intern"]
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_a_404(server: Any, model: str, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        server.openai().chat.completions.create(model=model, messages=HELLO, stream=stream)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert server.engine.requests == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_is_too_long_is_a_400_with_the_numbers(server: Any, stream: bool) -> None:
    messages: Any = [{"role": "user", "content": "word " * 3_000}]
    with pytest.raises(openai.BadRequestError) as caught:
        server.openai().chat.completions.create(model="intern/chat", messages=messages, stream=stream)
    assert caught.value.code == "context_length_exceeded"
    assert "2000" in caught.value.message
    assert "3" in caught.value.message.split("needs")[1]


@pytest.mark.parametrize("stream", [False, True])
def test_an_overloaded_engine_is_a_429_that_says_when_to_come_back(server: Any, stream: bool) -> None:
    server.says(Overloaded("full", retry_after=7))
    with pytest.raises(openai.RateLimitError) as caught:
        server.openai().chat.completions.create(model="intern/chat", messages=HELLO, stream=stream)
    assert caught.value.response.headers["retry-after"] == "7"


def test_a_key_that_is_not_known_is_a_401(server: Any) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-wrong", max_retries=0)
    with client, pytest.raises(openai.AuthenticationError):
        client.models.list()


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_without_an_end_makes_the_client_raise(server: Any, talking: Any, stream: bool) -> None:
    talking.script = [{"text": "The answer begins and"}]
    create = server.openai().chat.completions.create
    with pytest.raises(openai.APIError, match="broke off"):
        list(create(model="intern/chat", messages=HELLO, stream=stream))


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_sequence_does_not_loosen_a_skills_schema(server: Any, stream: bool) -> None:
    server.says("this is not json")
    create = server.openai().chat.completions.create
    with pytest.raises(openai.APIError, match="required form"):
        list(create(model="intern/mood", messages=DAY, stream=stream, stop=["zzz"]))


def test_a_forced_call_passes_in_a_skill_with_a_schema(server: Any, talking: Any) -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    talking.script = [{"tool_calls": (call,)}, {"finish_reason": "stop"}]
    tools: Any = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    forced: Any = {"type": "function", "function": {"name": "f"}}
    create = server.openai().chat.completions.create
    answer = create(model="intern/mood", messages=DAY, tools=tools, tool_choice=forced)
    assert answer.choices[0].message.tool_calls[0].function.name == "f"


def test_an_engine_that_fails_before_the_first_token_is_an_error_status(server: Any) -> None:
    server.says(EngineFailure("it broke"))
    with pytest.raises(openai.InternalServerError) as caught:
        server.openai().chat.completions.create(model="intern/chat", messages=HELLO, stream=True)
    assert caught.value.status_code == 502


def test_an_engine_that_fails_in_mid_stream_makes_the_client_raise(server: Any) -> None:
    server.says("one two three four", fail_after=2, failure=EngineFailure("it broke"))
    stream = server.openai().chat.completions.create(model="intern/chat", messages=HELLO, stream=True)
    heard: list[str] = []
    with pytest.raises(openai.APIError, match="it broke"):
        heard.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "".join(heard) == "one two"


def test_a_stream_that_breaks_its_schema_makes_the_client_raise(server: Any) -> None:
    server.says('{"mood": "purple"}')
    stream = server.openai().chat.completions.create(model="intern/mood", messages=DAY, stream=True)
    with pytest.raises(openai.APIError, match="required form"):
        list(stream)


def test_an_answer_that_breaks_its_schema_twice_is_an_error(server: Any) -> None:
    server.says('{"mood": "purple"}')
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        server.openai().chat.completions.create(model="intern/mood", messages=DAY)
    assert caught.value.code == "output_invalid"
    assert len(server.engine.requests) == 2


def test_models_are_listed_and_found(server: Any) -> None:
    client = server.openai()
    names = [model.id for model in client.models.list()]
    assert names[0] == "intern-auto"
    assert {"intern/chat", "intern/chat@base", "intern/docs", "intern-embeddings"} <= set(names)
    assert "intern/secret" not in names
    assert client.models.retrieve("intern/chat@base").owned_by == "llama-intern"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("intern/secret")


def test_embeddings_are_the_embedders(server: Any) -> None:
    create = server.openai().embeddings.create
    expected = HashEmbedder().embed(["one text", "another"])
    answer = create(model="intern-embeddings", input=["one text", "another"])
    np.testing.assert_allclose([d.embedding for d in answer.data], expected, rtol=1e-6)
    assert answer.usage.prompt_tokens == 3
    plain = create(model="intern-embeddings", input="one text", encoding_format="float").data[0].embedding
    np.testing.assert_allclose(plain, expected[0], rtol=1e-6)
    body = {"model": "intern-embeddings", "input": "one text", "encoding_format": "base64"}
    raw = server.http("user").post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(raw), "<f4"), expected[0])


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ["a", " "]}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"input": "word " * 300}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"dimensions": 7}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_embeddings_refuse_what_they_cannot_do(server: Any, change: dict[str, Any], param: str) -> None:
    body = {"model": "intern-embeddings", "input": "text", **change}
    answer = server.http("user").post("/v1/embeddings", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_many_at_once_with_the_async_client(server: Any) -> None:
    def echo(request: EngineRequest) -> str:
        return request.messages[-1].content

    server.says(echo)

    async def ask(client: openai.AsyncOpenAI, number: int) -> str:
        messages: Any = [{"role": "user", "content": f"hello {number}"}]
        if number % 2:
            answer = await client.chat.completions.create(model="intern-auto", messages=messages)
            return answer.choices[0].message.content or ""
        stream = await client.chat.completions.create(model="intern-auto", messages=messages, stream=True)
        return "".join([c.choices[0].delta.content or "" async for c in stream])

    async def scenario() -> list[str]:
        key = server.keys["user"]
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(30)))

    assert asyncio.run(scenario()) == [f"hello {number}" for number in range(30)]


def test_prompt_tokens_that_were_cached_are_reported(server: Any, talking: Any) -> None:
    usage = Usage(prompt_tokens=9, completion_tokens=1, cached_tokens=4)
    talking.script = [{"text": "Hi"}, {"finish_reason": "stop"}, {"usage": usage}]
    answer = server.openai().chat.completions.create(model="intern/chat", messages=HELLO)
    assert answer.usage.prompt_tokens_details.cached_tokens == 4
