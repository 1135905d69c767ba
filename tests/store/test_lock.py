"""One holder at a time among all processes of a database, however the holder ends."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine as Database

from intern.store.engine import open_database
from intern.store.lock import SessionLock, serialise

HOLD = """
import sys
from intern.store.engine import open_database
from intern.store.lock import SessionLock
lock = SessionLock(open_database(sys.argv[1]), "runs")
print(lock.take(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def databases(database_url: str) -> Iterator[tuple[Database, Database]]:
    """Two processes' views of one database."""
    both = open_database(database_url), open_database(database_url)
    yield both
    for database in both:
        database.dispose()


def test_one_holds_it_at_a_time_and_keeps_it(databases: tuple[Database, Database]) -> None:
    first, second = (SessionLock(database, "runs") for database in databases)
    assert first.take()
    assert not second.take()
    assert first.take()  # it has it still
    first.release()
    assert second.take()
    assert not first.take()
    second.release()


def test_locks_of_other_names_are_others(databases: tuple[Database, Database]) -> None:
    runs, other = SessionLock(databases[0], "runs"), SessionLock(databases[1], "other")
    assert runs.take()
    assert other.take()
    runs.release()
    other.release()


def test_one_that_was_never_taken_can_be_released(databases: tuple[Database, Database]) -> None:
    lock = SessionLock(databases[0], "runs")
    lock.release()
    assert lock.take()
    lock.release()
    lock.release()


def test_who_waits_takes_over_when_the_holder_is_killed(database_url: str) -> None:
    database = open_database(database_url)
    lock = SessionLock(database, "runs")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, database_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == b"True"
        assert not lock.take()
        holder.kill()
    ends = time.monotonic() + 20  # PostgreSQL hears of it a moment later
    while not lock.take():
        assert time.monotonic() < ends
    lock.release()
    database.dispose()


@pytest.mark.parametrize("database_url", [pytest.param("postgresql", marks=pytest.mark.needs_postgres)], indirect=True)
def test_a_holder_that_lost_its_connection_knows_and_holds_it_only_if_nobody_else_does(
    databases: tuple[Database, Database],
) -> None:
    first, second = (SessionLock(database, "runs") for database in databases)

    def cut() -> None:
        others = "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted"
        with databases[1].begin() as connection:
            connection.execute(sa.text(others))

    assert first.take()
    cut()
    assert first.take()
    assert not second.take()
    cut()
    ends = time.monotonic() + 20
    while not second.take():
        assert time.monotonic() < ends
    assert not first.take()
    second.release()


def test_transactions_of_one_name_come_one_after_the_other(databases: tuple[Database, Database]) -> None:
    order: list[str] = []
    entered = threading.Event()

    def other() -> None:
        entered.set()
        with databases[1].begin() as connection:
            serialise(connection, "queue")
            order.append("second")

    thread = threading.Thread(target=other)
    with databases[0].begin() as connection:
        serialise(connection, "queue")
        thread.start()
        entered.wait()
        thread.join(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
