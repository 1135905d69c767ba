"""/api/records and /api/persons: what was generated, and its deletion with everything derived from it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

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


@router.delete("/records/{id}", status_code=204)
def delete(id: str, caller: Admin, workspace: Work) -> Response:
    """Delete a record with its reviews, and what the router and the examples learned from it."""
    workspace.recorder.flush()
    with workspace.database.begin() as connection:
        records.delete_record(connection, caller.team, id)
    workspace.routes.outdate(caller.team)
    return Response(status_code=204)


@router.delete("/persons/{person:path}")
def delete_person(person: str, caller: Admin, workspace: Work) -> dict[str, int]:
    """Delete everything kept of an end user (the `user` of their requests); says how many rows of what."""
    workspace.recorder.flush()
    with workspace.database.begin() as connection:
        counts = records.delete_person(connection, caller.team, person)
    workspace.routes.outdate(caller.team)
    return counts
