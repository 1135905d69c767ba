"""Whoever ends a run is told so only when what it had begun to write is written: nothing comes late."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from made_lora import base_folder, base_shape, tensors, write_lora
from sqlalchemy.engine import Engine as Database

from intern.engines.fake import FakeEngine
from intern.learning.erasure import Erasure
from intern.learning.learner import Learner
from intern.learning.loop.contracts import BaseModel, Work
from intern.learning.loop.loop import Loop
from intern.learning.loop.making import Making
from intern.learning.train import job as jobs
from intern.learning.train import process as training
from intern.learning.train.job import Event
from intern.learning.train.recipe import Recipe
from intern.models.fake import HashEmbedder
from intern.settings import Settings
from intern.skill import Skill, write_skill
from intern.store import learning as store
from intern.store import records
from intern.store.engine import open_database
from intern.types import Dataset, Example, Run, now
from intern.workspace import Workspace

from .test_loop import Parts as FewParts
from .test_loop import reply, skill

TEAM = "default"

pytestmark = pytest.mark.anyio


class Gate:
    """A place where a thread stops in the middle of its work until it is let on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._open = threading.Event()

    def pass_through(self) -> None:
        self._loop.call_soon_threadsafe(self.reached.set)
        assert self._open.wait(20), "nobody let it on"

    def open(self) -> None:
        self._open.set()

    def at(self, database: Database, statement: str, *, time: int = 1) -> None:
        """Stop before the `time`-th statement that holds these words."""
        seen = 0

        @sa.event.listens_for(database, "before_cursor_execute")
        def hold(connection: Any, cursor: Any, sent: str, *rest: Any) -> None:
            nonlocal seen
            if statement in sent and (seen := seen + 1) == time:
                self.pass_through()


async def ended_in(gate: Gate, work: Coroutine[Any, Any, Any]) -> None:
    """Cancel `work` while it is at the gate; it must not come to its end before the gate is open."""
    task = asyncio.create_task(work)
    await gate.reached.wait()
    task.cancel()
    for _ in range(50):
        await asyncio.sleep(0)
    early = task.done()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not early, "it ended while a thread was still writing"


class Parts(FewParts):
    """With what making an adapter uses besides."""

    context = 1_000
    threads = 1

    def __init__(self, database: Database, root: Path) -> None:
        super().__init__(database, root, reply)
        self.adapters_folder = root / "adapters"
        self.cache = root / "cache"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    engine = open_database(f"sqlite:///{tmp_path / 'writes.db'}")
    yield engine
    engine.dispose()


async def nobody(event: Event) -> None:
    pass


def run() -> Run:
    return Run(id="run_1", team=TEAM, skill="levels", state="running", created=now())


def loop(parts: Any, made: Skill) -> Loop:
    (parts.runs_folder / "run_1").mkdir(parents=True)
    return Loop(parts, made, run(), Recipe(), nobody)


def making(parts: Any, made: Skill) -> Making:
    (parts.runs_folder / "run_1").mkdir(parents=True)
    return Making(Work(parts, made, run(), Recipe(), nobody))


def frozen(made: Skill) -> tuple[Dataset, list[Example], list[Example]]:
    dataset = Dataset(id="ds_1", team=TEAM, skill=made.name, digest="d", created=now(), train=20, heldout=40)
    train, heldout = ([e for e in made.examples if e.split == split] for split in ("train", "heldout"))
    return dataset, train, heldout


