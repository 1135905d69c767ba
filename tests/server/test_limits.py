"""Bodies are bounded however they come, and only known host names are answered."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from server.limits import BodyLimit, KnownHosts

LIMIT = 100_000  # of the test server's JSON bodies
UPLOAD = 200_000


def chunked(size: int) -> Iterator[bytes]:
    for _ in range(size // 1_000):
        yield b" " * 1_000


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/ask", "/api/skills", "/nowhere"])
@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_is_a_413(server: Any, path: str, announced: bool) -> None:
    content: Any = b" " * (LIMIT + 1) if announced else chunked(LIMIT + 5_000)
    answer = server.http("user").post(path, content=content, headers={"content-type": "application/json"})
    if path == "/nowhere" and not announced:
        assert answer.status_code == 404  # nobody reads it
        return
    assert answer.status_code == 413
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "body_too_large")
    assert str(LIMIT) in error["message"]
    assert answer.headers["x-intern-request-id"].startswith("req_")


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_of_the_largest_size_is_read(server: Any, announced: bool) -> None:
    content: Any = b" " * LIMIT if announced else chunked(LIMIT)
    answer = server.http("user").post("/api/ask", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400


def test_a_large_upload_is_a_413_and_a_smaller_one_is_read(server: Any) -> None:
    http = server.http("user")
    path = "/api/skills/chat/documents"
    answer = http.post(path, files={"file": ("a.txt", b"x" * (UPLOAD + 200_000))})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert http.post(path, files={"file": ("a.txt", b"word " * (UPLOAD // 5))}).status_code == 200
    assert http.delete(f"{path}/a.txt").status_code == 204


def test_a_client_that_is_still_sending_sees_the_refusal(server: Any) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        size = 5_000_000
        line.sendall(f"POST /api/ask HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n".encode())
        line.sendall(b" " * size)
        assert line.recv(100).startswith(b"HTTP/1.1 413")


async def _drive(app: Any, scope: dict[str, Any], *bodies: bytes) -> list[Any]:
    sent: list[Any] = []
    parts = [{"type": "http.request", "body": b, "more_body": i < len(bodies) - 1} for i, b in enumerate(bodies)]

    async def receive() -> Any:
        if not parts:
            await asyncio.Event().wait()  # as a server does while the client waits for its answer
        return parts.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await asyncio.wait_for(app({"type": "http", "headers": [], **scope}, receive, send), 10)
    return sent


@pytest.mark.parametrize("bodies", [(b"123456",), (b"12345", b"6"), (b"12345", b"6", b"7", b"")])
@pytest.mark.parametrize("announced", [True, False])
def test_the_refusal_waits_for_nothing_that_will_not_come(announced: bool, bodies: tuple[bytes, ...]) -> None:
    async def reader(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass

    headers = [(b"content-length", b"6")] if announced else []
    limited = BodyLimit(reader, json_bytes=5, upload_bytes=5)
    sent = asyncio.run(_drive(limited, {"headers": headers}, *bodies))
    assert sent[0]["status"] == 413


def test_an_application_that_swallows_the_refusal_cannot_answer_in_its_place() -> None:
    async def careless(scope: Any, receive: Any, send: Any) -> None:
        try:
            while (await receive()).get("more_body"):
                pass
        except Exception:
            await send({"type": "http.response.start", "status": 200, "headers": []})

    sent = asyncio.run(_drive(BodyLimit(careless, json_bytes=5, upload_bytes=5), {}, b"1234", b"1234", b""))
    assert sent[0]["status"] == 413


def test_other_protocols_pass() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    asyncio.run(_drive(BodyLimit(app, json_bytes=5, upload_bytes=5), {"type": "lifespan"}))
    asyncio.run(_drive(KnownHosts(app, hosts=()), {"type": "lifespan"}))
    assert seen == ["lifespan", "lifespan"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("intern.example.com", 200),
        ("Intern.Example.com:8000", 200),
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("[::1]:8000", 200),
        ("evil.example.com", 400),
        ("intern.example.com.evil.com", 400),
        ("", 400),
        ("evil.com/intern.example.com", 400),
    ],
)
def test_only_known_hosts_are_answered(host: str, status: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    guarded = KnownHosts(app, hosts=("intern.example.com",))
    sent = asyncio.run(_drive(guarded, {"headers": [(b"host", host.encode())], "path": "/"}, b""))
    assert sent[0]["status"] == status
