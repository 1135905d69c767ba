"""/api/deployments: which adapter serves each skill, and its change: promotion, rollback, back to the base model."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from intern.errors import InvalidInput
from intern.store import learning as store
from intern.types import Deployment
from server.api.adapters import find_adapter
from server.auth import Admin, KeyedRoute, User, Work

BASE = "base"
PREVIOUS = "previous"

router = APIRouter(prefix="/api/deployments", route_class=KeyedRoute, tags=["deployments"])


class NewDeployment(BaseModel):
    """`adapter` is skill@vN, `base` (no adapter), or `previous` (what served before)."""

    model_config = ConfigDict(extra="forbid")

    skill: str
    adapter: str
    reason: Annotated[str, Field(max_length=10_000)] = ""


@router.get("")
def listed(caller: User, workspace: Work) -> dict[str, Any]:
    """What serves each skill of the team; a skill that never had an adapter is served by the base model."""
    with workspace.database.connect() as connection:
        found = {d.skill: d for d in store.list_deployments(connection, caller.team)}
    names = sorted({*found, *(skill.name for skill in workspace.library.all(caller.team))})
    return {"data": [_shown(workspace, caller.team, name, found.get(name)) for name in names]}


@router.get("/{skill}")
def one(skill: str, caller: User, workspace: Work) -> dict[str, Any]:
    """What serves one skill, and every change so far, the newest first."""
    with workspace.database.connect() as connection:
        found = store.get_deployment(connection, caller.team, skill)
        history = store.deployment_history(connection, caller.team, skill)
    if found is None:
        workspace.library.get(caller.team, skill)
    return {**_shown(workspace, caller.team, skill, found), "history": [_change(change) for change in history]}


@router.post("")
async def change(body: NewDeployment, caller: Admin, workspace: Work) -> dict[str, Any]:
    """Let another adapter serve a skill. It is verified, loaded and tried first: when this fails, nothing changed.

    Requests under way finish on what they started with.
    """
    team, by = caller.team, caller.key or ""
    workspace.library.get(team, body.skill)
    if body.adapter == PREVIOUS:
        done = await workspace.deployments.rollback(team, body.skill, by=by, reason=body.reason or "rolled back")
    elif body.adapter == BASE:
        done = await workspace.deployments.promote(team, body.skill, None, by=by, reason=body.reason)
    else:
        version = await workspace.threads.promptly(_version, workspace, team, body)
        done = await workspace.deployments.promote(team, body.skill, version, by=by, reason=body.reason)
    return _shown(workspace, team, body.skill, done)


def _version(workspace: Work, team: str, body: NewDeployment) -> int:
    """The version that is meant. Raises NotFound; InvalidInput for an adapter of another skill."""
    if "@" not in body.adapter:
        raise InvalidInput(
            f"adapter must be like {body.skill}@v3, or '{BASE}' or '{PREVIOUS}', not '{body.adapter[:200]}'.",
            param="adapter",
        )
    adapter = find_adapter(workspace, team, body.adapter)
    if adapter.skill != body.skill:
        raise InvalidInput(
            f"{adapter.name} is an adapter of the skill '{adapter.skill}', not of '{body.skill}'.", param="adapter"
        )
    return adapter.version


def _shown(workspace: Work, team: str, skill: str, found: Deployment | None) -> dict[str, Any]:
    """`problem` says why the adapter that should serve does not."""
    problem = workspace.deployments.problems.get((team, skill))
    if found is None:
        return {"skill": skill, **dict.fromkeys(("adapter", "previous", "changed", "by", "reason")), "problem": None}
    return {"skill": skill, **_change(found), "problem": problem}


def _change(deployment: Deployment) -> dict[str, Any]:
    """A deployment with names in place of versions; null is the base model."""
    body = deployment.model_dump(mode="json", include={"changed", "by", "reason"})
    names = {
        key: None if version is None else f"{deployment.skill}@v{version}"
        for key, version in (("adapter", deployment.version), ("previous", deployment.previous))
    }
    return {**names, **body}
