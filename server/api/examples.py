"""/api/examples: right outputs for inputs, from a skill's folder and from people."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from intern.errors import InvalidInput, NotAllowed, NotFound
from intern.schema import OutputSchema
from intern.skill import parse_example
from intern.store import records
from intern.types import Example, Json, new_id
from server.auth import Entered, KeyedRoute, User, Work

LEARNED_AT_ONCE = 64  # inputs that the router takes in before the answer; more wait for its next fit, seconds later

router = APIRouter(prefix="/api/examples", route_class=KeyedRoute, tags=["examples"])


class NewExamples(BaseModel):
    model_config = ConfigDict(extra="forbid")

    skill: str
    examples: Annotated[list[dict[str, Json]], Field(min_length=1, max_length=10_000)]


@router.get("")
def listed(skill: Annotated[str, Query()], caller: User, workspace: Work) -> dict[str, Any]:
    """Every example of a skill: those of its folder first."""
    found = list(workspace.library.get(caller.team, skill).examples)
    with workspace.database.connect() as connection:
        found += records.list_examples(connection, caller.team, skill)
    return {"data": [{**example.model_dump(mode="json"), "skill": skill} for example in found]}


@router.post("", status_code=201)
def add(body: NewExamples, caller: User, workspace: Work) -> dict[str, Any]:
    """Add examples, all or none. One that is there already, input and output alike, is not added twice."""
    known = workspace.library.get(caller.team, body.skill)
    examples = [_example(row, number, known.schema, caller.key) for number, row in enumerate(body.examples)]
    new = []
    ids = []
    with workspace.database.begin() as connection:
        stored = records.list_examples(connection, caller.team, known.name)
        there = {_content(example): example.id for example in (*known.examples, *stored)}
        for example in examples:
            if (same := there.setdefault(_content(example), example.id)) == example.id:
                records.add_example(connection, caller.team, known.name, example)
                new.append(example)
            ids.append(same)
    for example in new[:LEARNED_AT_ONCE]:
        workspace.routes.learn(caller.team, example.text, skill=known.name)
    workspace.routes.outdate(caller.team)
    return {"added": len(new), "data": [{"id": ident} for ident in ids]}


def _example(row: dict[str, Json], number: int, schema: OutputSchema | None, contributor: str | None) -> Example:
    try:
        example = parse_example(row, schema)
    except InvalidInput as error:
        param = f"examples.{number}" + (f".{error.param}" if error.param else "")
        raise InvalidInput(f"examples.{number}: {error.message}. Nothing was added.", param=param) from error
    changes = {"id": new_id("ex"), "provenance": "api", "contributor": contributor}
    return example.model_copy(update=changes)


def _content(example: Example) -> str:
    return json.dumps(example.model_dump(mode="json", include={"input", "output"}))


@router.delete("/{id}", status_code=204)
def delete(id: str, skill: Annotated[str, Query()], key: Entered, workspace: Work) -> Response:
    """Delete an example that did not come from the skill's folder: an admin any, others those they brought."""
    with workspace.database.begin() as connection:
        found = next((e for e in records.list_examples(connection, key.team, skill) if e.id == id), None)
        if found is None:
            raise NotFound("example", id, "Examples of the skill's folder are deleted there.")
        if key.role != "admin" and found.contributor != key.id:
            raise NotAllowed("Only an admin key, or the one that brought it, can delete an example.")
        records.delete_example(connection, key.team, skill, id)
    workspace.routes.outdate(key.team)
    return Response(status_code=204)
