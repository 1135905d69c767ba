"""When a client leaves, the engine stops, the record says so, and nothing is left running."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.requests import ClientDisconnect

from intern.errors import EngineFailure
from server.departure import EventStream, until_gone


def body(text: str = "hello there", **more: Any) -> dict[str, Any]:
    return {"model": "intern/chat", "messages": [{"role": "user", "content": text}], **more}


def last_record(server: Any) -> dict[str, Any]:
    return dict(server.http("user").get("/api/records?limit=1").json()["data"][0])


def test_leaving_a_stream_stops_the_engine(server: Any, talking: Any, hold: Any, until: Any) -> None:
    talking.script = [{"text": "one"}, {"text": " two"}, hold]
    with server.http("user").stream("POST", "/v1/chat/completions", json=body(stream=True)) as answer:
        lines = answer.iter_lines()
        while "two" not in next(lines):
            pass
        assert talking.load == (1, 0)
    until(lambda: talking.closed_early == 1)
    record = last_record(server)
    assert record["error"].startswith("cancelled")
    assert record["choices"][0]["text"] == "one two"


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_before_the_first_token_stops_the_engine(
    server: Any, talking: Any, hold: Any, until: Any, stream: bool
) -> None:
    talking.script = [hold]
    with pytest.raises(httpx2.ReadTimeout):
        server.http("user").post("/v1/chat/completions", json=body(stream=stream), timeout=0.3)
    until(lambda: talking.closed_early == 1)
    assert last_record(server)["error"].startswith("cancelled")


def test_leaving_with_several_choices_stops_them_all(server: Any, talking: Any, hold: Any, until: Any) -> None:
    talking.script = [{"text": "one"}, hold]
    with pytest.raises(httpx2.ReadTimeout):
        server.http("user").post("/v1/chat/completions", json=body(n=3), timeout=0.3)
    until(lambda: talking.closed_early == 3)


@pytest.mark.parametrize(("path", "more"), [("/api/ask", {"skill": "chat"}), ("/api/skills/chat/try", {})])
def test_leaving_the_own_api_stops_the_engine(
    server: Any, talking: Any, hold: Any, until: Any, path: str, more: dict[str, Any]
) -> None:
    talking.script = [hold]
    with pytest.raises(httpx2.ReadTimeout):
        server.http("user").post(path, json={"input": "hello there", **more}, timeout=0.3)
    until(lambda: talking.closed_early == 1)


def test_leaving_the_queue_gives_the_place_back(server: Any, talking: Any, hold: Any, until: Any) -> None:
    talking.script = [hold]
    build = server.http("user").build_request
    streams = [build("POST", "/v1/chat/completions", json=body(stream=True)) for _ in range(6)]  # four slots

    async def leave_all() -> None:
        async with httpx2.AsyncClient() as client:
            sending = [asyncio.create_task(client.send(request)) for request in streams]
            while talking.load != (4, 2):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)

    asyncio.run(leave_all())
    until(lambda: talking.load == (0, 0))


def test_a_repair_that_fails_stops_the_others(server: Any, until: Any) -> None:
    def held(_: Any) -> str:
        server.engine.pause.clear()
        return "never said"

    server.says("no json", "no json", EngineFailure("it broke"), held)
    request = {"model": "intern/mood", "messages": [{"role": "user", "content": "a day"}], "n": 2}
    assert server.http("user").post("/v1/chat/completions", json=request).status_code == 502
    until(lambda: server.engine.load == (0, 0))


class Line:
    """The two ends of a connection: `gone` is set when the client leaves."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.sent: list[Any] = []

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)


def leftovers() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


def test_work_that_is_done_first_gives_its_result_or_its_error() -> None:
    async def scenario() -> None:
        async def right() -> int:
            return 7

        async def wrong() -> int:
            raise ValueError("no")

        line = Line()
        assert await until_gone(line.receive, right()) == 7
        with pytest.raises(ValueError, match="no"):
            await until_gone(line.receive, wrong())
        assert leftovers() == set()

    asyncio.run(scenario())


def test_work_is_cancelled_and_cleaned_up_before_the_departure_is_told() -> None:
    async def scenario() -> None:
        line, steps = Line(), []

        async def slow() -> None:
            try:
                line.gone.set()
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                steps.append("cleaned up")

        with pytest.raises(ClientDisconnect):
            await until_gone(line.receive, slow())
        assert steps == ["cleaned up"]
        assert leftovers() == set()

    asyncio.run(scenario())


def test_a_server_that_stops_cancels_the_work_too() -> None:
    async def scenario() -> None:
        line, started, ended = Line(), asyncio.Event(), []

        async def slow() -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

        task = asyncio.create_task(until_gone(line.receive, slow()))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended
        assert leftovers() == set()

    asyncio.run(scenario())


@pytest.mark.parametrize("where", ["generating", "sending"])
def test_an_event_stream_closes_its_source_when_the_client_leaves(where: str) -> None:
    async def scenario() -> None:
        line, closed = Line(), []

        async def events() -> AsyncGenerator[bytes, None]:
            try:
                yield b"data: 1\n\n"
                if where == "generating":
                    line.gone.set()
                    await asyncio.Event().wait()
                yield b"data: 2\n\n"
            finally:
                closed.append(True)

        async def send(message: Any) -> None:
            await line.send(message)
            if where == "sending" and message.get("body"):  # a reader that takes nothing any more
                line.gone.set()
                await asyncio.Event().wait()

        until = asyncio.get_running_loop().time() + 60
        await EventStream(events(), {}, until=until)({"type": "http"}, line.receive, send)
        assert closed
        assert [m.get("body") for m in line.sent] == [None, b"data: 1\n\n"]
        assert leftovers() == set()

    asyncio.run(scenario())


def test_a_stream_that_is_not_read_is_closed_when_its_time_is_up(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        line, closed = Line(), []

        async def events() -> AsyncGenerator[bytes, None]:
            try:
                for _ in range(1_000_000):
                    yield b"data: 1\n\n"
            finally:
                closed.append(True)

        async def send(message: Any) -> None:
            if message.get("body"):
                await asyncio.Event().wait()

        until = asyncio.get_running_loop().time() + 0.1
        async with asyncio.timeout(10):
            await EventStream(events(), {}, until=until)({"type": "http"}, line.receive, send)
        assert closed
        assert leftovers() == set()

    asyncio.run(scenario())
    assert "did not read" in caplog.text


def test_a_client_that_stops_reading_gives_its_slot_back(launch: Any, tmp_path: Path, until: Any) -> None:
    server, stop = launch(tmp_path, deadline=1.0)
    try:
        server.engine.turns.slots = 1
        server.says("word " * 1_500 + "x" * 30_000_000)  # more than what lies between server and client can hold
        content = json.dumps(body(stream=True, max_tokens=1_800)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.keys['user']}\r\n"
        with socket.create_connection((server.url.split("/")[2].split(":")[0], int(server.url.split(":")[2]))) as line:
            sizes = f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
            line.sendall((head + sizes).encode() + content)
            line.recv(100)
            until(lambda: server.engine.load == (1, 0))
            until(lambda: server.engine.load == (0, 0))
            server.says("hello")
            answer = server.http("blue").post("/api/ask", json={"input": "hello blue"})
            assert answer.json()["output"] == "hello"
    finally:
        stop()


def test_a_stream_that_was_read_to_its_end_is_recorded_as_such(server: Any) -> None:
    server.says("one two")
    assert "[DONE]" in server.http("user").post("/v1/chat/completions", json=body(stream=True)).text
    record = last_record(server)
    assert (record["error"], record["choices"][0]["valid"]) == (None, True)
