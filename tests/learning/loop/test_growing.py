"""What more examples would bring is told after a run: by training on parts, or for nothing, by earlier versions.

The engine is scripted, and nothing is trained.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_adapters import keep_adapter
from sqlalchemy.engine import Engine as Database

from intern.engines.base import EngineRequest
from intern.learning.judging.growth import Growth
from intern.learning.judging.outcomes import Interval, Outcome, Summary
from intern.learning.loop.collecting import Collection
from intern.learning.loop.contracts import BaseModel
from intern.learning.loop.judging import Verdict
from intern.learning.loop.loop import Loop
from intern.learning.loop.making import Making
from intern.learning.train import job as jobs
from intern.learning.train.job import Event
from intern.learning.train.recipe import Recipe
from intern.skill import Skill
from intern.store import learning as store
from intern.store.engine import open_database
from intern.types import Adapter, Dataset, Example, Json, Run, new_id, now

from ..test_loop import BASE, Parts, skill

TEAM = "default"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    engine = open_database(f"sqlite:///{tmp_path / 'growing.db'}")
    yield engine
    engine.dispose()


class House:
    """A skill's versions, and what each of them answered."""

    def __init__(self, database: Database, root: Path) -> None:
        self.parts: Any = Parts(database, root, self._reply)
        self.skill: Skill = skill(root, {})
        self.told: list[Event] = []
        self.asked: list[str | None] = []

    def _reply(self, request: EngineRequest) -> str:
        self.asked.append(request.adapter)
        return json.dumps({"level": "entry", "note": "x"})

    def version(
        self, size: int, score: float, *, asked: Sequence[int] = range(40), decision: str | None = "reject", **more: Any
    ) -> Run:
        """A run that trained on so many examples, with what its adapter answered."""
        run, base = Run(
            id=new_id("run"), team=TEAM, skill="levels", state="done", created=now(), decision=decision,
            recipe={**Recipe().model_dump(mode="json"), "force": True},
        ), more.pop("base", BASE.sha256)  # fmt: skip
        run = run.model_copy(update=more)
        dataset = Dataset(
            id=new_id("ds"), team=TEAM, skill="levels", digest=new_id("d"), created=now(), train=size, heldout=40
        )
        adapter = Adapter(
            team=TEAM, skill="levels", version=0, digest="d", base=base, dataset=dataset.id, run=run.id,
            decision=decision, created=now(),
        )  # fmt: skip
        with self.parts.database.begin() as connection:
            store.save_run(connection, run)
            store.add_dataset(connection, dataset, [])
            keep_adapter(connection, adapter)
        folder = self.parts.runs_folder / run.id
        folder.mkdir(parents=True)
        rows = [
            Outcome(
                example=f"ex_{n}", group=f"g_{n}", valid=True, fields={"level": right, "note": right}, score=right,
                expected="x", output="x", request=f"request {n}",
            )
            for n in asked
            for right in [float(n % 10 < 10 * score)]
        ]  # fmt: skip
        jobs.write_lines(folder / "outcomes-candidate.jsonl", rows)
        return run

    def grow(self, run: Run, *, parts: bool = False) -> Growth | None:
        return asyncio.run(self._loop(run).grow(self.verdict(), parts=parts))

    def _loop(self, run: Run) -> Loop:
        async def tell(event: Event) -> None:
            self.told.append(event)

        return Loop(self.parts, self.skill, run, Recipe(), tell)

    @staticmethod
    def verdict() -> Verdict:
        score = Interval(mean=0.9, low=0.8, high=1.0, n=40, groups=40)
        return Verdict(rivals={"candidate": Summary(n=40, valid=1.0, score=score, metrics={"level": score})})


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    return House(database, tmp_path)


def test_four_versions_on_the_same_held_out_examples_give_a_curve_for_nothing(house: House) -> None:
    for size, score in ((50, 0.3), (100, 0.5), (150, 0.6)):
        house.version(size, score)
    growth = house.grow(house.version(200, 0.7, asked=range(5, 40)))
    assert growth is not None
    assert growth.of == "versions"
    assert list(growth.scores) == [50, 100, 150, 200]
    assert {score.n for score in growth.scores.values()} == {35}
    assert 0 < growth.gain.mean < 0.15
    (event,) = house.told
    assert (event.kind, event.text) == ("growth", growth.words)
    assert house.asked == []


