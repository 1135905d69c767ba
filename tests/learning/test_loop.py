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
from made_examples import no_passages
from sqlalchemy.engine import Engine as Database

from intern.engines.base import EngineRequest
from intern.engines.fake import FakeEngine
from intern.errors import EngineFailure, InvalidInput
from intern.learning.examples.items import key_of
from intern.learning.examples.rows import Retrieves
from intern.learning.judging.evaluate import Generated
from intern.learning.judging.parity import Parity
from intern.learning.loop.contracts import BaseModel, Work
from intern.learning.loop.folder import Owner, RunFolder
from intern.learning.loop.judging import Judging, Verdict
from intern.learning.loop.loop import Loop
from intern.learning.train.job import Event
from intern.learning.train.recipe import Recipe
from intern.models.embedder import Vectors
from intern.skill import Skill, write_skill
from intern.store import learning as store
from intern.store import records
from intern.store.engine import open_database
from intern.types import Adapter, Dataset, Example, Run, now

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


# --- measuring without a candidate --------------------------------------------------------------------------------


def test_whose_the_held_out_examples_are_is_noted_before_anybody_answers_them(
    database: Database, tmp_path: Path
) -> None:
    parts, made = Parts(database, tmp_path, reply), skill(tmp_path, {})
    folder, noted = RunFolder(parts.runs_folder / "run_1"), []

    def answer(request: EngineRequest) -> str:
        noted.append(folder.owners())
        return reply(request)

    parts.engine.replies = [answer]
    rows = [
        Example(id=f"ex_{person}", **example(number, split), provenance="import", person=person)
        for number, split, person in ((100, "heldout", "eve"), (101, "train", "bob"))
    ]
    with database.begin() as connection:
        records.add_examples(connection, "default", "levels", rows)
    asyncio.run(loop(parts, made, []).compare(serving=None))
    assert noted[0] == folder.owners() == {"ex_eve": Owner(person="eve")}
    assert "ex_eve" in (folder.path / "outcomes-base.jsonl").read_text()


def brought(number: int, **more: Any) -> Example:
    return Example(id=f"given-{number}", **{**example(number, "heldout"), "split": None, **more})


def compared(parts: Parts, made: Skill, told: list[Event], **how: Any) -> Verdict:
    return asyncio.run(loop(parts, made, told).compare(**{"serving": None, **how}))


def in_service(parts: Parts, monkeypatch: pytest.MonkeyPatch, trained: Sequence[Example]) -> Adapter:
    """An adapter that was trained on these examples."""

    async def files(self: Judging, base: BaseModel, adapters: Sequence[Adapter]) -> dict[str, str]:
        return {adapter.name: "file" for adapter in adapters}

    monkeypatch.setattr(Judging, "_files", files)
    dataset = Dataset(
        id="ds_1", team="default", skill="levels", digest="d", created=now(), train=len(trained), heldout=1
    )
    rows = [store.Item(example=e, key=key_of(e), split="train") for e in trained]
    with parts.database.begin() as connection:
        store.add_dataset(connection, dataset, rows)
    return Adapter(
        team="default", skill="levels", version=1, digest="d", base=BASE.sha256, dataset="ds_1", created=now()
    )


def knows_levels(request: EngineRequest) -> str:
    """The adapter in service knows every level, the others none of the second kind."""
    asked = request.messages[-1].content
    level = ["entry", "senior"][int(asked[6:-5]) % 2] if request.adapter else "entry"
    return json.dumps({"level": level, "note": "x"})


