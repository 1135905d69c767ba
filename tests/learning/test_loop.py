"""What a skill declares under `evaluation` is measured in its runs, and reaches the verdict and the gate.

The engine is scripted, and nothing is trained: conversion and parity have tests of their own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy.engine import Engine as Database

from intern.engines.base import EngineRequest
from intern.engines.fake import FakeEngine
from intern.learning.examples.rows import Retrieves, no_passages
from intern.learning.judging.evaluate import Generated
from intern.learning.judging.parity import Parity
from intern.learning.loop.contracts import BaseModel, Work
from intern.learning.loop.judging import Judging, Verdict
from intern.learning.loop.loop import Loop
from intern.learning.train.job import Event
from intern.learning.train.recipe import Recipe
from intern.models.embedder import Vectors
from intern.skill import Skill, write_skill
from intern.store.engine import open_database
from intern.types import Adapter, Example, Run, now

BASE = BaseModel(path="base.gguf", name="tiny", sha256="b" * 64)
MEASURED = {
    "repeats": 2,
    "attributes": [{"name": "level", "field": "level"}],
    "identity": [{"question": f"Fact {n}?", "facts": [f"fact{n}"]} for n in range(3)],
}
SCHEMA = {
    "type": "object",
    "required": ["level", "note"],
    "properties": {"level": {"enum": ["entry", "senior"]}, "note": {"type": "string", "maxLength": 80}},
}


class Parts:
    """What these runs use of a workspace."""

    base = BASE
    passage_tokens = 100
    contributor_cap = 100

    def __init__(self, database: Database, root: Path, reply: Callable[[EngineRequest], str]) -> None:
        self.database = database
        self.runs_folder = root / "runs"
        self.engine = FakeEngine([reply])

    def open_engine(self, adapters: Mapping[str, str]) -> FakeEngine:
        self.engine._adapters = dict(adapters)
        return self.engine

    def redacts(self, team: str, skill: Skill) -> Callable[[Example], tuple[Example, None]]:
        return lambda example: (example, None)

    def embed(self, texts: Sequence[str]) -> Vectors:
        return np.ones((len(texts), 2), dtype=np.float32)

    def retriever(self, team: str) -> Retrieves:
        return no_passages

    def memory(self, team: str, skill: str) -> Forgetful:
        return Forgetful()


class Forgetful:
    """Remembers no answer: every rival is asked."""

    def get(self, key: str) -> None:
        return None

    def put(self, key: str, generated: Generated) -> None:
        pass


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    engine = open_database(f"sqlite:///{tmp_path / 'loop.db'}")
    yield engine
    engine.dispose()


def example(number: int, split: str) -> dict[str, Any]:
    """Inputs of one odd word each: nothing is nearly the same as another."""
    output = {"level": ["entry", "senior"][number % 2], "note": f"note {number}"}
    return {"input": f"{'abcdefghij'[number % 10] * 6}{number} asks", "output": output, "split": split}


def skill(root: Path, evaluation: dict[str, Any], **more: Any) -> Skill:
    spec = {"title": "T", "description": "D", "instructions": "I", "evaluation": evaluation, **more}
    rows = [example(n, "heldout" if n < 40 else "train") for n in range(60)]
    return write_skill(root / "skills", "levels", spec, schema=SCHEMA, examples=rows)


def reply(request: EngineRequest) -> str:
    """Everybody answers alike; only the candidate no longer knows who it is."""
    asked = request.messages[-1].content
    if asked.startswith("Fact"):
        note = "none of your business" if request.adapter == "levels@v2" else f"fact{asked[5]}"
    else:
        note = asked
    return json.dumps({"level": "entry", "note": note})


def loop(parts: Any, made: Skill, told: list[Event]) -> Loop:
    async def tell(event: Event) -> None:
        told.append(event)

    run = Run(id="run_1", team="default", skill="levels", state="running", created=now())
    (parts.runs_folder / run.id).mkdir(parents=True)
    return Loop(parts, made, run, Recipe(), tell)


def judging(parts: Any, made: Skill) -> Judging:
    async def tell(event: Event) -> None: ...

    run = Run(id="run_1", team="default", skill="levels", state="running", created=now())
    (parts.runs_folder / run.id).mkdir(parents=True)
    return Judging(Work(parts, made, run, Recipe(), tell))


def judged(parts: Parts, made: Skill, monkeypatch: pytest.MonkeyPatch, *, serving: int | None) -> Verdict:
    """The verdict on a candidate, version 2."""

    async def files(self: Judging, base: BaseModel, adapters: Sequence[Adapter]) -> dict[str, str]:
        return {adapter.name: "file" for adapter in adapters}

    async def same(self: Judging, engine: Any, adapter: Adapter) -> Parity:
        return Parity(prompts=1, same_prompts=1, answers=1, tokens=1.0, fields=1.0, moved=1.0)

    monkeypatch.setattr(Judging, "_files", files)
    monkeypatch.setattr(Judging, "_parity", same)
    candidate, other = (
        Adapter(
            team="default", skill="levels", version=n, digest="d", base=BASE.sha256, recipe="lora", created=now()
        )
        for n in (2, 1)
    )  # fmt: skip
    heldout = [e for e in made.examples if e.split == "heldout"]
    train = [e for e in made.examples if e.split == "train"]
    found = judging(parts, made).judge(BASE, candidate, other if serving else None, train, heldout)
    return asyncio.run(found)


@pytest.mark.parametrize(("serving", "reference"), [(1, "serving"), (None, "base")])
def test_a_candidate_that_forgot_who_it_is_is_rejected_and_the_verdict_says_what_was_measured(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serving: int | None, reference: str
) -> None:
    made = skill(tmp_path, MEASURED)
    verdict = judged(Parts(database, tmp_path, reply), made, monkeypatch, serving=serving)
    assert verdict.ruling is not None
    assert verdict.ruling.decision == "reject"
    assert "Only 0 of 3 questions about itself are answered right, against 3 with the" in verdict.ruling.reason
    assert "'Fact 1?' (lacks fact1)" in verdict.ruling.reason
    assert verdict.probes is not None
    assert list(verdict.probes) == ["candidate", reference]
    for probed in verdict.probes.values():
        assert probed.attributes[0].shares[0].share.mean == 1.0
        assert probed.attributes[0].shares[0].reference == 0.5
        assert probed.consistency is not None
        assert probed.consistency.agreement.mean == 1.0
    kept = verdict.model_dump(mode="json")
    assert Verdict.model_validate(json.loads(json.dumps(kept))) == verdict
    assert "none of your business" not in json.dumps(kept["probes"])
    assert len(json.dumps(kept["probes"])) < 5_000


def test_a_skill_that_declares_nothing_has_the_verdict_that_it_always_had(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(database, tmp_path, reply)
    verdict = judged(parts, skill(tmp_path, {}), monkeypatch, serving=1)
    assert verdict.probes is None
    assert verdict.ruling is not None
    assert "identity" not in {guard.name for guard in verdict.ruling.guards}
    assert len(parts.engine.requests) == 5 * 40


def test_the_skill_says_which_field_decides(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def right_level(request: EngineRequest) -> str:
        asked = request.messages[-1].content
        level = ["entry", "senior"][int(asked[6:-5]) % 2] if request.adapter == "levels@v2" else "entry"
        return json.dumps({"level": level, "note": "no note is right"})

    made = skill(tmp_path, {}, learning={"primary": "level"})
    verdict = judged(Parts(database, tmp_path, right_level), made, monkeypatch, serving=1)
    assert verdict.ruling is not None
    assert verdict.rivals["candidate"].score.mean < 0.6
    assert verdict.ruling.decision == "promote"
    assert "1.00 against 0.50" in verdict.ruling.reason
    assert "by the field 'level'" in verdict.ruling.reason


def test_comparing_without_a_candidate_measures_what_serves(database: Database, tmp_path: Path) -> None:
    told: list[Event] = []
    parts = Parts(database, tmp_path, reply)
    verdict = asyncio.run(loop(parts, skill(tmp_path, MEASURED), told).compare(serving=None))
    assert verdict.ruling is None
    assert verdict.probes is not None
    assert list(verdict.probes) == ["base"]
    assert verdict.probes["base"].identity is not None
    assert verdict.probes["base"].identity.share.mean == 1.0
    again = [(event.step, event.steps) for event in told if event.text == "base: again"]
    assert again[-1] == (40, 40)


def test_a_disk_that_takes_no_outcomes_costs_no_verdict(database: Database, tmp_path: Path) -> None:
    told: list[Event] = []
    parts = Parts(database, tmp_path, reply)
    made = skill(tmp_path, {})
    folder = parts.runs_folder / "run_1"

    async def tell(event: Event) -> None:
        told.append(event)
        if event.kind == "rival" and not (folder / "outcomes-few-shot.jsonl").exists():
            (folder / "outcomes-few-shot.jsonl").mkdir()  # the second file of them cannot be written

    run = Run(id="run_1", team="default", skill="levels", state="running", created=now())
    folder.mkdir(parents=True)
    verdict = asyncio.run(Loop(parts, made, run, Recipe(), tell).compare(serving=None))  # type: ignore[arg-type]
    assert set(verdict.rivals) == {"base", "few-shot", "retrieval"}
    (warning,) = [event.text for event in told if event.kind == "warning"]
    assert warning == "the report has no examples: the answers cannot be written (Is a directory)"
    assert not (folder / "outcomes-base.jsonl").exists(), "all of them or none"
