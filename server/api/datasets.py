"""/api/datasets: what runs trained on, frozen. GET /api/skills/{skill}/readiness: what a run would train on now."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Query

from intern.errors import TrainingUnavailable
from intern.learning.loop.collecting import gathered
from intern.learning.train import process as training
from intern.store import learning as store
from intern.types import Dataset, Variant
from server.auth import KeyedRoute, User, Work

router = APIRouter(prefix="/api", route_class=KeyedRoute, tags=["datasets"])


@router.get("/datasets")
def listed(
    caller: User,
    workspace: Work,
    skill: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """Datasets, the newest first, with how many examples were left out for which reason."""
    with workspace.database.connect() as connection:
        found = store.list_datasets(connection, caller.team, skill=skill, limit=limit)
    return {"data": [_shown(dataset) for dataset in found]}


@router.get("/datasets/{dataset}")
def one(dataset: str, caller: User, workspace: Work) -> dict[str, Any]:
    """One dataset, with every example that was left out and why, and the adapters that were trained on it."""
    with workspace.database.connect() as connection:
        found = store.get_dataset(connection, caller.team, dataset)
        adapters = store.list_adapters(connection, caller.team, skill=found.skill)
    dropped = [row.model_dump() for row in found.dropped]
    made = [adapter.name for adapter in adapters if adapter.dataset == found.id]
    return {**_shown(found), "dropped": dropped, "adapters": made}


@router.get("/skills/{skill}/readiness")
async def readiness(skill: str, caller: User, workspace: Work, variant: Variant = "original") -> dict[str, Any]:
    """The dataset as a run would make it now, what it lacks, and why nothing can be trained here, if so.

    Stores nothing; takes seconds to minutes.
    """
    return await workspace.threads.at_length(caller.team, _readiness, workspace, caller.team, skill, variant)


def _readiness(workspace: Work, team: str, skill: str, variant: Variant) -> dict[str, Any]:
    _, found = gathered(workspace.parts, team, workspace.library.get(team, skill), variant)
    return {"skill": skill, "variant": variant, **found.model_dump(mode="json"), "unavailable": _unavailable(workspace)}


def _unavailable(workspace: Work) -> str | None:
    """Why no training can begin on this installation, or None."""
    if workspace.parts.base is None:
        return "The engine in use takes no adapters of this platform; use INTERN_ENGINE=llamacpp."
    try:
        training.check_installed()
    except TrainingUnavailable as error:
        return error.message
    return None


def _shown(dataset: Dataset) -> dict[str, Any]:
    reasons = Counter(row.reason for row in dataset.dropped)
    return {**dataset.model_dump(mode="json", exclude={"team", "dropped"}), "reasons": dict(reasons)}
