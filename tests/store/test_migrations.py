"""Models and migrations agree, on every database."""

from __future__ import annotations

import subprocess
import sys

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.engine import make_url

from intern.errors import StoreFailure
from intern.store import learning as store
from intern.store.engine import MIGRATIONS, make_engine, migrate, open_database
from intern.store.tables import Base
from intern.types import Dataset, Example, now


def test_the_newest_migration_makes_exactly_the_tables_of_the_models(database_url: str) -> None:
    engine = open_database(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        differences = compare_metadata(context, Base.metadata)
    engine.dispose()
    assert differences == []


def test_every_table_has_a_team(database_url: str) -> None:
    engine = open_database(database_url)
    tables = inspect(engine)
    without = [
        name
        for name in tables.get_table_names()
        if name != "alembic_version" and "team" not in {column["name"] for column in tables.get_columns(name)}
    ]
    engine.dispose()
    assert without == []


def test_migrating_again_changes_nothing_and_keeps_the_rows(database_url: str) -> None:
    engine = open_database(database_url)
    with engine.begin() as connection:
        connection.execute(text("insert into knowledge (team, skill, version, indexed) values ('t', 's', 3, 3)"))
    migrate(engine)
    with engine.connect() as connection:
        rows = connection.execute(text("select version from knowledge")).scalars().all()
    engine.dispose()
    assert rows == [3]


def test_the_migrations_can_be_undone(database_url: str) -> None:
    engine = make_engine(make_url(database_url))
    migrate(engine)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    left = inspect(engine).get_table_names()
    engine.dispose()
    assert left == ["alembic_version"]


def test_what_was_trained_on_before_it_had_a_table_is_remembered(database_url: str) -> None:
    engine = make_engine(make_url(database_url))
    migrate(engine)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    dataset = Dataset(id="ds_1", team="t", skill="s", digest="d", created=now(), train=1, heldout=1)
    items = [
        store.Item(example=Example(id=split, input="x", output="y"), key=split, split=split)
        for split in ("train", "heldout")
    ]
    with engine.begin() as connection:
        store.add_dataset(connection, dataset, items)
        config.attributes["connection"] = connection
        command.downgrade(config, "0002")
    migrate(engine)
    with engine.connect() as connection:
        known = store.trained_keys(connection, "t", "s")
    engine.dispose()
    assert known == {"train"}


def test_a_database_of_a_newer_version_is_refused_with_what_to_do(database_url: str) -> None:
    engine = open_database(database_url)
    with engine.begin() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StoreFailure, match="Upgrade the program"):
        open_database(database_url)


START = """
import sys
from intern.store.engine import open_database
print("here", flush=True)
sys.stdin.readline()
open_database(sys.argv[1]).dispose()
"""


@pytest.mark.needs_postgres
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_of_processes_that_start_at_once_on_an_empty_database_all_come_up(database_url: str) -> None:
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", START, database_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for start in starts:
        assert start.stdout is not None
        assert start.stdout.readline() == "here\n"
    for start in starts:
        assert start.stdin is not None
        start.stdin.write("\n")
        start.stdin.flush()
    errors = [start.communicate(timeout=60)[1] for start in starts]
    assert [start.returncode for start in starts] == [0] * len(starts), errors
