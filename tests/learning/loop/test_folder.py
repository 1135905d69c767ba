"""What a run keeps on disk: when there is something to go on with, and what of it is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from intern.errors import Conflict, StoreFailure
from intern.learning.loop.folder import Asked, Owner, RunFolder
from intern.schema import check_schema
from intern.types import Example


def put(folder: Path, *names: str, text: str = "{}") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def checkpoint(number: int) -> str:
    return f"stages/examples/checkpoint-{number}/trainer_state.json"


@pytest.mark.parametrize("made", ["adapter/weights", "stages/completion/finished/weights", checkpoint(9)])
def test_there_is_something_to_go_on_with_once_something_was_trained(tmp_path: Path, made: str) -> None:
    folder = RunFolder(tmp_path)
    assert not folder.resumable
    put(tmp_path, "job.json", "rows.jsonl")
    assert not folder.resumable, "beginning anew costs no more"
    put(tmp_path, made)
    assert folder.resumable
    (tmp_path / "rows.jsonl").unlink()
    assert not folder.resumable


def test_a_checkpoint_that_breaks_off_is_none(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    put(tmp_path, "job.json", "rows.jsonl", "stages/examples/checkpoint-3/weights")
    assert not folder.resumable
    put(tmp_path, checkpoint(3), text='{"global_step": 3, "log_hi')
    assert not folder.resumable


def test_a_run_stays_on_the_base_model_that_it_began_with(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run_1")
    folder.check("a" * 64, None)  # nothing is noted yet
    folder.stay_on("a" * 64, None)
    folder.stay_on("a" * 64, None)
    for other in ("b" * 64, None):
        with pytest.raises(Conflict, match="The base model is another one than the run began with"):
            folder.check(other, None)
    with pytest.raises(Conflict):
        folder.stay_on("b" * 64, None)
    folder.check("a" * 64, None)
    folder.clear()
    assert not folder.path.exists()


def test_a_run_stays_on_the_schema_that_it_began_with(tmp_path: Path) -> None:
    schemas = [None, check_schema({"enum": ["a"]}), check_schema({"enum": ["b"]})]
    for number, schema in enumerate(schemas):
        folder = RunFolder(tmp_path / f"run_{number}")
        folder.stay_on("a" * 64, schema)
        folder.stay_on("a" * 64, schema)
        for other in schemas:
            if other is not schema:
                with pytest.raises(Conflict, match="The skill's schema is another one than the run began with"):
                    folder.stay_on("a" * 64, other)


def test_a_run_of_an_earlier_version_notes_the_schema_of_today(tmp_path: Path) -> None:
    put(tmp_path, "base", text="a" * 64)
    folder = RunFolder(tmp_path)
    folder.check("a" * 64, check_schema({"enum": ["a"]}))
    folder.stay_on("a" * 64, check_schema({"enum": ["a"]}))
    with pytest.raises(Conflict, match="schema"):
        folder.check("a" * 64, None)


def test_what_cannot_be_noted_as_a_whole_is_not_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    folder.begin()

    def full(path: Path, text: str, **_: object) -> None:
        path.write_bytes(b"")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StoreFailure, match="No space left"):
        folder.begin()
    monkeypatch.undo()
    assert folder.begin() == 2


def test_nothing_but_outcomes_stays(tmp_path: Path) -> None:
    work = ("job.json", "rows.jsonl", "errors.log", "agreement.jsonl", ".adapter/weights", ".rows.jsonl", checkpoint(3))
    put(tmp_path, *work, "part-20/rows.jsonl", "part-20/adapter/weights", "schema", "outcomes-base.jsonl")
    RunFolder(tmp_path).clear()
    assert [place.name for place in tmp_path.iterdir()] == ["outcomes-base.jsonl"]
    RunFolder(tmp_path / "never").clear()


def test_whose_the_examples_are_that_a_run_was_given_stays_when_they_go(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run_1")
    given = [Example(id=id, input="i", output="o", person=person) for id, person in (("1", "eve"), ("2", None))]
    folder.keep(Asked(examples=tuple(given)))
    assert folder.only_asked
    assert [example.id for example in folder.asked(needed=True).examples] == ["1", "2"]
    folder.own({"3": Owner(record="rec_1")})
    put(folder.path, "outcomes-base.jsonl")
    assert not folder.only_asked
    folder.clear()
    assert folder.owners() == {"1": Owner(person="eve"), "3": Owner(record="rec_1")}
    folder.disown({"1"})
    assert folder.owners() == {"3": Owner(record="rec_1")}
    folder.disown({"3"})
    assert [place.name for place in folder.path.iterdir()] == ["outcomes-base.jsonl"]


def test_without_outcomes_nobody_is_noted_any_more(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run_1")
    folder.own({"1": Owner(person="eve")})
    assert folder.only_asked, "a process was killed before it wrote the examples too"
    folder.clear()
    assert not folder.path.exists()


def test_where_nobody_is_named_nothing_is_noted(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run_1")
    folder.own({"1": Owner()})
    assert not folder.path.exists()
