"""What chat requests say of tools is checked before an engine sees it, and passed on as it came."""

from __future__ import annotations

from typing import Any

import pytest

from intern.types import Caller
from server.openai.requests import ChatRequest

SECRET = "DE89370400440532013000"
CALL = {"id": "call_1", "type": "function", "function": {"name": "pay", "arguments": '{"iban": "x"}'}}
TOOL = {"type": "function", "function": {"name": "pay", "parameters": {"type": "object"}, "strict": True}}


def request(calls: Any = None, **more: Any) -> dict[str, Any]:
    said = [{"role": "assistant", "content": None, "tool_calls": calls}] if calls is not None else []
    return {"model": "intern/chat", "messages": [{"role": "user", "content": "hello"}, *said], **more}


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no object": (request([SECRET]), "messages.1.tool_calls.0"),
    "nothing in it": (request([{}]), "messages.1.tool_calls.0.id"),
    "no function": (request([{"id": SECRET, "type": "function"}]), "messages.1.tool_calls.0.function"),
    "another type": (request([{**CALL, "type": SECRET}]), "messages.1.tool_calls.0.type"),
    "no name": (request([{**CALL, "function": {"arguments": SECRET}}]), "messages.1.tool_calls.0.function.name"),
    **{
        f"arguments {number}": (
            request([{**CALL, "function": {"name": "pay", "arguments": text}}]),
            "messages.1.tool_calls.0.function.arguments",
        )
        for number, text in enumerate(["{bad " + SECRET, f'"{SECRET}"', {"iban": SECRET}, "[" * 90 + "]" * 90, "{} {}"])
    },
    "a tool that is none": (request(tools=[{}]), "tools.0.type"),
    "a tool without a name": (request(tools=[{"type": "function", "function": {}}]), "tools.0.function.name"),
    "parameters in text": (
        request(tools=[{"type": "function", "function": {"name": "f", "parameters": SECRET}}]),
        "tools.0.function.parameters",
    ),
    "an unknown choice": (request(tools=[TOOL], tool_choice=SECRET), "tool_choice"),
    "a choice of nothing": (
        request(tools=[TOOL], tool_choice={"type": "function", "function": {}}),
        "tool_choice.function.name",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_malformed_tools_are_the_callers_mistake_and_are_not_quoted(server: Any, name: str) -> None:
    body, param = BROKEN[name]
    answer = server.http("user").post("/v1/chat/completions", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert SECRET not in error["message"]
    assert server.engine.requests == []


def test_tools_are_passed_on_as_they_came() -> None:
    more = {**CALL, "index": 0, "extra_content": {"signature": "s"}}
    named = {"type": "function", "function": {"name": "pay"}}
    ask = ChatRequest.model_validate(request([CALL, more], tools=[TOOL], tool_choice=named)).ask(Caller())
    assert [dict(call) for call in ask.messages[-1].tool_calls] == [CALL, more]
    assert [dict(tool) for tool in ask.tools] == [TOOL]
    assert ask.tool_choice == named


def test_a_call_without_arguments_may_leave_them_empty() -> None:
    empty = {**CALL, "function": {"name": "pay", "arguments": ""}}
    ask = ChatRequest.model_validate(request([empty])).ask(Caller())
    assert ask.messages[-1].tool_calls[0]["function"] == {"name": "pay", "arguments": "{}"}
