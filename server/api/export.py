"""POST /api/adapters/{name}/export: an adapter as files for other programs, below the workspace's data/exports."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse, Response

from intern.errors import InternError
from intern.learning.export.exporter import Exporter
from intern.learning.export.formats import Format
from intern.learning.train.job import Event
from intern.workspace import Workspace
from server import errors
from server.auth import Admin, KeyedRoute, Work
from server.departure import EventStream, until_gone
from server.openai.responses import DONE, event

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 15.0  # proxies close a connection on which nothing comes for a minute

router = APIRouter(prefix="/api/adapters", route_class=KeyedRoute, tags=["adapters"])

Events = AsyncGenerator[Event, None]


class NewExport(BaseModel):
    """`folder` is a name below the team's exports, no path. `stream`: tell what happens, as server-sent events."""

    model_config = ConfigDict(extra="forbid")

    format: Format = "peft"
    folder: str | None = None
    force: bool = False
    stream: bool = False


async def exporter_of(request: Request) -> Exporter:
    """The one exporter of this server: exports wait for each other."""
    state = request.app.state
    if not hasattr(state, "exporter"):
        workspace: Workspace = state.workspace
        settings = workspace.settings
        state.exporter = Exporter(
            workspace.parts,
            workspace.library,
            workspace.engine,
            settings.data / "exports",
            gpu_layers=settings.gpu_layers,
        )
    return state.exporter  # type: ignore[no-any-return]


@router.post("/{name}/export", response_model=None)
async def export(
    name: str,
    body: NewExport,
    request: Request,
    caller: Admin,
    workspace: Work,
    exporter: Annotated[Exporter, Depends(exporter_of)],
) -> Response:
    """Export `skill@vN`, or what serves a skill. It takes minutes; a client that leaves ends it, and nothing is left.

    The answer says where the folder lies on the server, and how well the export agrees with the adapter.
    """
    events = exporter.export(caller.team, name, format=body.format, folder=body.folder, force=body.force)
    if not body.stream:
        return JSONResponse(await until_gone(request.receive, _last(events)))
    try:  # what fails at once has a proper status
        first = await until_gone(request.receive, _next(events))
    except BaseException:
        await events.aclose()
        raise
    until = asyncio.get_running_loop().time() + workspace.settings.deadline
    return EventStream(_frames(events, first), {}, until=until)


async def _last(events: Events) -> dict[str, Any]:
    made: dict[str, Any] = {}
    async with aclosing(events):
        async for told in events:
            made = told.numbers
    return made


async def _next(events: Events) -> Event | None:
    return await anext(events, None)


async def _frames(events: Events, told: Event | None) -> AsyncGenerator[bytes, None]:
    """Each event as a frame; a comment where nothing comes for a while, which also shows that a client has gone."""
    waiting: asyncio.Task[Event | None] | None = None
    try:
        while told is not None:
            yield event(told.model_dump(mode="json", exclude_defaults=True))
            waiting = asyncio.create_task(_next(events))
            while not (await asyncio.wait({waiting}, timeout=KEEP_ALIVE_SECONDS))[0]:
                yield b": nothing new\n\n"
            told, waiting = waiting.result(), None
        yield DONE
    except InternError as error:
        log.warning("an export ended in an error: %s", error.code)
        yield event(errors.body(error))
    except Exception as error:
        log.exception("an export ended in an unexpected error")
        yield event(errors.body(error))
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await events.aclose()
