"""Runs are carried out one at a time, survive the process, can be ended, and promote what the gate lets through."""

from __future__ import annotations

import asyncio
import errno
import json
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from made_adapters import keep_adapter
from sqlalchemy.engine import Engine as Database

from intern.errors import AdapterRefused, Conflict, EngineFailure, InvalidInput, NotFound, StoreFailure, TrainingFailed
from intern.learning.budget import by_itself, itself, itself_again
from intern.learning.judging.growth import Growth, forecast
from intern.learning.judging.outcomes import Interval, Ruling
from intern.learning.learner import MOST_TAKEN_UP, Asked, Learner
from intern.learning.loop.folder import RunFolder
from intern.learning.loop.judging import Verdict
from intern.learning.loop.loop import Finished
from intern.learning.train.job import Event
from intern.learning.train.recipe import Recipe
from intern.library import SkillLibrary
from intern.skill import Skill, write_skill
from intern.store import learning as store
from intern.store.engine import open_database
from intern.store.lock import SessionLock
from intern.types import Adapter, Dataset, Deployment, Example, Json, Run, now

TEAM = "default"

pytestmark = pytest.mark.anyio


class Parts:
    """Only what the learner itself uses."""

    base = None

    def __init__(self, database: Database, root: Path) -> None:
        self.database = database
        self.runs_folder = root / "runs"
        self.adapters_folder = root / "adapters"
        self.cache = root / "cache"


class Deployments:
    """Notes what is promoted. While `hangs`, the row is changed and the process gets no further."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.promoted: list[tuple[str, str, int | None]] = []
        self.problems: Mapping[tuple[str, str], str] = {}
        self.hangs = False
        self.fails: Exception | None = None
        self.flipped = asyncio.Event()

    async def promote(
        self, team: str, skill: str, version: int | None, *, by: str, reason: str, former: int | None
    ) -> None:
        if self.fails is not None:
            raise self.fails
        self.promoted.append((team, skill, version))
        put_in_service(self.database, skill, version, by=by)
        self.flipped.set()
        if self.hangs:
            await asyncio.Event().wait()


def put_in_service(database: Database, skill: str, version: int | None, *, by: str) -> None:
    changed = Deployment(team=TEAM, skill=skill, version=version, previous=None, changed=now(), by=by, reason="mine")
    with database.begin() as connection:
        store.deploy(connection, changed)


class Script:
    """What the loops of a test do: a decision, an error, or to wait until they are ended."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.does: Ruling | Exception | None = Ruling(decision="promote", reason="Better by far.")
        self.approve = False
        self.seconds: list[float] = []  # what the training process says to each of its events
        self.works = False  # it freezes a dataset, and has a checkpoint when it comes to what it does
        self.began: list[Run] = []
        self.running = 0
        self.most_at_once = 0
        self.grows: Callable[[], Awaitable[Growth | None]] | None = None  # what it does to say what more would bring
        self.grew: list[tuple[str, bool]] = []
        self.growing = asyncio.Event()
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

    async def learn(self, *, serving: Adapter | None, force: bool = False) -> Finished:
        script = self.script
        script.began.append(self.run)
        script.running += 1
        script.most_at_once = max(script.most_at_once, script.running)
        try:
            await self.tell(Event(kind="stage", stage="train", text="training"))
            if script.works:
                await self.tell(Event(kind="dataset", numbers={"dataset": "ds_1"}))
                work(script.parts.runs_folder / self.run.id)
            await self.tell(Event(kind="step", step=1, loss=2.0))
            for seconds in script.seconds:
                await self.tell(Event(kind="answers", seconds=seconds))
            script.begun.set()
            if script.does is None:
                await script.waits.wait()
            if isinstance(script.does, Exception):
                raise script.does
            ruling = script.does or Ruling(decision="reject", reason="Worse.")
            return self._finished(ruling)
        finally:
            script.running -= 1

    async def grow(self, verdict: Verdict, *, parts: bool) -> Growth | None:
        script = self.script
        script.grew.append((self.run.id, parts))
        if script.grows is None:
            return None
        await self.tell(Event(kind="stage", stage="growth", text="training on 25 of 100 examples"))
        script.growing.set()
        return await script.grows()

    async def compare(self, **_: Any) -> Verdict:
        if isinstance(self.script.does, Exception):
            raise self.script.does
        return Verdict(rivals={})

    def _finished(self, ruling: Ruling) -> Finished:
        run = self.run
        adapter = Adapter(team=run.team, skill=run.skill, version=0, digest="d" * 32, base="b", created=now())
        with self.script.parts.database.begin() as connection:
            adapter = keep_adapter(connection, adapter)
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


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    engine = open_database(database_url)
    yield engine
    engine.dispose()


class House:
    def __init__(self, database: Database, root: Path) -> None:
        self.root = root
        for name in ("one", "two", "three"):
            spec = {"title": name, "description": name, "instructions": name}
            if not (root / "skills" / name).exists():
                write_skill(root / "skills", name, spec)
        self.library = SkillLibrary(root)
        self.library.refresh()
        self.parts = Parts(database, root)
        self.deployments = Deployments(database)
        self.script = Script(self.parts)

    def learner(self, look: float = 0.05, hours: float = math.inf) -> Learner:
        parts: Any = self.parts
        deployments: Any = self.deployments
        loop: Any = self.script
        return Learner(parts, self.library, deployments, hours=hours, loop=loop, look=look)

    def folder(self, run: Run) -> Path:
        return self.parts.runs_folder / run.id


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    return House(database, tmp_path)


async def ended(learner: Learner, run: Run) -> list[Event]:
    return [event async for _, event in learner.events(TEAM, run.id)]


