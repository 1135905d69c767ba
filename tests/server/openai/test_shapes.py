"""Every body and every chunk of the OpenAI-compatible API is valid by OpenAI's own API description.

Our extra field `intern` is an additional property, which the description allows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from intern.errors import EngineFailure, Overloaded
from intern.types import Usage

DESCRIPTION = Path(__file__).parents[4] / "shared" / "data" / "openai" / "openai_subset.json"

pytestmark = pytest.mark.skipif(not DESCRIPTION.exists(), reason="OpenAI's API description is not here")

Check = Callable[[str, Any], None]


def with_nulls(node: Any) -> Any:
    """JSON Schema does not know `nullable`, which the description still uses, as OpenAPI 3.0 did."""
    if isinstance(node, list):
        return [with_nulls(child) for child in node]
    if not isinstance(node, dict):
        return node
    changed = {key: with_nulls(child) for key, child in node.items() if key != "nullable"}
    return {"anyOf": [changed, {"type": "null"}]} if node.get("nullable") is True else changed


@pytest.fixture(scope="module")
def check() -> Check:
    description = json.loads(DESCRIPTION.read_text())
    validators: dict[str, Any] = {}

    def is_valid(name: str, body: Any) -> None:
        if name not in validators:
            schema = {"$ref": f"#/components/schemas/{name}", "components": with_nulls(description["components"])}
            validators[name] = jsonschema_rs.Draft202012Validator(schema)
        problems = [f"{list(e.instance_path)}: {e.message}" for e in validators[name].iter_errors(body)]
        assert problems == []

    return is_valid


def test_the_check_itself_sees_a_wrong_body(check: Check) -> None:
    with pytest.raises(AssertionError):
        check("CreateChatCompletionResponse", {"id": "x", "object": "chat.completion"})
    with pytest.raises(AssertionError):
        check("CreateChatCompletionStreamResponse", {"choices": []})


def ask(text: str = "hello there", model: str = "intern-auto", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


REQUESTS = [
    ask(),
    ask("zebra quantum"),
    ask(model="intern/chat", n=3, seed=1),
    ask(model="intern/chat", max_tokens=1),
    ask("how many days of leave", model="intern/docs"),
    ask(model="intern/chat", logprobs=True, top_logprobs=1, user="eve", metadata={"a": "b"}),
]


def answers(request: Any) -> str:
    grounded = any("leave.md" in m.content for m in request.messages)
    return '{"answer": "thirty", "sources": ["leave.md"]}' if grounded else "one two three"


@pytest.mark.parametrize("request_", REQUESTS)
def test_completions(server: Any, check: Check, request_: dict[str, Any]) -> None:
    server.says(answers)
    answer = server.http("user").post("/v1/chat/completions", json=request_)
    assert answer.status_code == 200
    check("CreateChatCompletionResponse", answer.json())


def chunks_of(answer: Any) -> list[Any]:
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert events.pop() == "[DONE]"
    return [json.loads(event) for event in events]


@pytest.mark.parametrize("usage", [False, True])
@pytest.mark.parametrize("request_", REQUESTS)
def test_chunks(server: Any, check: Check, request_: dict[str, Any], usage: bool) -> None:
    server.says(answers)
    options = {"stream_options": {"include_usage": True}} if usage else {}
    answer = server.http("user").post("/v1/chat/completions", json={**request_, "stream": True, **options})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    for chunk in chunks_of(answer):
        check("CreateChatCompletionStreamResponse", chunk)


def test_tool_calls_and_logprobs(server: Any, check: Check, talking: Any) -> None:
    top = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    usage = Usage(prompt_tokens=5, completion_tokens=2, cached_tokens=3)
    ends: list[dict[str, Any]] = [{"finish_reason": "tool_calls"}, {"usage": usage}]
    talking.script = [{"text": "Hi", "logprobs": ({**top, "top_logprobs": [top]},)}, {"tool_calls": (call,)}, *ends]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    request = ask(model="intern/chat", tools=tools, logprobs=True)
    http = server.http("user")
    check("CreateChatCompletionResponse", http.post("/v1/chat/completions", json=request).json())
    for chunk in chunks_of(http.post("/v1/chat/completions", json={**request, "stream": True})):
        check("CreateChatCompletionStreamResponse", chunk)


def test_models(server: Any, check: Check) -> None:
    http = server.http("user")
    check("ListModelsResponse", http.get("/v1/models").json())
    check("Model", http.get("/v1/models/intern/chat").json())


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings(server: Any, check: Check, encoding: str) -> None:
    body = {"model": "intern-embeddings", "input": ["one", "two"], "encoding_format": encoding}
    answer = server.http("user").post("/v1/embeddings", json=body).json()
    if encoding == "base64":  # the description knows floats only, the clients know both
        for entry in answer["data"]:
            entry["embedding"] = [0.5]
    check("CreateEmbeddingResponse", answer)


def test_errors(server: Any, check: Check) -> None:
    http = server.http("user")
    server.says(Overloaded("full", retry_after=1))
    bodies = [
        http.get("/v1/nowhere"),
        http.post("/v1/chat/completions", json=ask(model="gpt-4o")),
        http.post("/v1/chat/completions", json={}),
        http.post("/v1/chat/completions", json=ask()),
        server.http(None).get("/v1/models"),
    ]
    for answer in bodies:
        assert answer.status_code >= 400
        check("ErrorResponse", answer.json())
    server.says("one two", fail_after=1, failure=EngineFailure("it broke"))
    text = http.post("/v1/chat/completions", json=ask(stream=True)).text
    check("ErrorResponse", json.loads(text.strip().splitlines()[-1].removeprefix("data: ")))
