"""What happens on a full disk, each in a process of its own: the operating system lets none of its files grow."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from learning.loop import test_making
from learning.test_learner import TEAM, House, ended, kept
from made_disk import files_no_larger_than
from made_lora import base_shape, tensors, write_lora

from intern.errors import StoreFailure
from intern.learning import learner, settled
from intern.learning.train import job as jobs
from intern.store import learning as store
from intern.store.engine import open_database
from intern.types import now


class Heard(logging.Handler):
    """What is logged at all."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        logging.getLogger("intern").addHandler(self)
        logging.getLogger("intern").propagate = False  # where that goes, nothing can be written either

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())

    async def until(self, times: int) -> None:
        while len(self.said) < times:  # noqa: ASYNC110 - it is logged on this loop and in threads
            await asyncio.sleep(0)


def write(database: sa.Engine) -> None:
    """A write that is the same however often it is done."""
    with database.begin() as connection:
        connection.execute(sa.text("create table if not exists written (text)"))
        connection.execute(sa.text("delete from written"))
        connection.execute(sa.text("insert into written values (:text)"), {"text": "x" * 100_000})


def a_write(folder: Path) -> dict[str, Any]:
    """A write fails in the end, and another one is waited with until there is room."""
    database = open_database(f"sqlite:///{folder / 'intern.db'}")
    heard, failed = Heard(), ""

    async def main() -> None:
        nonlocal failed
        with files_no_larger_than(1):
            settled.PATIENCE = 0.0
            try:
                await settled.stored(write, database)
            except settled.StoreFull as error:
                failed = error.message
            settled.PATIENCE = 60.0
            writing = asyncio.create_task(settled.stored(write, database))
            await heard.until(2)
        await writing

    asyncio.run(main())
    with database.connect() as connection:
        rows = connection.execute(sa.text("select length(text) from written")).scalars().all()
    return {"failed": failed, "said": heard.said, "rows": list(rows)}


def a_run(folder: Path) -> dict[str, Any]:
    """A run is in the middle of its work when the database can be written no more, for longer than it can wait."""
    settled.PATIENCE, learner._REST_SECONDS = 0.0, 0.01
    house = House(open_database(f"sqlite:///{folder / 'intern.db'}"), folder)
    house.script.does = None
    heard = Heard()

    async def main() -> Any:
        carrying = house.learner()
        run = await carrying.submit(TEAM, "one")
        carrying.start()
        await house.script.begun.wait()
        with files_no_larger_than(1):
            house.script.waits.set()
            await heard.until(3 * learner.MOST_TAKEN_UP)
            state, said = kept(house, run).state, list(heard.said)
        await ended(carrying, run)
        await carrying.close()
        return {"during": state, "after": kept(house, run).state, "said": said}

    return dict(asyncio.run(main()))


def an_adapter(folder: Path) -> dict[str, Any]:
    """A run stores an adapter that is larger than what the disk takes, and again when there is room."""
    open_database(f"sqlite:///{folder / 'intern.db'}").dispose()
    database = open_database(f"sqlite:///{folder / 'intern.db'}")
    house, failed = test_making.House(database, folder), ""
    write_lora(house.folder / jobs.ADAPTER, tensors(base_shape(folder / "base"), rank=512), r=512)
    making = house.making()
    with files_no_larger_than(200_000):
        try:
            making._store(house.base, test_making.DATASET, now())
        except StoreFailure as error:
            failed = error.message
        left = [path.name for path in house.parts.adapters_folder.iterdir()]
        with database.connect() as connection:
            rows = len(store.list_adapters(connection, TEAM))
    return {
        "failed": failed,
        "left": left,
        "rows": rows,
        "then": making._store(house.base, test_making.DATASET, now()).name,
    }


def run(scene: Callable[[Path], dict[str, Any]], folder: Path, said: Path) -> None:
    said.write_text(json.dumps(scene(folder)))
