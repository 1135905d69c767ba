"""/api/skills/{skill}/documents: what a skill answers from."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, UploadFile
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from intern.errors import Conflict, DocumentRefused, InvalidInput, NotAllowed, NotFound
from intern.knowledge import Ingested, Upload
from intern.store.documents import list_origins
from intern.store.keys import Key
from intern.workspace import FOLDER_SOURCE
from server.auth import Entered, KeyedRoute, User, Work
from server.body import at_most, is_text

MAX_NAME = 500
MAX_SOURCE = 1_000
MAX_KEPT = 100_000
SHOWN = {"name", "source", "sha256", "media_type", "characters", "passages", "created"}

router = APIRouter(prefix="/api/skills/{skill}/documents", route_class=KeyedRoute, tags=["documents"])


class Prune(BaseModel):
    model_config = ConfigDict(extra="forbid")

    source: str
    keep: Annotated[list[str], Field(fail_fast=True), at_most(MAX_KEPT, "names")]


@router.get("")
def listed(skill: str, caller: User, workspace: Work) -> dict[str, Any]:
    """Every document of a skill, in order of name."""
    workspace.library.get(caller.team, skill)
    found = workspace.knowledge.documents(caller.team, skill)
    return {"data": [document.model_dump(mode="json", include=SHOWN) for document in found]}


@router.post("")
async def upload(
    skill: str, file: list[UploadFile], key: Entered, workspace: Work, source: Annotated[str, Form()] = "upload"
) -> dict[str, Any]:
    """Bring documents: each `file` part is one, named by its file name. `source` says where they come from."""
    workspace.library.get(key.team, skill)
    _check_source(source)
    uploads = []
    refused: dict[int, dict[str, Any]] = {}
    for number, part in enumerate(file):
        name = part.filename or ""
        if problem := name_problem(name):
            refused[number] = {"name": name[:MAX_NAME], "status": "refused", "passages": 0, "problem": problem}
        else:
            uploads.append(Upload(name=name, data=await part.read()))
    taken = iter(await workspace.threads.at_length(key.team, _ingest, workspace, key, skill, uploads, source))
    data = [refused.get(number) or next(taken) for number in range(len(file))]
    if len(data) == 1 and data[0]["status"] == "refused":
        raise DocumentRefused(str(data[0]["problem"]), document=str(data[0]["name"]))
    return {"data": data}


def name_problem(name: str) -> str | None:
    """What is wrong with a document's name, or None. It is no path on this machine, but it looks like one to people."""
    if not name or len(name) > MAX_NAME:
        return f"the file's name must have 1 to {MAX_NAME} characters"
    if not is_text(name) or any(ord(character) < 32 or ord(character) == 127 for character in name):
        return "the file's name holds characters that cannot be shown"
    if "\\" in name or name.startswith("/") or any(part in ("", ".", "..") for part in name.split("/")):
        return "the file's name must be a plain relative path: no '..', no '.', no '\\', no '/' first or last"
    return None


def _check_source(source: str) -> None:
    if not source or len(source) > MAX_SOURCE or not is_text(source):
        raise InvalidInput(f"source must have 1 to {MAX_SOURCE} characters.", param="source")
    if source == FOLDER_SOURCE:
        raise InvalidInput(f"The source '{FOLDER_SOURCE}' is the skill's own folder; choose another.", param="source")


def _ingest(workspace: Work, key: Key, skill: str, uploads: list[Upload], source: str) -> list[dict[str, Any]]:
    workspace.documents.ensure(key.team, skill)
    with workspace.database.connect() as connection:
        origins = list_origins(connection, key.team, skill)
    own = {upload.name for upload in uploads if origins.get(upload.name, ("",))[0] == FOLDER_SOURCE}
    free = [upload for upload in uploads if upload.name not in own]
    results = iter(workspace.knowledge.ingest(key.team, skill, free, source=source, contributor=key.id) if free else ())
    return [_kept_in_folder(upload.name) if upload.name in own else _shown(next(results)) for upload in uploads]


def _shown(result: Ingested) -> dict[str, Any]:
    return {"name": result.name, "status": result.status, "passages": result.passages, "problem": result.problem}


def _kept_in_folder(name: str) -> dict[str, Any]:
    problem = "a document of this name lies in the skill's folder; change it there"
    return {"name": name, "status": "refused", "passages": 0, "problem": problem}


@router.post("/prune")
def prune(skill: str, body: Prune, key: Entered, workspace: Work) -> dict[str, Any]:
    """Remove the documents of `source` that are not among `keep`: an admin any, others those they brought."""
    workspace.library.get(key.team, skill)
    _check_source(body.source)
    with workspace.database.connect() as connection:
        origins = list_origins(connection, key.team, skill)
    keep = set(body.keep)
    _check_rights(key, {who for name, (source, who) in origins.items() if source == body.source and name not in keep})
    return {"removed": sorted(workspace.knowledge.prune(key.team, skill, body.source, body.keep))}


@router.get("/{name:path}")
def one(skill: str, name: str, caller: User, workspace: Work) -> dict[str, Any]:
    """One document with its parsed text, which citations' offsets point into."""
    workspace.library.get(caller.team, skill)
    text = workspace.knowledge.text(caller.team, skill, name)
    found = next((d for d in workspace.knowledge.documents(caller.team, skill) if d.name == name), None)
    if found is None:
        raise NotFound("document", name)
    return {**found.model_dump(mode="json", include=SHOWN), "text": text}


@router.delete("/{name:path}", status_code=204)
def delete(skill: str, name: str, key: Entered, workspace: Work) -> Response:
    """Remove a document: an admin any, others those they brought. One of the skill's folder is removed there."""
    workspace.library.get(key.team, skill)
    with workspace.database.connect() as connection:
        origins = list_origins(connection, key.team, skill)
    if name not in origins:
        raise NotFound("document", name)
    source, contributor = origins[name]
    if source == FOLDER_SOURCE:
        raise Conflict(f"The document '{name}' lies in the skill's folder; delete the file there.")
    _check_rights(key, {contributor})
    workspace.knowledge.remove(key.team, skill, [name])
    return Response(status_code=204)


def _check_rights(key: Key, contributors: set[str | None]) -> None:
    if key.role != "admin" and contributors - {key.id}:
        raise NotAllowed("Only an admin key, or the one that brought it, can remove a document.")
