"""What a training's job holds: rows of what fits, pairs of what was corrected; who was left out is told by name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from made_lora import base_folder

from intern.errors import InvalidInput, TrainingFailed
from intern.learning.loop.contracts import BaseModel, Work
from intern.learning.loop.making import WATCHED, Making
from intern.learning.train import job as jobs
from intern.learning.train import process as training
from intern.learning.train.job import Event, Pair, Row
from intern.learning.train.recipe import Recipe, RecipeName
from intern.skill import Skill
from intern.store import learning as store
from intern.store.engine import open_database
from intern.store.learning import Collected
from intern.types import Dataset, Example, Run, now

from ..test_loop import Parts as FewParts
from ..test_loop import reply, skill

DATASET = Dataset(id="ds_1", team="default", skill="levels", digest="d", created=now(), train=20, heldout=40)


class Parts(FewParts):
    context = 1_000
    threads = 1

    def texts(self, team: str, skill: Skill) -> tuple[list[str], int]:
        return [], 0

    def __init__(self, root: Path) -> None:
        super().__init__(open_database(f"sqlite:///{root / 'jobs.db'}"), root, reply)
        self.cache = root / "cache"
        self.base = BaseModel(path=str(base_folder(root / "base")), name="tiny", sha256="b" * 64)


def written(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: RecipeName, train: list[Example], heldout: list[Example]
) -> tuple[Path, list[Event]]:
    """The folder of a run when its training begins, and what was told until then."""

    async def train_nothing(folder: Path) -> AsyncGenerator[Event, None]:
        raise TrainingFailed("Enough.")
        yield

    async def tell(event: Event) -> None:
        told.append(event)

    told: list[Event] = []
    monkeypatch.setattr(training, "train", train_nothing)
    parts: Any = Parts(root)
    run = Run(id="run_1", team="default", skill="levels", state="running", created=now())
    work = Work(parts, skill(root, {}), run, Recipe(name=name), tell)
    try:
        with pytest.raises(TrainingFailed, match="Enough"):
            asyncio.run(Making(work).make(parts.base, DATASET, train, heldout))
    finally:
        parts.database.dispose()
    return work.folder, told


def correct(monkeypatch: pytest.MonkeyPatch, *examples: Example) -> None:
    """People corrected the answers to these."""
    corrections = [Collected(example=row, wrong={"level": "senior", "note": "wrong"}) for row in examples]
    monkeypatch.setattr(store, "collected", lambda *_: corrections)


def example(id: str, asked: str = "Who asks?") -> Example:
    return Example(id=id, input=asked, output={"level": "entry", "note": id}, provenance="review")


def test_examples_that_make_no_row_are_told_by_name_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = [example(f"long_{number}", "word " * 20_000) for number in range(7)]
    folder, told = written(tmp_path, monkeypatch, "lora", [example("fits"), *long], [])
    assert [row.id for row in jobs.read_lines(folder / jobs.ROWS, Row)] == ["fits"]
    (warning,) = [event for event in told if event.kind == "warning"]
    assert warning.text == (
        "7 examples make no training row: its prompt exceeds the context (long_0, long_1, long_2, long_3, long_4 "
        "and 2 more)"
    )
    left_out = warning.numbers["left_out"]
    assert [row["example"] for row in left_out] == [row.id for row in long]
    assert {row["reason"] for row in left_out} == {"too_long"}


def test_a_held_out_example_that_makes_no_row_leaves_its_place_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those watched, trainer and engine are compared: many that make no row would leave few to compare."""
    long = [example(f"long_{number}", "word " * 20_000) for number in range(30)]
    short = [example(f"short_{number}") for number in range(60)]
    folder, _ = written(tmp_path, monkeypatch, "lora", [example("t1")], [*short[:9], *long, *short[9:]])
    watched = [row.id for row in jobs.read_lines(folder / jobs.HELDOUT, Row)]
    assert watched == [row.id for row in short[:WATCHED]]


def test_a_job_knows_the_instructions_that_its_rows_were_made_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = written(tmp_path, monkeypatch, "lora", [example("t1")], [])
    (row,) = jobs.read_lines(folder / jobs.ROWS, Row)
    assert row.messages[0].content == jobs.read_job(folder).instructions != ""


def test_pairs_that_are_held_out_measure_and_are_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = [example(f"t{number}") for number in range(12)]
    heldout = [example("h1"), example("h2")]
    correct(monkeypatch, *train[:10], heldout[1])
    folder, _ = written(tmp_path, monkeypatch, "dpo", train, heldout)
    assert [pair.id for pair in jobs.read_lines(folder / jobs.PAIRS, Pair)] == [row.id for row in train[:10]]
    (measured,) = jobs.read_lines(folder / jobs.HELDOUT_PAIRS, Pair)
    assert (measured.id, measured.rejected) == ("h2", '{"level": "senior", "note": "wrong"}')


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dpo", "The recipe dpo needs at least 10 corrected answers, and there are 9. Use the recipe lora"),
        ("completion-then-sft", "The recipe completion-then-sft needs documents, and the skill has none."),
    ],
)
def test_what_a_recipe_lacks_is_said_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: RecipeName, said: str
) -> None:
    train, heldout = [example(f"t{number}") for number in range(12)], [example("h1")]
    correct(monkeypatch, *train[:9], *heldout)
    with pytest.raises(InvalidInput, match=said):
        written(tmp_path, monkeypatch, name, train, heldout)
    assert not (tmp_path / "runs" / "run_1" / jobs.JOB).exists()


def test_no_part_is_trained_that_has_too_few_corrections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = [example(f"t{number}") for number in range(24)]
    correct(monkeypatch, *train[:12])

    async def part(making: Making, base: BaseModel, *_: Any) -> None:
        await making.train_part(base, train[:6])

    monkeypatch.setattr(Making, "make", part)
    with pytest.raises(InvalidInput, match=r"6 of the examples are too few to train on: The recipe dpo .* there are 6"):
        written(tmp_path, monkeypatch, "dpo", train, [])
