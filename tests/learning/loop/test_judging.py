"""Answers that were cut are told from finished ones, and answers are remembered by content."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from intern.engines.base import EngineRequest
from intern.engines.fake import FakeEngine
from intern.learning.judging.evaluate import Rival
from intern.learning.judging.remembered import AnswerMemory
from intern.learning.loop.contracts import BaseModel, Work
from intern.learning.loop.judging import Judging
from intern.learning.train.job import Row
from intern.learning.train.recipe import Recipe
from intern.skill import write_skill
from intern.types import Adapter, Example, Message, Run, now


class Parts:
    def __init__(self, root: Path) -> None:
        self.base = BaseModel(path="base.gguf", name="tiny", sha256="b" * 64)
        self.passage_tokens = 100
        self.answers = AnswerMemory(root / "answers.jsonl")

    def memory(self, team: str, skill: str) -> AnswerMemory:
        return self.answers

    def retriever(self, team: str) -> None:
        return None

    def embed(self, texts: Any) -> Any:
        raise AssertionError("no rival here is shown examples")


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)


def judging(parts: Any, root: Path) -> Judging:
    async def tell(event: Any) -> None: ...

    spec = {"title": "T", "description": "D", "instructions": "I", "generation": {"max_tokens": 3}}
    run = Run(id="run_1", team="default", skill="sort", state="running", created=now())
    return Judging(Work(parts, write_skill(root / "skills", "sort", spec), run, Recipe(), tell))


def adapter(digest: str) -> Adapter:
    return Adapter(team="default", skill="sort", version=1, digest=digest, base="b" * 64, created=now())


@pytest.mark.parametrize(("text", "finished"), [("a b", True), ("a b c", True), ("a b c d", False)])
def test_an_answer_is_finished_unless_its_tokens_ran_out(
    parts: Parts, tmp_path: Path, text: str, finished: bool
) -> None:
    engine = FakeEngine([text])
    asyncio.run(engine.set_adapters({"sort@v1": "file"}))
    row = Row(id="r", messages=(Message(role="user", content="x"),), completion="")
    (answer,) = asyncio.run(judging(parts, tmp_path)._answers(engine, adapter("d"), [row]))
    assert answer.finished is finished


def asked(made: Judging, digest: str) -> list[EngineRequest]:
    """What base and adapter are asked, with an adapter of this digest in service."""
    engine: Any = FakeEngine()
    asyncio.run(engine.set_adapters({"sort@v1": "file"}))
    example = Example(id="e", input="x", output="ok")

    async def answers() -> None:
        remembered = await made._remembered(engine, adapter(digest), None)
        evaluation = made.evaluation(engine, (), [example], remembered)
        for rival in (Rival(name="base"), Rival(name="serving", adapter="sort@v1")):
            await evaluation.answer(rival)

    asyncio.run(answers())
    return list(engine.requests)


def test_an_answer_is_remembered_of_the_same_weights_only(parts: Parts, tmp_path: Path) -> None:
    made = judging(parts, tmp_path)
    assert [request.adapter for request in asked(made, "d1")] == [None, "sort@v1"]
    assert asked(made, "d1") == []
    assert [request.adapter for request in asked(made, "d2")] == ["sort@v1"]  # the version was given again
    parts.base = parts.base.model_copy(update={"sha256": "c" * 64})  # another file of the same name
    assert [request.adapter for request in asked(made, "d1")] == [None, "sort@v1"]
