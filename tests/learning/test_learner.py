"""Runs are carried out one at a time, survive the process, can be ended, and promote what the gate lets through."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Engine as Database

from intern.errors import Conflict, EngineFailure, InvalidInput, NotFound
from intern.learning.judging.outcomes import Ruling
from intern.learning.learner import Learner
from intern.learning.loop.judging import Verdict
from intern.learning.loop.loop import Finished
from intern.learning.train.job import Event
from intern.learning.train.recipe import Recipe
from intern.library import SkillLibrary
from intern.skill import Skill, write_skill
from intern.store import learning as store
from intern.store.engine import open_database
from intern.types import Adapter, Dataset, Deployment, Json, Run, now

TEAM = "default"

pytestmark = pytest.mark.anyio


class Parts:
    """Only what the learner itself uses."""

    def __init__(self, database: Database, root: Path) -> None:
        self.database = database
        self.runs_folder = root / "runs"
        self.adapters_folder = root / "adapters"


class Deployments:
    """Notes what is promoted."""

    def __init__(self) -> None:
        self.promoted: list[tuple[str, str, int | None]] = []
        self.problems: Mapping[tuple[str, str], str] = {}

    def serving(self, team: str, skill: str) -> Deployment | None:
        return None

    async def promote(self, team: str, skill: str, version: int | None, *, by: str, reason: str) -> None:
        self.promoted.append((team, skill, version))


class Script:
    """What the loops of a test do: a decision, an error, or to wait until they are ended."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.does: Ruling | Exception | None = Ruling(decision="promote", reason="Better by far.")
        self.approve = False
        self.began: list[Run] = []
        self.running = 0
        self.most_at_once = 0
        self.waits = asyncio.Event()
        self.begun = asyncio.Event()

    def __call__(
        self, parts: Parts, skill: Skill, run: Run, recipe: Recipe, tell: Callable[[Event], Awaitable[None]]
    ) -> ScriptedLoop:
        return ScriptedLoop(self, run, tell)


class ScriptedLoop:
    def __init__(self, script: Script, run: Run, tell: Callable[[Event], Awaitable[None]]) -> None:
        self.script = script
        self.run = run
        self.tell = tell

    async def learn(self, *, serving: Adapter | None, force: bool = False, growth: bool = False) -> Finished:
        script = self.script
        script.began.append(self.run)
        script.running += 1
        script.most_at_once = max(script.most_at_once, script.running)
        try:
            await self.tell(Event(kind="stage", stage="train", text="training"))
            await self.tell(Event(kind="step", step=1, loss=2.0))
            script.begun.set()
            if script.does is None:
                await script.waits.wait()
            if isinstance(script.does, Exception):
                raise script.does
            ruling = script.does or Ruling(decision="reject", reason="Worse.")
            return self._finished(ruling)
        finally:
            script.running -= 1

    def _finished(self, ruling: Ruling) -> Finished:
        run = self.run
        adapter = Adapter(team=run.team, skill=run.skill, version=0, digest="d" * 32, base="b", created=now())
        with self.script.parts.database.begin() as connection:
            adapter = store.add_adapter(connection, adapter)
        (self.script.parts.adapters_folder / adapter.digest).mkdir(parents=True, exist_ok=True)
        dataset = Dataset(id="ds_1", team=run.team, skill=run.skill, digest="x", created=now(), train=60, heldout=40)
        return Finished(
            dataset=dataset,
            adapter=adapter,
            verdict=Verdict(rivals={}, ruling=ruling),
            ruling=ruling,
            train_seconds=12.5,
            approve=self.script.approve,
        )

    def clear(self) -> None:
        pass


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    engine = open_database(database_url)
    yield engine
    engine.dispose()


class House:
    def __init__(self, database: Database, root: Path) -> None:
        for name in ("one", "two", "three"):
            spec = {"title": name, "description": name, "instructions": name}
            write_skill(root / "skills", name, spec)
        self.library = SkillLibrary(root)
        self.library.refresh()
        self.parts = Parts(database, root)
        self.deployments = Deployments()
        self.script = Script(self.parts)

    def learner(self) -> Learner:
        made: Any = Learner(self.parts, self.library, self.deployments, loop=self.script)  # type: ignore[arg-type]
        assert isinstance(made, Learner)
        return made


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    return House(database, tmp_path)


async def ended(learner: Learner, run: Run) -> list[Event]:
    return [event async for _, event in learner.events(TEAM, run.id)]


def kept(house: House, run: Run) -> Run:
    with house.parts.database.connect() as connection:
        return store.get_run(connection, TEAM, run.id)


def verdict(house: House, run: Run) -> Mapping[str, Json] | None:
    with house.parts.database.connect() as connection:
        return store.get_verdict(connection, TEAM, run.id)


async def test_what_the_gate_lets_through_is_promoted(house: House) -> None:
    learner = house.learner()
    run = await learner.submit(TEAM, "one", recipe=Recipe())
    learner.start()
    events = await ended(learner, run)
    await learner.close()
    done = kept(house, run)
    assert (done.state, done.decision, done.adapter, done.train_seconds) == ("done", "promote", "one@v1", 12.5)
    assert done.stage == "promote"
    assert house.deployments.promoted == [(TEAM, "one", 1)]
    assert [e.kind for e in events] == ["stage", "step", "verdict", "stage", "promoted", "done"]
    assert verdict(house, run)["ruling"]["reason"] == "Better by far."  # type: ignore[index]


