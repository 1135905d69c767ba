"""/api/adapters: the versions that were trained of a skill, where they come from, and whether their files are sound."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError

from intern.errors import NotFound
from intern.learning.adapters.adapter import verify
from intern.learning.adapters.manifest import MANIFEST, Manifest
from intern.learning.adapters.shapes import read_shape
from intern.store import learning as store
from intern.types import Adapter
from server.auth import KeyedRoute, User, Work

_NAME = re.compile(r"([a-z0-9-]+)@v([1-9][0-9]{0,8})")

router = APIRouter(prefix="/api/adapters", route_class=KeyedRoute, tags=["adapters"])


@router.get("")
def listed(caller: User, workspace: Work, skill: str | None = None) -> dict[str, Any]:
    """Every adapter, by skill, the newest first; `serves` marks those in service."""
    with workspace.database.connect() as connection:
        found = store.list_adapters(connection, caller.team, skill=skill)
        serving = {(d.skill, d.version) for d in store.list_deployments(connection, caller.team)}
    return {"data": [_shown(adapter, (adapter.skill, adapter.version) in serving) for adapter in found]}


@router.get("/{name}")
def one(name: str, caller: User, workspace: Work) -> dict[str, Any]:
    """One adapter, `skill@vN`, with its manifest and the verdict on it."""
    adapter = find_adapter(workspace, caller.team, name)
    manifest, problem = read_manifest(workspace, adapter)
    with workspace.database.connect() as connection:
        deployment = store.get_deployment(connection, caller.team, adapter.skill)
        verdict = store.get_verdict(connection, caller.team, adapter.run) if adapter.run else None
    return {
        **_shown(adapter, deployment is not None and deployment.version == adapter.version),
        "manifest": manifest.model_dump(mode="json") if manifest is not None else None,
        "problem": problem,
        "verdict": verdict,
    }


@router.post("/{name}/verify")
async def check(name: str, caller: User, workspace: Work) -> dict[str, Any]:
    """Check an adapter's files as they are checked before each load: hashes, tensors, base model. 422 says what is
    wrong."""
    return await workspace.threads.at_length(caller.team, _check, workspace, caller.team, name)


def _check(workspace: Work, team: str, name: str) -> dict[str, Any]:
    adapter = find_adapter(workspace, team, name)
    base = workspace.base
    found = verify(
        folder_of(workspace, adapter),
        base=base.sha256 if base is not None else None,
        shape=read_shape(Path(base.path)) if base is not None else None,
    )
    return {
        "name": adapter.name,
        "digest": found.digest,
        "base": found.manifest.base.model_dump(),
        "files": {file: about.model_dump() for file, about in found.manifest.files.items()},
    }


def find_adapter(workspace: Work, team: str, name: str) -> Adapter:
    """The adapter called `skill@vN`. Raises NotFound, also for another team's and for a name of another form."""
    known = _NAME.fullmatch(name)
    if known is None:
        raise NotFound("adapter", name[:200], "Adapters are called SKILL@vN.")
    with workspace.database.connect() as connection:
        return store.get_adapter(connection, team, known[1], int(known[2]))


def folder_of(workspace: Work, adapter: Adapter) -> Path:
    return workspace.parts.adapters_folder / adapter.digest


def read_manifest(workspace: Work, adapter: Adapter) -> tuple[Manifest | None, str | None]:
    """(the manifest, None), or (None, why there is none). It is for people to read: nothing is checked by it."""
    try:
        text = (folder_of(workspace, adapter) / MANIFEST).read_bytes()
        return Manifest.model_validate_json(text), None
    except OSError as error:
        return None, f"The adapter's files cannot be read: {error.strerror}."
    except ValidationError:
        return None, "The adapter's manifest cannot be used; `intern adapters verify` says more."


def _shown(adapter: Adapter, serves: bool) -> dict[str, Any]:
    return {"name": adapter.name, **adapter.model_dump(mode="json", exclude={"team"}), "serves": serves}
