"""On which held-out examples an adapter is judged, and which earlier candidates were judged on much the same ones."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_adapters import keep_adapter
from sqlalchemy.engine import Engine as Database

from intern.learning.judging.parity import Parity
from intern.learning.judging.statistics import confidence_for
from intern.learning.loop.contracts import BaseModel, Work
from intern.learning.loop.judging import HELDOUT_MOST, Judging, Verdict, judged_by
from intern.learning.train.job import Event
from intern.learning.train.recipe import Recipe
from intern.skill import Skill, write_skill
from intern.store import learning as store
from intern.store.engine import open_database
from intern.types import Adapter, Dataset, Example, Run, new_id, now

from .test_loop import BASE, SCHEMA, Parts, reply

TEAM = "default"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    engine = open_database(f"sqlite:///{tmp_path / 'looks.db'}")
    yield engine
    engine.dispose()


def heldout(count: int) -> list[Example]:
    """Held out in this order: what is there already, and then what came since."""
    output = {"level": "entry", "note": "x"}
    return [Example(id=f"ex_{n:05}", input=f"request {n}", output=output, split="heldout") for n in range(count)]


def in_common(before: int, now: int) -> float:
    """The share of the examples that judge now which judged when only `before` were held out."""
    old, new = (judged_by(heldout(count)) for count in (before, now))
    return len({e.id for e in old} & {e.id for e in new}) / len(new)


class Candidates:
    """Adapters of one skill, as they are judged one after the other."""

    def __init__(self, database: Database, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async def files(self: Judging, base: BaseModel, adapters: Sequence[Adapter]) -> dict[str, str]:
            return {adapter.name: "file" for adapter in adapters}

        async def same(self: Judging, engine: Any, adapter: Adapter) -> Parity:
            return Parity(prompts=1, same_prompts=1, answers=1, tokens=1.0, fields=1.0, moved=1.0)

        monkeypatch.setattr(Judging, "_files", files)
        monkeypatch.setattr(Judging, "_parity", same)
        spec = {"title": "T", "description": "D", "instructions": "I"}
        self.skill: Skill = write_skill(root / "skills", "levels", spec, schema=SCHEMA)
        self.parts = Parts(database, root, reply)
        (self.parts.runs_folder / "run_1").mkdir(parents=True)

    def add(
        self, count: int, *, decision: str | None = "inconclusive", skill: str = "levels", run: str | None = None
    ) -> Adapter:
        """One whose dataset holds out so many."""
        dataset = Dataset(
            id=new_id("ds"), team=TEAM, skill=skill, digest=new_id("digest"), created=now(), train=20, heldout=count
        )
        bare = Adapter(
            team=TEAM, skill=skill, version=0, digest="d", base=BASE.sha256, dataset=dataset.id, decision=decision,
            run=run, created=now(),
        )  # fmt: skip
        with self.parts.database.begin() as connection:
            store.add_dataset(connection, dataset, [])
            return keep_adapter(connection, bare)

    def judged(self, count: int) -> Verdict:
        """The verdict on a new one, with so many held out."""

        async def tell(event: Event) -> None: ...

        adapter = self.add(count, decision=None)
        run = Run(id="run_1", team=TEAM, skill="levels", state="running", created=now())
        judging: Any = Judging(Work(self.parts, self.skill, run, Recipe(), tell))  # type: ignore[arg-type]
        verdict = asyncio.run(judging.judge(BASE, adapter, None, heldout(20), heldout(count)))
        assert isinstance(verdict, Verdict)
        return verdict


@pytest.fixture
def candidates(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Candidates:
    return Candidates(database, tmp_path, monkeypatch)


def test_new_held_out_examples_are_judged_by_as_much_as_old_ones() -> None:
    chosen = {example.id for example in judged_by(heldout(1_000))}
    assert len(chosen) == HELDOUT_MOST
    first, last = (
        sum(example.id in chosen for example in half) for half in (heldout(1_000)[:500], heldout(1_000)[500:])
    )
    assert min(first, last) > 70


def test_the_order_in_which_they_were_gathered_makes_no_difference() -> None:
    shuffled = heldout(500)
    random.Random(0).shuffle(shuffled)
    assert judged_by(shuffled) == judged_by(heldout(500))


def test_where_there_are_no_more_all_of_them_judge() -> None:
    assert {example.id for example in judged_by(heldout(HELDOUT_MOST))} == {e.id for e in heldout(HELDOUT_MOST)}


@pytest.mark.parametrize("growth", [(100, 110), (100, 140), (190, 220), (200, 230), (200, 300), (300, 340), (400, 800)])
def test_an_earlier_candidate_counts_where_four_fifths_of_the_examples_are_the_same(
    candidates: Candidates, growth: tuple[int, int]
) -> None:
    before, after = growth
    candidates.add(before)
    shared = in_common(before, after)
    assert abs(shared - 0.8) > 0.03, "clear enough to be told"
    assert candidates.judged(after).looks == (2 if shared > 0.8 else 1)


def test_each_candidate_judged_on_the_same_examples_needs_to_be_surer(candidates: Candidates) -> None:
    seen = []
    for _ in range(3):
        verdict = candidates.judged(40)
        assert verdict.ruling is not None
        seen.append((verdict.looks, verdict.ruling.differences[0].interval.confidence))
        candidates.add(40, decision=verdict.ruling.decision)
    assert [look for look, _ in seen] == [1, 2, 3]
    assert [confidence for _, confidence in seen] == pytest.approx([confidence_for(look) for look in (1, 2, 3)])


def test_candidates_that_were_never_judged_and_other_skills_are_no_looks(candidates: Candidates) -> None:
    candidates.add(40, decision=None)
    candidates.add(40, skill="other")
    assert candidates.judged(40).looks == 1


@pytest.mark.parametrize(("told", "looks"), [("candidate", 2), ("retrieval", 1)])
def test_a_run_that_was_ended_after_its_candidate_s_score_was_told_has_looked(
    candidates: Candidates, told: str, looks: int
) -> None:
    candidates.add(40, decision=None, run="run_0")
    with candidates.parts.database.begin() as connection:
        store.save_run(connection, Run(id="run_0", team=TEAM, skill="levels", state="cancelled", created=now()))
        for ordinal, name in enumerate(("base", told)):
            body = Event(kind="rival", stage="evaluate", text=name, numbers={"rival": name}).model_dump(mode="json")
            store.add_event(connection, TEAM, "run_0", ordinal, body)
    assert candidates.judged(40).looks == looks


def test_the_verdict_says_how_many_candidates_were_judged_at_all(candidates: Candidates) -> None:
    """Each time that the examples grew by a quarter, alpha was spent anew."""
    for count in (40, 60, 90):
        candidates.add(count)
    verdict = candidates.judged(100)
    assert (verdict.looks, verdict.judged) == (2, 4)


def test_rivals_answer_those_that_judge_and_no_others(candidates: Candidates) -> None:
    verdict = candidates.judged(HELDOUT_MOST + 20)
    assert {rival.n for rival in verdict.rivals.values()} == {HELDOUT_MOST}
    asked = {request.messages[-1].content for request in candidates.parts.engine.requests}
    assert asked == {example.text for example in judged_by(heldout(HELDOUT_MOST + 20))}
