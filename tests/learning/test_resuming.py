"""A training that failed goes on where it stood: from its last checkpoint, or from the adapter that it stored.

Learner and loop are real; the training process and the judging are scripted.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
from made_lora import base_folder, base_shape, tensors, write_lora

from intern.errors import Conflict, EngineFailure, TrainingFailed
from intern.learning.judging.outcomes import Ruling
from intern.learning.learner import Learner
from intern.learning.loop.contracts import BaseModel
from intern.learning.loop.folder import RunFolder
from intern.learning.loop.judging import Judging, Verdict
from intern.learning.train import job as jobs
from intern.learning.train import process as training
from intern.learning.train.job import Event
from intern.library import SkillLibrary
from intern.store import learning as store
from intern.store.engine import open_database
from intern.types import Adapter, Run

from .test_learner import Deployments, ended, settled_down
from .test_loop import skill
from .test_loop_writes import Parts as FewParts

TEAM = "default"
REJECTED = Ruling(decision="reject", reason="Worse.")

pytestmark = pytest.mark.anyio


class Parts(FewParts):
    base: Any


class House:
    """A skill with examples, and a training process that does what the test says."""

    def __init__(self, parts: Parts, root: Path) -> None:
        skill(root, {})
        self.parts = parts
        self.parts.base = BaseModel(path=str(base_folder(root / "base")), name="tiny", sha256="b" * 64)
        self.root = root
        self.library = SkillLibrary(root)
        self.library.refresh()
        self.training: Exception | None = None
        self.killed = 0  # so many training processes are, while they save
        self.judging: Exception | None = None
        self.began: list[list[str]] = []  # the checkpoints that each training process found
        self.rows: list[str] = []
        self.judged: list[Adapter] = []

    def learner(self) -> Learner:
        parts: Any = self.parts
        deployments: Any = Deployments(self.parts.database)
        return Learner(parts, self.library, deployments, look=0.05)

    def folder(self, run: Run) -> Path:
        return self.parts.runs_folder / run.id

    def kept(self, run: Run) -> Run:
        with self.parts.database.connect() as connection:
            return store.get_run(connection, TEAM, run.id)

    def another_base(self) -> None:
        self.parts.base = self.parts.base.model_copy(update={"sha256": "c" * 64})

    async def process(self, folder: Path, *_: Any) -> AsyncGenerator[Event | tuple[int, str], None]:
        stage = folder / jobs.STAGES / "examples"
        self.began.append(sorted(place.name for place in stage.glob("checkpoint-*")))
        self.rows.append((folder / jobs.ROWS).read_text())
        yield Event(kind="step", step=1, steps=4, loss=2.0, seconds=30.0)
        (stage / "checkpoint-2").mkdir(parents=True, exist_ok=True)
        (stage / "checkpoint-2" / "trainer_state.json").write_text("{}")
        if self.training is not None or self.killed:
            (stage / "checkpoint-4").mkdir()  # it was being written
        if self.training is not None:
            raise self.training
        if self.killed:
            self.killed -= 1
            yield -9, ""
            return
        write_lora(folder / jobs.ADAPTER, tensors(base_shape(self.root / "base")))
        yield Event(kind="done", seconds=31.0, numbers={"train_seconds": 10.0})
        yield 0, ""

    async def judge(self, base: BaseModel, adapter: Adapter, *_: Any) -> Verdict:
        self.judged.append(adapter)
        if self.judging is not None:
            raise self.judging
        return Verdict(rivals={}, ruling=REJECTED)

    def schema(self, schema: dict[str, Any]) -> None:
        (self.root / "skills" / "levels" / "schema.json").write_text(json.dumps(schema))
        self.library.refresh()

    async def failed(self, learner: Learner) -> Run:
        run = await learner.submit(TEAM, "levels", force=True)
        learner.start()
        await ended(learner, run)
        self.training = self.judging = None
        assert self.kept(run).state == "failed"
        return self.kept(run)


@pytest.fixture
def house(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    database = open_database(database_url)
    house = House(Parts(database, tmp_path), tmp_path)
    monkeypatch.setattr(training, "_process", house.process)
    monkeypatch.setattr(training, "check_installed", lambda also: None)

    async def judge(self: Judging, *given: Any) -> Verdict:
        return await house.judge(*given)

    monkeypatch.setattr(Judging, "judge", judge)
    yield house
    database.dispose()


async def test_what_failed_after_its_adapter_was_stored_is_judged_without_training_again(house: House) -> None:
    house.judging = EngineFailure("The engine did not start.")
    learner = house.learner()
    run = await house.failed(learner)
    assert (run.adapter, run.train_seconds) == ("levels@v1", 10.0)
    await learner.resume(TEAM, run.id)
    await ended(learner, run)
    await settled_down(learner)
    await learner.close()
    done = house.kept(run)
    assert (done.state, done.decision, done.adapter, done.reason) == ("done", "reject", "levels@v1", "Worse.")
    assert done.train_seconds == 10.0
    assert len(house.began) == 1
    assert [adapter.digest for adapter in house.judged] == [house.judged[0].digest] * 2
    assert not house.folder(run).exists()


async def test_what_failed_in_its_training_goes_on_from_its_last_whole_checkpoint(house: House) -> None:
    house.training = TrainingFailed("The disk refused to write.")
    learner = house.learner()
    run = await house.failed(learner)
    assert run.dataset is not None
    await learner.resume(TEAM, run.id)
    await ended(learner, run)
    await learner.close()
    done = house.kept(run)
    assert (done.state, done.dataset, done.adapter) == ("done", run.dataset, "levels@v1")
    assert house.began == [[], ["checkpoint-2"]]
    assert house.rows[0] == house.rows[1] != ""
    assert done.train_seconds == 40.0, "those of the training that failed count"


async def test_a_run_does_not_go_on_on_another_base_model(house: House) -> None:
    house.training = TrainingFailed("The disk refused to write.")
    learner = house.learner()
    run = await house.failed(learner)
    former = house.parts.base
    house.another_base()
    with pytest.raises(Conflict, match="another one than the run began with"):
        await learner.resume(TEAM, run.id)
    assert house.kept(run) == run
    house.parts.base = former
    await learner.resume(TEAM, run.id)
    await ended(learner, run)
    await learner.close()
    assert house.kept(run).state == "done"


async def test_a_run_that_was_interrupted_does_not_go_on_on_another_base_model_either(house: House) -> None:
    learner = house.learner()
    run = await learner.submit(TEAM, "levels", force=True)
    RunFolder(house.folder(run)).stay_on(house.parts.base.sha256, house.library.get(TEAM, "levels").schema)
    with house.parts.database.begin() as connection:
        store.save_run(connection, run.model_copy(update={"state": "running"}))
    house.another_base()
    learner.start()
    await ended(learner, run)
    await learner.close()
    assert house.kept(run).state == "failed"
    assert "another one than the run began with" in str(house.kept(run).reason)
    assert house.began == []


async def test_a_training_whose_process_was_killed_while_it_saved_goes_on_from_the_checkpoint_before(
    house: House,
) -> None:
    house.killed = 2
    learner = house.learner()
    run = await learner.submit(TEAM, "levels", force=True)
    learner.start()
    events = await ended(learner, run)
    await learner.close()
    assert house.kept(run).state == "done"
    assert house.began == [[], ["checkpoint-2"], ["checkpoint-2"]]
    assert [event.text.endswith("It goes on from its last checkpoint.") for event in events if event.kind == "warning"]
