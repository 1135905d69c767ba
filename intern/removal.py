"""A skill is deleted: its folder and adapters go to data/trash, and what was brought or learned for it is forgotten.

In: a workspace, a skill's name. Out: nothing of the skill serves, is listed or comes back, though another may come to
have its name. Numbers of its versions stay used; records of what was asked and runs with their verdicts stay, as a
history. Whatever broke off can be done again: of a skill whose folder is gone all that is left is removed. Knows
nothing of who may ask for it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
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
    """Until this is over, no other skill gets the name (`Workspace.removing`).

    Raises NotFound when there is nothing of such a skill, Conflict when it is being deleted, StoreFailure.
    """
    if NAME.fullmatch(skill) is None:
        raise NotFound("skill", skill[:200])
    with workspace.removing(team, skill):
        known = await asyncio.to_thread(_is_known, workspace, team, skill)
        place = await asyncio.to_thread(_set_aside, workspace, team, skill)
        await _end_runs(workspace, team, skill)
        await workspace.learner.forget(team, skill)
        for _ in range(2):  # the second time what was promoted until its adapters were gone
            await workspace.deployments.forget(team, skill, by="deletion of the skill", reason="the skill is gone")
            await asyncio.to_thread(_forget, workspace, team, skill, place)
    if not known:
        workspace.library.get(team, skill)  # which says what there is
        raise NotFound("skill", skill)


def _is_known(workspace: Workspace, team: str, skill: str) -> bool:
    if (workspace.library.folder(team) / skill).is_dir():
        return True
    with workspace.database.connect() as connection:
        return store.has_learned(connection, team, skill) or skill in count_documents(connection, team)


def _set_aside(workspace: Workspace, team: str, skill: str) -> Path:
    """Take the skill away from everybody who asks; returns the place in the trash for all that is kept of it."""
    folder = workspace.library.folder(team) / skill
    trash = workspace.settings.data / "trash"
    trash.mkdir(parents=True, exist_ok=True)
    place = trash / f"{team}-{skill}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    stamped = re.compile(rf"\.{re.escape(f'{team}-{skill}')}-\d{{8}}T\d+")
    for half_moved in [there for there in folder.parent.glob(f".{team}-*") if stamped.fullmatch(there.name)]:
        _carry(half_moved, trash / half_moved.name.removeprefix("."))
    if folder.is_dir():
        _move(folder, place)
    workspace.documents.forget(team, skill)
    workspace.refresh()
    return place


async def _end_runs(workspace: Workspace, team: str, skill: str) -> None:
    """End the skill's runs that wait or go on; what others kept goes with the learner's `forget`."""

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
        half_moved = root / f".{digest}"
        if half_moved.is_dir() or (root / digest).is_dir():
            (place / "adapters").mkdir(parents=True, exist_ok=True)
        if half_moved.is_dir():
            _carry(half_moved, place / "adapters" / digest)
        elif (root / digest).is_dir():
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
            raise _refused(folder, error) from error
    hidden = folder.with_name(f".{to.name}")  # whoever lists such folders passes over such names
    try:
        folder.rename(hidden)
    except OSError as error:
        raise _refused(folder, error) from error
    try:
        _carry(hidden, to)
    except StoreFailure:
        if not to.exists():  # else only the rest of the removal is left to do
            hidden.rename(folder)
        raise


def _carry(hidden: Path, to: Path) -> None:
    """Copy a folder that nobody sees any more to another volume, and remove it. `to` is there when all of it is: an
    attempt that broke off later only removes. Raises StoreFailure."""
    partial = to.with_name(f".{to.name}")
    try:
        if not to.exists():
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(hidden, partial, symlinks=True)
            partial.rename(to)
        if hidden.is_symlink():
            hidden.unlink()
        else:
            shutil.rmtree(hidden)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise _refused(hidden, error) from error


def _refused(folder: Path, error: OSError) -> StoreFailure:
    log.error("the folder %s could not be moved", folder.name, exc_info=error)
    return StoreFailure("The skill's files cannot be moved to data/trash; the log says why.")
