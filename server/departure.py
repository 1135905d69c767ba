"""Work that ends when its client leaves, or the server stops: for one answer, and for a stream of server-sent events.

In: an ASGI `receive` whose body was read already, and a coroutine or an async generator. When the client goes first,
the work is cancelled, its clean-up is waited for, and ClientDisconnect is raised; nothing is left running. A client
that stops reading its stream has left too, once the request's time is up. A server that stops cancels the task that
answers: then a stream ends in an event that says so.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from server.errors import shape

log = logging.getLogger(__name__)

T = TypeVar("T")

STOPPING = shape("The server is stopping. Try again in a moment.", "server_error", code="server_stopping")
_FAREWELL_SECONDS = 1.0  # to write the last event to a client that may not be reading


async def until_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Raises ClientDisconnect when the client leaves before there is one."""
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        for job in (task, watcher):
            job.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events from `events`, which is closed in any case, before the response is over.

    `until`, in the event loop's time, is when a client must have taken what comes before; then it gets only a moment
    for each event. Whatever makes the events is held up by a client that does not read.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], headers: Mapping[str, str], *, until: float) -> None:
        self.events = events
        self.until = until
        self.status_code = 200
        self.background = None
        # Proxies such as nginx hold events back unless they are told not to.
        self.init_headers({**headers, "cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False
        loop = asyncio.get_running_loop()

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            try:
                async with asyncio.timeout_at(max(self.until, loop.time() + _FAREWELL_SECONDS)):
                    await send(message)
            except TimeoutError as error:
                raise ClientDisconnect from error

        try:
            await until_gone(receive, self._write(sent))
        except ClientDisconnect as error:
            if error.__cause__ is not None:
                log.warning("a client did not read its stream in time and was left")
        except asyncio.CancelledError:
            if not begun:
                raise
            last = b"data: " + json.dumps(STOPPING).encode() + b"\n\n"
            with suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL_SECONDS):
                    await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _write(self, send: Send) -> None:
        async with aclosing(self.events) as events:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