def test_everybody_is_compared_with_what_serves_pair_by_pair(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(database, tmp_path, knows_levels)
    serving = in_service(parts, monkeypatch, [])
    made = skill(tmp_path, {}, learning={"primary": "level"})
    verdict = compared(parts, made, [], serving=serving)
    assert verdict.against is not None
    assert (verdict.against.rival, verdict.against.field) == ("serving", "level")
    assert list(verdict.against.differences) == ["base", "few-shot", "retrieval"]
    difference = verdict.against.differences["base"]
    assert (difference.losses, difference.wins, difference.interval.n) == (20, 0, 40)
    assert difference.p is not None
    assert difference.p < 1e-5
    assert (difference.interval.high or 0) < 0
    kept = json.loads(json.dumps(verdict.model_dump(mode="json")))
    assert Verdict.model_validate(kept) == verdict
    former = {name: value for name, value in kept.items() if name not in ("against", "judged", "trained_on")}
    assert Verdict.model_validate(former).against is None, "a verdict from before this was measured"


def test_an_adapter_that_does_not_serve_answers_as_the_candidate_and_is_not_ruled_on(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(database, tmp_path, knows_levels)
    waits = in_service(parts, monkeypatch, [])
    made = skill(tmp_path, {})
    verdict = compared(parts, made, [], other=waits)
    assert verdict.ruling is None
    assert verdict.rivals["candidate"].score.mean > verdict.rivals["base"].score.mean
    assert verdict.against is not None
    assert verdict.against.rival == "base"
    assert (verdict.against.differences["candidate"].interval.low or 0) > 0


def test_what_serves_is_measured_once_also_where_it_is_named(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(database, tmp_path, knows_levels)
    serving = in_service(parts, monkeypatch, [])
    verdict = compared(parts, skill(tmp_path, {}), [], serving=serving, other=serving)
    assert set(verdict.rivals) == {"base", "few-shot", "retrieval", "serving"}


def test_examples_that_any_measured_adapter_was_trained_on_are_told(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(database, tmp_path, knows_levels)
    waits = in_service(parts, monkeypatch, [brought(100)])
    told: list[Event] = []
    verdict = compared(parts, skill(tmp_path, {}), told, other=waits, examples=[brought(100), brought(101)])
    assert verdict.trained_on == 1
    assert any(event.kind == "warning" and "levels@v1 may know" in event.text for event in told)


def test_another_system_s_answers_to_held_out_inputs_are_compared_too(database: Database, tmp_path: Path) -> None:
    made = skill(tmp_path, {})
    answers = {key_of(e): e.output for e in made.examples[10:30]} | {"of an input nobody knows": {"level": "entry"}}
    parts = Parts(database, tmp_path, knows_levels)
    verdict = compared(parts, made, [], outside={"other": answers})
    assert verdict.rivals["other"].n == 20
    assert verdict.rivals["other"].score.mean == 1.0
    assert verdict.against is not None
    assert verdict.against.differences["other"].interval.n == 20


def test_a_system_that_answered_nothing_that_is_held_out_is_refused(database: Database, tmp_path: Path) -> None:
    parts = Parts(database, tmp_path, knows_levels)
    with pytest.raises(InvalidInput, match="'other' answered none of the skill's held-out inputs"):
        compared(parts, skill(tmp_path, {}), [], outside={"other": {"elsewhere": "x"}})
    assert parts.engine.requests == []


def test_nothing_near_to_what_is_asked_stands_in_a_prompt(database: Database, tmp_path: Path) -> None:
    words = "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima"
    rows = [example(n, "heldout" if n < 30 else "train") for n in range(50)]
    rows += [{**example(50, "train"), "input": words}, example(51, "train")]
    spec = {"title": "T", "description": "D", "instructions": "I"}
    made = write_skill(tmp_path / "skills", "levels", spec, schema=SCHEMA, examples=rows)
    parts, told = Parts(database, tmp_path, lambda request: '{"level": "entry", "note": "x"}'), list[Event]()
    near, same = f"{words} mike", rows[51]["input"]
    given = [brought(1, input=near), brought(2, input=same), brought(3, input="quite another request")]
    compared(parts, made, told, examples=given)
    shown = {message.content for request in parts.engine.requests for message in request.messages[:-1]}
    assert not {words, near, same} & shown
    assert any(row["input"] in shown for row in rows[30:50])
    (note,) = [event.text for event in told if event.kind == "note"]
    assert note == "2 training examples are in nobody's prompt: they are the same as those asked, or near to them"


def test_who_was_trained_on_what_is_asked_is_told(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, told = Parts(database, tmp_path, reply), list[Event]()
    words = "november oscar papa quebec romeo sierra tango uniform victor whiskey xray yankee"
    trained = [brought(101), brought(102, input=words)]
    serving = in_service(parts, monkeypatch, trained)
    earlier = Dataset(id="ds_0", team="default", skill="levels", digest="e", created=now(), train=1, heldout=1)
    with database.begin() as connection:  # trained on for the adapter before, and gone since
        store.add_dataset(
            connection, earlier, [store.Item(example=brought(105), key=key_of(brought(105)), split="train")]
        )
    given = [brought(101), brought(102, input=f"{words} zulu"), brought(103), brought(104), brought(105)]
    verdict = compared(parts, skill(tmp_path, {}), told, serving=serving, examples=given)
    assert verdict.trained_on == 3
    (warning,) = [event.text for event in told if event.kind == "warning"]
    assert warning.startswith("3 of the 5 examples, or near copies of them, were trained on: levels@v1 may know")


def test_an_adapter_that_came_with_the_workspace_was_trained_on_the_skill_s_folder(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, told = Parts(database, tmp_path, reply), list[Event]()
    serving = in_service(parts, monkeypatch, []).model_copy(update={"dataset": None})
    given = [brought(50), brought(51, input=f"  {example(51, 'train')['input'].upper()}"), brought(5), brought(103)]
    verdict = compared(parts, skill(tmp_path, {}), told, serving=serving, examples=given)
    assert verdict.trained_on == 2, "not the one that the folder holds out, nor the one that is not in it"
    (warning,) = [event.text for event in told if event.kind == "warning"]
    assert warning.startswith(
        "2 of the 4 examples, or near copies of them, were trained on: levels@v1, which came with"
    )


def test_examples_that_are_new_to_everybody_come_without_a_warning(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, told = Parts(database, tmp_path, reply), list[Event]()
    serving = in_service(parts, monkeypatch, [brought(101)])
    verdict = compared(parts, skill(tmp_path, {}), told, serving=serving, examples=[brought(103), brought(104)])
    assert verdict.trained_on == 0
    assert not [event for event in told if event.kind in ("warning", "note")]


def test_a_failed_answer_is_told_with_its_rival(database: Database, tmp_path: Path) -> None:
    told: list[Event] = []

    def once(request: EngineRequest) -> str:
        if request.messages[-1].content.startswith("aaaaaa10 ") and len(request.messages) == 2:
            raise EngineFailure("llama.cpp broke off before the answer was finished.")
        return reply(request)

    verdict = compared(Parts(database, tmp_path, once), skill(tmp_path, {}), told)
    assert {name: rival.failed for name, rival in verdict.rivals.items()} == {"base": 1, "few-shot": 0, "retrieval": 0}
    (said,) = [event.text for event in told if event.kind == "rival" and event.text.startswith("base")]
    assert said.endswith("; the engine gave no answer to 1 of 40, which count as wrong")
