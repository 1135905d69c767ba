"""Around every request: its id, a line in the log, its counts, its span, an answer when the code broke. Pure ASGI.

The id is made here (UUIDv7) and never taken over from a caller; it is in the header `x-intern-request-id`, in every log
line of the request and in its span. Route templates are logged and counted, not paths, since paths can name people. A
request that is cancelled because the server stops is answered by a 503, unless its answer has begun.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import nullcontext
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from intern.types import new_id
from server import errors
from server.departure import STOPPING
from server.metrics import Metrics
from server.tracing import Tracing

log = logging.getLogger(__name__)

REQUEST_ID = "x-intern-request-id"
UNMATCHED = "(none)"


class Observed:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, tracing: Tracing | None = None) -> None:
        self.app = app
        self.metrics = metrics
        self.tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = new_id("req")
        span: Any = self.tracing.request(Headers(scope=scope)) if self.tracing else nullcontext()
        with structlog.contextvars.bound_contextvars(request_id=request_id), span as current:
            await self._serve(scope, receive, send, request_id, current)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, request_id: str, span: Any) -> None:
        started = time.perf_counter()
        status: int | None = None

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        try:
            await self.app(scope, receive, sent)
        except asyncio.CancelledError:  # the server stops and the grace is over; a client that leaves cancels nothing
            if status is not None:
                raise
            headers = {"retry-after": "1", "connection": "close"}
            await JSONResponse(STOPPING, 503, headers=headers)(scope, receive, sent)
        except Exception as error:
            log.exception("unexpected error")
            if status is not None:  # half an answer is out: only closing the connection can say that it is broken
                raise
            await errors.response(error)(scope, receive, sent)
        finally:
            seconds = time.perf_counter() - started
            method, route = self._report(scope, errors.CLIENT_LEFT if status is None else status, seconds)
            if span is not None:
                span.update_name(f"{method} {route}")
                span.set_attributes({"http.request.method": method, "http.route": route})
                span.set_attributes({"http.response.status_code": status or 0, "intern.request_id": request_id})

    def _report(self, scope: Scope, status: int, seconds: float) -> tuple[str, str]:
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        route = getattr(scope.get("route"), "path", UNMATCHED)
        self.metrics.request(method, route, status, seconds)
        level = logging.DEBUG if route in _QUIET else logging.INFO
        fields = {"method": method, "route": route, "status": status, "seconds": round(seconds, 4)}
        log.log(level, "request", extra=fields)
        return method, route


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
