"""Who owns a workspace: one process at a time, said by a lock file; how others on this machine can reach it.

The owner holds an exclusive lock on data/owner.lock for its life (the system frees it at any death) and writes its
address and a token, readable by this user alone, to data/owner.json, so that the command line can work through its API.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path

from filelock import FileLock, Timeout

from intern.errors import StoreFailure, WorkspaceBusy
from intern.types import Model


class Owner(Model):
    """The process that owns the workspace. `url` is empty until its server listens."""

    pid: int
    url: str
    token: str


class Ownership:
    """Take it with `take`, announce the address with `announce`, give it back with `release`."""

    def __init__(self, data: Path) -> None:
        self._file = data / "owner.json"
        self._lock = FileLock(data / "owner.lock")
        self._data = data
        self.token = secrets.token_urlsafe(24)

    def take(self) -> None:
        """Raises WorkspaceBusy naming the owner, StoreFailure when data/ cannot be written."""
        try:
            self._data.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            owner = read_owner(self._data)
            who = f"process {owner.pid} at {owner.url}" if owner and owner.url else "another process"
            raise WorkspaceBusy(
                f"{who} owns the workspace {self._data.parent}. Stop it first, or use its API."
            ) from error
        except OSError as error:
            raise StoreFailure(f"The workspace cannot be written: {error.strerror} ({self._data}).") from error
        self.announce("")

    def announce(self, url: str) -> None:
        body = Owner(pid=os.getpid(), url=url, token=self.token).model_dump()
        temporary = self._file.with_suffix(".new")
        with open(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
            json.dump(body, file)
        os.replace(temporary, self._file)

    def release(self) -> None:
        if self._lock.is_locked:
            self._file.unlink(missing_ok=True)
            self._lock.release()


def read_owner(data: Path) -> Owner | None:
    """The owner as it announced itself, or None."""
    with contextlib.suppress(OSError, ValueError):
        return Owner.model_validate_json((data / "owner.json").read_text())
    return None


def is_owned(data: Path) -> bool:
    """Whether a living process holds the workspace."""
    if not (data / "owner.lock").exists():
        return False
    lock = FileLock(data / "owner.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
