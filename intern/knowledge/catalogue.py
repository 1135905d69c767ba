"""The SQL of documents and passages: the truth that the vector and the lexical index are made from.

In: a connection, team and skill, rows. Out: rows. Every query filters by team and skill. It knows no index, no embedder
and no parser, and commits nothing: the caller's transaction does.

`knowledge.version` counts the committed changes of one skill; `knowledge.indexed` is the version up to which the vector
index agrees. A change commits first and is put into the index after, so a crash between the two leaves the numbers
apart, and whoever sees that compares the ids and repairs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from intern.store.tables import DocumentRow, KnowledgeRow, PassageRow
from intern.types import Document, Passage

_IDS = 500  # ids in one IN (...): every database takes that many
UNKNOWN = -1  # `indexed` while the index is being compared or repaired


@dataclass(frozen=True)
class Entry:
    """One passage as stored; `vector` is float32, little-endian."""

    id: str
    document: str
    ordinal: int
    heading: str
    start: int
    end: int
    vector: bytes

    def columns(self) -> dict[str, object]:
        columns = asdict(self)
        columns["start_offset"], columns["end_offset"] = columns.pop("start"), columns.pop("end")
        return columns


@dataclass(frozen=True)
class Stored:
    """What ingestion compares a file with."""

    id: str
    sha256: str
    recipe: str
    source: str
    passages: int


def bump(connection: Connection, team: str, skill: str) -> int:
    """Count one change; the new version. Comes first in a change: its row lock makes writers wait for each other."""
    row = sa.update(KnowledgeRow).where(KnowledgeRow.team == team, KnowledgeRow.skill == skill)
    row = row.values(version=KnowledgeRow.version + 1)
    if connection.execute(row).rowcount == 0:
        try:
            with connection.begin_nested():
                new = {"team": team, "skill": skill, "version": 1, "indexed": 0}
                connection.execute(sa.insert(KnowledgeRow).values(new))
        except sa.exc.IntegrityError:  # another process was first
            connection.execute(row)
    return versions(connection, team, skill)[0]


def versions(connection: Connection, team: str, skill: str) -> tuple[int, int]:
    """(version, indexed); (0, 0) for a skill that never had a document."""
    found = connection.execute(_VERSIONS, {"team": team, "skill": skill}).first()
    return (0, 0) if found is None else (found.version, found.indexed)


def mark(
    connection: Connection,
    team: str,
    skill: str,
    indexed: int,
    *,
    version: int | None = None,
    after: int | None = None,
) -> bool:
    """Set `indexed`, if the version still is `version` and the old mark is `after` (None: whatever they are)."""
    row = sa.update(KnowledgeRow).where(KnowledgeRow.team == team, KnowledgeRow.skill == skill)
    if version is not None:
        row = row.where(KnowledgeRow.version == version)
    if after is not None:
        row = row.where(KnowledgeRow.indexed == after)
    return connection.execute(row.values(indexed=indexed)).rowcount > 0


def skills(connection: Connection, team: str | None = None) -> list[tuple[str, str]]:
    """Every (team, skill) that ever had documents."""
    query = sa.select(KnowledgeRow.team, KnowledgeRow.skill).order_by(KnowledgeRow.team, KnowledgeRow.skill)
    if team is not None:
        query = query.where(KnowledgeRow.team == team)
    return [(row.team, row.skill) for row in connection.execute(query)]


def stored(connection: Connection, team: str, skill: str) -> dict[str, Stored]:
    """By name, what is there."""
    count = _passage_count()
    rows = connection.execute(
        sa.select(
            DocumentRow.name, DocumentRow.id, DocumentRow.sha256, DocumentRow.recipe, DocumentRow.source, count
        ).where(DocumentRow.team == team, DocumentRow.skill == skill)
    )
    return {row.name: Stored(row.id, row.sha256, row.recipe, row.source, row.passages) for row in rows}


def documents(connection: Connection, team: str, skill: str) -> list[Document]:
    """In order of name."""
    fields = (
        DocumentRow.id, DocumentRow.team, DocumentRow.skill, DocumentRow.name, DocumentRow.source, DocumentRow.sha256,
        DocumentRow.media_type, DocumentRow.created, sa.func.length(DocumentRow.text).label("characters"),
    )  # fmt: skip
    rows = connection.execute(
        sa.select(*fields, _passage_count())
        .where(DocumentRow.team == team, DocumentRow.skill == skill)
        .order_by(DocumentRow.name)
    )
    return [Document(**row._mapping) for row in rows]


def text(connection: Connection, team: str, skill: str, name: str) -> str | None:
    """A document's parsed text, or None when there is no such document."""
    return connection.execute(
        sa.select(DocumentRow.text).where(
            DocumentRow.team == team, DocumentRow.skill == skill, DocumentRow.name == name
        )
    ).scalar()


def insert(connection: Connection, document: Mapping[str, object], entries: Sequence[Entry], embedder: str) -> None:
    """One document (columns of `documents`) with its passages."""
    connection.execute(sa.insert(DocumentRow).values(document))
    if entries:
        same = {"team": document["team"], "skill": document["skill"], "embedder": embedder}
        connection.execute(sa.insert(PassageRow), [{**entry.columns(), **same} for entry in entries])


