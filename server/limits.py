"""What a request may be before anything looks into it: bodies of a bounded size, and known host names. Pure ASGI.

In: settings' numbers. Out: 413 or 400 in the API's error shape. Bodies are counted as they arrive, since a chunked one
announces no length; the content type decides which bound holds, and uploads have a larger one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import shape

FORM_BYTES = 65_536  # what a form adds around its file
_DRAINED_BYTES = 8_000_000  # read and dropped after a refusal, so that the client sees the answer and not a broken pipe
_DRAINED_SECONDS = 5.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


class _TooLarge(Exception):
    """Ends the application's reading; it never leaves this module."""


class BodyLimit:
    """Refuses bodies over `json_bytes`, and forms over `upload_bytes` and a little."""

    def __init__(self, app: ASGIApp, *, json_bytes: int, upload_bytes: int) -> None:
        self.app = app
        self.json_bytes = json_bytes
        self.form_bytes = upload_bytes + FORM_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_form = headers.get("content-type", "").lower().startswith("multipart/form-data")
        limit = self.form_bytes if is_form else self.json_bytes
        announced = headers.get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            await _refuse(limit, scope, receive, send)
            return
        seen = 0
        started = over = ended = False

        async def counted() -> Message:
            nonlocal seen, over, ended
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                ended = not message.get("more_body", False)
                if seen > limit:
                    over = True
                    raise _TooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            if over and not started:  # the application took the broken body for something else
                raise _TooLarge
            started = True
            await send(message)

        try:
            await self.app(scope, counted, watched)
        except _TooLarge:
            if started:
                raise
            await _refuse(limit, scope, None if ended else receive, send)


async def _refuse(limit: int, scope: Scope, receive: Receive | None, send: Send) -> None:
    """Answer 413, after what is left to `receive` (None: nothing) was dropped."""
    if receive is not None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAINED_SECONDS):
                await _drain(receive)
    content = shape(
        f"The body is larger than the {limit} bytes that are allowed.", "invalid_request_error", code="body_too_large"
    )
    await JSONResponse(content, 413, headers={"connection": "close"})(scope, _nothing, send)


async def _drain(receive: Receive) -> None:
    drained = 0
    while drained < _DRAINED_BYTES:
        message = await receive()
        drained += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


class KnownHosts:
    """Refuses requests whose Host header is none of `hosts`, so that no other name can be pointed at this server.

    This machine's own names are always known: the command line works through them.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str]) -> None:
        self.app = app
        self.hosts = _LOOPBACK | {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or _name(Headers(scope=scope).get("host", "")) in self.hosts:
            await self.app(scope, receive, send)
            return
        content = shape("This server does not answer to that host name.", "invalid_request_error", code="unknown_host")
        await JSONResponse(content, 400)(scope, receive, send)


def _name(host: str) -> str:
    """A Host header without its port."""
    name, _, port = host.strip().lower().rpartition(":")
    return name if name and port.isdigit() else host.strip().lower()
