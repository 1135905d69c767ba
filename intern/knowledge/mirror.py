"""Keeps the vector index in step with SQL: every change in both, in an order that no crash can spoil.

In: changes as functions on a connection; the question from which version to answer. SQL commits first, the index
follows, and the skill is marked as in step last; whoever finds the mark behind compares ids and repairs. Ids are made
of what vectors depend on (see `ingest.passage_id`): equal ids mean an equal index. It knows no files and no rankings.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from sqlalchemy.engine import Connection, Engine

from intern.knowledge import catalogue
from intern.knowledge.catalogue import UNKNOWN
from intern.knowledge.chunk import embedding_text
from intern.knowledge.index import Space, VectorIndex
from intern.models.embedder import Embedder, Vectors
from intern.types import Model

log = logging.getLogger(__name__)

# What one change does in the transaction; returns the vectors to put by id, and the ids to delete.
Change = Callable[[Connection], tuple[dict[str, bytes], set[str]]]

_PASSAGES = 256  # passages a step while repairing


class Rebuilt(Model):
    """What `rebuild` went through; `embedded` counts the passages whose vectors had to be made anew."""

    skills: int
    passages: int
    embedded: int


class Mirror:
    """The vector index as SQL's mirror image. Thread-safe; several processes may share database and index."""

    def __init__(self, database: Engine, embedder: Embedder, index: VectorIndex) -> None:
        self._database = database
        self._embedder = embedder
        self._index = index
        self._locks: defaultdict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)
        self._guard = threading.Lock()
        self._checked: set[tuple[str, str]] = set()

    def space(self, team: str, skill: str) -> Space:
        return Space(team, skill, self._embedder.id)

    def ready(self, team: str, skill: str) -> int:
        """The version to answer from, the vector index compared with SQL if that is due."""
        key = (team, skill)
        with self._database.connect() as connection:
            version, indexed = catalogue.versions(connection, team, skill)
        if not version or (version == indexed and key in self._checked):
            return version
        lock = self._lock(key)
        first = key not in self._checked
        # A writer holds the lock between its commit and the index: no need to wait, unless nothing was checked yet.
        if lock.acquire(blocking=first):
            try:
                if not first or key not in self._checked:  # else another thread has just done it
                    self._repair(team, skill)
            finally:
                lock.release()
        return version

    def change(self, team: str, skill: str, change: Change) -> None:
        """One committed change, then the same in the vector index: (vectors to put by id, ids to delete)."""
        space = self.space(team, skill)
        with self._writing(team, skill):
            with self._database.begin() as connection:
                version = catalogue.bump(connection, team, skill)
                added, removed = change(connection)
            if added:
                self._index.put(space, list(added), np.stack([unpack(vector) for vector in added.values()]))
            self._index.delete(space, removed)
            with self._database.begin() as connection:
                # Only if the index was in step before, and nobody else wrote meanwhile: else it has to be compared.
                if not catalogue.mark(connection, team, skill, version, version=version, after=version - 1):
                    catalogue.mark(connection, team, skill, UNKNOWN)

    def clear(self, team: str, skill: str) -> None:
        """Drop the space of a skill without passages: an empty one still costs memory."""
        with self._writing(team, skill), self._database.begin() as connection:
            # The version stays: another process may hold this skill's passages under it.
            if not catalogue.passage_ids(connection, team, skill):
                self._index.drop(self.space(team, skill))
                catalogue.mark(connection, team, skill, UNKNOWN)

    def rebuild(self, team: str | None = None) -> Rebuilt:
        """Throw away the vector index (of one team, or all) and make it anew from SQL."""
        with self._database.connect() as connection:
            skills = catalogue.skills(connection, team)
        passages = embedded = 0
        for key in skills:
            with self._writing(*key):
                self._checked.discard(key)  # so that retrievals wait until the index is whole again
                with self._database.begin() as connection:
                    catalogue.mark(connection, *key, UNKNOWN)
                self._index.drop(self.space(*key))
                embedded += self._repair(*key, expected=True)
            passages += len(self._index.ids(self.space(*key)))
        for space in self._index.spaces():
            strange = space.embedder != self._embedder.id or (space.team, space.skill) not in skills
            if strange and team in (None, space.team):
                self._drop_strange(space)
        return Rebuilt(skills=len(skills), passages=passages, embedded=embedded)

    def _drop_strange(self, space: Space) -> None:
        with self._writing(space.team, space.skill):
            with self._database.connect() as connection:  # its first documents may have come in meanwhile
                held = (space.team, space.skill) in catalogue.skills(connection, space.team)
            if space.embedder != self._embedder.id or not held:
                self._index.drop(space)
                self._checked.discard((space.team, space.skill))

    def _repair(self, team: str, skill: str, *, expected: bool = False) -> int:
        """Make the vector index hold exactly SQL's passages; how many had to be embedded anew. Needs the lock."""
        embedded = self._embed_anew(team, skill)
        space = self.space(team, skill)
        settled = False
        while not settled:
            with self._database.connect() as connection:
                version, indexed = catalogue.versions(connection, team, skill)
                wanted = catalogue.passage_ids(connection, team, skill)
            held = self._index.ids(space)
            missing, extra = wanted - held, held - wanted
            if missing or extra:
                # Said first: a writer in another process that finishes meanwhile then leaves the mark alone.
                with self._database.begin() as connection:
                    if not catalogue.mark(connection, team, skill, UNKNOWN, version=version):
                        continue
                indexed = UNKNOWN
                self._put_stored(space, sorted(missing))
                self._index.delete(space, extra)
                log.log(
                    logging.INFO if expected else logging.WARNING,
                    "skill %s: the vector index lacked %d passages and had %d too many; made anew from the database",
                    skill,
                    len(missing),
                    len(extra),
                )
            with self._database.begin() as connection:
                # Nobody wrote since the comparison, nor doubted the index.
                settled = catalogue.mark(connection, team, skill, version, version=version, after=indexed)
        self._checked.add((team, skill))
        return embedded

    def _embed_anew(self, team: str, skill: str) -> int:
        """Give passages of another embedder a vector of this one, and drop that one's space."""
        with self._database.connect() as connection:
            ids = catalogue.strangers(connection, team, skill, self._embedder.id)
        if not ids:
            return 0
        log.warning("skill %s: the embedder changed; embedding %d passages anew", skill, len(ids))
        for some in _slices(ids):
            with self._database.connect() as connection:
                rows = list(catalogue.titled(connection, team, skill, some))
            vectors = self._embedder.embed([embedding_text(title, heading, text) for _, title, heading, text in rows])
            packed = [(row[0], pack(vector)) for row, vector in zip(rows, vectors, strict=True)]
            with self._database.begin() as connection:
                catalogue.set_vectors(connection, packed, self._embedder.id)
        for space in self._index.spaces():
            if (space.team, space.skill) == (team, skill) and space.embedder != self._embedder.id:
                self._index.drop(space)
        return len(ids)

    def _put_stored(self, space: Space, ids: Sequence[str]) -> None:
        for some in _slices(ids):
            with self._database.connect() as connection:
                stored = catalogue.vectors(connection, space.team, space.skill, some)
            if stored:
                self._index.put(space, list(stored), np.stack([unpack(vector) for vector in stored.values()]))

    def _lock(self, key: tuple[str, str]) -> threading.Lock:
        with self._guard:
            return self._locks[key]

    @contextmanager
    def _writing(self, team: str, skill: str) -> Iterator[None]:
        with self._lock((team, skill)):
            yield


def pack(vector: npt.NDArray[np.float32]) -> bytes:
    return vector.astype("<f4").tobytes()


def unpack(vector: bytes) -> Vectors:
    return np.frombuffer(vector, dtype="<f4").astype(np.float32)


def _slices(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(values), _PASSAGES):
        yield values[at : at + _PASSAGES]