def kept(house: House, run: Run) -> Run:
    with house.parts.database.connect() as connection:
        return store.get_run(connection, TEAM, run.id)


def verdict(house: House, run: Run) -> Json:
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
    assert verdict(house, run)["ruling"]["reason"] == "Better by far."


async def test_a_promotion_that_fails_takes_nothing_of_the_verdict_back(house: House) -> None:
    house.deployments.fails = EngineFailure("The engine gave no answer.")
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    learner.start()
    events = await ended(learner, run)
    await learner.close()
    done = kept(house, run)
    assert (done.state, done.decision, done.adapter, done.train_seconds) == ("done", "promote", "one@v1", 12.5)
    (warning,) = [e.text for e in events if e.kind == "warning"]
    assert warning == "one@v1 does not serve: The engine gave no answer. A person can promote it."
    assert house.deployments.promoted == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"instructions": "another"}, "The skill was changed while it trained."),
        ({"learning": {"approve": True}}, "The skill asks for approval by now."),
    ],
)
async def test_a_skill_that_was_changed_while_it_trained_is_promoted_by_a_person(
    house: House, changed: dict[str, Json], said: str
) -> None:
    house.script.does = None
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    learner.start()
    await house.script.begun.wait()
    spec = {"title": "one", "description": "one", "instructions": "one", **changed}
    (house.root / "skills" / "one" / "skill.yaml").write_text(yaml.safe_dump(spec))
    house.library.refresh()
    house.script.does = Ruling(decision="promote", reason="Better by far.")
    house.script.waits.set()
    events = await ended(learner, run)
    await learner.close()
    assert kept(house, run).decision == "promote"
    assert house.deployments.promoted == []
    assert any(said in e.text for e in events if e.kind == "warning")


async def test_a_follower_that_waits_for_the_database_holds_up_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = house.learner()._journal
    run = Run(id="run_slow", team=TEAM, skill="one", state="queued", created=now())
    await journal.save(run)
    reading, go_on = threading.Event(), threading.Event()
    get = journal._get

    def slow(team: str, name: str) -> Run:
        reading.set()
        go_on.wait(20)
        return get(team, name)

    monkeypatch.setattr(journal, "_get", slow)
    following = asyncio.create_task(anext(journal.follow(TEAM, run.id)))
    await asyncio.to_thread(reading.wait, 20)
    await asyncio.wait_for(journal.tell(run, Event(kind="step", step=1)), 10)
    go_on.set()
    assert (await following)[1].step == 1


async def test_a_loss_that_is_no_number_is_kept_as_none(house: House) -> None:
    journal = house.learner()._journal
    run = Run(id="run_nan", team=TEAM, skill="one", state="running", created=now())
    await journal.save(run.model_copy(update={"state": "queued"}))
    await journal.tell(run, Event(kind="heldout", step=3, loss=math.nan))
    with house.parts.database.connect() as connection:
        ((_, body),) = store.list_events(connection, TEAM, run.id, after=-1)
    assert body == {"kind": "heldout", "step": 3, "loss": None}


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
    house.script.does = None
    learner.start()
    await house.script.begun.wait()
    with house.parts.database.begin() as connection:
        theirs = Adapter(team=TEAM, skill="one", version=0, digest="e" * 32, base="b", created=now())
        keep_adapter(connection, theirs)
    put_in_service(house.parts.database, "one", 1, by="ada")
    house.script.does = Ruling(decision="promote", reason="Better by far.")
    house.script.waits.set()
    events = await ended(learner, run)
    await learner.close()
    assert kept(house, run).decision == "promote"
    assert house.deployments.promoted == []
    assert any(e.kind == "warning" and "A person can promote it." in e.text for e in events)


@pytest.mark.parametrize("rolled_back", [False, True])
async def test_a_promotion_that_the_process_did_not_survive_ends_the_run_with_the_verdict_it_had(
    house: House, rolled_back: bool
) -> None:
    house.deployments.hangs = True
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    learner.start()
    await house.deployments.flipped.wait()
    await learner.close()
    assert kept(house, run).state == "running"
    if rolled_back:
        put_in_service(house.parts.database, "one", None, by="ada")
    house.deployments.hangs = False
    house.script.does = Ruling(decision="inconclusive", reason="No better than itself.")
    again = house.learner()
    again.start()
    events = await ended(again, run)
    await again.close()
    done = kept(house, run)
    assert (done.state, done.decision, done.reason, done.stage) == ("done", "promote", "Better by far.", "promote")
    assert done.adapter == "one@v1"
    assert verdict(house, run)["ruling"]["decision"] == "promote"
    assert len(house.script.began) == len(house.deployments.promoted) == 1
    assert events[-1].kind == "done"


# --- a database that is out of reach ---------------------------------------------------------------------------


@contextmanager
def failing(database: Database, statement: str, times: float = float("inf")) -> Iterator[list[str]]:
    """Lose the connection at statements that hold `statement`, `times` times; yields those."""
    failed: list[str] = []

    def lose(connection: Any, cursor: Any, text: str, *_: Any) -> None:
        if statement in text and len(failed) < times:
            failed.append(text)
            raise sa.exc.OperationalError(text, {}, Exception("the server closed the connection"))

    sa.event.listen(database, "before_cursor_execute", lose)
    yield failed
    sa.event.remove(database, "before_cursor_execute", lose)


@pytest.mark.parametrize("statement", ["INSERT INTO run_events", "UPDATE runs", "UPDATE adapters", "FROM deployments"])
async def test_a_lost_connection_does_not_fail_a_run(house: House, statement: str) -> None:
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    with failing(house.parts.database, statement, times=2) as failed:
        learner.start()
        events = await ended(learner, run)
        await learner.close()
    assert len(failed) == 2
    assert kept(house, run).state == "done"
    assert [event.kind for event in events] == ["stage", "step", "verdict", "stage", "promoted", "done"]


