"""What runs leave on disk: one training of each skill can go on, and the rest goes, whatever happened on the way.

Learner and loop are real; the training process and the judging are scripted.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from made_lora import base_shape, tensors, write_lora
from made_records import record

from intern.errors import Conflict, EngineFailure, TrainingFailed
from intern.learning.adapters.adapter import store_adapter
from intern.learning.adapters.manifest import Base, Provenance
from intern.learning.journal import Journal
from intern.learning.leftovers import Leftovers
from intern.learning.loop.folder import Asked, RunFolder
from intern.skill import write_skill
from intern.store import learning as store
from intern.store import records
from intern.types import Adapter, Dataset, Example, Review, Run, new_id, now

from .test_learner import ended, put_in_service, settled_down
from .test_resuming import TEAM, House, house

__all__ = ["house"]

BROKE = TrainingFailed("The service was away.")

pytestmark = pytest.mark.anyio


def left(house: House) -> Leftovers:
    parts: Any = house.parts
    return Leftovers(parts)


def resumable(house: House, *runs: Run) -> list[bool]:
    return [RunFolder(house.folder(run)).resumable for run in runs]


async def broken(house: House, learner: Any) -> Run:
    house.training = BROKE
    run = await house.failed(learner)
    await settled_down(learner)
    return run


# --- what goes -------------------------------------------------------------------------------------------------


async def test_of_a_skills_failed_trainings_the_last_one_keeps_its_work(house: House) -> None:
    learner = house.learner()
    runs = [await broken(house, learner) for _ in range(3)]
    assert resumable(house, *runs) == [False, False, True]
    house.parts.base = None  # the next one fails before it has done anything
    late = await learner.submit(TEAM, "levels", force=True)
    await ended(learner, late)
    await learner.close()
    assert house.kept(late).state == "failed"
    assert resumable(house, *runs) == [False, False, True]
    assert [house.folder(run).exists() for run in runs] == [False, False, True]


@pytest.mark.parametrize("state", ["done", "cancelled", "failed"])
async def test_what_a_process_that_was_killed_did_not_remove_goes_when_runs_are_carried_out_again(
    house: House, state: Any
) -> None:
    learner = house.learner()
    run = await broken(house, learner)
    await learner.close()
    if state == "failed":
        (house.folder(run) / "rows.jsonl").unlink()  # it broke off while it was cleared
    with house.parts.database.begin() as connection:
        store.save_run(connection, run.model_copy(update={"state": state}))
    (house.folder(run) / "outcomes-base.jsonl").write_text("")
    learner = house.learner()
    learner.start()
    async with asyncio.timeout(20):
        while len(list(house.folder(run).iterdir())) > 1:  # noqa: ASYNC110 - it has no event for this
            await asyncio.sleep(0.01)
    await learner.close()
    assert [place.name for place in house.folder(run).iterdir()] == ["outcomes-base.jsonl"]


async def test_one_that_cannot_be_removed_does_not_keep_the_others(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs = [Run(id=f"run_{n}", team=TEAM, skill="levels", state="done", created=now(), ended=now()) for n in range(3)]
    for run in runs:
        with house.parts.database.begin() as connection:
            store.save_run(connection, run)
        house.folder(run).mkdir(parents=True)
    real = RunFolder.clear

    def clear(self: RunFolder) -> None:
        if self.path.name == "run_1":
            raise OSError(5, "Input/output error")
        real(self)

    monkeypatch.setattr(RunFolder, "clear", clear)
    left(house).sweep()
    assert [house.folder(run).exists() for run in runs] == [False, True, False]
    assert "what the run run_1 left cannot be removed" in caplog.text


async def test_runs_that_wait_or_go_on_or_are_ending_elsewhere_keep_what_they_have(house: House) -> None:
    runs = [
        Run(id=f"run_{state}", team=TEAM, skill=state, state=state, created=now())
        for state in ("queued", "running", "cancelled")
    ]
    for run in runs:
        with house.parts.database.begin() as connection:
            store.save_run(connection, run)
        house.folder(run).mkdir(parents=True)
    unknown = house.parts.runs_folder / "run_new"  # its request is being kept
    unknown.mkdir()
    left(house).sweep()
    assert all(house.folder(run).exists() for run in runs)
    assert unknown.exists()


async def test_what_would_fail_in_the_same_way_again_keeps_nothing(house: House) -> None:
    house.training = TrainingFailed("The loss is no number any more.", final=True)
    learner = house.learner()
    run = await house.failed(learner)
    await settled_down(learner)
    assert not house.folder(run).exists()
    await learner.close()


async def test_a_run_that_failed_while_another_server_was_ending_it_is_cancelled_and_keeps_nothing(
    house: House,
) -> None:
    house.training = BROKE
    learner = house.learner()
    real = Journal.tell

    async def tell(journal: Journal, run: Run, event: Any) -> None:
        if event.kind == "failed":
            with house.parts.database.begin() as connection:
                going = store.get_run(connection, TEAM, run.id)
                store.save_run(connection, going.model_copy(update={"state": "cancelled"}))
        await real(journal, run, event)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "tell", tell)
        run = await learner.submit(TEAM, "levels", force=True)
        learner.start()
        await ended(learner, run)
        await settled_down(learner)
    await learner.close()
    found = house.kept(run)
    assert found.state == "cancelled"
    assert found.ended is not None
    assert not house.folder(run).exists()


# --- what may go on --------------------------------------------------------------------------------------------


async def test_a_run_does_not_go_on_with_another_schema(house: House) -> None:
    learner = house.learner()
    run = await broken(house, learner)
    former = house.library.get(TEAM, "levels").schema
    assert former is not None
    house.schema({**former.schema, "title": "Another one"})
    with pytest.raises(Conflict, match="The skill's schema is another one"):
        await learner.resume(TEAM, run.id)
    house.schema(dict(former.schema))
    await learner.resume(TEAM, run.id)
    await ended(learner, run)
    await learner.close()
    assert house.kept(run).state == "done"


async def test_a_skill_that_was_made_anew_by_hand_goes_on_with_no_run_of_the_former(house: House) -> None:
    learner = house.learner()
    run = await broken(house, learner)
    await learner.close()
    shutil.rmtree(house.root / "skills" / "levels")
    write_skill(house.root / "skills", "levels", {"title": "Other", "description": "D", "instructions": "I"})
    house.library.refresh()
    with pytest.raises(Conflict, match="The skill's schema is another one"):
        await learner.resume(TEAM, run.id)


@pytest.mark.parametrize("split", ["train", "heldout"])
async def test_a_run_does_not_go_on_with_examples_that_were_deleted(house: House, split: Any) -> None:
    learner = house.learner()
    run = await broken(house, learner)
    await learner.close()
    given = [Example(id=f"ex_{n}", input=f"i{n}", output="o", provenance="api") for n in range(3)]
    ours = Example(id="folder-1", input="mine", output="o")
    dataset = Dataset(id="ds_given", team=TEAM, skill="levels", digest="x", created=now(), train=3, heldout=1)
    with house.parts.database.begin() as connection:
        records.add_examples(connection, TEAM, "levels", given)
        items = [store.Item(example=example, key=example.id, split=split) for example in (*given, ours)]
        store.add_dataset(connection, dataset, items)
        store.save_run(connection, run.model_copy(update={"dataset": dataset.id}))
    left(house).check(house.kept(run), house.library.get(TEAM, "levels"))
    with house.parts.database.begin() as connection:
        records.delete_example(connection, TEAM, "levels", "ex_1")
    with pytest.raises(Conflict, match=r"examples that were deleted since \(1\). Begin anew: intern learn levels."):
        await learner.resume(TEAM, run.id)
    assert house.kept(run).state == "failed"


async def test_a_later_review_of_the_same_answer_deletes_no_example(house: House) -> None:
    learner = house.learner()
    run = await broken(house, learner)
    await learner.close()
    answered = record(skill="levels")
    first, second = (
        Example(id=f"ex_{n}", input="i", output="o", provenance="review", record=answered.id) for n in range(2)
    )
    dataset = Dataset(id="ds_given", team=TEAM, skill="levels", digest="x", created=now(), train=1, heldout=0)
    writer = records.Recorder(house.parts.database)
    writer.put(answered)
    writer.close()
    with house.parts.database.begin() as connection:
        store.add_dataset(connection, dataset, [store.Item(example=first, key="k", split="train")])
        store.save_run(connection, run.model_copy(update={"dataset": dataset.id}))

    def check() -> None:
        left(house).check(house.kept(run), house.library.get(TEAM, "levels"))

    def judge(verdict: Any) -> None:
        review = Review(id=new_id("rev"), record=answered.id, team=TEAM, verdict=verdict, reviewer="k", created=now())
        with house.parts.database.begin() as connection:
            records.add_review(connection, review)

    judge("accept")
    with pytest.raises(Conflict, match="deleted since"):  # by hand: nothing else takes an accepted one away
        check()
    with house.parts.database.begin() as connection:
        records.add_examples(connection, TEAM, "levels", [second])
    check()
    with house.parts.database.begin() as connection:
        records.delete_example(connection, TEAM, "levels", second.id)
    judge("reject")
    check()


async def test_a_run_that_is_taken_up_does_not_go_on_with_examples_that_were_deleted_either(house: House) -> None:
    learner = house.learner()
    run = await broken(house, learner)
    await learner.close()
    given = [Example(id=f"ex_{n}", input=f"i{n}", output="o", provenance="api") for n in range(3)]
    dataset = Dataset(id="ds_given", team=TEAM, skill="levels", digest="x", created=now(), train=3, heldout=0)
    with house.parts.database.begin() as connection:
        records.add_examples(connection, TEAM, "levels", given[1:])
        store.add_dataset(connection, dataset, [store.Item(example=e, key=e.id, split="train") for e in given])
        # the server ended in the middle of it
        going = {"dataset": dataset.id, "state": "running", "ended": None}
        store.save_run(connection, run.model_copy(update=going))
    learner = house.learner()
    learner.start()
    await ended(learner, run)
    await learner.close()
    found = house.kept(run)
    assert found.state == "failed"
    assert found.reason == "It began with examples that were deleted since (1). Begin anew: intern learn levels."
    assert len(house.began) == 1, "it does not train again"
    assert (found.passing, resumable(house, run)) == (False, [False])


async def test_a_run_whose_adapter_serves_is_not_judged_against_itself(house: House) -> None:
    house.judging = EngineFailure("The engine did not start.")
    learner = house.learner()
    run = await house.failed(learner)
    put_in_service(house.parts.database, "levels", 1, by="ana")
    with pytest.raises(Conflict, match="Its adapter levels@v1 serves already"):
        await learner.resume(TEAM, run.id)
    put_in_service(house.parts.database, "levels", None, by="ana")
    await learner.resume(TEAM, run.id)
    await ended(learner, run)
    await learner.close()
    assert house.kept(run).state == "done"


@pytest.mark.parametrize("state", ["failed", "running"])
async def test_what_a_killed_process_left_half_made_goes_and_no_other_adapter(house: House, state: Any) -> None:
    learner = house.learner()
    await learner.close()
    house.parts.runs_folder.mkdir()
    for run, known in (("run_1", state), ("run_0", "done")):
        ended = now() + timedelta(minutes=1)
        made = Run(id=run, team=TEAM, skill="levels", state=known, created=now(), ended=ended)
        with house.parts.database.begin() as connection:
            store.save_run(connection, made.model_copy(update={"ended": None}) if known == "running" else made)
    source = write_lora(house.root / "trained", tensors(base_shape(house.root / "base")))
    about = {"skill": "levels", "base": Base(name="tiny", sha256="b" * 64), "dataset": "d", "recipe": {}}
    unnamed, kept, foreign = (
        store_adapter(
            house.parts.adapters_folder,
            source,
            Provenance(**about, name=f"levels@v{number}", run=run, created=now()),
        )
        for number, run in enumerate(("run_1", "run_0", "run_of_another_workspace"), 1)
    )
    row = Adapter(team=TEAM, skill="levels", version=2, digest=kept.digest, base="b", run="run_0", created=now())
    with house.parts.database.begin() as connection:
        store.put_adapter(connection, row)
    storing = house.parts.adapters_folder / ".storing-1"
    unpacking = house.parts.cache / ".base-1"
    for folder in (storing, unpacking):
        folder.mkdir(parents=True)
        (folder / "half").write_text("of it")
    left(house).sweep()
    assert (storing.exists(), unpacking.exists()) == (False, False)
    assert (kept.folder.exists(), foreign.folder.exists()) == (True, True)
    assert unnamed.folder.exists() == (state == "running"), "it is taken up, and stores it then"


async def test_what_a_killed_process_had_no_time_to_queue_goes_after_a_day(house: House) -> None:
    asked = Asked(examples=(Example(id="1", input="the words of eve", output="o", person="eve"),))
    learner = house.learner()
    queued = await learner.submit(TEAM, "levels", kind="evaluate", asked=asked)
    await learner.close()
    former, fresh, foreign = (house.parts.runs_folder / name for name in ("run_former", "run_fresh", "run_foreign"))
    for folder in (former, fresh, foreign):
        RunFolder(folder).keep(asked)
    (foreign / "outcomes-base.jsonl").write_text("")
    for folder in (former, foreign, house.folder(queued)):
        os.utime(folder, (time.time() - 90_000,) * 2)
    left(house).sweep()
    assert {place.name for place in house.parts.runs_folder.iterdir()} == {queued.id, fresh.name, foreign.name}


def test_a_folder_of_runs_that_was_never_made_is_swept(tmp_path: Path) -> None:
    class Parts:
        runs_folder = tmp_path / "none"

    parts: Any = Parts()
    Leftovers(parts).sweep()
    assert list(tmp_path.iterdir()) == []
