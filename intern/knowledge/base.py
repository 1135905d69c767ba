"""The knowledge base: one facade over parser, embedder, SQL, vector index and BM25.

In: files, questions. Out: what became of each file, passages. SQL is the truth; the vector index and the lexical cache
are made from it, checked against it at first use, and repaired by themselves. Blocking and thread-safe: call it off the
event loop. It knows no routes, prompts or engines, and answers nothing across teams or skills.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal

import numpy as np
from sqlalchemy.engine import Connection, Engine

from intern.errors import DocumentRefused, NotFound, StoreFailure
from intern.knowledge import catalogue
from intern.knowledge.catalogue import Entry, Stored
from intern.knowledge.index import VectorIndex
from intern.knowledge.ingest import Ingested, Parses, Read, Upload, read, read_ahead, recipe
from intern.knowledge.lexical import LexicalCache
from intern.knowledge.mirror import Mirror, Rebuilt, pack
from intern.knowledge.query import queries
from intern.knowledge.retrieve import DEPTH, best_of, reciprocal_rank_fusion
from intern.models.embedder import Embedder, Vectors
from intern.types import Document, Message, Passage, new_id, now

Mode = Literal["fused", "dense", "lexical"]

_BATCH = 128  # passages embedded and committed together; a document's passages always are


class Knowledge:
    """Documents and passages of every team and skill in one database."""

    def __init__(self, database: Engine, embedder: Embedder, parser: Parses, index: VectorIndex) -> None:
        self._database = database
        self._embedder = embedder
        self._parser = parser
        self._index = index
        self._mirror = Mirror(database, embedder, index)
        self._lexical = LexicalCache()

    def close(self) -> None:
        self._parser.close()
        self._index.close()

    def health(self) -> str | None:
        """None when the vector index can be reached, otherwise one line that says why not."""
        try:
            self._index.spaces()
        except StoreFailure as error:
            return error.message
        return None

    # --- documents in ---------------------------------------------------------------------------------------------

    def ingest(
        self,
        team: str,
        skill: str,
        files: Iterable[Upload],
        *,
        source: str,
        contributor: str | None = None,
    ) -> list[Ingested]:
        """Store files, one result each, in their order.

        A file with the same bytes as the stored one costs a hash. A changed one replaces the stored one in one
        transaction, and embeds only passages that are new. A refused one leaves the stored one as it was. `source`
        names the folder or channel that the files come from, for `prune`.
        """
        made_by = recipe(self._embedder)
        with self._database.connect() as connection:
            known = catalogue.stored(connection, team, skill)
        results: list[Ingested] = []
        batch: list[tuple[int, Read]] = []  # with its place among the results

        def work(upload: Upload) -> Read | None:
            sha256 = hashlib.sha256(upload.data).hexdigest()
            stored = known.get(upload.name)
            if stored is not None and (stored.sha256, stored.recipe) == (sha256, made_by):
                return None
            return read(team, skill, upload, sha256, self._parser, self._embedder)

        def finish() -> None:
            if batch:
                replaced = self._store(team, skill, [file for _, file in batch], source, contributor, made_by)
                for (at, _), was_there in zip(batch, replaced, strict=True):
                    if was_there:
                        results[at] = results[at].model_copy(update={"status": "replaced"})
                batch.clear()

        moved: list[Stored] = []
        for upload, outcome in read_ahead(files, work):
            stored = known.get(upload.name)
            if isinstance(outcome, DocumentRefused):
                kept = stored.passages if stored else 0
                problem = outcome.message + (" The version stored before stays in use." if stored else "")
                results.append(Ingested(name=upload.name, status="refused", passages=kept, problem=problem))
            elif outcome is None and stored is not None:
                results.append(Ingested(name=upload.name, status="unchanged", passages=stored.passages))
                if stored.source != source:
                    moved.append(stored)
            elif outcome is not None:
                batch.append((len(results), outcome))
                results.append(Ingested(name=upload.name, status="added", passages=len(outcome.parts)))
                if sum(len(file.parts) for _, file in batch) >= _BATCH:
                    finish()
        finish()
        if moved:  # the last one to give a file owns it
            with self._database.begin() as connection:
                for stored in moved:
                    catalogue.set_source(connection, stored.id, source, contributor)
        return results

    def remove(self, team: str, skill: str, names: Collection[str]) -> int:
        """Delete documents with their passages; how many there were. Unknown names are no error."""
        if isinstance(names, str):
            raise TypeError("names is a collection of names, not one name")
        return len(self._delete(team, skill, lambda _: names))

    def prune(self, team: str, skill: str, source: str, keep: Collection[str]) -> list[str]:
        """Delete what came from `source` and is not among `keep`: files that have left their folder. Their names."""

        def gone(connection: Connection) -> list[str]:
            held = catalogue.stored(connection, team, skill)
            return [name for name, stored in held.items() if stored.source == source and name not in set(keep)]

        with self._database.connect() as connection:
            if not gone(connection):
                return []
        return sorted(self._delete(team, skill, gone))

    def forget(self, team: str, skill: str) -> int:
        """Delete every document of a skill; how many there were."""
        deleted = self._delete(team, skill, lambda connection: list(catalogue.stored(connection, team, skill)))
        self._lexical.drop((team, skill))
        self._mirror.clear(team, skill)
        return len(deleted)

    # --- documents and passages out -------------------------------------------------------------------------------

    def documents(self, team: str, skill: str) -> list[Document]:
        """In order of name."""
        with self._database.connect() as connection:
            return catalogue.documents(connection, team, skill)

    def text(self, team: str, skill: str, name: str) -> str:
        """A document's parsed text, which the offsets of passages point into. Raises NotFound."""
        with self._database.connect() as connection:
            text = catalogue.text(connection, team, skill, name)
        if text is None:
            raise NotFound("document", name, f"The skill '{skill}' has no document of this name.")
        return text

    def passages(self, team: str, skill: str) -> list[Passage]:
        """Every passage of the skill's documents, in their order; scores are 0."""
        with self._database.connect() as connection:
            ids = sorted(catalogue.passage_ids(connection, team, skill))
            found = catalogue.passages(connection, team, skill, ids)
        return sorted(found.values(), key=lambda passage: (passage.document, passage.start))

    def retrieve(
        self,
        team: str,
        skill: str,
        asked: str | Sequence[Message],
        *,
        limit: int,
        vector: Vectors | None = None,
        mode: Mode = "fused",
    ) -> list[Passage]:
        """The `limit` passages that fit a question or a conversation best, best first; of equal texts only the first.

        `vector`, of shape (dimension,) or (1, dimension), is the embedding of the last user text where the caller has
        it already. `mode` leaves out one of the two retrievers, for comparison. `score` is the fused one, 0 to 1: it
        orders the passages of one answer, and says nothing about how good the best one is.
        """
        version = self._mirror.ready(team, skill)
        searches = queries(asked, self._embedder.count_tokens) if version and limit > 0 else []
        if not searches:
            return []
        depth = max(DEPTH, limit)
        rankings: list[list[str]] = []
        if mode != "lexical":
            given = vector if len(searches[0].pieces) == 1 else None
            vectors = self._embed([piece for search in searches for piece in search.pieces], given)
            found = iter(self._index.search(self._mirror.space(team, skill), vectors, depth))
            rankings += [best_of([next(found) for _ in search.pieces], depth) for search in searches]
        if mode != "dense":
            lexical = self._lexical.get((team, skill), version, lambda: self._lexical_texts(team, skill))
            rankings += [[id for id, _ in lexical.search(search.text, depth)] for search in searches]
        weights = [search.weight for search in searches] * (len(rankings) // len(searches))
        fused = reciprocal_rank_fusion(rankings, weights)
        return self._fetch(team, skill, fused, limit)

    def rebuild(self, team: str | None = None) -> Rebuilt:
        """Throw away the vector and lexical indexes (of one team, or all) and make them anew from SQL.

        Nothing is embedded again unless another embedder made the vectors. Retrievals of a skill wait for its turn.
        """
        self._lexical.clear()
        return self._mirror.rebuild(team)

    # --- changes --------------------------------------------------------------------------------------------------

    def _store(
        self, team: str, skill: str, batch: Sequence[Read], source: str, contributor: str | None, made_by: str
    ) -> list[bool]:
        """Embed and commit some documents; for each, whether it replaced one."""
        texts = {part.id: part.embed for document in batch for part in document.parts}
        with self._database.connect() as connection:
            foreign = set(catalogue.strangers(connection, team, skill, self._embedder.id))
            held = catalogue.vectors(connection, team, skill, texts.keys() - foreign)
        new = [id for id in texts if id not in held]
        vectors = self._embedder.embed([texts[id] for id in new]) if new else ()
        packed = {**held, **{id: pack(vector) for id, vector in zip(new, vectors, strict=True)}}
        replaced: list[bool] = []

        def change(connection: Connection) -> tuple[dict[str, bytes], set[str]]:
            added: dict[str, bytes] = {}
            removed: set[str] = set()
            for document in batch:
                name = document.upload.name
                gone, ids = catalogue.delete(connection, team, skill, [name])
                replaced.append(bool(gone))
                removed |= ids
                id = new_id("document")
                entries = [
                    Entry(part.id, id, part.ordinal, part.heading, part.start, part.end, packed[part.id])
                    for part in document.parts
                ]
                row = {
                    "id": id, "team": team, "skill": skill, "name": name, "source": source, "sha256": document.sha256,
                    "recipe": made_by, "media_type": document.media_type, "title": document.title,
                    "text": document.text, "contributor": contributor, "created": now(),
                }  # fmt: skip
                catalogue.insert(connection, row, entries, self._embedder.id)
                for lost in ids:
                    added.pop(lost, None)
                added.update((part.id, packed[part.id]) for part in document.parts)
            return added, removed - added.keys()

        self._mirror.change(team, skill, change)
        return replaced

    def _delete(self, team: str, skill: str, names: Callable[[Connection], Collection[str]]) -> list[str]:
        deleted: list[str] = []

        def change(connection: Connection) -> tuple[dict[str, bytes], set[str]]:
            gone, ids = catalogue.delete(connection, team, skill, names(connection))
            deleted.extend(gone)
            return {}, ids

        self._mirror.change(team, skill, change)
        return deleted

    # --- parts ----------------------------------------------------------------------------------------------------

    def _embed(self, texts: Sequence[str], first: Vectors | None) -> Vectors:
        """Vectors of `texts`, of shape (len(texts), dimension); that of the first may be known."""
        if first is None:
            return self._embedder.embed(texts)
        known: Vectors = np.asarray(first, dtype=np.float32).reshape(1, -1)
        return known if len(texts) == 1 else np.concatenate([known, self._embedder.embed(texts[1:])])

    def _fetch(self, team: str, skill: str, ranked: Sequence[tuple[str, float]], limit: int) -> list[Passage]:
        found: dict[str, Passage] = {}  # by text: a copy of a document must not crowd out another one
        with self._database.connect() as connection:
            for at in range(0, len(ranked), limit):
                some = ranked[at : at + limit]
                rows = catalogue.passages(connection, team, skill, [id for id, _ in some])
                for id, score in some:
                    passage = rows.get(id)
                    if passage is not None and len(found) < limit:
                        found.setdefault(passage.text.strip(), passage.model_copy(update={"score": score}))
                if len(found) == limit:
                    break
        return list(found.values())

    def _lexical_texts(self, team: str, skill: str) -> list[tuple[str, str]]:
        with self._database.connect() as connection:
            rows = catalogue.titled(connection, team, skill)
            return [(id, f"{title}\n{heading}\n{text}") for id, title, heading, text in rows]
