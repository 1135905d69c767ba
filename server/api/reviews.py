"""/api/reviews: verdicts on records."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from intern.reviews import Judgement
from intern.store import records
from intern.types import Json, Verdict
from server.api.inputs import page
from server.auth import KeyedRoute, User, Work

router = APIRouter(prefix="/api/reviews", route_class=KeyedRoute, tags=["reviews"])


class NewReview(BaseModel):
    model_config = ConfigDict(extra="forbid")

    record: str
    verdict: Verdict
    correction: Json = None
    right_skill: str | None = None
    reason: Annotated[str, Field(max_length=10_000)] | None = None


@router.post("", status_code=201)
def add(body: NewReview, caller: User, workspace: Work) -> dict[str, Any]:
    """Accept, correct or reject an answer, or say that another skill was the right one. The router learns at once."""
    judgement = Judgement(**{name: getattr(body, name) for name in NewReview.model_fields})
    return workspace.reviews.add(caller, judgement).model_dump(mode="json")


@router.get("")
def listed(
    caller: User,
    workspace: Work,
    record: str | None = None,
    before: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """Reviews, the newest first."""
    with workspace.database.connect() as connection:
        found = records.list_reviews(connection, caller.team, record=record, before=before, limit=limit)
    return page([review.model_dump(mode="json") for review in found], limit)
