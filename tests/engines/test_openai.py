"""Whatever an OpenAI-compatible endpoint sends: an answer is whole or an error, and no error repeats the request."""

from __future__ import annotations

import asyncio
import json
import traceback
from pathlib import Path
from typing import Any

import pytest

from intern.engines.base import EngineRequest, Token
from intern.engines.llamacpp import LlamaCppEngine
from intern.engines.openai import OpenAIEngine
from intern.errors import EngineFailure, EngineUnavailable, InternError, InvalidInput, SchemaRefused
from intern.types import Message, Sampling

SECRET = "DE89 3704 0044 0532 0130 00"
OK, REFUSED, BROKEN = "200 OK", "400 Bad Request", "500 Internal Server Error"


def chunk(delta: Any, reason: str | None = None, **more: Any) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
    return event({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices} | more)


def event(body: Any) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def ask(status: str, body: bytes, kind: str = "text/event-stream", *, cut: bool = False) -> list[Token]:
    """What the engine makes of an endpoint that answers so; `cut`: it hangs up before the body's end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        length = len(body) + 10 * cut
        writer.write(f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> list[Token]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        engine = OpenAIEngine(f"http://127.0.0.1:{port}/v1", model="m", context=4096, slots=1, queue=1)
        request = EngineRequest(messages=(Message(role="user", content="hi"),), sampling=Sampling(max_tokens=9))
        try:
            return [token async for token in engine.generate(request)]
        finally:
            assert engine.load == (0, 0)
            await engine.close()
            server.close()
            await server.wait_closed()

    return asyncio.run(asyncio.wait_for(main(), 30))


def test_a_whole_answer_is_an_answer() -> None:
    tokens = ask(OK, chunk({"content": "Hi"}) + chunk({}, "stop") + DONE)
    assert [(t.text, t.finish_reason) for t in tokens] == [("Hi", None), ("", "stop")]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>Welcome to the proxy</html>", "text/html"),
        (b"", "text/event-stream"),
        (DONE, "text/event-stream"),
        (chunk({"content": "The answer begins and"}), "text/event-stream"),
        (chunk({"content": "The answer begins and"}) + DONE, "text/event-stream"),
        (b"data: {oops\n\n", "text/event-stream"),
        (event([1, 2]), "text/event-stream"),
        (event({"choices": 7}), "text/event-stream"),
        (event({"choices": [{"delta": None}]}), "text/event-stream"),
        (chunk({"content": ["Hi"]}, "stop"), "text/event-stream"),
        (chunk({"content": "Hi"}, "because"), "text/event-stream"),
        (chunk({"tool_calls": "f"}, "tool_calls"), "text/event-stream"),
        (chunk({}, "stop", usage={"prompt_tokens": "many"}), "text/event-stream"),
        (chunk({"content": "Hi"}) + event({"error": {"message": "out of memory", "code": 500}}), "text/event-stream"),
    ],
)
def test_what_is_no_whole_answer_is_a_failure(body: bytes, kind: str) -> None:
    with pytest.raises(EngineFailure):
        ask(OK, body, kind)


def test_a_connection_that_breaks_in_mid_stream_is_no_end() -> None:
    with pytest.raises((EngineFailure, EngineUnavailable)):
        ask(OK, chunk({"content": "The answer begins and"}), cut=True)


@pytest.mark.parametrize(
    ("status", "error", "kind", "told"),
    [
        (REFUSED, {"type": "BadRequestError", "code": 400}, InvalidInput, "status 400, type BadRequestError, code 400"),
        (REFUSED, {"param": "response_format"}, SchemaRefused, "param response_format"),
        (REFUSED, {"type": f"of {SECRET}", "code": SECRET}, InvalidInput, "status 400"),
        (BROKEN, {"type": "server_error"}, EngineFailure, "type server_error"),
        (OK, {"code": "boom"}, EngineFailure, "code boom"),
    ],
)
def test_an_error_is_told_by_its_kind_and_not_by_its_words(
    status: str, error: dict[str, Any], kind: type[InternError], told: str
) -> None:
    body = {"error": {"message": f'cannot parse "{SECRET}"', **error}}
    with pytest.raises(kind) as caught:
        ask(status, event(body) if status == OK else json.dumps(body).encode(), "application/json")
    assert told in caught.value.message
    assert SECRET not in "".join(traceback.format_exception(caught.value))


TEXTS = (
    "7" * 900,
    "| 12.50 | 17 % | EUR | -3,00 |\n" * 30,
    "GB82 WEST 1234 5698 7654 32 " * 30,
    json.dumps({"rates": [n / 7 for n in range(1, 60)]}, indent=1),
    "!?" * 400,
    "a1 " * 300,
    "\U0001f600" * 300,
    "用人单位应当按照国家规定为劳动者缴纳社会保险费,并依法支付工资和加班费用。" * 10,
    "Работодатель обязан предоставить работнику ежегодный оплачиваемый отпуск. " * 10,
    "Die Beschäftigten erhalten grundsätzlich dreißig Tage bezahlten Urlaub. " * 10,
    "Everybody has thirty days of leave a year, and part of it may be carried over. " * 10,
)


def test_the_estimate_of_a_text_is_an_upper_one(model_path: Path) -> None:
    async def main() -> None:
        endpoint = OpenAIEngine("http://127.0.0.1:9/v1", model="m", context=4096, slots=1, queue=1)
        exact = LlamaCppEngine(model_path, model="m", context=256, slots=1)
        await exact.start()
        try:
            for text in TEXTS:
                tokens, estimate = await exact.count_tokens(text), await endpoint.count_tokens(text)
                assert 0.99 * tokens <= estimate <= 2.7 * tokens, (text[:20], tokens, estimate)
        finally:
            await exact.close()

    asyncio.run(main())
