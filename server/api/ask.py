"""POST /api/ask: one request, one answer. POST /api/skills/{skill}/try: the same with everything laid open."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from intern.errors import OutputInvalid
from intern.store import records
from intern.types import Ask, Caller, Record, Route, Sampling
from server.api.inputs import Input, as_given, as_messages, input_named, output_of
from server.auth import KeyedRoute, User, Work
from server.departure import until_gone
from server.metrics import Counted
from server.openai.responses import passage_body

router = APIRouter(prefix="/api", route_class=KeyedRoute, tags=["ask"])


class AskBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    input: Input
    skill: str | None = None
    version: str | None = None


class TryBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    input: Input
    max_tokens: Annotated[int, Field(ge=1)] | None = None


@router.post("/ask")
async def ask(body: AskBody, request: Request, caller: User, workspace: Work, metrics: Counted) -> dict[str, Any]:
    """The answer to one request, routed unless a skill is named. `output` is parsed JSON for a skill with a schema."""
    question = Ask(messages=as_messages(body.input), skill=body.skill, version=body.version, caller=caller)
    with input_named():
        answer = await until_gone(request.receive, workspace.pipeline.answer(question))
    metrics.answer(caller.team, answer)
    return {
        "input": as_given(body.input),
        "output": output_of(answer),
        "skill": answer.skill,
        "adapter": answer.adapter,
        "valid": answer.refusal is None and all(choice.valid for choice in answer.choices),
        "citations": [passage_body(p) for p in answer.citations],
        "record": answer.record,
        "refusal": answer.refusal,
    }


@router.post("/skills/{skill}/try")
async def try_out(
    skill: str, body: TryBody, request: Request, caller: User, workspace: Work, metrics: Counted
) -> dict[str, Any]:
    """A try-out of a skill: what `intern-auto` would have done, passages, prompt, and the answer even when it breaks
    the schema."""
    question = Ask(
        messages=as_messages(body.input), skill=skill, sampling=Sampling(max_tokens=body.max_tokens), caller=caller
    )

    async def work() -> tuple[Route, Record, list[dict[str, Any]]]:
        await workspace.routes.ready(caller.team)
        route = await asyncio.to_thread(workspace.pipeline.route, question)
        try:
            answer = await workspace.pipeline.answer(question)
        except OutputInvalid as error:
            if error.record is None:
                raise
            return route, await asyncio.to_thread(_record, workspace, caller, error.record), []
        metrics.answer(caller.team, answer)
        citations = [passage_body(p) for p in answer.citations]
        return route, await asyncio.to_thread(_record, workspace, caller, answer.record), citations

    workspace.library.get(caller.team, skill)
    with input_named():
        route, record, citations = await until_gone(request.receive, work())
    choice = record.choices[0]
    return {
        "input": as_given(body.input),
        "route": route.model_dump(mode="json"),
        "passages": [passage_body(p) for p in record.passages],
        "prompt": [{"role": m.role, "content": m.content} for m in record.prompt],
        "output": choice.text if choice.parsed is None else choice.parsed,
        "valid": choice.valid,
        "problems": list(choice.problems),
        "record": record.id,
        "citations": citations,
        "timings": {stage: round(seconds, 6) for stage, seconds in record.timings.items()},
    }


def _record(workspace: Work, caller: Caller, record: str) -> Record:
    workspace.recorder.flush()
    with workspace.database.connect() as connection:
        return records.get_record(connection, caller.team, record)
