"""Opens the database: SQLite (WAL, a modern build of it) or PostgreSQL, migrated to the newest schema.

The system's SQLite may carry the WAL-reset bug (3.7.0 to 3.51.2), so SQLite always runs on pysqlite3's build.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import URL, Engine, make_url

from intern.errors import StoreFailure

MIGRATIONS = Path(__file__).parent / "migrations"
_DISK = ("SQLITE_FULL", "SQLITE_IOERR")  # SQLite calls a quota or a limit on files an I/O error
_DISK_FULL = "53100"  # PostgreSQL's
_MIGRATION_LOCK = int.from_bytes(b"intern", "big")  # a number of our own among the database's advisory locks


def open_database(url: str) -> Engine:
    """An engine for `url`, its schema migrated to the newest revision.

    Raises StoreFailure when the database cannot be opened, or was written by a newer version of the platform.
    """
    engine = None
    try:
        engine = make_engine(make_url(url))
        migrate(engine)
        return engine
    except (sa.exc.SQLAlchemyError, StoreFailure) as error:
        if engine is not None:
            engine.dispose()
        if isinstance(error, StoreFailure):
            raise
        reason = f"{type(error).__name__}: {error.__cause__ or error}"
        raise StoreFailure(f"The database cannot be opened: {reason}") from error


def make_engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True)
    import pysqlite3

    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(url, module=pysqlite3, connect_args={"timeout": 30})
    else:
        engine = sa.create_engine(
            url, module=pysqlite3, poolclass=sa.pool.StaticPool, connect_args={"check_same_thread": False}
        )

    @sa.event.listens_for(engine, "handle_error")
    def _room(context: Any) -> None:
        error = context.sqlalchemy_exception
        if url.database and error is not None and refused_by_disk(error) is not None:
            folder = Path(url.database).parent
            error.add_detail(f"{shutil.disk_usage(folder).free // 1_000_000} MB are free in '{folder}'")

    @sa.event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


def refused_by_disk(error: Exception) -> str | None:
    """What is wrong with the disk, when the database failed because of that: it is full, as a rule, and how much room
    is left is told where it is known. None for every other failure."""
    cause = getattr(error, "orig", None)
    name = getattr(cause, "sqlite_errorname", None) or ""
    if not name.startswith(_DISK) and getattr(cause, "sqlstate", None) != _DISK_FULL:
        return None
    return "; ".join([str(cause).partition("\n")[0], *getattr(error, "detail", ())])


def migrate(engine: Engine) -> None:
    """Bring the schema to the newest revision, in one transaction. Of several processes that start on one PostgreSQL
    database at once, one migrates while the others wait."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        if connection.dialect.name == "postgresql":  # SQLite's file has one owner
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        try:
            command.upgrade(config, "head")
        except Exception as error:
            if "Can't locate revision" in str(error):
                raise StoreFailure(
                    "The database was written by a newer version of LLaMA Intern. Upgrade the program."
                ) from error
            raise


def describe(engine: Engine) -> str:
    """Name and version of the database that really runs, for `doctor` and `/readyz`."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            return "SQLite " + str(connection.execute(sa.text("select sqlite_version()")).scalar())
        return "PostgreSQL " + str(connection.execute(sa.text("show server_version")).scalar())
