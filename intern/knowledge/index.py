"""The vector index seam and what stands behind it: Chroma (embedded or a server), and exact search in memory.

In: ids and unit vectors, kept apart by `Space`. Out: the ids nearest to a vector, by cosine. It knows no SQL, no text
and no embedder; what it holds can be thrown away at any time and be put in again.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import numpy as np

from intern.errors import StoreFailure
from intern.models.embedder import Vectors

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection as ChromaCollection

# Tried once on the benchmark's 2,100 passages: recall of the 100 nearest against exact search is 0.988 at Chroma's
# default of 100, 0.999 at 200, above 0.9999 at 400, in 0.8 to 1.0 ms. benchmarks/retrieval.py measures it.
EF_SEARCH = 400
EF_CONSTRUCTION = 200
_ATTEMPTS = 5
_BATCH = 1000  # vectors a call; Chroma's own limit depends on its SQLite


@dataclass(frozen=True)
class Space:
    """What is searched together, and never with anything else."""

    team: str
    skill: str
    embedder: str

    @property
    def name(self) -> str:
        """A name that Chroma accepts, whatever the parts hold; the lengths keep ('a', 'bc') and ('ab', 'c') apart."""
        parts = "".join(f"{len(part)}:{part}" for part in (self.team, self.skill, self.embedder))
        return "passages-" + hashlib.sha256(parts.encode()).hexdigest()[:48]


@dataclass(frozen=True)
class Hit:
    id: str
    score: float  # cosine similarity, -1 to 1


class VectorIndex(Protocol):
    """Nearest neighbours by cosine. Thread-safe; blocks. Raises StoreFailure when the index cannot be reached."""

    def spaces(self) -> list[Space]: ...

    def ids(self, space: Space) -> set[str]:
        """Every id in the space; empty when the space does not exist."""
        ...

    def put(self, space: Space, ids: Sequence[str], vectors: Vectors) -> None:
        """Add, or replace by id. `vectors` has shape (len(ids), dimension)."""
        ...

    def delete(self, space: Space, ids: Collection[str]) -> None:
        """Ids that are not there are no error."""
        ...

    def search(self, space: Space, queries: Vectors, limit: int) -> list[list[Hit]]:
        """For each row of `queries` its nearest, best first, `limit` at most; equal scores in order of id."""
        ...

    def drop(self, space: Space) -> None: ...

    def close(self) -> None: ...


def open_index(path: Path, url: str | None = None) -> VectorIndex:
    """Chroma: the server at `url` (http://host:port), or embedded in the folder `path`, which one process may open."""
    return ChromaIndex(path, url)


class ChromaIndex:
    """One Chroma collection a space.

    Chroma's clients may be called from many threads (not from many processes on one folder). Writes are serialised here
    all the same: concurrent ones gain nothing, since Chroma's log is one SQLite file.
    """

    def __init__(self, path: Path, url: str | None = None) -> None:
        self._client: Any = _connect(path, url)  # its protocol hides `close`
        self._collections: dict[Space, ChromaCollection] = {}
        self._writing = threading.RLock()

    def spaces(self) -> list[Space]:
        found = _try(self._client.list_collections)
        about = [collection.metadata or {} for collection in found]
        return [Space(m["team"], m["skill"], m["embedder"]) for m in about if {"team", "skill", "embedder"} <= m.keys()]

    def ids(self, space: Space) -> set[str]:
        found = self._on(space, methodcaller("get", include=[]))
        return set() if found is None else set(found["ids"])

    def put(self, space: Space, ids: Sequence[str], vectors: Vectors) -> None:
        if not ids:
            return
        with self._writing:
            for at in range(0, len(ids), _BATCH):
                some = slice(at, at + _BATCH)
                self._on(space, methodcaller("upsert", ids=list(ids[some]), embeddings=vectors[some]), make=True)

    def delete(self, space: Space, ids: Collection[str]) -> None:
        with self._writing:
            listed = sorted(ids)
            for at in range(0, len(listed), _BATCH):
                self._on(space, methodcaller("delete", ids=listed[at : at + _BATCH]))

    def search(self, space: Space, queries: Vectors, limit: int) -> list[list[Hit]]:
        found = None
        if len(queries):
            query = methodcaller("query", query_embeddings=list(queries), n_results=limit, include=["distances"])
            found = self._on(space, query)
        if found is None:
            return [[] for _ in queries]
        return [
            _ordered((id, 1.0 - distance) for id, distance in zip(ids, distances, strict=True))
            for ids, distances in zip(found["ids"], found["distances"], strict=True)
        ]

    def drop(self, space: Space) -> None:
        with self._writing:
            self._collections.pop(space, None)
            if self._find(space) is not None:
                _try(self._client.delete_collection, space.name)
            self._collections.pop(space, None)

    def close(self) -> None:
        self._collections.clear()
        servers = [getattr(c, "_server", None) for c in (self._client, getattr(self._client, "_admin_client", None))]
        self._client.close()
        for server in servers:  # Chroma's HTTP clients leave their connections open
            if (session := getattr(server, "_session", None)) is not None:
                session.close()

    def _on(self, space: Space, call: Callable[[Any], Any], *, make: bool = False) -> Any:
        """What `call` gives for the space's collection; None when there is none (unless `make`)."""
        from chromadb.errors import InternalError, NotFoundError

        for attempt in range(_ATTEMPTS):
            collection = self._make(space) if make else self._find(space)
            if collection is None:
                return None
            try:
                return call(collection)
            except NotFoundError as error:  # dropped and made anew by someone else: the name is right, not the handle
                self._collections.pop(space, None)
                if attempt == _ATTEMPTS - 1:
                    raise _failure(error) from error
            except InternalError as error:
                # Chroma's search looks up what it found one by one; what was deleted in between fails the whole.
                if "finding id" not in str(error) or attempt == _ATTEMPTS - 1:
                    raise _failure(error) from error
            except Exception as error:
                raise _failure(error) from error
        return None

    def _find(self, space: Space) -> ChromaCollection | None:
        from chromadb.errors import NotFoundError

        known = self._collections.get(space)
        if known is None:
            try:
                known = self._client.get_collection(space.name, embedding_function=None)
            except NotFoundError:
                return None
            except Exception as error:
                raise _failure(error) from error
            self._collections[space] = known
        return known

    def _make(self, space: Space) -> ChromaCollection:
        known = self._find(space)
        if known is None:
            hnsw = {"space": "cosine", "ef_search": EF_SEARCH, "ef_construction": EF_CONSTRUCTION}
            known = _try(
                self._client.get_or_create_collection,
                space.name,
                metadata={"team": space.team, "skill": space.skill, "embedder": space.embedder},
                configuration={"hnsw": hnsw},
                embedding_function=None,
            )
            self._collections[space] = known
        return known


class ExactIndex:
    """Exact search in memory, nothing kept: for tests, and to measure what approximate search misses."""

    def __init__(self) -> None:
        self._spaces: dict[Space, dict[str, Vectors]] = {}
        self._lock = threading.Lock()

    def spaces(self) -> list[Space]:
        with self._lock:
            return list(self._spaces)

    def ids(self, space: Space) -> set[str]:
        with self._lock:
            return set(self._spaces.get(space, ()))

    def put(self, space: Space, ids: Sequence[str], vectors: Vectors) -> None:
        if not ids:
            return
        with self._lock:
            self._spaces.setdefault(space, {}).update(zip(ids, np.asarray(vectors, dtype=np.float32), strict=True))

    def delete(self, space: Space, ids: Collection[str]) -> None:
        with self._lock:
            for id in ids:
                self._spaces.get(space, {}).pop(id, None)

    def search(self, space: Space, queries: Vectors, limit: int) -> list[list[Hit]]:
        with self._lock:
            held = dict(self._spaces.get(space, {}))
        if not held:
            return [[] for _ in queries]
        matrix = np.stack(list(held.values()))
        return [_ordered(zip(held, (matrix @ query).tolist(), strict=True))[:limit] for query in queries]

    def drop(self, space: Space) -> None:
        with self._lock:
            self._spaces.pop(space, None)

    def close(self) -> None:
        with self._lock:
            self._spaces.clear()


def _ordered(pairs: Any) -> list[Hit]:
    # Rounded, since the last bits depend on the order of insertion, and a rebuilt index must order equals equally.
    return sorted((Hit(id, round(float(score), 6)) for id, score in pairs), key=lambda hit: (-hit.score, hit.id))


def _connect(path: Path, url: str | None) -> ClientAPI:
    import chromadb
    from chromadb.config import Settings

    quiet = Settings(anonymized_telemetry=False)
    try:
        if url is None:
            path.mkdir(parents=True, exist_ok=True)
            return chromadb.PersistentClient(path=str(path), settings=quiet)
        at = urlsplit(url)
        ssl = at.scheme == "https"
        return chromadb.HttpClient(
            host=at.hostname or "localhost", port=at.port or (443 if ssl else 8000), ssl=ssl, settings=quiet
        )
    except Exception as error:
        raise _failure(error) from error


def _try(call: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return call(*args, **kwargs)
    except Exception as error:  # Chroma raises its own tree, bare ValueErrors, and its Rust core's exceptions
        raise _failure(error) from error


def _failure(error: Exception) -> StoreFailure:
    return StoreFailure(f"The vector index failed ({type(error).__name__}): {error}")