@pytest.mark.parametrize("decision", ["reject", "inconclusive", "prompting_is_enough"])
async def test_what_it_does_not_is_kept_and_not_promoted(house: House, decision: str) -> None:
    house.script.does = Ruling.model_validate({"decision": decision, "reason": "So."})
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    learner.start()
    await ended(learner, run)
    await learner.close()
    assert kept(house, run).decision == decision
    assert house.deployments.promoted == []


async def test_where_a_person_approves_nothing_goes_live_by_itself(house: House) -> None:
    house.script.approve = True
    learner = house.learner()
    first = await learner.submit(TEAM, "one")
    second = await learner.submit(TEAM, "two", promote=False)
    learner.start()
    await ended(learner, first)
    await ended(learner, second)
    await learner.close()
    assert kept(house, first).decision == "promote"
    assert house.deployments.promoted == []


async def test_runs_wait_for_each_other_in_order(house: House) -> None:
    learner = house.learner()
    runs = [await learner.submit(TEAM, name) for name in ("one", "two", "three")]
    learner.start()
    for run in runs:
        await ended(learner, run)
    await learner.close()
    assert [run.id for run in house.script.began] == [run.id for run in runs]
    assert house.script.most_at_once == 1


async def test_a_second_run_of_the_same_skill_is_refused_while_one_waits(house: House) -> None:
    learner = house.learner()
    await learner.submit(TEAM, "one")
    with pytest.raises(Conflict, match="wait for it, or cancel it"):
        await learner.submit(TEAM, "one")
    with pytest.raises(NotFound):
        await learner.submit(TEAM, "unknown")


async def test_a_failure_is_kept_with_its_reason_and_the_next_run_goes_on(house: House) -> None:
    house.script.does = EngineFailure("The engine broke.")
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    learner.start()
    events = await ended(learner, run)
    assert (kept(house, run).state, kept(house, run).reason) == ("failed", "The engine broke.")
    assert events[-1].kind == "failed"
    house.script.does = RuntimeError("secret detail")
    again = await learner.submit(TEAM, "one")
    await ended(learner, again)
    await learner.close()
    assert kept(house, again).reason == "RuntimeError; the log says more"


async def test_a_run_that_goes_on_can_be_ended(house: House) -> None:
    house.script.does = None
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    learner.start()
    await house.script.begun.wait()
    found = await learner.cancel(TEAM, run.id)
    assert found.state == "cancelled"
    assert house.script.running == 0
    with pytest.raises(InvalidInput, match="ended already"):
        await learner.cancel(TEAM, run.id)
    house.script.does = Ruling(decision="reject", reason="Worse.")
    after = await learner.submit(TEAM, "two")
    await ended(learner, after)
    await learner.close()
    assert kept(house, after).state == "done"


@pytest.mark.parametrize("turns", range(12))
async def test_a_run_can_be_ended_at_any_moment_of_its_beginning_and_the_next_goes_on(house: House, turns: int) -> None:
    house.script.does = None
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    learner.start()
    for _ in range(turns):
        await asyncio.sleep(0)
    assert (await learner.cancel(TEAM, run.id)).state == "cancelled"
    house.script.does = Ruling(decision="reject", reason="Worse.")
    other = await learner.submit(TEAM, "two")
    await ended(learner, other)
    await learner.close()
    assert kept(house, other).state == "done"
    assert kept(house, run).state == "cancelled"


async def test_a_run_that_waits_can_be_ended_and_never_begins(house: House) -> None:
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    await learner.cancel(TEAM, run.id)
    other = await learner.submit(TEAM, "two")
    learner.start()
    await ended(learner, other)
    await learner.close()
    assert [r.id for r in house.script.began] == [other.id]


async def test_a_run_cut_off_by_the_end_of_the_process_is_taken_up_again(house: House) -> None:
    house.script.does = None
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    waiting = await learner.submit(TEAM, "two")
    learner.start()
    await house.script.begun.wait()
    await learner.close()
    assert kept(house, run).state == "running"
    house.script.does = Ruling(decision="promote", reason="Better.")
    again = house.learner()
    again.start()
    events = await ended(again, run)
    await ended(again, waiting)
    await again.close()
    assert [r.id for r in house.script.began] == [run.id, run.id, waiting.id]
    assert [e.kind for e in events].count("step") == 2
    assert kept(house, run).state == "done"


async def test_events_can_be_followed_live_and_from_where_one_left(house: House) -> None:
    house.script.does = None
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    learner.start()
    stream = learner.events(TEAM, run.id)
    first = await anext(stream)
    second = await anext(stream)
    assert (first[1].kind, second[1].kind) == ("stage", "step")
    house.script.does = Ruling(decision="reject", reason="Worse.")
    house.script.waits.set()
    rest = [event.kind async for _, event in stream]
    assert rest[-1] == "done"
    later = [event.kind async for _, event in learner.events(TEAM, run.id, after=second[0])]
    assert later == rest
    await learner.close()


async def test_events_of_another_teams_run_are_not_found(house: House) -> None:
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    with pytest.raises(NotFound):
        await anext(learner.events("other", run.id))


async def test_what_a_person_put_into_service_meanwhile_is_not_replaced(house: House) -> None:
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    promoted = Deployment(team=TEAM, skill="one", version=1, previous=None, changed=now(), by="ada", reason="mine")

    def serving(team: str, skill: str) -> Deployment | None:
        return promoted if house.script.begun.is_set() else None

    house.deployments.serving = serving  # type: ignore[method-assign]
    learner.start()
    events = await ended(learner, run)
    await learner.close()
    assert kept(house, run).decision == "promote"
    assert house.deployments.promoted == []
    assert any(e.kind == "warning" and "a person has to promote it" in e.text for e in events)
