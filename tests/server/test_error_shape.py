"""One error shape, OpenAI's, on every path and for every way to fail; and no inside is shown."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from fastapi import FastAPI

from intern import errors
from intern.errors import EngineUnavailable, InternError
from server import errors as shapes

GOOD = {"model": "intern/chat", "messages": [{"role": "user", "content": "hello there"}]}


def shape_of(answer: Any) -> dict[str, Any]:
    body = answer.json()
    assert body.keys() == {"error"}
    error: dict[str, Any] = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    assert isinstance(error["type"], str)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-intern-request-id"].startswith("req_")
    return error


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/v1/nowhere", 404),
        ("GET", "/api/nowhere", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/healthz", 405),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/api/skills/nothing", 404),
        ("GET", "/api/records/rec_nothing", 404),
        ("GET", "/api/records?limit=0", 400),
        ("GET", "/api/examples", 400),
        ("GET", "/api/examples?skill=%00", 400),
        ("GET", "/api/skills/docs/documents/nothing.md", 404),
        ("DELETE", "/api/keys/key_nothing", 404),
        ("POST", "/v1/chat/completions", 400),
    ],
)
def test_every_path_fails_in_the_same_shape(server: Any, method: str, path: str, status: int) -> None:
    answer = server.http().request(method, path)
    assert answer.status_code == status
    shape_of(answer)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 5}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages.0.content.0.type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages.0.content.0.type",
        ),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"n": 9}, "n"),
        ({"n": 0}, "n"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"seed": 2**70}, "seed"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            "response_format.json_schema.name",
        ),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"guided_regex": "a*"}, "guided_regex"),
        ({"chat_template": "{{ x }}"}, "chat_template"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"metadata": {"a": 5}}, "metadata.a"),
        ({"stream_options": {"include_usage": 5}}, "stream_options.include_usage"),
    ],
)
def test_a_malformed_body_is_a_400_that_names_the_parameter(server: Any, change: dict[str, Any], param: str) -> None:
    body = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    answer = server.http("user").post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert shape_of(answer)["param"] == param
    assert server.engine.requests == []


def test_parameters_that_change_nothing_are_accepted(server: Any) -> None:
    harmless = {"store": True, "service_tier": "auto", "reasoning_effort": "low", "parallel_tool_calls": True}
    unset = dict.fromkeys(("tools", "stop", "stream", "n", "user"))
    empty: dict[str, Any] = {"logit_bias": {}, "functions": [], **unset}
    turn = {"role": "user", "content": "hello there", "name": "eve", "tool_calls": None}
    answer = server.http("user").post("/v1/chat/completions", json={**GOOD, **harmless, **empty, "messages": [turn]})
    assert answer.status_code == 200


def test_a_body_of_another_content_type_is_told_what_to_send(server: Any) -> None:
    answer = server.http("user").post("/api/ask", data={"input": "x"})
    assert answer.status_code == 400
    assert "Content-Type: application/json" in shape_of(answer)["message"]


def test_an_unknown_parameter_of_the_own_api_is_named(server: Any) -> None:
    answer = server.http("user").post("/api/ask", json={"input": "x", "skil": "chat"})
    assert (answer.status_code, shape_of(answer)["param"]) == (400, "skil")


def test_every_error_of_the_platform_has_a_status() -> None:
    kinds = [k for _, k in inspect.getmembers(errors, inspect.isclass) if issubclass(k, InternError)]
    assert len(kinds) > 15
    bad_input = {k for k in kinds if issubclass(k, errors.InvalidInput) and k is not errors.InvalidInput}
    assert set(kinds) - bad_input == set(shapes.STATUS)


def test_what_breaks_inside_says_nothing_of_the_inside(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Any) -> str:
        raise RuntimeError("the secret is 42")

    server.says(broken)
    answer = server.http("user").post("/v1/chat/completions", json=GOOD)
    assert answer.status_code == 500
    error = shape_of(answer)
    assert error["type"] == "server_error"
    assert "secret" not in answer.text
    (exception,) = [r.exc_info[1] for r in caplog.records if r.exc_info and "unexpected" in r.message]
    assert "secret" in str(exception)


def test_what_breaks_inside_a_stream_ends_it_with_an_error_event(server: Any, talking: Any) -> None:
    talking.script = [{"text": "one"}, {"text": 5}]
    answer = server.http("user").post("/v1/chat/completions", json={**GOOD, "stream": True})
    assert answer.status_code == 200
    last = answer.text.strip().splitlines()[-1]
    assert '"type":"server_error"' in last
    assert "[DONE]" not in answer.text


@pytest.mark.parametrize("schema", ["mood", "chat"])
def test_a_stream_that_fails_has_no_done(server: Any, schema: str) -> None:
    server.says("no json", fail_after=1 if schema == "chat" else None, failure=EngineUnavailable("gone"))
    body = {"model": f"intern/{schema}", "messages": GOOD["messages"], "stream": True}
    answer = server.http("user").post("/v1/chat/completions", json=body)
    assert answer.text.strip().splitlines()[-1].startswith('data: {"error":')
    assert "[DONE]" not in answer.text


def test_a_database_that_fails_is_a_503_without_details() -> None:
    app = FastAPI()
    shapes.install(app)

    @app.get("/")
    def fail() -> None:
        raise sa.exc.OperationalError("select secret", {}, Exception("disk I/O error"))

    async def ask() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as http:
            return await http.get("/")

    answer = asyncio.run(ask())
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "store_failure"
    assert "secret" not in answer.text
    assert "disk" not in answer.text
