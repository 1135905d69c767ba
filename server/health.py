"""/healthz: the process lives. /readyz: it can serve. /metrics: what it counted, for keys of the default team.

The first two are open, so they name no skill, no team and no path, and what they ask of the parts is remembered for a
second. They wait for nothing that takes long: the parts are asked in the threads for short work.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from intern.errors import InternError, NotAllowed
from intern.store.engine import describe
from intern.types import DEFAULT_TEAM
from intern.workspace import Workspace
from server.auth import KeyedRoute, User
from server.metrics import CONTENT_TYPE, Counted

log = logging.getLogger(__name__)

REMEMBERED_SECONDS = 1.0
_PATIENCE_SECONDS = 5.0

router = APIRouter(tags=["health"])
counted = APIRouter(route_class=KeyedRoute, tags=["health"])


class Readiness:
    """What the parts say of themselves, asked at most once a second however many ask."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = asyncio.Lock()
        self._until = 0.0
        self._known: tuple[bool, dict[str, str]] = (False, {})
        self._asked: dict[str, asyncio.Task[str]] = {}

    async def parts(self) -> tuple[bool, dict[str, str]]:
        """(ready, what each part says). Never raises."""
        async with self._lock:
            if time.monotonic() >= self._until:
                self._known = await self._ask()
                self._until = time.monotonic() + REMEMBERED_SECONDS
            return self._known

    def forget(self) -> None:
        """Ask anew at the next question."""
        self._until = 0.0

    async def _ask(self) -> tuple[bool, dict[str, str]]:
        engine, store, index = await asyncio.gather(
            _outcome("engine", self._engine()),
            _outcome("store", self._answer("store", partial(describe, self._workspace.database))),
            _outcome("index", self._answer("index", self._index)),
        )
        parts = {"engine": engine[1], "store": store[1], "index": index[1], "skills": self._skills()}
        return engine[0] and store[0] and index[0], parts

    async def _answer(self, part: str, question: Callable[[], str]) -> str:
        """What a part says, in a thread. One that still owes an answer is not asked again: whatever hangs holds one of
        the threads that keys are looked up in, and no more."""
        task = self._asked.get(part)
        if task is None or task.done():
            task = self._asked[part] = asyncio.create_task(self._workspace.threads.promptly(question))
            task.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
        await asyncio.wait({task})  # unlike `await task`, leaves it running when the patience ends
        return task.result()

    async def _engine(self) -> str:
        problem = await self._workspace.engine.health()
        if problem is not None:
            raise _NotReady(problem)
        return "ok"

    def _index(self) -> str:
        """An index that nothing needed yet is opened with its first document."""
        if "knowledge" not in self._workspace.__dict__:
            return "ok (not opened yet)"
        problem = self._workspace.knowledge.health()
        if problem is not None:
            log.warning("the index is not ready: %s", problem)
            raise _NotReady("cannot be reached")
        return "ok"

    def _skills(self) -> str:
        library = self._workspace.library
        count = sum(len(library.all(team)) for team in library.teams)
        broken = len(library.problems())
        return f"{count} serve" + (f", {broken} folders cannot be read" if broken else "")


class _NotReady(Exception):
    """A part's own words, fit for everyone."""


async def _outcome(part: str, question: Awaitable[str]) -> tuple[bool, str]:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return True, await question
    except _NotReady as error:
        return False, str(error)
    except TimeoutError:
        return False, f"does not answer within {_PATIENCE_SECONDS:g} s"
    except InternError as error:
        return False, error.code
    except Exception as error:
        log.warning("%s is not ready: %s", part, error)
        return False, type(error).__name__


async def readiness_of(request: Request) -> Readiness:
    readiness: Readiness = request.app.state.readiness
    return readiness


Ready = Annotated[Readiness, Depends(readiness_of)]


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process lives and its event loop turns."""
    return {"status": "ok"}


@router.get("/readyz", response_model=None)
async def readyz(readiness: Ready) -> Response:
    """Whether requests can be answered: 200 or 503, with what each part says. A broken skill alone does not matter."""
    ready, parts = await readiness.parts()
    return JSONResponse({"ready": ready, "parts": parts}, 200 if ready else 503)


@counted.get("/metrics", response_model=None)
def metrics(caller: User, metrics: Counted) -> Response:
    """Prometheus' text format. It spans all teams, so it takes a key of the default team."""
    if caller.team != DEFAULT_TEAM:
        raise NotAllowed(f"This needs a key of the team '{DEFAULT_TEAM}', which runs the installation.")
    return Response(metrics.text(), media_type=CONTENT_TYPE)
