"""/api/records and /api/persons: what was generated, and its deletion with everything derived from it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from intern.store import records
from server.api.inputs import page
from server.auth import Admin, KeyedRoute, User, Work

router = APIRouter(prefix="/api", route_class=KeyedRoute, tags=["records"])


@router.get("/records")
def listed(
    caller: User,
    workspace: Work,
    skill: str | None = None,
    before: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """Records, the newest first."""
    workspace.recorder.flush()
    with workspace.database.connect() as connection:
        found = records.list_records(connection, caller.team, skill=skill, before=before, limit=limit)
    return page([record.model_dump(mode="json") for record in found], limit)


@router.get("/records/{id}")
def one(id: str, caller: User, workspace: Work) -> dict[str, Any]:
    """One record: prompt, passages, raw and parsed output, timings, and what it was made with."""
    workspace.recorder.flush()
    with workspace.database.connect() as connection:
        return records.get_record(connection, caller.team, id).model_dump(mode="json")


@router.delete("/records/{id}")
async def delete(id: str, caller: Admin, workspace: Work) -> dict[str, Any]:
    """Delete a record with its reviews, and what the router, the examples, the datasets and the runs have of it.

    Says which datasets it was in, which adapters were trained on those, and which runs were cancelled.
    """
    erased = await workspace.erasure.record(caller.team, id)
    workspace.routes.outdate(caller.team)
    return erased.model_dump(mode="json", exclude={"counts", "folders"})


@router.delete("/persons/{person:path}")
async def delete_person(person: str, caller: Admin, workspace: Work) -> dict[str, Any]:
    """Delete everything kept of an end user (the `user` of their requests, the `person` of examples); says how many
    rows of what, which datasets held some of it, which adapters were trained on those, which runs were cancelled, and
    which skills' folders have examples of theirs, which only the folders' owners can take out."""
    erased = await workspace.erasure.person(caller.team, person)
    workspace.routes.outdate(caller.team)
    return {**erased.counts, **erased.model_dump(mode="json", exclude={"counts"})}
