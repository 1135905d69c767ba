"""A skill is deleted: its folder and adapters go to data/trash, and what was brought or learned for it is forgotten.

In: a workspace, a skill's name. Out: nothing of the skill serves, is listed or comes back, though another may come to
have its name. Numbers of its versions stay used; records of what was asked and runs with their verdicts stay, as a
history. After a crash in between it can be done again: a skill whose folder is gone is deleted as long as anything is
left of it. Knows nothing of who may ask for it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import shutil
from datetime import UTC, datetime
from pathlib import Path

from intern.errors import Conflict, InvalidInput, NotFound, StoreFailure
from intern.learning.adapters.shipped import named_below
from intern.skill import NAME
from intern.store import learning as store
from intern.store.documents import count_documents
from intern.types import Run
from intern.workspace import Workspace

log = logging.getLogger(__name__)


async def remove(workspace: Workspace, team: str, skill: str) -> None:
    """Raises NotFound when there is nothing of such a skill, StoreFailure."""
    place = await asyncio.to_thread(_set_aside, workspace, team, skill)
    await _end_runs(workspace, team, skill)
    await workspace.learner.forget(team, skill)
    await workspace.deployments.forget(team, skill, by="deletion of the skill", reason="the skill is gone")
    await asyncio.to_thread(_forget, workspace, team, skill, place)


def _set_aside(workspace: Workspace, team: str, skill: str) -> Path:
    """Take the skill away from everybody who asks; returns the place in the trash for all that is kept of it."""
    folder = workspace.library.folder(team) / skill
    there = NAME.fullmatch(skill) is not None and folder.is_dir()
    if not there and not _left(workspace, team, skill):
        workspace.library.get(team, skill)
        raise NotFound("skill", skill)
    trash = workspace.settings.data / "trash"
    trash.mkdir(parents=True, exist_ok=True)
    place = trash / f"{team}-{skill}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    if there:
        _move(folder, place)
    workspace.documents.forget(team, skill)
    workspace.refresh()
    return place


def _left(workspace: Workspace, team: str, skill: str) -> bool:
    with workspace.database.connect() as connection:
        return store.has_learned(connection, team, skill) or skill in count_documents(connection, team)


async def _end_runs(workspace: Workspace, team: str, skill: str) -> None:
    """End the skill's runs, also those that failed and could go on."""

    def going() -> list[Run]:
        with workspace.database.connect() as connection:
            return store.list_runs(connection, team, skill=skill, states=("queued", "running"))

    for run in await asyncio.to_thread(going):
        try:
            await workspace.learner.cancel(team, run.id)
        except InvalidInput:  # it ended by itself
            continue
        except Conflict as error:  # without its skill it promotes nothing, wherever it goes on
            log.warning("skill %s is deleted: %s", skill, error.message)


def _forget(workspace: Workspace, team: str, skill: str, place: Path) -> None:
    """Files first: what the database still names is found again when this breaks off."""
    root = workspace.settings.home / "adapters"
    with workspace.database.connect() as connection:
        digests = [adapter.digest for adapter in store.list_adapters(connection, team, skill=skill)]
        others = store.named_elsewhere(connection, digests, team, skill)
    for digest in sorted({*digests} - others - {*named_below(root)}):
        if (root / digest).is_dir():
            (place / "adapters").mkdir(parents=True, exist_ok=True)
            _move(root / digest, place / "adapters" / digest)
    workspace.parts.memory(team, skill).forget()
    with workspace.database.begin() as connection:
        store.forget_skill(connection, team, skill)
    workspace.refresh()


def _move(folder: Path, to: Path) -> None:
    """Move a folder, also to another volume: it stays as a whole or goes as a whole. Raises StoreFailure."""
    try:
        folder.rename(to)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    hidden = folder.with_name(f".{to.name}")  # whoever lists such folders passes over such names
    folder.rename(hidden)
    try:
        shutil.copytree(hidden, to, symlinks=True)
    except OSError as error:
        shutil.rmtree(to, ignore_errors=True)
        hidden.rename(folder)
        log.exception("the folder %s could not be moved", folder.name)
        raise StoreFailure("The skill's files cannot be moved to data/trash; the log says why.") from error
    if hidden.is_symlink():
        hidden.unlink()
    else:
        shutil.rmtree(hidden)
