"""Adapters that nobody trained: rows for tests of what becomes of them. Training numbers its own (`loop/making.py`)."""

from __future__ import annotations

from sqlalchemy import Connection

from intern.store import learning as store
from intern.types import Adapter


def keep_adapter(connection: Connection, adapter: Adapter) -> Adapter:
    """Keep an adapter under the next version of its skill, whatever version it has."""
    last = store.last_version(connection, adapter.team, adapter.skill)
    kept = adapter.model_copy(update={"version": 1 + last})
    store.put_adapter(connection, kept)
    return kept
