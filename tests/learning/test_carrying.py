"""A run that has examples written adds them when it ends, and pays for none of them twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from intern.engines.base import EngineRequest
from intern.engines.fake import FakeEngine
from intern.errors import EngineFailure
from intern.learning.carrying import Carrying
from intern.learning.learner import Learner
from intern.learning.loop.folder import Asked
from intern.learning.settled import StoreAway
from intern.models.fake import HashEmbedder
from intern.settings import Settings
from intern.skill import write_skill
from intern.store import records
from intern.types import Example, Run
from intern.workspace import Workspace

TEAM, SKILL = "default", "handbook"
DOCUMENTS = 6

pytestmark = pytest.mark.anyio


class Teacher:
    """Writes one pair for each document, of which it has read the number; before that it does what `before` does."""

    def __init__(self, before: Callable[[int], None] = lambda read: None) -> None:
        self.asked: list[str] = []
        self.engine = FakeEngine([self._reply])
        self._before = before

    def _reply(self, request: EngineRequest) -> str:
        self._before(len(self.asked))
        passage = request.messages[-1].content
        self.asked.append(passage)
        number = passage.split("Rule ")[1].split(" ")[0]
        words = " ".join(f"word{number}{letter}" for letter in "abcdef")
        quote = f"Rule {number} says that employees get coffee"
        return json.dumps(
            {"examples": [{"input": words, "output": f"Employees get coffee, rule {number}", "quote": quote}]}
        )


@pytest.fixture
async def workspace(tmp_path: Path) -> AsyncIterator[Workspace]:
    spec = {"title": "T", "description": "D", "instructions": "I"}
    docs = write_skill(tmp_path / "skills", SKILL, spec).folder / "docs"
    docs.mkdir()
    for number in range(DOCUMENTS):
        (docs / f"{number}.md").write_text(f"Rule {number} says that employees get coffee.")
    workspace = Workspace(Settings(home=tmp_path), engine=FakeEngine(), embedder=HashEmbedder())
    workspace.library.refresh()
    yield workspace
    await workspace.close()


def learner(workspace: Workspace, teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> Learner:
    monkeypatch.setattr(workspace.parts, "open_teacher", lambda: teacher.engine)
    return Learner(workspace.parts, workspace.library, workspace.deployments)


async def ended(learner: Learner, run: Run) -> tuple[str, str]:
    """How the run ended, and the reason."""
    learner.start()
    async with asyncio.timeout(30):
        *_, (_, last) = [event async for event in learner.events(TEAM, run.id)]
    return last.kind, last.text


def examples(workspace: Workspace) -> list[Example]:
    with workspace.database.connect() as connection:
        return records.list_examples(connection, TEAM, SKILL)


class Stopped:
    """A teacher that comes to a halt at the document of that number, until it is left."""

    def __init__(self, at: int) -> None:
        self.reached = asyncio.Event()
        self.teacher = Teacher(self._before)
        self._at = at

    def _before(self, read: int) -> None:
        if read == self._at:
            self.teacher.engine.pause.clear()
            self.reached.set()


async def test_what_was_written_before_a_restart_is_kept(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped, second = Stopped(at=3), Teacher()
    first = learner(workspace, stopped.teacher, monkeypatch)
    run = await first.submit(TEAM, SKILL, kind="synthesize", asked=Asked())
    first.start()
    await stopped.reached.wait()
    await first.close()
    assert examples(workspace) == []
    again = learner(workspace, second, monkeypatch)
    kind, reason = await ended(again, run)
    await again.close()
    assert (kind, reason) == ("done", "6 examples were written from 6 passages; 0 were refused.")
    assert len(examples(workspace)) == DOCUMENTS
    assert stopped.teacher.asked[:3] + second.asked == sorted(second.asked + stopped.teacher.asked[:3])
    assert len(second.asked) == 3
    assert not (workspace.parts.runs_folder / run.id).exists()


async def test_what_a_run_added_just_before_a_restart_is_neither_added_twice_nor_denied(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    added, loop = asyncio.Event(), asyncio.get_running_loop()
    add = Carrying._add_examples

    def and_lost(self: Carrying, run: Run, examples: Sequence[Example]) -> int:
        add(self, run, examples)
        loop.call_soon_threadsafe(added.set)
        raise StoreAway("The database is out of reach.")

    with monkeypatch.context() as patched:
        patched.setattr(Carrying, "_add_examples", and_lost)
        first = learner(workspace, Teacher(), monkeypatch)
        run = await first.submit(TEAM, SKILL, kind="synthesize", asked=Asked())
        first.start()
        await added.wait()
        await first.close()
    assert len(examples(workspace)) == DOCUMENTS
    again = learner(workspace, Teacher(dies(0)), monkeypatch)
    assert await ended(again, run) == ("done", "6 examples were written from 6 passages; 0 were refused.")
    await again.close()
    assert len(examples(workspace)) == DOCUMENTS


async def test_a_run_that_is_cancelled_adds_nothing_and_leaves_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = Stopped(at=3)
    going = learner(workspace, stopped.teacher, monkeypatch)
    run = await going.submit(TEAM, SKILL, kind="synthesize", asked=Asked())
    going.start()
    await stopped.reached.wait()
    assert (workspace.parts.runs_folder / run.id / "written.jsonl").exists()
    assert (await going.cancel(TEAM, run.id)).state == "cancelled"
    await going.close()
    assert examples(workspace) == []
    assert not (workspace.parts.runs_folder / run.id).exists()


def dies(at: int) -> Callable[[int], None]:
    def before(read: int) -> None:
        if read >= at:
            raise EngineFailure("The endpoint does not answer.")

    return before


async def test_what_a_teacher_wrote_before_it_died_is_added_and_the_run_says_so(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    going = learner(workspace, Teacher(dies(2)), monkeypatch)
    run = await going.submit(TEAM, SKILL, kind="synthesize", asked=Asked())
    kind, reason = await ended(going, run)
    await going.close()
    assert kind == "done"
    assert reason.startswith("2 examples were written from 5 passages; 0 were refused.")
    assert reason.endswith("was asked no more: The endpoint does not answer.")
    assert len(examples(workspace)) == 2


async def test_a_teacher_that_never_answers_fails_the_run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    going = learner(workspace, Teacher(dies(0)), monkeypatch)
    run = await going.submit(TEAM, SKILL, kind="synthesize", asked=Asked())
    assert await ended(going, run) == ("failed", "The endpoint does not answer.")
    await going.close()
    assert examples(workspace) == []