def delete(connection: Connection, team: str, skill: str, names: Collection[str]) -> tuple[list[str], set[str]]:
    """Delete documents with their passages: the names that were there, and the passages' ids."""
    gone: list[str] = []
    ids: set[str] = set()
    for some in _slices(sorted(names)):
        found = connection.execute(
            sa.select(DocumentRow.id, DocumentRow.name).where(
                DocumentRow.team == team, DocumentRow.skill == skill, DocumentRow.name.in_(some)
            )
        ).all()
        documents = [row.id for row in found]
        gone += [row.name for row in found]
        ids.update(connection.scalars(sa.select(PassageRow.id).where(PassageRow.document.in_(documents))))
        connection.execute(sa.delete(PassageRow).where(PassageRow.document.in_(documents)))
        connection.execute(sa.delete(DocumentRow).where(DocumentRow.id.in_(documents)))
    return gone, ids


def set_source(connection: Connection, document: str, source: str, contributor: str | None) -> None:
    row = sa.update(DocumentRow).where(DocumentRow.id == document)
    connection.execute(row.values(source=source, contributor=contributor))


def passage_ids(connection: Connection, team: str, skill: str) -> set[str]:
    return set(connection.scalars(sa.select(PassageRow.id).where(_of(team, skill))))


def vectors(connection: Connection, team: str, skill: str, ids: Collection[str]) -> dict[str, bytes]:
    """The stored vectors of those of `ids` that exist."""
    found: dict[str, bytes] = {}
    for some in _slices(sorted(ids)):
        rows = connection.execute(
            sa.select(PassageRow.id, PassageRow.vector).where(_of(team, skill), PassageRow.id.in_(some))
        )
        found.update((row.id, row.vector) for row in rows)
    return found


def set_vectors(connection: Connection, vectors: Iterable[tuple[str, bytes]], embedder: str) -> None:
    row = sa.update(PassageRow).where(PassageRow.id == sa.bindparam("passage"))
    values = [{"passage": id, "new": vector, "by": embedder} for id, vector in vectors]
    if values:
        statement = row.values(vector=sa.bindparam("new"), embedder=sa.bindparam("by"))
        connection.execute(statement, values)


def strangers(connection: Connection, team: str, skill: str, embedder: str) -> list[str]:
    """Ids of passages whose vectors another embedder made."""
    query = sa.select(PassageRow.id).where(_of(team, skill), PassageRow.embedder != embedder)
    return sorted(connection.scalars(query))


def titled(
    connection: Connection, team: str, skill: str, ids: Collection[str] | None = None
) -> Iterator[tuple[str, str, str, str]]:
    """(id, title, heading, text) of each passage, or of `ids`, in order of ingestion."""
    query = (
        sa.select(PassageRow.id, DocumentRow.title, PassageRow.heading, _passage_text())
        .join(DocumentRow, DocumentRow.id == PassageRow.document)
        .where(_of(team, skill))
        .order_by(PassageRow.document, PassageRow.ordinal)
    )
    for some in [None] if ids is None else _slices(sorted(ids)):
        rows = connection.execute(query if some is None else query.where(PassageRow.id.in_(some)))
        for row in rows:
            yield row.id, row.title, row.heading, row.text


def passages(connection: Connection, team: str, skill: str, ids: Sequence[str]) -> dict[str, Passage]:
    """By id, with score 0; ids that do not exist (any more) are left out."""
    found: dict[str, Passage] = {}
    for some in _slices(ids):
        for row in connection.execute(_PASSAGES, {"team": team, "skill": skill, "ids": list(some)}):
            where = {"document": row.name, "heading": row.heading, "start": row.start_offset, "end": row.end_offset}
            found[row.id] = Passage(id=row.id, **where, score=0.0, text=row.text)
    return found


def _of(team: str, skill: str) -> sa.ColumnElement[bool]:
    return sa.and_(PassageRow.team == team, PassageRow.skill == skill)


def _passage_text() -> sa.Label[str]:
    """document.text[start:end]; SQL counts characters from 1, in SQLite and PostgreSQL alike."""
    return sa.func.substr(DocumentRow.text, PassageRow.start + 1, PassageRow.end - PassageRow.start).label("text")


def _passage_count() -> sa.Label[int]:
    count = sa.select(sa.func.count()).where(PassageRow.document == DocumentRow.id)
    return count.correlate(DocumentRow).scalar_subquery().label("passages")


# Built once, since building them takes longer than SQLite takes to answer, and every retrieval asks these two.
_VERSIONS = sa.select(KnowledgeRow.version, KnowledgeRow.indexed).where(
    KnowledgeRow.team == sa.bindparam("team"), KnowledgeRow.skill == sa.bindparam("skill")
)
_PASSAGES = (
    sa.select(PassageRow.id, DocumentRow.name, PassageRow.heading, PassageRow.start, PassageRow.end, _passage_text())
    .join(DocumentRow, DocumentRow.id == PassageRow.document)
    .where(
        PassageRow.team == sa.bindparam("team"),
        PassageRow.skill == sa.bindparam("skill"),
        PassageRow.id.in_(sa.bindparam("ids", expanding=True)),
    )
)


def _slices(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(values), _IDS):
        yield values[at : at + _IDS]