def held_lines(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    """Stop before a run's first file of lines is written."""
    write, seen = jobs.write_lines, threading.Event()

    def held(path: Path, rows: Any) -> int:
        if not seen.is_set():
            seen.set()
            gate.pass_through()
        return write(path, rows)

    monkeypatch.setattr(jobs, "write_lines", held)


async def test_a_dataset_that_is_being_frozen(database: Database, tmp_path: Path) -> None:
    gate = Gate()
    gate.at(database, "INSERT INTO datasets")
    made = skill(tmp_path, {})
    await ended_in(gate, loop(Parts(database, tmp_path), made).collect(force=True))
    with database.connect() as connection:
        (dataset,) = store.list_datasets(connection, TEAM)
        assert (dataset.train, dataset.heldout) == (20, 40)


async def test_the_rows_of_a_training(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    held_lines(monkeypatch, gate)
    parts, made = Parts(database, tmp_path), skill(tmp_path, {})
    base = BaseModel(path=str(base_folder(tmp_path / "base")), name="tiny", sha256="b" * 64)
    await ended_in(gate, making(parts, made).make(base, *frozen(made)))
    assert (parts.runs_folder / "run_1" / jobs.JOB).exists(), "the last file of them"


async def test_the_adapter_that_is_being_stored(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def trained(folder: Path, **_: Any) -> AsyncGenerator[Event, None]:
        write_lora(folder / jobs.ADAPTER, tensors(base_shape(tmp_path / "base")))
        yield Event(kind="done", numbers={"train_seconds": 1.0})

    gate = Gate()
    gate.at(database, "INSERT INTO adapters")
    monkeypatch.setattr(training, "train", trained)
    parts, made = Parts(database, tmp_path), skill(tmp_path, {})
    base = BaseModel(path=str(base_folder(tmp_path / "base")), name="tiny", sha256="b" * 64)
    await ended_in(gate, making(parts, made).make(base, *frozen(made)))
    with database.connect() as connection:
        adapter = store.get_adapter(connection, TEAM, "levels", 1)
    assert (parts.adapters_folder / adapter.digest).is_dir()


async def test_the_outcomes_of_an_evaluation(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    held_lines(monkeypatch, gate)
    parts = Parts(database, tmp_path)
    await ended_in(gate, loop(parts, skill(tmp_path, {})).compare(serving=None))
    names = sorted(file.name for file in (parts.runs_folder / "run_1").iterdir())
    assert names == [f"outcomes-{rival}.jsonl" for rival in ("base", "few-shot", "retrieval")]


class OnlyCollects(Loop):
    """A run that would train on what it has frozen."""

    async def learn(self, **_: Any) -> Any:
        await self.collect(force=True)
        raise AssertionError("it was to be ended in the middle")


async def test_what_a_run_was_freezing_when_somebody_was_deleted_holds_nothing_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"title": "T", "description": "D", "instructions": "I"}
    rows = [{"input": f"{letter * 6} asks", "output": letter} for letter in "abcdefghijklmnop"]
    write_skill(tmp_path / "skills", "sort", spec, examples=rows)
    workspace = Workspace(Settings(home=tmp_path), engine=FakeEngine(), embedder=HashEmbedder())
    workspace.library.refresh()
    monkeypatch.setattr(workspace.parts, "redacts", lambda team, skill: lambda example: (example, None))
    mine = Example(id="ex_eve", input="the words of eve", output="fine", provenance="review")
    with workspace.database.begin() as connection:
        records.add_examples(connection, TEAM, "sort", [mine], person="eve")
    gate = Gate()
    # The keys are read once to build the dataset, and again to freeze it: no lock of the database is held there.
    gate.at(workspace.database, "FROM heldout", time=2)
    learner = Learner(workspace.parts, workspace.library, workspace.deployments, loop=OnlyCollects)
    erasure = Erasure(workspace.parts, learner, workspace.library, workspace.recorder.flush)
    begun = await learner.submit(TEAM, "sort")
    learner.start()
    await gate.reached.wait()
    erasing = asyncio.create_task(erasure.person(TEAM, "eve"))
    await asyncio.wait({erasing}, timeout=0.5)
    early = erasing.done()
    gate.open()
    erased = await erasing
    await learner.close()
    with workspace.database.connect() as connection:
        held = [
            example.id
            for dataset in store.list_datasets(connection, TEAM)
            for split in ("train", "heldout")
            for example in store.dataset_examples(connection, TEAM, dataset.id, split)
        ]
    await workspace.close()
    assert not early, "who deletes is told so when it is true"
    assert erased.cancelled == (begun.id,)
    assert "ex_eve" not in held
    assert len(held) == len(rows), "the others' examples stay in the dataset"
