"""What a person, or a record, left is deleted everywhere, and a run that works with it ends."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from made_records import record

from intern.engines.fake import FakeEngine
from intern.errors import InvalidInput, NotFound, StoreFailure
from intern.learning.erasure import Erasure
from intern.learning.examples.gather import gather
from intern.learning.judging.evaluate import Generated
from intern.learning.judging.outcomes import Outcome
from intern.learning.learner import Asked, Learner
from intern.learning.loop.folder import Owner, RunFolder
from intern.learning.train.job import Row, read_lines, write_lines
from intern.models.fake import HashEmbedder
from intern.settings import Settings
from intern.skill import write_skill
from intern.store import learning as store
from intern.store import records
from intern.types import Dataset, Example, Message, Run, now
from intern.workspace import Workspace

from .test_learner import Script

TEAM = "default"

pytestmark = pytest.mark.anyio


@pytest.fixture
async def workspace(tmp_path: Path) -> AsyncIterator[Workspace]:
    for name in ("sort", "other"):
        write_skill(tmp_path / "skills", name, {"title": name, "description": name, "instructions": name})
    workspace = Workspace(Settings(home=tmp_path), engine=FakeEngine(), embedder=HashEmbedder())
    yield workspace
    await workspace.close()


def example(id: str, *, record: str | None = None) -> Example:
    return Example(id=id, input=f"the words of {id}", output="fine", provenance="review", record=record)


def collect(workspace: Workspace, *examples: tuple[Example, str | None], skill: str = "sort") -> None:
    with workspace.database.begin() as connection:
        for one, person in examples:
            records.add_examples(connection, TEAM, skill, [one], person=person)


def freeze(
    workspace: Workspace, *examples: tuple[Example, str | None], id: str = "ds_1", skill: str = "sort"
) -> Dataset:
    dataset = Dataset(id=id, team=TEAM, skill=skill, digest=id, created=now(), train=len(examples), heldout=0)
    items = [store.Item(example=e, key=e.id, split="train", person=person) for e, person in examples]
    with workspace.database.begin() as connection:
        return store.add_dataset(connection, dataset, items)


def ran(workspace: Workspace, id: str, *examples: str, dataset: str | None = None, state: Any = "done") -> Path:
    """A run that left rows and outcomes of `examples`."""
    run = Run(id=id, team=TEAM, skill="sort", state=state, dataset=dataset, created=now())
    with workspace.database.begin() as connection:
        store.save_run(connection, run)
    folder = workspace.parts.runs_folder / id
    folder.mkdir(parents=True)
    outcome = {"group": "g", "valid": True, "fields": {}, "score": 1.0, "expected": "fine", "output": "fine"}
    outcomes = [Outcome.model_validate({"example": e, "request": f"the words of {e}", **outcome}) for e in examples]
    rows = [Row(id=e, messages=(Message(role="user", content=f"the words of {e}"),), completion="") for e in examples]
    write_lines(folder / "outcomes-base.jsonl", outcomes)
    write_lines(folder / "rows.jsonl", rows)
    return folder


def left(folder: Path) -> str:
    return "".join(file.read_text(encoding="utf-8") for file in sorted(folder.iterdir()))


async def test_runs_keep_nothing_of_the_person_and_everything_of_the_others(workspace: Workspace) -> None:
    eve, bob = (example("ex_eve"), "eve"), (example("ex_bob"), "bob")
    freeze(workspace, eve, bob)
    folder = ran(workspace, "run_1", "ex_eve", "ex_bob", dataset="ds_1")
    cut = '{"id": "ex_eve", "text": "ä'.encode()[:-1]  # by a process that was killed, in the middle of a character
    (folder / "answers.jsonl").write_bytes(cut)
    erased = await workspace.erasure.person(TEAM, "eve")
    assert (erased.datasets, erased.cancelled) == (("ds_1",), ())
    assert "ex_eve" not in left(folder)
    assert left(folder).count("the words of ex_bob") == 1
    assert [file.name for file in folder.iterdir()] == ["outcomes-base.jsonl"]


async def test_what_a_run_keeps_of_parts_and_of_odd_texts_goes_too(workspace: Workspace) -> None:
    freeze(workspace, (example("ex_eve"), "eve"))
    folder = ran(workspace, "run_1", "ex_bob", dataset="ds_other", state="running")
    rows = [Row(id=e, messages=(Message(role="user", content="a\u2028b"),), completion="") for e in ("ex_eve", "ex_x")]
    (folder / "part-20").mkdir()
    write_lines(folder / "part-20" / "rows.jsonl", rows)
    await workspace.erasure.person(TEAM, "eve")
    assert [row.id for row in read_lines(folder / "part-20" / "rows.jsonl", Row)] == ["ex_x"]


async def test_examples_that_no_dataset_has_are_found_too(workspace: Workspace) -> None:
    collect(workspace, (example("ex_eve"), "eve"))
    folder = ran(workspace, "run_2", "ex_eve", "ex_bob")  # an evaluation: it has no dataset
    erased = await workspace.erasure.person(TEAM, "eve")
    assert erased.counts["examples"] == 1
    assert "ex_eve" not in left(folder)


async def test_answers_that_evaluations_remember_are_forgotten(workspace: Workspace) -> None:
    freeze(workspace, (example("ex_eve"), "eve"))
    for skill in ("sort", "other"):
        workspace.parts.memory(TEAM, skill).put("k", Generated(text="eve is fine"))
    await workspace.erasure.person(TEAM, "eve")
    assert workspace.parts.memory(TEAM, "sort").get("k") is None
    assert workspace.parts.memory(TEAM, "other").get("k") is not None
    files = [file.name for file in (workspace.cache / "answers" / TEAM).iterdir()]
    assert files == ["other.jsonl"]


async def test_nobody_elses_memory_is_touched_when_nothing_is_known_of_a_person(workspace: Workspace) -> None:
    workspace.parts.memory(TEAM, "sort").put("k", Generated(text="fine"))
    erased = await workspace.erasure.person(TEAM, "nobody")
    assert erased.counts == {"reviews": 0, "utterances": 0, "examples": 0, "records": 0}
    assert workspace.parts.memory(TEAM, "sort").get("k") is not None


@pytest.mark.parametrize("frozen", [True, False])
async def test_a_run_that_works_with_the_data_is_cancelled_and_says_so(workspace: Workspace, frozen: bool) -> None:
    eve = (example("ex_eve"), "eve")
    collect(workspace, eve)
    script = Script(workspace.parts)  # type: ignore[arg-type]
    script.does = None  # it waits until it is ended
    made: Any = Learner(workspace.parts, workspace.library, workspace.deployments, loop=script)  # type: ignore[arg-type]
    run = await made.submit(TEAM, "sort")
    bystander = await made.submit(TEAM, "other")
    made.start()
    await script.begun.wait()
    if frozen:
        freeze(workspace, eve)
        with workspace.database.begin() as connection:
            store.save_run(connection, store.get_run(connection, TEAM, run.id).model_copy(update={"dataset": "ds_1"}))
    erased = await Erasure(workspace.parts, made, workspace.library, workspace.recorder.flush).person(TEAM, "eve")
    with workspace.database.connect() as connection:
        assert store.get_run(connection, TEAM, run.id).state == "cancelled"
        assert store.get_run(connection, TEAM, bystander.id).state in ("queued", "running")
    assert erased.cancelled == (run.id,)
    script.waits.set()
    await made.close()


def has_failed(folder: Path) -> None:
    """What a run that failed in its training keeps beside its rows."""
    checkpoint = folder / "stages" / "examples" / "checkpoint-9"
    checkpoint.mkdir(parents=True)
    for file in (folder / "job.json", checkpoint / "trainer_state.json"):
        file.write_text("{}")
    assert RunFolder(folder).resumable


async def test_a_run_that_failed_on_the_data_cannot_be_resumed_and_keeps_no_rows(workspace: Workspace) -> None:
    eve, bob = (example("ex_eve"), "eve"), (example("ex_bob"), "bob")
    freeze(workspace, eve, bob)
    freeze(workspace, bob, id="ds_2")
    collect(workspace, eve, bob)
    folder = ran(workspace, "run_1", "ex_eve", "ex_bob", dataset="ds_1", state="failed")
    without_row = ran(workspace, "run_2", "ex_bob", dataset="ds_1", state="failed")  # its row was too long
    other = ran(workspace, "run_3", "ex_bob", dataset="ds_2", state="failed")
    for one in (folder, without_row, other):
        has_failed(one)
    await workspace.erasure.person(TEAM, "eve")
    for run in ("run_1", "run_2"):
        with pytest.raises(InvalidInput, match="Begin anew: intern learn sort"):
            await workspace.learner.resume(TEAM, run)
    assert "ex_eve" not in left(folder)
    assert [file.name for file in folder.iterdir()] == ["outcomes-base.jsonl"]
    assert RunFolder(other).resumable
    assert (await workspace.learner.resume(TEAM, "run_3")).state == "queued"


async def test_a_run_whose_rows_hold_the_data_cannot_be_resumed_whatever_its_dataset(workspace: Workspace) -> None:
    collect(workspace, (example("ex_eve"), "eve"))
    folder = ran(workspace, "run_1", "ex_eve", "ex_bob", dataset="ds_lost", state="failed")
    has_failed(folder)
    await workspace.erasure.person(TEAM, "eve")
    assert [file.name for file in folder.iterdir()] == ["outcomes-base.jsonl"]


@pytest.mark.parametrize("state", ["done", "cancelled"])
async def test_what_a_run_left_that_could_not_be_cleared_when_it_ended_goes_too(
    workspace: Workspace, state: Any
) -> None:
    freeze(workspace, (example("ex_eve"), "eve"))
    folder = ran(workspace, "run_1", "ex_eve", "ex_bob", dataset="ds_1", state=state)
    has_failed(folder)
    (folder / "errors.log").write_text("ValueError: the words of ex_eve", encoding="utf-8")
    await workspace.erasure.person(TEAM, "eve")
    assert [file.name for file in folder.iterdir()] == ["outcomes-base.jsonl"]


async def test_a_run_that_was_resumed_and_waits_is_cancelled(workspace: Workspace) -> None:
    eve = (example("ex_eve"), "eve")
    collect(workspace, eve)
    freeze(workspace, eve)
    folder = ran(workspace, "run_1", "ex_eve", "ex_bob", dataset="ds_1", state="failed")
    has_failed(folder)
    await workspace.learner.resume(TEAM, "run_1")
    assert (await workspace.erasure.person(TEAM, "eve")).cancelled == ("run_1",)
    assert [file.name for file in folder.iterdir()] == ["outcomes-base.jsonl"]


async def test_a_run_that_is_resumed_while_somebody_is_deleted_is_cancelled(workspace: Workspace) -> None:
    freeze(workspace, (example("ex_eve"), "eve"))
    folder = ran(workspace, "run_1", "ex_eve", "ex_bob", dataset="ds_1", state="failed")
    has_failed(folder)

    def somebody_resumes() -> None:
        with workspace.database.begin() as connection:
            failed = store.get_run(connection, TEAM, "run_1")
            store.save_run(connection, failed.model_copy(update={"state": "queued"}))

    erasure = Meanwhile(workspace.parts, workspace.learner, workspace.library, workspace.recorder.flush)
    erasure.happens = somebody_resumes
    assert (await erasure.person(TEAM, "eve")).cancelled == ("run_1",)
    assert [file.name for file in folder.iterdir()] == ["outcomes-base.jsonl"]


class Meanwhile(Erasure):
    """Something happens after the first look at what there is of somebody, and before it is deleted."""

    happens: Callable[[], object] | None = None

    def _clean(self, team: str, traces: store.Traces) -> None:
        happens, self.happens = self.happens, None
        if happens is not None:
            happens()
        super()._clean(team, traces)


async def test_a_run_that_froze_the_data_after_the_first_look_is_cancelled_and_keeps_nothing(
    workspace: Workspace,
) -> None:
    eve, bob = (example("ex_eve"), "eve"), (example("ex_bob"), "bob")
    collect(workspace, eve, bob)
    folders: list[Path] = []

    def a_run_begins() -> None:
        freeze(workspace, eve, bob, id="ds_2")
        freeze(workspace, bob, id="ds_3")
        folders.append(ran(workspace, "run_2", "ex_eve", "ex_bob", dataset="ds_2", state="running"))
        ran(workspace, "run_3", "ex_bob", dataset="ds_3", state="running")

    erasure = Meanwhile(workspace.parts, workspace.learner, workspace.library, workspace.recorder.flush)
    erasure.happens = a_run_begins
    erased = await erasure.person(TEAM, "eve")
    assert (erased.datasets, erased.cancelled) == (("ds_2",), ("run_2",))
    with workspace.database.connect() as connection:
        assert store.get_run(connection, TEAM, "run_2").state == "cancelled"
        assert store.get_run(connection, TEAM, "run_3").state == "running"
        assert [e.id for e in store.dataset_examples(connection, TEAM, "ds_2", "train")] == ["ex_bob"]
        assert store.get_dataset(connection, TEAM, "ds_2").erased == 1
    assert "ex_eve" not in left(folders[0])
    assert left(folders[0]).count("the words of ex_bob") == 1  # its outcomes; its rows went with it


async def test_an_example_that_came_after_the_first_look_is_gone_from_a_new_runs_files_too(
    workspace: Workspace,
) -> None:
    first, late = (example("ex_eve"), "eve"), (example("ex_late"), "eve")
    collect(workspace, first)
    folders: list[Path] = []

    def a_run_begins() -> None:
        collect(workspace, late)
        freeze(workspace, first, late, id="ds_2")
        folders.append(ran(workspace, "run_2", "ex_eve", "ex_late", dataset="ds_2", state="running"))

    erasure = Meanwhile(workspace.parts, workspace.learner, workspace.library, workspace.recorder.flush)
    erasure.happens = a_run_begins
    await erasure.person(TEAM, "eve")
    assert "ex_late" not in left(folders[0])


async def test_a_run_on_a_dataset_without_the_person_goes_on(workspace: Workspace) -> None:
    freeze(workspace, (example("ex_eve"), "eve"))
    freeze(workspace, (example("ex_bob"), "bob"), id="ds_2")
    ran(workspace, "run_3", "ex_bob", dataset="ds_2", state="running")
    assert (await workspace.erasure.person(TEAM, "eve")).cancelled == ()


async def test_what_was_imported_of_a_person_and_what_a_folder_has_is_found_in_datasets(workspace: Workspace) -> None:
    row = {"input": "my words", "output": "fine", "id": "f1", "person": "eve"}
    about = {"title": "t", "description": "d", "instructions": "i"}
    write_skill(workspace.settings.home / "skills", "kept", about, examples=[row])
    workspace.library.refresh()
    brought = example("ex_1").model_copy(update={"provenance": "import", "person": "eve"})
    other = example("ex_2").model_copy(update={"provenance": "import", "person": "bob"})
    with workspace.database.begin() as connection:
        records.add_examples(connection, TEAM, "kept", [brought, other])
        collected = store.collected(connection, TEAM, "kept")
    rows = gather(workspace.library.get(TEAM, "kept"), collected)
    assert [(row.example.id, row.person) for row in rows] == [("f1", "eve"), ("ex_1", "eve"), ("ex_2", "bob")]
    freeze(workspace, *((row.example, row.person) for row in rows), skill="kept")
    erased = await workspace.erasure.person(TEAM, "eve")
    assert (erased.counts["examples"], erased.datasets, erased.folders) == (1, ("ds_1",), ("kept",))
    with workspace.database.connect() as connection:
        assert [one.id for one in store.dataset_examples(connection, TEAM, "ds_1", "train")] == ["ex_2"]
    assert (await workspace.erasure.person(TEAM, "bob")).folders == ()


async def test_a_person_that_a_folder_names_after_a_training_is_found_in_its_dataset(workspace: Workspace) -> None:
    skills = workspace.settings.home / "skills"
    row = {"input": "my words", "output": "fine", "id": "f1"}

    def write(skill: str, *rows: dict[str, str]) -> None:
        (skills / skill / "examples.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        workspace.library.refresh()

    write("sort", row, {**row, "input": "others", "id": "f2"})
    write("other", row)
    for skill in ("sort", "other"):
        rows = gather(workspace.library.get(TEAM, skill), [])
        freeze(workspace, *((row.example, row.person) for row in rows), id=f"ds_{skill}", skill=skill)
    freeze(workspace, (example("f1"), "bob"), id="ds_bob")
    folder = ran(workspace, "run_1", "f1", "f2", dataset="ds_sort")
    assert (await workspace.erasure.person(TEAM, "eve")).datasets == ()
    write("sort", {**row, "person": "eve"}, {**row, "input": "others", "id": "f2"})
    erased = await workspace.erasure.person(TEAM, "eve")
    assert (erased.datasets, erased.folders) == (("ds_sort",), ("sort",))
    with workspace.database.connect() as connection:
        assert [one.id for one in store.dataset_examples(connection, TEAM, "ds_sort", "train")] == ["f2"]
        for untouched in ("ds_other", "ds_bob"):
            assert [one.id for one in store.dataset_examples(connection, TEAM, untouched, "train")] == ["f1"]
    assert "the words of f1" not in left(folder)
    assert "the words of f2" in left(folder)


async def test_a_record_is_deleted_with_what_was_made_of_it(workspace: Workspace) -> None:
    with pytest.raises(NotFound):
        await workspace.erasure.record(TEAM, "rec_unknown")
    kept = record(skill="sort")
    workspace.recorder.put(kept)
    workspace.recorder.flush()
    collect(workspace, (example("ex_1", record=kept.id), None))
    folder = ran(workspace, "run_4", "ex_1", "ex_2")
    await workspace.erasure.record(TEAM, kept.id)
    assert "ex_1" not in left(folder)
    assert json.loads((folder / "outcomes-base.jsonl").read_text(encoding="utf-8"))["example"] == "ex_2"
    with workspace.database.connect() as connection:
        assert records.list_examples(connection, TEAM, "sort") == []


# --- examples that only an evaluation knows of --------------------------------------------------------------------


def evaluated(workspace: Workspace, id: str, owners: dict[str, Owner], *others: str, state: Any = "done") -> RunFolder:
    """An evaluation that left outcomes on these examples, which stand in no table."""
    path = ran(workspace, id, *owners, *others, state=state)
    (path / "rows.jsonl").unlink()
    with workspace.database.begin() as connection:
        store.save_run(connection, store.get_run(connection, TEAM, id).model_copy(update={"kind": "evaluate"}))
    folder = RunFolder(path)
    folder.own(owners)
    return folder


EVES, BOBS = Owner(person="eve"), Owner(person="bob")


async def test_examples_that_an_evaluation_was_given_are_found_though_nothing_else_has_them(
    workspace: Workspace,
) -> None:
    folder = evaluated(workspace, "run_1", {"1": EVES, "2": BOBS}, "3")
    workspace.parts.memory(TEAM, "sort").put("k", Generated(text="eve is fine"))
    await workspace.erasure.person(TEAM, "eve")
    assert "the words of 1" not in left(folder.path)
    assert all(f"the words of {other}" in left(folder.path) for other in "23")
    assert "eve" not in left(folder.path)
    assert folder.owners() == {"2": BOBS}
    assert workspace.parts.memory(TEAM, "sort").get("k") is None
    await workspace.erasure.person(TEAM, "bob")
    assert folder.owners() == {}
    assert "the words of 3" in left(folder.path)


async def test_ids_in_one_file_say_nothing_of_those_in_another(workspace: Workspace) -> None:
    collect(workspace, (example("ex_eve"), "eve"))
    theirs, namesake = evaluated(workspace, "run_1", {"1": EVES}), evaluated(workspace, "run_2", {"1": BOBS})
    await workspace.erasure.person(TEAM, "eve")
    assert "the words of 1" not in left(theirs.path)
    assert "the words of 1" in left(namesake.path)


async def test_an_example_that_a_later_review_replaced_is_found_by_its_person_and_its_record(
    workspace: Workspace,
) -> None:
    kept = record(skill="sort")
    workspace.recorder.put(kept)
    folders = [
        evaluated(workspace, f"run_{n}", {"ex_former": Owner(person="eve", record=kept.id)}, "ex_2") for n in range(2)
    ]
    collect(workspace, (example("ex_later", record=kept.id), "eve"))
    await workspace.erasure.record(TEAM, kept.id)
    for folder in folders:
        assert "ex_former" not in left(folder.path)
        assert "ex_2" in left(folder.path)
    again = evaluated(workspace, "run_3", {"ex_former": Owner(person="eve", record=kept.id)})
    await workspace.erasure.person(TEAM, "eve")
    assert "ex_former" not in left(again.path)


@pytest.mark.parametrize("state", ["queued", "running"])
async def test_an_evaluation_of_their_examples_that_waits_or_goes_on_is_cancelled(
    workspace: Workspace, state: Any
) -> None:
    mine = example("1").model_copy(update={"person": "eve"})
    run = await workspace.learner.submit(TEAM, "sort", kind="evaluate", asked=Asked(examples=(mine,)))
    other = await workspace.learner.submit(TEAM, "other", kind="evaluate", asked=Asked(examples=(example("1"),)))
    with workspace.database.begin() as connection:
        store.save_run(connection, run.model_copy(update={"state": state}))
    erased = await workspace.erasure.person(TEAM, "eve")
    assert erased.cancelled == (run.id,)
    assert [place.name for place in workspace.parts.runs_folder.iterdir()] == [other.id]


async def test_what_a_process_that_was_killed_in_a_deletion_left_goes_when_it_is_asked_again(
    workspace: Workspace,
) -> None:
    folder = evaluated(workspace, "run_1", {"1": EVES}, "2")
    (folder.path / "asked.json").write_text("the words of 1")
    half = HalfWay(workspace.parts, workspace.library, workspace.deployments)
    with pytest.raises(OSError, match="the power is gone"):
        await Erasure(workspace.parts, half, workspace.library, workspace.recorder.flush).person(TEAM, "eve")
    assert "the words of 1" in left(folder.path)
    await workspace.erasure.person(TEAM, "eve")
    assert "the words of 1" not in left(folder.path)
    assert [file.name for file in folder.path.iterdir()] == ["outcomes-base.jsonl"]


class HalfWay(Learner):
    """Comes to its end while it removes what a run keeps."""

    def clear(self, run: Run) -> None:
        raise OSError("the power is gone")


async def test_an_evaluation_whose_folder_is_gone_or_says_nothing_of_owners_stops_no_deletion(
    workspace: Workspace,
) -> None:
    shutil.rmtree(evaluated(workspace, "run_1", {"1": EVES}).path)
    evaluated(workspace, "run_2", {}, "1")
    assert (await workspace.erasure.person(TEAM, "eve")).cancelled == ()


async def test_whose_examples_were_that_cannot_be_read_is_not_passed_over(workspace: Workspace) -> None:
    folder = evaluated(workspace, "run_1", {"1": EVES})
    (folder.path / "owners.json").write_text("")
    with pytest.raises(StoreFailure, match="run_1, with its outcomes"):
        await workspace.erasure.person(TEAM, "eve")
