"""Sends files to a skill's documents: what is new or changed, in batches, and nothing else.

In: sources (a folder with the files below it, or one file). Out: a summary of what was added, replaced, unchanged,
removed and refused. The server's manifest (name, source, SHA-256) decides what is sent, so a repeated run costs reading
the files. Knows nothing of parsing; the server says what it refuses.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intern.cli.connection import Api, segment
from intern.errors import InvalidInput, NotAllowed, NotAuthenticated

BATCH_FILES = 16
BATCH_BYTES = 4_000_000


@dataclass(frozen=True)
class Source:
    """`files` are (document name, path), `name` says where from. `whole`: it is a folder, with all files below it."""

    name: str
    files: tuple[tuple[str, Path], ...]
    whole: bool


def find_sources(paths: Sequence[Path], piped: Path | None = None) -> list[Source]:
    """A Source for each path. Raises InvalidInput: a path that is not there, a folder without files, a name twice."""
    sources: list[Source] = []
    taken: dict[str, Path] = {}
    for path in paths:
        if path.is_dir():
            files = tuple((file.relative_to(path).as_posix(), file) for file in _walk(path))
            if not files:
                raise InvalidInput(f"The folder '{path}' holds no files, so its documents were left as they are.")
            sources.append(Source(str(path.resolve()), files, whole=True))
        elif path.exists():
            where = "stdin" if path == piped else str(path.resolve().parent)
            sources.append(Source(where, ((path.name, path),), whole=False))
        else:
            raise InvalidInput(f"'{path}' does not exist.")
        for name, file in sources[-1].files:
            if not file.samefile(taken.setdefault(name, file)):
                raise InvalidInput(f"'{taken[name]}' and '{file}' would both be called '{name}'; give them apart.")
    return sources


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in sorted(files) if not name.startswith("."))


@contextmanager
def spool(name: str | None) -> Iterator[Path | None]:
    """Standard input as a file called `name`, for a while. None when there is no name."""
    if name is None:
        yield None
        return
    if name != Path(name).name or name.startswith("."):
        raise InvalidInput(f"--name must be a plain file name, not '{name}'.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(sys.stdin.buffer.read())
        yield path


class Upload:
    """The documents of one skill being brought up to date. Raises InternError when the server cannot be worked with."""

    def __init__(self, api: Api, skill: str, *, force: bool = False) -> None:
        self._api = api
        self._path = f"/api/skills/{segment(skill)}/documents"
        self._force = force
        self._there = {document["name"]: document for document in api.get(self._path)["data"]}
        self._kept: dict[str, set[str]] = {}
        self._counts = {"added": 0, "replaced": 0, "unchanged": 0}
        self._removed: list[str] = []
        self._refused: list[dict[str, str]] = []

    @property
    def summary(self) -> dict[str, Any]:
        """Counts of added, replaced and unchanged; names of the removed; name and problem of the refused."""
        return {**self._counts, "removed": self._removed, "refused": self._refused}

    def send(self, source: Source, step: Callable[[], object]) -> None:
        """Bring every file of `source` that is new or changed; `step` is called once a file."""
        batch: list[tuple[str, Path]] = []
        size = 0
        # What is there in the folder is kept, also if it is refused now: an older good version is better than none.
        self._kept.setdefault(source.name, set()).update(name for name, _ in source.files)
        for name, path in source.files:
            try:
                length, same = path.stat().st_size, self._is_there(source, name, path)
            except OSError as error:
                self._refuse(name, f"cannot be read: {error.strerror}")
                step()
                continue
            if same:
                self._counts["unchanged"] += 1
                step()
                continue
            if batch and (len(batch) >= BATCH_FILES or size + length > BATCH_BYTES):
                self._send(source, batch, step)
                batch, size = [], 0
            batch.append((name, path))
            size += length
        if batch:
            self._send(source, batch, step)

    def prune(self, source: Source) -> None:
        """Remove the documents that this source brought before and that it no longer has."""
        keep = sorted(self._kept[source.name])
        if any(d["source"] == source.name and name not in keep for name, d in self._there.items()):
            answer = self._api.post(f"{self._path}/prune", {"source": source.name, "keep": keep})
            self._removed += answer["removed"]

    def _refuse(self, name: str, problem: str) -> None:
        while problem.startswith(f"{name}: "):  # the server's errors name the document, and so does the summary
            problem = problem.removeprefix(f"{name}: ")
        self._refused.append({"name": name, "problem": problem})

    def _is_there(self, source: Source, name: str, path: Path) -> bool:
        document = self._there.get(name)
        if self._force or document is None or document["source"] != source.name:
            return False
        with path.open("rb") as file:
            return bool(hashlib.file_digest(file, "sha256").hexdigest() == document["sha256"])

    def _send(self, source: Source, batch: list[tuple[str, Path]], step: Callable[[], object]) -> None:
        with ExitStack() as stack:
            files: list[tuple[str, Any]] = []
            for name, path in batch:
                try:
                    files.append((name, stack.enter_context(path.open("rb"))))
                except OSError as error:
                    self._refuse(name, f"cannot be read: {error.strerror}")
                    step()
            if not files:
                return
            try:
                results = self._api.upload(self._path, files, {"source": source.name})["data"]
            except (NotAllowed, NotAuthenticated):
                raise
            except InvalidInput as error:
                # One bad file must not keep the others out: send them one by one to learn which it is.
                results = None
                if len(files) == 1:
                    results = [{"name": files[0][0], "status": "refused", "problem": error.message}]
        if results is None:
            for pair in batch:
                self._send(source, [pair], step)
            return
        for result in results:
            if result["status"] == "refused":
                self._refuse(result["name"], result["problem"])
            else:
                self._counts[result["status"]] += 1
            self._kept[source.name].add(result["name"])
            step()
