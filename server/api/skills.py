"""/api/skills: the team's skills, their making and their end."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from intern.errors import NotFound
from intern.measures import Measures
from intern.removal import remove
from intern.skill import Generation, Learning, Prompting, Retrieval, ReviewRule, Skill, write_skill
from intern.store import records
from intern.store.documents import count_documents
from intern.types import Json, Metric
from server.auth import Admin, KeyedRoute, User, Work
from server.body import at_most

log = logging.getLogger(__name__)

FIT_SECONDS = 20.0  # at most; the skill can be asked by name from the beginning
_LOOK_SECONDS = 0.05

SECTIONS = ("retrieval", "prompting", "generation", "review", "learning", "evaluation")

router = APIRouter(prefix="/api/skills", route_class=KeyedRoute, tags=["skills"])


class NewSkill(BaseModel):
    """What stands in a skill folder, as one body. `schema` is a JSON Schema; without it the skill answers in text."""

    model_config = ConfigDict(extra="forbid")

    name: str
    title: str
    description: str
    instructions: str
    schema_: dict[str, Json] | None = Field(default=None, alias="schema")
    retrieval: Retrieval | None = None
    prompting: Prompting | None = None
    generation: Generation | None = None
    review: ReviewRule | None = None
    learning: Learning | None = None
    evaluation: Measures | None = None
    metrics: Annotated[dict[str, Metric] | None, at_most(1_000, "fields")] = None
    examples: Annotated[list[dict[str, Json]], Field(fail_fast=True), at_most(10_000, "examples")] = []
    utterances: Annotated[list[str], Field(fail_fast=True), at_most(10_000, "utterances")] = []

    def spec(self) -> dict[str, Json]:
        """What goes into skill.yaml: what was said, and no defaults."""
        named = {"title", "description", "instructions", "metrics", *SECTIONS}
        return self.model_dump(mode="json", include=named, exclude_unset=True, exclude_none=True)


@router.get("")
def listed(caller: User, workspace: Work) -> dict[str, Any]:
    """Every skill of the team, and every folder that should be one and cannot be read, with its problems."""
    return {"data": _summaries(workspace, caller.team)}


@router.post("", status_code=201)
async def create(body: NewSkill, caller: Admin, workspace: Work) -> dict[str, Any]:
    """Make a skill. It can be asked, and is routed to, when this answers."""

    workspace.check_free(caller.team, body.name)

    def write() -> None:
        write_skill(
            workspace.library.folder(caller.team),
            body.name,
            body.spec(),
            schema=body.schema_,
            examples=body.examples,
            utterances=body.utterances,
        )
        workspace.refresh()

    await asyncio.to_thread(write)
    await _fit(workspace, caller.team, body.name)
    return await asyncio.to_thread(one, body.name, caller, workspace)


@router.get("/{skill}")
def one(skill: str, caller: User, workspace: Work) -> dict[str, Any]:
    """One skill, with its instructions and everything its folder says."""
    summary = next((s for s in _summaries(workspace, caller.team) if s["name"] == skill), None)
    if summary is None:
        workspace.library.get(caller.team, skill)
        raise NotFound("skill", skill)
    if not summary["title"]:
        return summary
    known = workspace.library.get(caller.team, skill)
    spec = known.spec.model_dump(mode="json")
    return {
        **summary,
        "instructions": known.spec.instructions,
        "spec": {key: spec[key] for key in SECTIONS},
        "metrics": dict(known.metrics),
        "digest": known.digest,
    }


@router.delete("/{skill}", status_code=204)
async def delete(skill: str, caller: Admin, workspace: Work) -> Response:
    """Delete a skill: its folder and adapters go to data/trash, and what was brought or learned for it is forgotten."""
    await remove(workspace, caller.team, skill)
    await _fit(workspace, caller.team)
    return Response(status_code=204)


async def _fit(workspace: Work, team: str, skill: str | None = None) -> None:
    """Have the router fitted to the team's skills now, and not at the next look at their folders; wait until requests
    can be routed to `skill`.

    With thousands of texts the whole of its training takes longer than a caller should wait. It serves from the
    nearest examples much sooner, and the rest happens behind the answer.
    """
    workspace.routes.outdate(team)
    fitting = asyncio.ensure_future(workspace.threads.at_length(team, workspace.routes.catch_up))
    _fitting.add(fitting)
    fitting.add_done_callback(_fitted)
    with suppress(TimeoutError):
        async with asyncio.timeout(FIT_SECONDS):
            while skill is not None and not fitting.done() and skill not in workspace.routes.known(team):
                await asyncio.wait({fitting}, timeout=_LOOK_SECONDS)


_fitting: set[asyncio.Future[None]] = set()


def _fitted(done: asyncio.Future[None]) -> None:
    _fitting.discard(done)
    if not done.cancelled() and (error := done.exception()) is not None:
        log.error("the router could not be fitted", exc_info=error)


def _summaries(workspace: Work, team: str) -> list[dict[str, Any]]:
    problems = {name: found for (_, name), found in workspace.library.problems(team).items()}
    with workspace.database.connect() as connection:
        examples = records.count_examples(connection, team)
        learned = records.list_utterances(connection, team)
        documents = count_documents(connection, team)
    utterances: dict[str, int] = {}
    for name, _, _ in learned:
        if name is not None:
            utterances[name] = utterances.get(name, 0) + 1
    rows = [
        {
            "name": skill.name,
            "title": skill.spec.title,
            "description": skill.spec.description,
            "schema": skill.schema.schema if skill.schema else None,
            "retrieval": skill.spec.retrieval.enabled,
            "examples": len(skill.examples) + examples.get(skill.name, (0, 0))[0],
            "heldout": _held_out(skill) + examples.get(skill.name, (0, 0))[1],
            "utterances": len(skill.utterances) + utterances.get(skill.name, 0),
            "documents": documents.get(skill.name, 0),
            "problems": list(problems.pop(skill.name, ())),
        }
        for skill in workspace.library.all(team)
    ]
    rows += [_broken(name, list(found)) for name, found in problems.items()]
    return sorted(rows, key=lambda row: str(row["name"]))


def _held_out(skill: Skill) -> int:
    return sum(example.split == "heldout" for example in skill.examples)


def _broken(name: str, problems: list[str]) -> dict[str, Any]:
    counts = dict.fromkeys(("examples", "heldout", "utterances", "documents"), 0)
    about = {"name": name, "title": "", "description": "", "schema": None, "retrieval": False}
    return {**about, **counts, "problems": problems}
