"""What a training's job holds: rows of what fits, pairs of what was corrected; who was left out is told by name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from made_lora import base_folder

from intern.errors import TrainingFailed
from intern.learning.loop.contracts import BaseModel, Work
from intern.learning.loop.making import Making
from intern.learning.train import job as jobs
from intern.learning.train import process as training
from intern.learning.train.job import Event, Pair, Row
from intern.learning.train.recipe import Recipe, RecipeName
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
    with pytest.raises(TrainingFailed, match="Enough"):
        asyncio.run(Making(work).make(parts.base, DATASET, train, heldout))
    parts.database.dispose()
    return work.folder, told


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


def test_pairs_that_are_held_out_measure_and_are_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, heldout = [example("t1"), example("t2")], [example("h1"), example("h2")]
    corrections = [Collected(example=row, wrong={"level": "senior", "note": "wrong"}) for row in (train[0], heldout[1])]
    monkeypatch.setattr(store, "collected", lambda *_: corrections)
    folder, _ = written(tmp_path, monkeypatch, "dpo", train, heldout)
    assert [pair.id for pair in jobs.read_lines(folder / jobs.PAIRS, Pair)] == ["t1"]
    (measured,) = jobs.read_lines(folder / jobs.HELDOUT_PAIRS, Pair)
    assert (measured.id, measured.rejected) == ("h2", '{"level": "senior", "note": "wrong"}')
