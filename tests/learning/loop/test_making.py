"""An adapter has its files or is not there at all, and its seconds are those of all the processes that it took.

The training process is scripted: it says what one says, and nothing is trained.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_lora import base_folder, base_shape, tensors, write_lora
from sqlalchemy.engine import Engine as Database

from intern.errors import StoreFailure
from intern.learning.adapters.adapter import read_manifest
from intern.learning.adapters.gguf_lora import GGUF
from intern.learning.loop import making
from intern.learning.loop.contracts import BaseModel, Work
from intern.learning.loop.making import Making
from intern.learning.train import job as jobs
from intern.learning.train.job import Event, Job
from intern.learning.train.recipe import MOST_EPOCHS, Recipe
from intern.skill import write_skill
from intern.store import learning as store
from intern.store.engine import open_database
from intern.types import Adapter, Dataset, Example, Run, now

TEAM = "default"
DATASET = Dataset(id="ds_1", team=TEAM, skill="sort", digest="x", created=now(), train=60, heldout=40)
# A process that was killed after its second event, and the one that went on.
TOLD = [
    Event(kind="loading", seconds=0.1),
    Event(kind="step", step=1, steps=4, loss=2.0, seconds=30.0),
    Event(kind="warning", text="It goes on from its last checkpoint."),
    Event(kind="loading", seconds=0.1),
    Event(kind="step", step=2, steps=4, loss=1.0, seconds=12.0),
    Event(kind="done", text="the adapter is written", seconds=15.0, numbers={"train_seconds": 10.0}),
]


class Parts:
    def __init__(self, database: Database, root: Path) -> None:
        self.database = database
        self.adapters_folder = root / "adapters"
        self.runs_folder = root / "runs"


class House:
    """A run whose job is written and whose training has left an adapter."""

    def __init__(self, database: Database, root: Path) -> None:
        self.parts: Any = Parts(database, root)
        self.base = BaseModel(path=str(base_folder(root / "base")), name="tiny", sha256="b" * 64)
        spec = {"title": "T", "description": "D", "instructions": "I"}
        self.skill = write_skill(root / "skills", "sort", spec)
        self.told: list[Event] = []
        self.folder = root / "runs" / "run_1"
        for folder in (self.folder, self.folder / "part-2"):
            write_lora(folder / jobs.ADAPTER, tensors(base_shape(root / "base")))
            job = Job(base="b", recipe=Recipe().fitted(8), context=512, threads=1)
            (folder / jobs.JOB).write_text(job.model_dump_json())

    def making(self, **known: Any) -> Making:
        async def tell(event: Event) -> None:
            self.told.append(event)

        run = Run(id="run_1", team=TEAM, skill="sort", state="running", created=now(), **known)
        return Making(Work(self.parts, self.skill, run, Recipe(), tell))

    def made(self, **known: Any) -> tuple[Adapter, float]:
        return asyncio.run(self.making(**known).make(self.base, DATASET, (), ()))

    def stored(self) -> list[Adapter]:
        with self.parts.database.connect() as connection:
            return store.list_adapters(connection, TEAM)


@pytest.fixture
def house(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    async def train(folder: Path) -> AsyncGenerator[Event, None]:
        for event in TOLD:
            yield event

    monkeypatch.setattr(making.training, "train", train)
    database = open_database(database_url)
    yield House(database, tmp_path)
    database.dispose()


def test_an_adapter_is_stored_with_its_files(house: House) -> None:
    adapter, _ = house.made()
    assert house.stored() == [adapter]
    assert (house.parts.adapters_folder / adapter.digest / GGUF).exists()
    epochs = read_manifest(house.parts.adapters_folder / adapter.digest).recipe["epochs"]
    assert epochs == MOST_EPOCHS, "those that were trained, not that they were to be chosen"


def test_a_disk_that_refuses_leaves_no_adapter_without_files(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any) -> None:
        raise StoreFailure("The adapter cannot be stored.")

    with monkeypatch.context() as patched:
        patched.setattr(making, "store_adapter", refuses)
        with pytest.raises(StoreFailure):
            house.made()
    assert house.stored() == []
    assert house.made()[0].version == 1


def test_what_a_run_had_stored_before_it_was_interrupted_is_not_stored_again(house: House) -> None:
    first, _ = house.made()  # the process ended before the run knew of it
    assert house.made()[0] == first
    assert house.stored() == [first]


def test_another_runs_adapter_is_another_one(house: House) -> None:
    first, _ = house.made()
    with house.parts.database.begin() as connection:
        store.update_adapter(connection, first.model_copy(update={"run": "run_0"}))
    assert house.made()[0].version == 2


@pytest.mark.parametrize(("before", "seconds"), [(0.0, 40.0), (500.0, 540.0)])
def test_the_seconds_of_a_training_are_those_of_all_its_processes(house: House, before: float, seconds: float) -> None:
    assert house.made(spent_seconds=before)[1] == seconds
    (done,) = (event for event in house.told if event.kind == "done")
    assert done.numbers["train_seconds"] == seconds


def test_a_part_s_training_tells_its_seconds(house: House) -> None:
    part: Sequence[Example] = [Example(id=f"e{n}", input="x", output="y") for n in range(2)]
    asyncio.run(house.making().train_part(house.base, part))
    assert [event.seconds for event in house.told] == [event.seconds for event in TOLD]
    assert {(event.kind, event.stage) for event in house.told} == {("answers", "growth")}
