"""An adapter has its files or is not there at all; its seconds and curves are those of all the processes that it took.

The training process is scripted: it says what one says, and nothing is trained.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from made_adapters import keep_adapter
from made_lora import base_folder, base_shape, tensors, write_lora
from sqlalchemy.engine import Engine as Database
from sqlalchemy.exc import OperationalError

from intern.errors import StoreFailure
from intern.learning.adapters.adapter import read_manifest, store_adapter
from intern.learning.adapters.gguf_lora import GGUF
from intern.learning.loop import making
from intern.learning.loop.contracts import BaseModel, Work
from intern.learning.loop.judging import Judging
from intern.learning.loop.making import Making, curves_of
from intern.learning.train import job as jobs
from intern.learning.train import process as training
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
        with database.begin() as connection:
            store.save_run(connection, self.run())
        self.folder = root / "runs" / "run_1"
        for folder in (self.folder, self.folder / "part-2"):
            write_lora(folder / jobs.ADAPTER, tensors(base_shape(root / "base")))
            job = Job(base="b", recipe=Recipe().fitted(8, 64), context=512, threads=1)
            (folder / jobs.JOB).write_text(job.model_dump_json())

    def run(self, **known: Any) -> Run:
        return Run(id="run_1", team=TEAM, skill="sort", state="running", created=now(), **known)

    async def tell(self, event: Event) -> None:
        body = json.loads(event.model_dump_json(exclude_defaults=True))
        with self.parts.database.begin() as connection:
            store.add_event(connection, TEAM, "run_1", len(self.told), body)
        self.told.append(event)

    def work(self, **known: Any) -> Work:
        return Work(self.parts, self.skill, self.run(**known), Recipe(), self.tell)

    def making(self, **known: Any) -> Making:
        return Making(self.work(**known))

    def made(self, **known: Any) -> tuple[Adapter, float]:
        return asyncio.run(self.making(**known).make(self.base, DATASET, (), ()))

    def stored(self) -> list[Adapter]:
        with self.parts.database.connect() as connection:
            return store.list_adapters(connection, TEAM)

    def folders(self) -> list[str]:
        return sorted(path.name for path in self.parts.adapters_folder.iterdir())

    def another(self, skill: str, run: str) -> Adapter:
        """An adapter that another process keeps."""
        known = Adapter(team=TEAM, skill=skill, version=0, digest="", base="b", run=run, created=now())
        with self.parts.database.begin() as connection:
            return keep_adapter(connection, known)


def saying(told: Sequence[Event]) -> Callable[..., AsyncGenerator[Event, None]]:
    """A training process that says that."""

    async def train(folder: Path, *, task: str = "train") -> AsyncGenerator[Event, None]:
        for event in told:
            yield event

    return train


@pytest.fixture
def house(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(training, "train", saying(TOLD))
    database = open_database(database_url)
    yield House(database, tmp_path)
    database.dispose()


def test_an_adapter_is_stored_with_its_files(house: House) -> None:
    adapter, _ = house.made()
    assert house.stored() == [adapter]
    assert (house.parts.adapters_folder / adapter.digest / GGUF).exists()
    epochs = read_manifest(house.parts.adapters_folder / adapter.digest).recipe["epochs"]
    assert epochs == MOST_EPOCHS, "those that were trained, not that they were to be chosen"


def test_a_manifest_has_the_instructions_that_were_trained_with_not_todays(house: House) -> None:
    job = jobs.read_job(house.folder).model_copy(update={"instructions": "Say the kind, as it was said then."})
    (house.folder / jobs.JOB).write_text(job.model_dump_json())
    adapter, _ = house.made()
    manifest = read_manifest(house.parts.adapters_folder / adapter.digest)
    assert manifest.instructions == job.instructions != house.skill.spec.instructions


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


def storing(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """Something happens when an adapter's files are written for the first time."""
    write, first = store_adapter, [True]

    def writes(*given: Any) -> Any:
        files = write(*given)
        if first:
            first.clear()
            meanwhile()
        return files

    monkeypatch.setattr(making, "store_adapter", writes)


