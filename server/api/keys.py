"""/api/keys: API keys. An admin makes and revokes those of the own team; one of the default team, those of any."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from intern.errors import NotAllowed
from intern.store import keys
from intern.types import DEFAULT_TEAM, Caller
from server.auth import Admin, KeyedRoute, KeyRing, Work

router = APIRouter(prefix="/api/keys", route_class=KeyedRoute, tags=["keys"])


class NewKey(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    role: keys.Scope = "user"
    team: str | None = None


def _seen(caller: Caller) -> str | None:
    """The team whose keys a caller deals with; None for all."""
    return None if caller.team == DEFAULT_TEAM else caller.team


@router.get("")
def listed(caller: Admin, workspace: Work) -> dict[str, Any]:
    """Every key, revoked ones too, without its secret."""
    with workspace.database.connect() as connection:
        return {"data": [key.model_dump() for key in keys.list_keys(connection, _seen(caller))]}


@router.post("", status_code=201)
def create(body: NewKey, caller: Admin, workspace: Work) -> dict[str, Any]:
    """A new key. Its secret is in this answer and nowhere else."""
    team = caller.team if body.team is None else body.team
    if _seen(caller) not in (None, team):
        raise NotAllowed("Keys of another team are made with an admin key of the default team.")
    workspace.library.folder(team)
    with workspace.database.begin() as connection:
        key, secret = keys.create_key(connection, team=team, name=body.name, role=body.role)
    return {**key.model_dump(), "secret": secret}


@router.delete("/{id}", status_code=204)
def revoke(id: str, request: Request, caller: Admin, workspace: Work) -> Response:
    """Revoke a key. It stops working at once."""
    with workspace.database.begin() as connection:
        keys.revoke_key(connection, id, _seen(caller))
    ring: KeyRing = request.app.state.keys
    ring.forget()
    return Response(status_code=204)
