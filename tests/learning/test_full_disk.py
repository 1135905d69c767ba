"""On a full disk nothing is left half written, what waits goes on when there is room, and people are told of it."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from learning import full_disk

from intern.learning.settled import StoreAway, StoreFull, went_away
from intern.store.engine import open_database


def happened(scene: Callable[[Path], dict[str, Any]], folder: Path) -> dict[str, Any]:
    """What the scene came to, in a process that the limits on files stay in."""
    said = folder / "said.json"
    process = multiprocessing.get_context("forkserver").Process(target=full_disk.run, args=(scene, folder, said))
    process.start()
    process.join(120)
    process.kill()
    assert process.exitcode == 0
    found: dict[str, Any] = json.loads(said.read_text())
    return found


def test_a_database_that_cannot_be_written_names_the_room_that_is_left_and_is_waited_for(tmp_path: Path) -> None:
    found = happened(full_disk.a_write, tmp_path)
    for said in (found["failed"], found["said"][0]):
        assert "disk I/O error" in said
        assert f"MB are free in '{tmp_path}'. Make room there" in said
        assert "out of reach" not in said
    assert found["rows"] == [100_000]


def test_a_run_whose_database_cannot_be_written_waits_for_room_and_is_done_then(tmp_path: Path) -> None:
    found = happened(full_disk.a_run, tmp_path)
    assert (found["during"], found["after"]) == ("running", "done")
    assert all("MB are free" in said for said in found["said"])


def test_an_adapter_that_finds_no_room_is_stored_when_there_is_some_and_nothing_is_left_of_it_before(
    tmp_path: Path,
) -> None:
    found = happened(full_disk.an_adapter, tmp_path)
    assert "cannot be stored" in found["failed"]
    assert (found["left"], found["rows"], found["then"]) == ([], 0, "sort@v1")


def test_a_full_database_is_no_lost_one(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'intern.db'}")
    with database.connect() as connection:
        connection.execute(sa.text("pragma max_page_count = 1"))  # no more than it has
        with pytest.raises(sa.exc.OperationalError, match="full") as full:
            connection.execute(sa.text("create table more as select hex(zeroblob(1000000))"))
    database.dispose()
    away = went_away(full.value)
    assert isinstance(away, StoreFull)
    assert "database or disk is full" in away.message
    lost = went_away(sa.exc.OperationalError("select", {}, Exception("the server closed the connection")))
    assert isinstance(lost, StoreAway)
    assert not isinstance(lost, StoreFull)
    assert "out of reach" in lost.message
