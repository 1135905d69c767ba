"""A skill is trained by itself when there is reason to, no more often than it says, and within the week's hours."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from made_examples import SCHEMA, example, made
from made_records import record
from sqlalchemy.engine import Engine as Database

from intern.errors import Conflict, InvalidInput, TrainingUnavailable
from intern.learning.budget import by_hand, itself
from intern.learning.examples.readiness import readiness
from intern.learning.triggers import ONCE_MORE, Situation, Triggers, drift, due
from intern.library import SkillLibrary
from intern.skill import Learning, Skill, write_skill
from intern.store import learning as store
from intern.store import records
from intern.store.engine import open_database
from intern.types import Example, Review, Run, new_id, now

TEAM = "default"
NOW = now()
FALLEN = "people accept 0% of the answers, and accepted 100%"
AUTO = Learning(auto=True, min_examples=50, new_examples=20, every_days=7, runs_a_week=2)

pytestmark = pytest.mark.anyio


def situation(**more: Any) -> Situation:
    fields: dict[str, Any] = {"examples": 200, "new": 0, "last": NOW - timedelta(days=3), "this_week": 1}
    return Situation.model_validate(fields | more)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({}, None),
        ({"new": 19}, None),
        ({"new": 20}, "20 new examples"),
        ({"new": 20, "this_week": 2}, None),
        ({"new": 20, "examples": 49}, None),
        ({"last": None, "this_week": 0}, "200 examples, and no training yet"),
        ({"last": None, "this_week": 0, "examples": 49}, None),
        ({"last": NOW - timedelta(days=7)}, None),  # nothing new
        ({"last": NOW - timedelta(days=7), "new": 1}, "7 days since the last training, and 1 new examples"),
        ({"last": NOW - timedelta(days=6, hours=23), "new": 1}, None),
        ({"recent": [False] * 50, "before": [True] * 200, "new": 4}, None),
        ({"recent": [False] * 50, "before": [True] * 200, "new": 5}, FALLEN),
        ({"trained": False, "new": 3}, None),
        ({"trained": False, "new": 4}, "4 new examples"),
    ],
)
def test_what_makes_a_training_due(more: dict[str, Any], why: str | None) -> None:
    assert due(AUTO, situation(**more), NOW) == why


def test_nothing_is_due_where_nobody_asked_for_it() -> None:
    assert due(AUTO.model_copy(update={"auto": False}), situation(new=500), NOW) is None


@pytest.mark.parametrize(
    ("recent", "before", "fallen"),
    [
        ((50, 30), (200, 180), True),  # (judged, accepted)
        ((50, 44), (200, 180), False),  # 88% after 90%
        ((50, 50), (200, 100), False),  # better than before
        ((19, 0), (0, 0), False),  # nothing to compare with
        ((50, 0), (19, 19), False),
    ],
)
def test_acceptance_has_fallen_only_beyond_chance(
    recent: tuple[int, int], before: tuple[int, int], fallen: bool
) -> None:
    verdicts = [[place < accepted for place in range(judged)] for judged, accepted in (recent, before)]
    assert (drift(*verdicts) is not None) is fallen


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    engine = open_database(database_url)
    yield engine
    engine.dispose()


class Submits:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.by: list[tuple[str, str]] = []
        self.refuses = False
        self.resumed: list[tuple[str, str]] = []
        self.resuming: Exception | None = None

    async def submit(self, team: str, skill: str, *, by: str = "") -> Run:
        if self.refuses:
            raise Conflict("A run of this skill goes on.")
        self.by.append((skill, by))
        return ran(self.database, skill, state="queued")

    async def resume(self, team: str, run: str, *, by: str = "") -> Run:
        self.resumed.append((run, by))
        if self.resuming is not None:
            raise self.resuming
        with self.database.begin() as connection:
            back = store.get_run(connection, team, run).model_copy(
                update={"state": "queued", "ended": None, "passing": False, "started_by": by}
            )
            store.save_run(connection, back)
        return back


def ran(
    database: Database,
    skill: str,
    *,
    days: float = 0,
    state: Any = "done",
    seconds: float | None = 60.0,
    dataset: str | None = "ds_1",
    **more: Any,
) -> Run:
    began = now() - timedelta(days=days)
    run = Run(
        id=new_id("run"), team=TEAM, skill=skill, state=state, train_seconds=seconds, created=began, dataset=dataset,
        **more,
    )  # fmt: skip
    with database.begin() as connection:
        store.save_run(connection, run)
    return run


def collect(database: Database, skill: str, count: int) -> None:
    with database.begin() as connection:
        for number in range(count):
            made = Example(id=new_id("ex"), input=f"input {number}", output="x", provenance="api")
            records.add_examples(connection, TEAM, skill, [made])


class House:
    def __init__(self, database: Database, root: Path) -> None:
        about = {"title": "T", "description": "D", "instructions": "I"}
        auto = {"auto": True, "min_examples": 10, "new_examples": 5}
        examples = [{"input": f"input of the folder {n}", "output": "x"} for n in range(8)]
        write_skill(root / "skills", "eager", {**about, "learning": auto}, examples=examples)
        write_skill(root / "skills", "calm", about, examples=examples)
        self.database = database
        self.library = SkillLibrary(root)
        self.library.refresh()
        self.learner = Submits(database)
        self.heldout: int | None = 30
        self.counted = 0

    def triggers(self, hours: float = 1.0) -> Triggers:
        return Triggers(self.database, self.library, self.learner, hours=hours, heldout=self.count)

    def count(self, team: str, skill: Skill) -> int:
        self.counted += 1
        if self.heldout is None:
            raise TrainingUnavailable.lacks("Removing personal data", ["presidio-analyzer"])
        return self.heldout

    async def look(self, hours: float = 1.0) -> list[str]:
        return [run.skill for run in await self.triggers(hours).look()]


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    return House(database, tmp_path)


async def test_a_skill_is_trained_once_there_are_enough_examples_and_then_after_new_ones(house: House) -> None:
    assert await house.look() == []  # 8 of 10
    collect(house.database, "eager", 2)
    collect(house.database, "calm", 50)
    assert await house.look() == ["eager"]
    assert house.learner.by == [("eager", "itself: 10 examples, and no training yet")]
    assert await house.look() == []  # it waits to be carried out


async def test_trainings_of_a_deleted_skill_of_the_same_name_are_not_its_own(house: House) -> None:
    collect(house.database, "eager", 2)
    passing: dict[str, Any] = {"state": "failed", "passing": True, "started_by": "itself: why"}
    ran(house.database, "eager", retired=True, days=0.1, ended=now() - timedelta(hours=2), **passing)
    assert await house.look() == ["eager"]
    assert house.learner.by == [("eager", "itself: 10 examples, and no training yet")]


async def test_no_first_training_begins_that_could_come_to_no_verdict(house: House) -> None:
    house.heldout = 29
    collect(house.database, "eager", 60)
    ran(house.database, "eager", state="failed", dataset=None, days=1)  # as when somebody tried
    collect(house.database, "eager", 5)
    triggers = house.triggers()
    assert [await triggers.look() for _ in range(3)] == [[], [], []]
    assert house.counted == 1, "nothing changed, so nothing is counted again"
    house.heldout = 30
    collect(house.database, "eager", 1)
    assert [run.skill for run in await triggers.look()] == ["eager"]


async def test_later_ones_and_those_that_cannot_be_counted_begin(house: House) -> None:
    house.heldout = 0
    collect(house.database, "eager", 60)
    ran(house.database, "eager", days=1)
    collect(house.database, "eager", 5)
    assert await house.look() == ["eager"]
    with house.database.begin() as connection:
        connection.exec_driver_sql("DELETE FROM runs")
    house.heldout = None
    assert await house.look() == ["eager"], "the run says what is missing"


async def test_only_what_came_since_the_last_training_counts(house: House) -> None:
    collect(house.database, "eager", 30)
    ran(house.database, "eager")
    collect(house.database, "eager", 4)
    assert await house.look() == []
    collect(house.database, "eager", 1)
    assert await house.look() == ["eager"]
    assert house.learner.by == [("eager", "itself: 5 new examples")]


async def test_a_training_that_found_too_few_is_tried_again_soon(house: House) -> None:
    collect(house.database, "eager", 30)
    ran(house.database, "eager", state="failed", dataset=None)
    assert await house.look() == []
    collect(house.database, "eager", 1)  # a fifth of five
    assert await house.look() == ["eager"]


async def test_trainings_that_found_too_few_use_up_nothing_of_the_week(house: House) -> None:
    collect(house.database, "eager", 30)
    for days in (3, 2, 1):  # three a week are allowed
        ran(house.database, "eager", state="failed", dataset=None, days=days)
    collect(house.database, "eager", 1)
    assert await house.look() == ["eager"]


@pytest.mark.parametrize("count", [49, 50])
def test_a_skill_begins_by_itself_with_as_many_examples_as_it_needs_to_be_ready(count: int) -> None:
    rows = [example(number, "refund" if number % 2 else "order", provenance="api") for number in range(count)]
    ready = readiness(made(rows), SCHEMA, min_examples=AUTO.min_examples).ready
    known = Situation(examples=count, new=count, last=None, this_week=0)
    assert ready == (due(AUTO, known, now()) is not None)


async def test_examples_that_were_written_by_a_teacher_are_none_that_people_brought(house: House) -> None:
    with house.database.begin() as connection:
        for number in range(20):
            made = Example(id=new_id("ex"), input=f"input {number}", output="x", provenance="synthesis")
            records.add_examples(connection, TEAM, "eager", [made])
    assert await house.look() == []


async def test_an_evaluation_is_no_training(house: House) -> None:
    collect(house.database, "eager", 2)
    run = Run(id=new_id("run"), team=TEAM, skill="eager", kind="evaluate", state="done", created=now())
    with house.database.begin() as connection:
        store.save_run(connection, run)
    assert await house.look() == ["eager"]


async def test_the_weeks_hours_are_those_of_all_skills_together(house: House) -> None:
    collect(house.database, "eager", 2)
    ran(house.database, "calm", seconds=1800)
    ran(house.database, "calm", seconds=1800, days=6.9)
    assert await house.look(hours=1.0) == []
    assert await house.look(hours=1.01) == ["eager"]


@pytest.mark.parametrize("state", ["cancelled", "failed", "running"])
async def test_hours_of_trainings_that_came_to_no_end_count(house: House, state: Any) -> None:
    collect(house.database, "eager", 2)
    ran(house.database, "calm", state=state, seconds=None, spent_seconds=3600.0)
    assert await house.look(hours=1.0) == []
    assert await house.look(hours=1.01) == ["eager"]


async def test_trainings_of_parts_count(house: House) -> None:
    collect(house.database, "eager", 2)
    ran(house.database, "calm", seconds=1800, spent_seconds=3600.0)
    assert await house.look(hours=1.0) == []
    assert await house.look(hours=1.01) == ["eager"]


async def test_hours_older_than_a_week_are_over(house: House) -> None:
    collect(house.database, "eager", 2)
    ran(house.database, "calm", seconds=9000, days=7.1)
    assert await house.look(hours=1.0) == ["eager"]


@pytest.mark.parametrize("state", ["done", "running"])
async def test_a_training_of_before_that_was_resumed_counts_in_the_week_that_it_goes_on_in(
    house: House, state: Any
) -> None:
    collect(house.database, "eager", 2)
    ended = None if state == "running" else now()
    ran(house.database, "calm", state=state, days=9, spent_seconds=3600.0, ended=ended)
    assert await house.look(hours=1.0) == []
    assert await house.look(hours=1.01) == ["eager"]


async def test_what_counts_is_all_the_time_that_a_run_took(house: House) -> None:
    collect(house.database, "eager", 2)
    ran(house.database, "calm", seconds=60, spent_seconds=60.0, wall_seconds=3600.0)
    assert await house.look(hours=1.0) == []
    assert await house.look(hours=1.01) == ["eager"]


# --- begun once more -------------------------------------------------------------------------------------------


def failed(database: Database, *, ago: timedelta = ONCE_MORE, **more: Any) -> Run:
    """A training of the eager skill that nobody asked for, and that failed for a passing reason."""
    fields = {"started_by": itself("10 examples"), "passing": True, "ended": now() - ago, **more}
    return ran(database, "eager", days=ago / timedelta(days=1) + 0.1, state="failed", **fields)


async def test_a_training_that_failed_for_a_passing_reason_goes_on_after_a_while(house: House) -> None:
    collect(house.database, "eager", 2)
    run = failed(house.database, dataset="ds_1")
    assert [r.id for r in await house.triggers().look()] == [run.id]
    assert house.learner.resumed == [(run.id, "itself, again: 10 examples")]
    assert house.learner.by == []
    assert await house.look() == []  # it waits to be carried out


@pytest.mark.parametrize(
    "other",
    [
        {"ago": ONCE_MORE - timedelta(minutes=1)},  # not yet
        {"ago": timedelta(days=7, minutes=1)},  # nobody waits for it any more
        {"passing": False},
        {"started_by": "key_1"},
        {"started_by": by_hand(Run(id="r", team=TEAM, skill="eager", state="failed", started_by="itself: 10 examples",
                                   created=NOW))},
        {"started_by": "itself, again: 10 examples"},  # that was once
    ],
    ids=["not yet", "long ago", "for good", "asked for", "resumed by hand", "once more already"],
)  # fmt: skip
async def test_no_other_training_is_begun_once_more(house: House, other: dict[str, Any]) -> None:
    failed(house.database, **other)
    assert await house.look() == []
    assert house.learner.resumed == []


async def test_nor_one_that_a_later_training_has_taken_the_place_of(house: House) -> None:
    failed(house.database)
    ran(house.database, "eager", started_by="key_1")
    assert await house.look() == []
    assert house.learner.resumed == []


@pytest.mark.parametrize("error", [InvalidInput("Nothing is left of it."), Conflict("The base model is another one.")])
async def test_one_that_cannot_go_on_is_begun_anew_once(house: House, error: Exception) -> None:
    house.learner.resuming = error
    failed(house.database)
    triggers = house.triggers()
    assert [run.skill for run in await triggers.look()] == ["eager"]
    assert house.learner.by == [("eager", "itself, again: 10 examples")]
    assert await triggers.look() == []


async def test_one_that_another_run_keeps_from_going_on_goes_on_later(house: House) -> None:
    house.learner.resuming = Conflict("An evaluation of this skill goes on.")
    house.learner.refuses = True
    run = failed(house.database)
    triggers = house.triggers()
    for _ in range(2):
        assert await triggers.look() == []
    house.learner.resuming = None
    assert [begun.id for begun in await triggers.look()] == [run.id]


async def test_going_on_is_within_the_weeks_hours_and_runs(house: House) -> None:
    run = failed(house.database, wall_seconds=3600.0)
    assert await house.look(hours=1.0) == []
    for _ in range(3):
        ran(house.database, "eager", days=2)
    with house.database.begin() as connection:  # the newest again
        store.save_run(connection, run.model_copy(update={"id": new_id("run")}))
    assert await house.look(hours=9.0) == []
    assert house.learner.resumed == []


async def test_new_examples_are_worth_more_than_going_on(house: House) -> None:
    collect(house.database, "eager", 2)
    failed(house.database, dataset="ds_1")
    collect(house.database, "eager", 5)
    assert await house.look() == ["eager"]
    assert house.learner.resumed == []


async def test_somebody_who_was_faster_is_no_error(house: House) -> None:
    collect(house.database, "eager", 2)
    house.learner.refuses = True
    assert await house.look() == []


def judged(database: Database, made: datetime, verdict: Any, of: Any) -> None:
    review = Review(id=new_id("rev"), team=TEAM, record=of.id, verdict=verdict, reviewer="r", created=made)
    with database.begin() as connection:
        records.add_review(connection, review)


async def test_acceptance_is_the_last_word_on_each_record_of_the_skill(database: Database) -> None:
    recorder = records.Recorder(database)
    first, second, foreign = record(skill="eager"), record(skill="eager"), record(skill="calm")
    for one in (first, second, foreign):
        recorder.put(one)
    recorder.close()
    for verdict, of in (("reject", first), ("accept", second), ("accept", first), ("reject", foreign)):
        judged(database, NOW, verdict, of)
    judged(database, NOW, "wrong_skill", second)  # says nothing about the answer
    with database.connect() as connection:
        assert [accepted for _, accepted in records.acceptance(connection, TEAM, "eager")] == [True, True]
        assert [accepted for _, accepted in records.acceptance(connection, TEAM, "calm")] == [False]
        assert records.acceptance(connection, "blue", "eager") == []


async def test_acceptance_before_a_moment_is_known_however_much_was_judged_since(database: Database) -> None:
    recorder = records.Recorder(database)
    made = [record(skill="eager") for _ in range(6)]
    for one in made:
        recorder.put(one)
    recorder.close()
    for one in made[:2]:
        judged(database, NOW - timedelta(days=2), "accept", one)
    for one in made[2:]:
        judged(database, NOW, "reject", one)
    with database.connect() as connection:
        found = records.acceptance(connection, TEAM, "eager", until=NOW - timedelta(days=1), limit=3)
        assert [accepted for _, accepted in found] == [True, True]
        assert [accepted for _, accepted in records.acceptance(connection, TEAM, "eager", limit=3)] == [False] * 3
