"""What the edges ask about documents without opening the knowledge base: how many there are, and who brought which."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from intern.store.tables import DocumentRow


def count_documents(connection: Connection, team: str) -> dict[str, int]:
    """By skill, how many documents it has; skills without any are left out."""
    query = sa.select(DocumentRow.skill, sa.func.count().label("documents")).where(DocumentRow.team == team)
    return {row.skill: row.documents for row in connection.execute(query.group_by(DocumentRow.skill))}


def list_origins(connection: Connection, team: str, skill: str) -> dict[str, tuple[str, str | None]]:
    """By name, each document's (source, contributor); the contributor is a key's id, or None for the skill's folder."""
    columns = (DocumentRow.name, DocumentRow.source, DocumentRow.contributor)
    query = sa.select(*columns).where(DocumentRow.team == team, DocumentRow.skill == skill)
    return {name: (source, contributor) for name, source, contributor in connection.execute(query)}