async def test_an_event_whose_connection_was_lost_after_it_was_kept_is_kept_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, lost = store.add_event, list[int]()

    def committed(connection: sa.Connection, team: str, run: str, ordinal: int, body: Mapping[str, Json]) -> None:
        add(connection, team, run, ordinal, body)
        if not lost:
            lost.append(ordinal)
            connection.commit()
            raise sa.exc.OperationalError("commit", {}, Exception("the server closed the connection"))

    monkeypatch.setattr(store, "add_event", committed)
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    learner.start()
    events = await ended(learner, run)
    await learner.close()
    assert [event.kind for event in events] == ["stage", "step", "verdict", "stage", "promoted", "done"]


async def test_while_the_database_stays_away_a_run_waits_for_it_and_keeps_its_checkpoints(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intern.learning.settled.PATIENCE", 0.0)
    monkeypatch.setattr("intern.learning.learner._REST_SECONDS", 0.01)
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    checkpoint = house.folder(run) / "stages" / "examples" / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    with failing(house.parts.database, "") as failed:
        learner.start()
        while len(failed) < 3 * MOST_TAKEN_UP:  # noqa: ASYNC110 - they fail in threads
            await asyncio.sleep(0)
        assert checkpoint.exists()
    await ended(learner, run)
    await learner.close()
    assert kept(house, run).state == "done"
    assert not checkpoint.exists()


@pytest.mark.parametrize("statement", ["INSERT INTO run_events", "UPDATE adapters", "FROM deployments"])
async def test_a_run_that_lost_its_database_for_long_is_taken_up_and_has_not_failed(
    house: House, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.setattr("intern.learning.settled.PATIENCE", 0.0)
    monkeypatch.setattr("intern.learning.learner._REST_SECONDS", 0.01)
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    with failing(house.parts.database, statement, times=MOST_TAKEN_UP):
        learner.start()
        await ended(learner, run)
        await learner.close()
    assert kept(house, run).state == "done"


async def test_a_connection_that_is_lost_in_the_middle_of_the_work_fails_no_run(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intern.learning.learner._REST_SECONDS", 0.01)
    house.script.does = sa.exc.OperationalError("select", {}, Exception("the server closed the connection"))
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    learner.start()
    await house.script.begun.wait()
    house.script.does = Ruling(decision="reject", reason="Worse.")
    await ended(learner, run)
    await learner.close()
    assert kept(house, run).state == "done"


# --- files and take-ups ----------------------------------------------------------------------------------------


def leave(folder: Path) -> None:
    """What a run has on disk while it goes on."""
    for place in ("stages/examples/checkpoint-9", "adapter", "part-20/adapter"):
        (folder / place).mkdir(parents=True)
        (folder / place / "weights").write_text("w")
    for name in ("rows.jsonl", "part-20/rows.jsonl", "texts.jsonl", "pairs.jsonl", "asked.json", "outcomes-base.jsonl"):
        (folder / name).write_text("{}")


@pytest.mark.parametrize("state", ["queued", "running"])  # running: of a process that was killed
async def test_a_run_that_nobody_carries_out_leaves_no_files_when_it_is_ended(house: House, state: Any) -> None:
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    with house.parts.database.begin() as connection:
        store.save_run(connection, run.model_copy(update={"state": state}))
    leave(house.folder(run))
    assert (await learner.cancel(TEAM, run.id)).state == "cancelled"
    assert [path.name for path in house.folder(run).iterdir()] == ["outcomes-base.jsonl"]


async def test_a_run_that_goes_on_leaves_no_files_when_it_is_ended(house: House) -> None:
    house.script.does = None
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    leave(house.folder(run))
    learner.start()
    await house.script.begun.wait()
    await learner.cancel(TEAM, run.id)
    assert [path.name for path in house.folder(run).iterdir()] == ["outcomes-base.jsonl"]
    await learner.close()


async def test_a_run_that_ends_the_server_again_and_again_is_given_up(house: House) -> None:
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    for _ in range(1 + MOST_TAKEN_UP):  # by processes that were killed
        RunFolder(house.folder(run)).begin()
    learner.start()
    await ended(learner, run)
    after = await learner.submit(TEAM, "one")
    await ended(learner, after)
    await learner.close()
    assert kept(house, run).state == "failed"
    assert "It was taken up 3 times" in str(kept(house, run).reason)
    assert kept(house, after).state == "done"


async def test_a_server_that_is_stopped_in_good_order_takes_a_run_up_as_often_as_it_likes(house: House) -> None:
    house.script.does = None
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    for _ in range(2 + MOST_TAKEN_UP):
        house.script.begun.clear()
        learner.start()
        await house.script.begun.wait()
        await learner.close()
    assert kept(house, run).state == "running"


async def test_what_a_run_was_asked_with_is_never_replaced_by_something_else(house: House) -> None:
    learner = house.learner()
    run = await learner.submit(TEAM, "one", kind="evaluate", asked=Asked(count=3))
    (house.folder(run) / "asked.json").unlink()  # it lies with another server
    learner.start()
    await ended(learner, run)
    await learner.close()
    assert kept(house, run).state == "failed"
    assert "lies with the server that was asked" in str(kept(house, run).reason)


# --- runs that failed ------------------------------------------------------------------------------------------


def work(folder: Path) -> None:
    """What a training has on disk after its first checkpoint."""
    checkpoint = folder / "stages" / "examples" / "checkpoint-9"
    checkpoint.mkdir(parents=True, exist_ok=True)
    for file in (folder / "job.json", folder / "rows.jsonl", checkpoint / "trainer_state.json"):
        file.write_text("{}")


async def failed(house: House, learner: Learner, skill: str = "one") -> Run:
    """A run that failed after work was done; the next ones do what the gate lets through."""
    house.script.works = True
    house.script.does = EngineFailure("The engine broke.")
    run = await learner.submit(TEAM, skill)
    learner.start()
    await ended(learner, run)
    house.script.does = Ruling(decision="promote", reason="Better by far.")
    return kept(house, run)


async def settled_down(learner: Learner) -> None:
    """Wait until the run that ended last has put its folder in order."""
    while learner._current is not None:  # noqa: ASYNC110 - it has no event for its end
        await asyncio.sleep(0.01)


async def test_a_run_that_failed_goes_on_with_what_it_had_when_somebody_asks(house: House) -> None:
    learner = house.learner()
    run = await failed(house, learner)
    await settled_down(learner)
    assert RunFolder(house.folder(run)).resumable
    back = await learner.resume(TEAM, run.id)
    assert (back.state, back.reason, back.ended, back.dataset) == ("queued", None, None, "ds_1")
    events = [found async for found in learner.events(TEAM, run.id)]
    await settled_down(learner)
    await learner.close()
    done = kept(house, run)
    assert (done.state, done.reason, done.adapter) == ("done", "Better by far.", "one@v1")
    assert [began.dataset for began in house.script.began] == [None, "ds_1"]
    assert not house.folder(run).exists()
    assert [ordinal for ordinal, _ in events] == list(range(len(events)))
    kinds = [event.kind for _, event in events]
    assert kinds[kinds.index("failed") :][:3] == ["failed", "note", "stage"]
    assert kinds[-1] == "done"


async def test_events_of_a_run_that_went_on_elsewhere_follow_those_of_before(house: House, other: House) -> None:
    first, second = house.learner(), other.learner()
    run = await failed(house, first)
    await first.close()
    other.script.works = True
    other.script.does = EngineFailure("Again.")
    await second.resume(TEAM, run.id)
    second.start()
    await ended(second, run)
    await second.close()
    await first.resume(TEAM, run.id)
    first.start()
    events = [found async for found in first.events(TEAM, run.id)]
    await first.close()
    assert [ordinal for ordinal, _ in events] == list(range(len(events)))
    assert [event.text for _, event in events if event.kind == "failed"] == ["The engine broke.", "Again."]
    assert kept(house, run).state == "done"


async def test_a_run_that_is_resumed_counts_its_beginnings_anew(house: House) -> None:
    learner = house.learner()
    run = await failed(house, learner)
    await settled_down(learner)
    for _ in range(1 + MOST_TAKEN_UP):
        RunFolder(house.folder(run)).begin()
    await learner.resume(TEAM, run.id)
    await ended(learner, run)
    await learner.close()
    assert kept(house, run).state == "done"


async def test_only_a_training_that_failed_and_left_something_can_be_resumed(house: House) -> None:
    learner = house.learner()
    with pytest.raises(NotFound):
        await learner.resume(TEAM, "run_none")
    run = await learner.submit(TEAM, "one")
    with pytest.raises(InvalidInput, match="did not fail: it is queued"):
        await learner.resume(TEAM, run.id)
    learner.start()
    await ended(learner, run)
    with pytest.raises(InvalidInput, match="did not fail: it is done"):
        await learner.resume(TEAM, run.id)
    house.script.does = EngineFailure("The engine broke.")
    empty = await learner.submit(TEAM, "two")
    await ended(learner, empty)
    with pytest.raises(InvalidInput, match="Begin anew: intern learn two"):
        await learner.resume(TEAM, empty.id)
    measured = await learner.submit(TEAM, "two", kind="evaluate", asked=Asked(count=3))
    await ended(learner, measured)
    await settled_down(learner)
    assert not house.folder(measured).exists()
    with pytest.raises(InvalidInput, match="Begin anew: intern eval two"):
        await learner.resume(TEAM, measured.id)
    await learner.close()


async def test_a_run_whose_skill_is_gone_is_not_resumed(house: House) -> None:
    learner = house.learner()
    run = await failed(house, learner)
    await learner.close()
    (house.root / "skills" / "one" / "skill.yaml").unlink()
    (house.root / "skills" / "one").rename(house.root / "gone")
    house.library.refresh()
    with pytest.raises(NotFound, match="one"):
        await learner.resume(TEAM, run.id)
    await learner.forget(TEAM, "one")
    assert not house.folder(run).exists()


async def test_while_another_run_of_the_skill_waits_none_is_resumed(house: House) -> None:
    learner = house.learner()
    run = await failed(house, learner)
    await learner.close()
    waiting = await learner.submit(TEAM, "one")
    with pytest.raises(Conflict, match=waiting.id):
        await learner.resume(TEAM, run.id)
    assert kept(house, run).state == "failed"


async def test_of_several_who_resume_a_run_at_once_one_does(house: House, other: House) -> None:
    learners = [house.learner(), other.learner()]
    run = await failed(house, learners[0])
    await learners[0].close()
    asking = [learner.resume(TEAM, run.id) for learner in learners * 4]
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(answer) for answer in answers].count(Run) == 1
    assert all(isinstance(answer, Run | Conflict | InvalidInput) for answer in answers)


@pytest.mark.parametrize("state", ["done", "cancelled"])
async def test_a_failed_run_that_another_process_changed_a_moment_ago_stays_so(house: House, state: Any) -> None:
    journal = house.learner()._journal
    run = Run(id="run_1", team=TEAM, skill="one", state="failed", created=now())
    await journal.save(run.model_copy(update={"state": state}))
    for change, to in ((journal.put_back, "queued"), (journal.drop, "cancelled")):
        with pytest.raises(Conflict, match=f"changed meanwhile: it is {state}"):
            await change(run.model_copy(update={"state": to}))
    assert kept(house, run).state == state


async def test_a_run_that_fails_when_somebody_has_just_ended_it_stays_ended(house: House) -> None:
    journal = house.learner()._journal
    run = Run(id="run_1", team=TEAM, skill="one", state="cancelled", created=now())
    await journal.save(run)
    await journal.save(run.model_copy(update={"state": "failed", "reason": "Broken.", "ended": now()}))
    assert (kept(house, run).state, kept(house, run).reason) == ("cancelled", "Broken.")
    assert kept(house, run).ended is not None
    await journal.save(going := run.model_copy(update={"id": "run_2", "state": "queued"}))
    for _ in range(2):  # the connection was lost after it had been kept
        await journal.save(going.model_copy(update={"state": "failed", "ended": now()}))
        assert kept(house, going).state == "failed"


async def test_the_last_event_of_a_run_says_what_became_of_it_whoever_ended_it(house: House) -> None:
    learner = house.learner()
    waiting = await learner.submit(TEAM, "two")
    following = asyncio.create_task(ended(learner, waiting))
    await learner.cancel(TEAM, waiting.id)
    assert [event.kind for event in await following] == ["cancelled"]
    run = await failed(house, learner)
    await settled_down(learner)
    await learner.cancel(TEAM, run.id)
    assert [event.kind for event in await ended(learner, run)][-2:] == ["failed", "cancelled"]
    await learner.close()


async def test_what_a_failed_run_keeps_goes_when_a_later_training_of_the_skill_is_done(house: House) -> None:
    learner = house.learner()
    run, elsewhere = await failed(house, learner), await failed(house, learner, "two")
    for kind in ("evaluate", "learn"):
        assert RunFolder(house.folder(run)).resumable
        later = await learner.submit(TEAM, "one", kind=kind)
        await ended(learner, later)
        await settled_down(learner)
        assert kept(house, later).state == "done"
    await learner.close()
    assert not house.folder(run).exists()
    assert RunFolder(house.folder(elsewhere)).resumable
    with pytest.raises(InvalidInput, match="Begin anew"):
        await learner.resume(TEAM, run.id)


async def test_a_run_that_another_process_begins_at_that_moment_is_ended_there(house: House) -> None:
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    await learner._journal.save(run.model_copy(update={"state": "running"}))
    assert not await learner._journal.end(run)
    assert kept(house, run).state == "running"
    assert await learner._journal.end(kept(house, run)), "one that nobody carries out any more"
    assert (kept(house, run).state, kept(house, run).ended is None) == ("cancelled", False)
    await learner.close()


async def test_a_failed_run_that_is_cancelled_keeps_nothing_and_its_reason(house: House) -> None:
    learner = house.learner()
    run = await failed(house, learner)
    await settled_down(learner)
    found = await learner.cancel(TEAM, run.id)
    assert (found.state, found.reason) == ("cancelled", "The engine broke.")
    assert not house.folder(run).exists()
    with pytest.raises(InvalidInput, match="ended already: cancelled"):
        await learner.cancel(TEAM, run.id)
    with pytest.raises(InvalidInput, match="did not fail: it is cancelled"):
        await learner.resume(TEAM, run.id)
    await learner.close()


async def test_a_resumed_run_that_finds_nothing_of_its_work_does_not_begin_anew(house: House) -> None:
    learner = house.learner()
    run = await failed(house, learner)
    await learner.close()
    await learner.resume(TEAM, run.id)
    RunFolder(house.folder(run)).clear()  # somebody's data was deleted at this moment
    learner.start()
    await ended(learner, run)
    await learner.close()
    assert "Nothing of the run" in str(kept(house, run).reason)
    assert len(house.script.began) == 1


async def test_a_resumed_run_can_be_interrupted_and_ended_like_any_other(house: House) -> None:
    learner = house.learner()
    run = await failed(house, learner)
    house.script.does = None
    house.script.begun.clear()
    await learner.resume(TEAM, run.id)
    await house.script.begun.wait()
    await learner.close()
    assert kept(house, run).state == "running"
    assert RunFolder(house.folder(run)).resumable
    assert (await learner.cancel(TEAM, run.id)).state == "cancelled"
    assert not house.folder(run).exists()


async def test_a_full_disk_is_named(house: House) -> None:
    house.script.does = OSError(errno.ENOSPC, "No space left on device")
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    learner.start()
    await ended(learner, run)
    await learner.close()
    assert kept(house, run).reason == "The disk is full."


async def test_whatever_a_promotion_fails_with_the_verdict_stands(house: House) -> None:
    house.deployments.fails = RuntimeError("secret detail")
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    learner.start()
    events = await ended(learner, run)
    await learner.close()
    assert (kept(house, run).state, kept(house, run).decision) == ("done", "promote")
    (warning,) = [event.text for event in events if event.kind == "warning"]
    assert warning == "one@v1 does not serve: RuntimeError. A person can promote it."


async def test_whatever_a_model_card_fails_with_the_verdict_stands(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(*_: object, **__: object) -> object:
        raise ValueError("odd")

    monkeypatch.setattr("intern.learning.carrying.verify", odd)
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    learner.start()
    await ended(learner, run)
    await learner.close()
    assert (kept(house, run).state, kept(house, run).decision) == ("done", "promote")
    assert house.deployments.promoted == [(TEAM, "one", 1)]


# --- seconds ---------------------------------------------------------------------------------------------------


async def test_seconds_of_all_its_processes_count_whether_a_run_came_to_its_end_or_not(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intern.learning.learner._SAVED_SECONDS", 0.0)
    house.script.does = None
    house.script.seconds = [0.5, 100.0]
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    learner.start()
    await house.script.begun.wait()
    await learner.close()
    house.script.begun.clear()
    house.script.seconds = [0.5, 40.0, 0.1, 7.0]  # its process was killed once, and another one went on
    again = house.learner()
    again.start()
    await house.script.begun.wait()
    found = await again.cancel(TEAM, run.id)
    await again.close()
    assert found.spent_seconds == pytest.approx(147.0)


class Watch:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def monotonic(self) -> float:
        return self.at


@pytest.mark.parametrize("before", [0.0, 500.0])
async def test_what_a_run_took_is_all_its_time_in_all_its_lives(
    house: House, monkeypatch: pytest.MonkeyPatch, before: float
) -> None:
    watch = Watch()
    monkeypatch.setattr("intern.learning.learner.time", watch)
    house.script.does = None
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    with house.parts.database.begin() as connection:
        store.save_run(connection, run.model_copy(update={"wall_seconds": before}))
    learner.start()
    await house.script.begun.wait()
    watch.at += 100.0
    house.script.waits.set()
    await ended(learner, run)
    await learner.close()
    assert kept(house, run).wall_seconds == before + 100.0
    assert kept(house, run).spent_seconds == 0.0, "nothing was trained"


async def test_a_run_by_itself_ends_in_good_order_when_the_weeks_hours_are_used_up(house: House) -> None:
    house.script.works = True
    house.script.does = None
    learner = house.learner(hours=1.0)
    run = await learner.submit(TEAM, "one", by=itself("5 new examples"))
    learner.start()
    await house.script.begun.wait()
    assert not await learner._is_over_budget(run)
    learner._budget.hours = learner._left = 0.0
    events = await ended(learner, run)
    await settled_down(learner)
    stopped = kept(house, run)
    assert (stopped.state, stopped.passing, stopped.dataset) == ("failed", True, "ds_1")
    assert "for 0 hours within seven days (INTERN_LEARNING_HOURS)" in str(stopped.reason)
    assert f"`intern runs resume {run.id}` goes on where it stood" in str(stopped.reason)
    assert stopped.ended is not None
    assert events[-1].kind == "failed"
    assert learner.resumable(stopped)
    house.script.begun.clear()
    back = await learner.resume(TEAM, run.id)
    assert back.started_by == "resumed by hand, began by itself: 5 new examples"
    await house.script.begun.wait()
    assert not await learner._is_over_budget(back), "a person asked for it"
    house.script.waits.set()
    await ended(learner, run)
    await learner.close()
    assert (kept(house, run).state, kept(house, run).passing) == ("done", False)


@pytest.mark.parametrize(
    ("by", "others", "took", "over"),
    [
        (itself("new"), 3000.0, 500.0, False),
        (itself("new"), 3000.0, 700.0, True),
        (itself("new"), 0.0, 3500.0, False),
        (itself("new"), 0.0, 3700.0, True),
        ("key_1", 3000.0, 9000.0, False),
    ],
)
async def test_what_is_left_of_the_week_is_what_no_other_training_took(
    house: House, by: str, others: float, took: float, over: bool
) -> None:
    learner = house.learner(hours=1.0)
    run = await learner.submit(TEAM, "one", by=by)
    for name, kind in (("run_2", "learn"), ("run_3", "evaluate")):
        other = Run.model_validate(
            {"id": name, "team": TEAM, "skill": "two", "kind": kind, "state": "done", "created": now()}
        )
        with house.parts.database.begin() as connection:
            store.save_run(connection, other.model_copy(update={"wall_seconds": others}))
    learner._began = time.monotonic()
    assert await learner._is_over_budget(run.model_copy(update={"wall_seconds": took})) is over


async def test_a_run_that_is_over_its_budget_at_once_leaves_nothing_to_resume_and_says_so(house: House) -> None:
    house.script.does = None
    learner = house.learner(hours=0.0)
    run = await learner.submit(TEAM, "one", by=itself("5 new examples"))
    learner.start()
    await ended(learner, run)
    await learner.close()
    assert kept(house, run).passing
    assert "`intern learn one` trains whatever was used" in str(kept(house, run).reason)


async def test_one_that_has_its_verdict_comes_to_its_end(house: House) -> None:
    gate = asyncio.Event()

    async def grows() -> None:
        await gate.wait()

    house.script.grows = grows
    learner = house.learner(hours=1.0)
    run = await learner.submit(TEAM, "one", by=itself("5 new examples"))
    learner.start()
    await house.script.growing.wait()
    learner._budget.hours = learner._left = 0.0
    looked = asyncio.Event()
    get = learner._journal.get

    async def look(team: str, run: str) -> Run:
        found = await get(team, run)
        asyncio.get_running_loop().call_later(0.1, looked.set)
        return found

    learner._journal.get = look  # type: ignore[method-assign]
    await looked.wait()
    gate.set()
    await ended(learner, run)
    await learner.close()
    assert kept(house, run).state == "done"


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (StoreFailure("100 MB of disk are free."), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (EngineFailure("The engine gave no answer."), True),
        (TrainingFailed("The training process was ended by SIGKILL."), True),
        (TrainingFailed("The loss is no number.", final=True), False),
        (AdapterRefused("The adapter changes nothing.", adapter="one@v1"), False),
        (InvalidInput("Too few examples."), False),
        (ValueError("odd"), False),
    ],
)
async def test_a_run_says_whether_what_it_failed_for_may_be_gone_by_now(
    house: House, error: Exception, passing: bool
) -> None:
    house.script.does = error
    learner = house.learner()
    run = await learner.submit(TEAM, "one")
    learner.start()
    await ended(learner, run)
    await learner.close()
    assert (kept(house, run).state, kept(house, run).passing) == ("failed", passing)


async def test_a_run_that_begins_again_by_itself_says_so(house: House) -> None:
    learner = house.learner()
    run = await failed(house, learner)
    await learner.close()
    began = run.model_copy(update={"started_by": itself("5 new examples")})
    with house.parts.database.begin() as connection:
        store.save_run(connection, began)
    back = await learner.resume(TEAM, run.id, by=itself_again(began))
    assert back.started_by == "itself, again: 5 new examples"
    assert by_itself(back)


# --- what more examples would bring ----------------------------------------------------------------------------


def grown() -> Growth:
    means = {25: 0.4, 50: 0.5, 100: 0.6}
    scores = {s: Interval(mean=m, low=m - 0.05, high=m + 0.05, n=40, groups=40) for s, m in means.items()}
    return forecast(scores)


async def test_the_verdict_is_kept_and_the_adapter_serves_before_more_is_trained(house: House) -> None:
    gate = asyncio.Event()

    async def grows() -> Growth:
        await gate.wait()
        return grown()

    house.script.grows = grows
    learner = house.learner()
    run = await learner.submit(TEAM, "one", growth=True)
    learner.start()
    await house.script.growing.wait()
    going = kept(house, run)
    assert (going.state, going.decision, going.adapter, going.stage) == ("running", "promote", "one@v1", "growth")
    assert verdict(house, run)["growth"] is None
    assert house.deployments.promoted == [(TEAM, "one", 1)]
    gate.set()
    events = await ended(learner, run)
    await learner.close()
    assert (kept(house, run).state, kept(house, run).stage) == ("done", "promote")
    assert house.script.grew == [(run.id, True)]
    assert Verdict.model_validate(verdict(house, run)).growth == grown()
    beside = house.parts.adapters_folder / ("d" * 32) / "verdict.json"
    assert json.loads(beside.read_text())["growth"]["more"] == 50
    kinds = [event.kind for event in events]
    assert kinds.index("promoted") < kinds.index("stage", kinds.index("promoted"))


@pytest.mark.parametrize("decision", ["promote", "reject"])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (EngineFailure("The engine gave no answer."), "The engine gave no answer."),
        (OSError(errno.ENOSPC, "No space left on device"), "OSError."),
        (ValueError("secret detail"), "ValueError."),
    ],
)
async def test_whatever_that_fails_with_the_verdict_stands(
    house: House, decision: str, error: Exception, said: str
) -> None:
    async def grows() -> Growth:
        raise error

    house.script.grows = grows
    house.script.does = Ruling.model_validate({"decision": decision, "reason": "So."})
    learner = house.learner()
    run = await learner.submit(TEAM, "one", growth=True)
    learner.start()
    events = await ended(learner, run)
    await learner.close()
    assert (kept(house, run).state, kept(house, run).decision) == ("done", decision)
    assert kept(house, run).reason == "So."
    (warning,) = [event.text for event in events if event.kind == "warning"]
    assert warning == f"what more examples would bring is not known: {said}"


@pytest.mark.parametrize("decision", ["promote", "reject"])
async def test_a_server_that_ends_in_the_middle_of_that_judges_and_promotes_nothing_again(
    house: House, decision: str
) -> None:
    async def grows() -> Growth:
        await asyncio.Event().wait()
        return grown()

    house.script.grows = grows
    house.script.does = Ruling.model_validate({"decision": decision, "reason": "So."})
    learner = house.learner()
    run = await learner.submit(TEAM, "one", growth=True)
    learner.start()
    await house.script.growing.wait()
    await learner.close()
    assert kept(house, run).state == "running"

    async def at_last() -> Growth:
        return grown()

    house.script.grows = at_last
    again = house.learner()
    again.start()
    events = await ended(again, run)
    await again.close()
    done = kept(house, run)
    stage = "promote" if decision == "promote" else "evaluate"
    assert (done.state, done.decision, done.reason, done.stage) == ("done", decision, "So.", stage)
    assert Verdict.model_validate(verdict(house, run)).growth == grown()
    assert len(house.script.began) == 1
    assert len(house.deployments.promoted) == (decision == "promote")
    assert [event.kind for event in events].count("promoted") == (decision == "promote")


async def test_where_that_ends_the_server_again_and_again_it_is_given_up_and_the_verdict_stands(house: House) -> None:
    async def grows() -> Growth:
        await asyncio.Event().wait()
        return grown()

    house.script.grows = grows
    learner = house.learner()
    run = await learner.submit(TEAM, "one", growth=True)
    learner.start()
    await house.script.growing.wait()
    await learner.close()
    for _ in range(1 + MOST_TAKEN_UP):  # by processes that were killed
        RunFolder(house.folder(run)).begin()
    again = house.learner()
    again.start()
    events = await ended(again, run)
    await again.close()
    assert (kept(house, run).state, kept(house, run).decision) == ("done", "promote")
    (warning,) = [event.text for event in events if event.kind == "warning"]
    assert "the server ended in the middle of it, each time" in warning


async def test_who_ends_a_run_in_the_middle_of_that_leaves_its_verdict(house: House) -> None:
    async def grows() -> Growth:
        await asyncio.Event().wait()
        return grown()

    house.script.grows = grows
    learner = house.learner()
    run = await learner.submit(TEAM, "one", growth=True)
    learner.start()
    await house.script.growing.wait()
    found = await learner.cancel(TEAM, run.id)
    await learner.close()
    assert (found.state, found.decision, found.reason) == ("cancelled", "promote", "Better by far.")


# --- several processes -----------------------------------------------------------------------------------------


@pytest.fixture
def other(house: House, database_url: str, tmp_path: Path) -> Iterator[House]:
    """Another process on the same database, with the same folders."""
    engine = open_database(database_url)
    yield House(engine, tmp_path)
    engine.dispose()


async def test_of_requests_at_the_same_moment_one_is_queued(house: House, other: House) -> None:
    learners = [house.learner(), other.learner()]
    asked = Asked(examples=(Example(id="1", input="i", output="o", person="eve"),))
    asking = [learner.submit(TEAM, "one", kind="evaluate", asked=asked) for learner in learners * 4]
    answers = await asyncio.gather(*asking, return_exceptions=True)
    queued = [answer for answer in answers if isinstance(answer, Run)]
    assert len(queued) == 1
    assert [type(answer) for answer in answers].count(Conflict) == 7
    assert [path.name for path in house.parts.runs_folder.iterdir()] == [queued[0].id]


async def test_of_two_processes_one_carries_out_the_runs_and_the_other_takes_over(house: House, other: House) -> None:
    first, second = house.learner(), other.learner()
    run = await second.submit(TEAM, "one")
    first.start()
    await ended(second, run)  # followed where it was asked for, carried out elsewhere
    second.start()
    house.script.does = None
    house.script.begun.clear()
    left = await second.submit(TEAM, "two")
    waits = await second.submit(TEAM, "three")
    await house.script.begun.wait()
    assert other.script.began == []
    await first.close()
    await ended(second, left)
    await ended(second, waits)
    await second.close()
    assert [r.id for r in house.script.began] == [run.id, left.id]
    assert [r.id for r in other.script.began] == [left.id, waits.id]
    assert kept(house, left).state == kept(house, waits).state == "done"


async def test_a_run_that_another_process_carries_out_can_be_ended(house: House, other: House) -> None:
    house.script.does = None
    first, second = house.learner(), other.learner()
    run = await first.submit(TEAM, "one")
    leave(house.folder(run))
    first.start()
    await house.script.begun.wait()
    assert (await second.cancel(TEAM, run.id)).state == "cancelled"
    assert house.script.running == 0
    house.script.does = Ruling(decision="reject", reason="Worse.")
    after = await second.submit(TEAM, "one")
    await ended(second, after)
    assert kept(house, run).state == "cancelled"
    assert [path.name for path in house.folder(run).iterdir()] == ["outcomes-base.jsonl"]
    await first.close()


class Meanwhile(Learner):
    """A run comes to its end between the look at it and its cancellation."""

    happens: Callable[[], object]
    nobody_else: bool

    async def _nobody_else(self) -> bool:
        self.happens()
        return self.nobody_else


@pytest.mark.parametrize("nobody_else", [False, True])
async def test_a_run_that_comes_to_its_end_while_somebody_cancels_it_keeps_what_it_came_to(
    house: House, other: House, nobody_else: bool
) -> None:
    run = Run(id="run_1", team=TEAM, skill="one", state="running", created=now())
    done = run.model_copy(
        update={"state": "done", "decision": "promote", "adapter": "one@v1", "reason": "Better.", "ended": now()}
    )

    def save(run: Run) -> None:
        with house.parts.database.begin() as connection:
            store.save_run(connection, run)

    save(run)
    parts: Any = other.parts
    deployments: Any = other.deployments
    second = Meanwhile(parts, other.library, deployments, look=0.05)
    second.happens, second.nobody_else = lambda: save(done), nobody_else
    with pytest.raises(InvalidInput, match="has ended already: done"):
        await second.cancel(TEAM, run.id)
    assert kept(house, run) == done
    assert await ended(second, run) == [], "nobody is told that it was cancelled"


async def test_what_another_process_ended_is_not_brought_back_to_life(house: House) -> None:
    house.script.does = None
    learner = house.learner(look=1_000.0)  # it does not look by itself
    run = await learner.submit(TEAM, "one")
    learner.start()
    await house.script.begun.wait()
    with house.parts.database.begin() as connection:
        store.save_run(connection, kept(house, run).model_copy(update={"state": "cancelled"}))
    house.script.does = Ruling(decision="promote", reason="Better by far.")
    house.script.waits.set()
    after = await learner.submit(TEAM, "two")
    await ended(learner, after)
    await learner.close()
    assert kept(house, run).state == "cancelled"
    assert kept(house, run).ended is not None
    assert house.deployments.promoted == [(TEAM, "two", 1)]


@pytest.mark.parametrize("database_url", [pytest.param("postgresql", marks=pytest.mark.needs_postgres)], indirect=True)
async def test_who_lost_its_turn_leaves_the_run_to_who_has_it(house: House, other: House) -> None:
    house.script.does = None
    learner = house.learner(look=0.2)
    run = await learner.submit(TEAM, "one")
    learner.start()
    await house.script.begun.wait()
    theirs = SessionLock(other.parts.database, "runs")
    cut = sa.text("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted")
    while not theirs.take():
        with other.parts.database.begin() as connection:
            connection.execute(cut)
    while house.script.running:  # noqa: ASYNC110 - it has no event for its end
        await asyncio.sleep(0.01)
    assert kept(house, run).state == "running"
    house.script.does = Ruling(decision="reject", reason="Worse.")
    theirs.release()
    await ended(learner, run)
    await learner.close()
    assert kept(house, run).state == "done"
