"""/api/doctor and /api/index: what only the installation's operators may see and do, since it spans all teams."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from intern import doctor
from server.auth import KeyedRoute, Operator, Work

router = APIRouter(prefix="/api", route_class=KeyedRoute, tags=["installation"])


@router.get("/doctor")
async def examine(caller: Operator, workspace: Work) -> dict[str, Any]:
    """Every automatic choice of this installation, with its reason, and advice where something is amiss."""
    return {"data": [finding.model_dump() for finding in await doctor.examine(workspace)]}


@router.post("/index/rebuild")
def rebuild(caller: Operator, workspace: Work) -> dict[str, Any]:
    """Make the vector index again from the database."""
    return dict(workspace.knowledge.rebuild())