@pytest.mark.parametrize(
    "other",
    [
        {"decision": None},
        {"base": "c" * 64},
        {"recipe": Recipe(rank=8).model_dump(mode="json")},
        {"variant": "augmented"},
        {"asked": range(100, 140)},
        {"size": 200},
        {"size": 50},
    ],
    ids=["never judged", "other base", "other recipe", "other variant", "other held-out", "this size", "that size"],
)
def test_what_cannot_be_compared_is_no_version_and_of_too_few_nothing_is_said(
    house: House, other: dict[str, Any]
) -> None:
    house.version(50, 0.3)
    house.version(100, 0.5)
    house.version(**{"size": 150, "score": 0.6, **other})
    assert house.grow(house.version(200, 0.7)) is None
    assert house.told == []


def test_of_versions_of_one_size_the_newest_counts(house: House) -> None:
    for size, score in ((50, 0.1), (200, 0.2), (50, 0.3), (100, 0.5), (150, 0.6)):
        house.version(size, score)
    growth = house.grow(house.version(200, 0.7))
    assert growth is not None
    assert {size: score.mean for size, score in growth.scores.items()} == pytest.approx(
        {50: 0.3, 100: 0.5, 150: 0.6, 200: 0.7}
    )


def test_outcomes_that_are_gone_are_no_version(house: House) -> None:
    runs = [house.version(size, 0.5) for size in (50, 100, 150, 200)]
    (house.parts.runs_folder / runs[0].id / "outcomes-candidate.jsonl").unlink()
    assert house.grow(runs[-1]) is None
    house.version(50, 0.5)
    again = house.version(250, 0.5)
    assert house.grow(again) is not None
    (house.parts.runs_folder / again.id / "outcomes-candidate.jsonl").unlink()
    assert house.grow(again) is None, "this one's own score is what the curve ends in"


def test_the_field_that_decides_is_what_grows(house: House, tmp_path: Path) -> None:
    house.skill = skill(tmp_path / "primary", {}, learning={"primary": "level"})
    runs = [house.version(size, 0.5) for size in (50, 100, 150, 200)]
    growth = house.grow(runs[-1])
    assert growth is not None
    assert growth.scores[200].mean == 0.5


class Trained:
    """Training on parts, scripted: how many examples each had."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, house: House, train: int) -> None:
        self.sizes: list[int] = []
        found = Collection(
            dataset=Dataset(id="ds_1", team=TEAM, skill="levels", digest="x", created=now(), train=train, heldout=40),
            train=tuple(Example(id=f"t_{n}", input=f"t {n}", output="x") for n in range(train)),
            heldout=tuple(e for e in house.skill.examples if e.split == "heldout"),
        )

        async def train_part(_: Making, base: BaseModel, part: Sequence[Example]) -> Path:
            self.sizes.append(len(part))
            return Path(f"part-{len(part)}.gguf")

        async def collect(_: Any, **__: Any) -> Collection:
            return found

        monkeypatch.setattr(Making, "train_part", train_part)
        monkeypatch.setattr("intern.learning.loop.collecting.Collecting.collect", collect)


def test_parts_are_trained_and_answer_the_held_out_examples(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = Trained(monkeypatch, house, 100)
    growth = house.grow(house.version(100, 0.9), parts=True)
    assert growth is not None
    assert growth.of == "parts"
    assert trained.sizes == [25, 50]
    assert list(growth.scores) == [25, 50, 100]
    assert growth.scores[100].mean == 0.9, "the verdict's"
    assert [event.text for event in house.told if event.kind == "stage"] == [
        "training on 25 of 100 examples",
        "training on 50 of 100 examples",
    ]
    counts: Mapping[str | None, int] = {name: house.asked.count(name) for name in set(house.asked)}
    assert counts == {"part-25": 40, "part-50": 40}


def test_too_few_examples_for_parts_are_told_and_versions_asked(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    Trained(monkeypatch, house, 30)
    for size in (10, 15, 20):
        house.version(size, 0.5)
    growth = house.grow(house.version(30, 0.6), parts=True)
    assert growth is not None
    assert growth.of == "versions"
    assert [event.text for event in house.told if event.kind == "note"] == [
        "30 examples are too few to train on parts of them"
    ]


def test_what_is_kept_of_it_is_plain_json(house: House) -> None:
    runs = [house.version(size, 0.5) for size in (50, 100, 150, 200)]
    growth = house.grow(runs[-1])
    body: Json = house.told[0].numbers
    assert Growth.model_validate(json.loads(json.dumps(body))) == growth