def test_others_write_into_the_database_while_an_adapter_s_files_are_stored(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing(monkeypatch, lambda: house.another("another-skill", "run_7"))
    assert house.made()[0].version == 1


def test_a_version_that_is_taken_while_files_are_stored_under_it_stays_the_other_s(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing(monkeypatch, lambda: house.another("sort", "run_7"))
    adapter, _ = house.made()
    assert [(kept.version, kept.run) for kept in house.stored()] == [(2, "run_1"), (1, "run_7")]
    assert house.folders() == [adapter.digest]
    assert read_manifest(house.parts.adapters_folder / adapter.digest).name == "sort@v2"


def test_files_for_which_no_row_came_are_gone_when_the_run_has_stored_its_adapter(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        storing(patched, killed)
        with pytest.raises(KeyboardInterrupt):
            house.made()
    (left,) = house.folders()
    assert house.stored() == []
    adapter, _ = house.made()
    assert house.folders() == [adapter.digest] != [left]


def test_a_database_that_was_away_for_a_moment_leaves_one_adapter(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, times = store.put_adapter, []

    def put_adapter(*given: Any) -> None:
        times.append(given)
        if len(times) == 1:
            raise OperationalError("insert", {}, Exception("gone away"))
        put(*given)

    monkeypatch.setattr(store, "put_adapter", put_adapter)
    adapter, _ = house.made()
    assert len(times) == 2
    assert house.folders() == [adapter.digest]


# --- curves and seconds ----------------------------------------------------------------------------------------


def test_a_manifest_has_the_curves_of_all_that_was_trained_also_before_the_server_ended(house: House) -> None:
    earlier = [
        Event(kind="heldout", stage="completion", step=0, loss=5.0),
        Event(kind="step", stage="completion", step=1, loss=4.0),
        Event(kind="step", stage="train", step=1, loss=3.0),
        Event(kind="step", stage="train", step=2, loss=2.5),
    ]
    for event in earlier:
        asyncio.run(house.tell(event))
    adapter, _ = house.made()
    manifest = read_manifest(house.parts.adapters_folder / adapter.digest)
    assert manifest.stages == ("completion", "train")
    assert manifest.curves == {
        "step_at": (1.0, 1.0, 2.0),
        "step_loss": (4.0, 2.0, 1.0),  # of a step that was done twice, the last counts
        "step_stage": (0.0, 1.0, 1.0),
        "heldout_at": (0.0,),
        "heldout_loss": (5.0,),
        "heldout_stage": (0.0,),
    }


def test_a_process_that_goes_on_from_its_checkpoint_takes_no_step_back_in_the_curve() -> None:
    done = [*range(1, 81), *range(61, 101)]
    curves, stages = curves_of([Event(kind="step", stage="examples", step=s, loss=n) for n, s in enumerate(done)])
    assert stages == ("examples",)
    assert curves["step_at"] == tuple(range(1, 101))
    assert curves["step_loss"] == (*range(60), *range(80, 120))


def test_a_loss_that_is_none_is_no_point_and_long_curves_are_thinned_to_their_ends() -> None:
    told = [Event(kind="step", stage="examples", step=step, loss=step / 7) for step in range(1, 25_001)]
    told[9] = told[9].model_copy(update={"loss": None})
    curves, _ = curves_of([*told, Event(kind="heldout", stage="examples", step=3, loss=None)])
    assert curves.keys() == {"step_at", "step_loss", "step_stage"}
    at = curves["step_at"]
    assert len(at) == len(curves["step_loss"]) == len(curves["step_stage"]) <= 1002
    assert (at[0], at[-1]) == (1, 25_000)
    assert max(later - step for step, later in pairwise(at)) <= 26
    assert curves_of([]) == ({}, ())


@pytest.mark.parametrize(("before", "seconds"), [(0.0, 40.0), (500.0, 540.0)])
def test_the_seconds_of_a_training_are_those_of_all_its_processes(house: House, before: float, seconds: float) -> None:
    assert house.made(spent_seconds=before)[1] == seconds
    (done,) = (event for event in house.told if event.kind == "done")
    assert done.numbers["train_seconds"] == seconds


def test_a_part_s_training_tells_its_seconds_and_that_it_waits(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = [Event(kind="waiting", text="it waits"), Event(kind="waited", numbers={"waited": 3.0})]
    monkeypatch.setattr(training, "train", saying([*turns, *TOLD]))
    part: Sequence[Example] = [Example(id=f"e{n}", input="x", output="y") for n in range(2)]
    asyncio.run(house.making().train_part(house.base, part))
    assert house.told[:2] == [turn.model_copy(update={"stage": "growth"}) for turn in turns]
    assert [event.seconds for event in house.told[2:]] == [event.seconds for event in TOLD]
    assert {(event.kind, event.stage) for event in house.told[2:]} == {("answers", "growth")}


def test_so_does_the_trainer_that_reads_the_engine_s_answers(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = [Event(kind="waiting", text="it waits"), Event(kind="waited", numbers={"waited": 3.0})]
    monkeypatch.setattr(training, "train", saying([*turns, Event(kind="loading"), Event(kind="done")]))
    asyncio.run(Judging(house.work())._agree())
    assert house.told == [turn.model_copy(update={"stage": "evaluate"}) for turn in turns]
