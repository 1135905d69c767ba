"""Locks that the processes of one database share, and that no crash leaves behind.

`SessionLock`: one holder at a time, for as long as it lives (say, who carries out runs). On PostgreSQL it is an
advisory lock of a connection of its own, which the server frees when that connection ends, however it ends; on SQLite a
locked file beside the database, which the system frees. `serialise`: for one transaction.
"""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy.engine import Connection, Engine


class SessionLock:
    """Thread-safe. A lock of a PostgreSQL database needs a connection that stays the same: no pooler in transaction
    mode lies between."""

    def __init__(self, database: Engine, name: str) -> None:
        self._database = database
        self._number = _number(name)
        self._session: Connection | None = None
        self._file: FileLock | None = None
        if database.dialect.name == "sqlite" and database.url.database not in (None, "", ":memory:"):
            self._file = FileLock(f"{database.url.database}.{name}", thread_local=False)
        self._guard = threading.Lock()

    def take(self) -> bool:
        """Whether this process holds it: from the first call that finds it free until `release`, or until its
        connection is lost; then it is tried for again. Raises SQLAlchemyError, OSError."""
        with self._guard:
            if self._database.dialect.name == "sqlite":
                return self._file is None or self._locked(self._file)  # nobody else sees a database in memory
            return self._still() or self._connected()

    def release(self) -> None:
        with self._guard:
            self._let_go()
            if self._file is not None:
                self._file.release()

    def _locked(self, file: FileLock) -> bool:
        if not file.is_locked:
            try:
                file.acquire(timeout=0)
            except Timeout:
                return False
        return True

    def _still(self) -> bool:
        if self._session is None:
            return False
        try:
            self._session.execute(sa.select(1))
        except sa.exc.SQLAlchemyError:
            self._let_go()
        return self._session is not None

    def _connected(self) -> bool:
        # Without a transaction: one that stays open for weeks would keep the server from cleaning its tables.
        connection = self._database.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            if connection.execute(sa.select(sa.func.pg_try_advisory_lock(self._number))).scalar_one():
                connection.detach()  # from the pool, which would hand it to others
                self._session = connection
        finally:
            if self._session is None:
                connection.close()
        return self._session is not None

    def _let_go(self) -> None:
        if self._session is not None:
            with suppress(sa.exc.SQLAlchemyError):  # it is lost already
                self._session.close()
            self._session = None


def serialise(connection: Connection, name: str) -> None:
    """Until the transaction ends, others that serialise by the same name wait. The first thing in a transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_number(name))))
    else:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # SQLite has one writer at a time, and now it is this one


def _number(name: str) -> int:
    """A number of our own among the database's advisory locks, which are told apart by 64 bits."""
    return int.from_bytes(hashlib.sha256(f"intern {name}".encode()).digest()[:8], "big", signed=True)
