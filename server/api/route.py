"""POST /api/route: which skill would serve a request. POST /api/skills/{skill}/retrieve: what it would answer from."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from intern.errors import DeadlineExceeded, InvalidInput
from intern.types import Ask, last_user_text
from server.api.inputs import Input, as_given, as_messages, input_named
from server.auth import KeyedRoute, User, Work
from server.openai.responses import passage_body

router = APIRouter(prefix="/api", route_class=KeyedRoute, tags=["route"])


class RouteBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    input: Input


class RetrieveBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    input: Input
    limit: Annotated[int, Field(ge=1, le=50)] | None = None


@router.post("/route")
async def route(body: RouteBody, caller: User, workspace: Work) -> dict[str, Any]:
    """The decision alone, with its calibrated confidence, the candidates and the nearest example."""
    await _ready(workspace, workspace.routes.ready(caller.team))
    with input_named():
        asked = Ask(messages=as_messages(body.input), caller=caller)
        decision = await asyncio.to_thread(workspace.pipeline.route, asked)
    return {
        "input": as_given(body.input),
        "skill": decision.skill,
        "confidence": decision.confidence,
        "candidates": [{"skill": c.skill, "score": c.score} for c in decision.candidates],
        "reason": decision.reason,
    }


@router.post("/skills/{skill}/retrieve")
async def retrieve(skill: str, body: RetrieveBody, caller: User, workspace: Work) -> dict[str, Any]:
    """The passages of a skill's documents for a text or a conversation, the most relevant first."""
    known = workspace.library.get(caller.team, skill)
    messages = as_messages(body.input)
    if not last_user_text(messages).strip():
        raise InvalidInput("There is no user message with text.", param="input")
    query = body.input if isinstance(body.input, str) else [m for m in messages if m.role != "system"]
    limit = body.limit or known.spec.retrieval.passages
    await _ready(workspace, workspace.documents.ready(caller.team, skill))
    found = await asyncio.to_thread(workspace.documents.retrieve, caller.team, skill, query, limit=limit)
    return {"input": as_given(body.input), "passages": [passage_body(p) for p in found]}


async def _ready(workspace: Work, ready: Awaitable[None]) -> None:
    """Wait for what is being read for the first time, no longer than a request may take."""
    seconds = workspace.settings.deadline
    try:
        async with asyncio.timeout(seconds):
            await ready
    except TimeoutError as error:
        raise DeadlineExceeded(f"The skills or documents were not read in {seconds:g} s. Try again later.") from error
