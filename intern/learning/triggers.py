"""When a skill is trained by itself: enough new examples, people accept clearly fewer answers, or its time has come.

In: skills whose `learning.auto` is set, and what the store knows of their examples, reviews and runs. Out: runs,
submitted to the `Learner`, each saying why it began; one that failed for a passing reason is begun once more after a
while. Judges no examples: the run's own readiness report does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from scipy.stats import fisher_exact
from sqlalchemy.engine import Connection
from sqlalchemy.engine import Engine as Database

from intern.errors import Conflict, InternError, InvalidInput, NotFound
from intern.learning.budget import WEEK, Budget, first_time, itself, itself_again, within_a_week
from intern.learning.examples.splitting import HELDOUT_GROUPS
from intern.library import SkillLibrary
from intern.skill import Learning, Skill
from intern.store import learning as store
from intern.store import records
from intern.types import Model, Run, now

log = logging.getLogger(__name__)

SECONDS = 60.0  # between two looks
COMPARED = 200  # verdicts on each side at most, the newest ones
LEAST_RECENT = 20
CHANCE = 0.001  # that acceptance seems to have fallen at one look though it has not
AGAIN = 5  # a training that found too few good examples is tried again after a fifth of what another one needs
LEAST_FOR_DRIFT = 5  # new examples without which training again would give the same adapter
ONCE_MORE = timedelta(hours=1)  # after which a training that failed for a passing reason is begun once more


class Situation(Model):
    """One skill, as far as its triggers go. Verdicts are whether answers were accepted: `recent` those since the last
    training began, `before` those before it."""

    examples: int  # all that there are
    new: int  # collected since the last training began
    last: datetime | None  # when that was
    this_week: int  # trainings within a week; one that found too few good examples is none
    trained: bool = True  # it came as far as a dataset
    recent: Sequence[bool] = ()
    before: Sequence[bool] = ()


def due(settings: Learning, situation: Situation, at: datetime) -> str | None:
    """Why the skill should be trained now, or None."""
    if not settings.auto or situation.examples < settings.min_examples:
        return None
    if situation.this_week >= settings.runs_a_week:
        return None
    if situation.last is None:
        return f"{situation.examples} examples, and no training yet"
    if not situation.trained:  # too few were good enough: look again soon
        return f"{situation.new} new examples" if situation.new >= max(1, settings.new_examples // AGAIN) else None
    if situation.new >= settings.new_examples:
        return f"{situation.new} new examples"
    if situation.new >= LEAST_FOR_DRIFT and (fallen := drift(situation.recent, situation.before)) is not None:
        return fallen
    if settings.every_days and situation.new and at - situation.last >= timedelta(days=settings.every_days):
        return f"{settings.every_days} days since the last training, and {situation.new} new examples"
    return None


def drift(recent: Sequence[bool], before: Sequence[bool]) -> str | None:
    """That fewer answers are accepted than before, beyond chance (Fisher's exact test, one-sided), or None.

    It is looked at again and again while verdicts come in, so that CHANCE is far below what one look would need.
    """
    if len(recent) < LEAST_RECENT or len(before) < LEAST_RECENT:
        return None
    table = [[sum(recent), len(recent) - sum(recent)], [sum(before), len(before) - sum(before)]]
    if fisher_exact(table, alternative="less").pvalue >= CHANCE:
        return None
    return f"people accept {sum(recent) / len(recent):.0%} of the answers, and accepted {sum(before) / len(before):.0%}"


class Submits(Protocol):
    async def submit(self, team: str, skill: str, *, by: str = "") -> Run: ...

    async def resume(self, team: str, run: str, *, by: str = "") -> Run: ...


class Triggers:
    """Looks at every skill now and then. `hours` is how long skills may train by themselves within seven days, all of
    them together (`budget.py`). `heldout` counts the examples that a dataset of now would hold out; it blocks."""

    def __init__(
        self,
        database: Database,
        library: SkillLibrary,
        learner: Submits,
        *,
        hours: float,
        heldout: Callable[[str, Skill], int],
    ) -> None:
        self._database = database
        self._library = library
        self._learner = learner
        self._budget = Budget(database, hours)
        self._heldout = heldout
        self._too_few: dict[tuple[str, str], tuple[str, int]] = {}  # skills, by what was counted when they held out so
        self._told = False
        self._begun_again: set[str] = set()  # runs; one that cannot be is not tried at every look

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("looking for skills to train failed; trying again")
            await asyncio.sleep(SECONDS)

    async def look(self) -> list[Run]:
        """Submit a run for each skill that is due. Raises StoreFailure."""
        begun = []
        for team in self._library.teams:
            for skill in self._library.all(team):
                if not skill.spec.learning.auto:
                    continue
                why, left = await asyncio.to_thread(self._due, team, skill), None
                if why is None and (left := await asyncio.to_thread(self._left, team, skill)) is not None:
                    why = f"the run {left.id} failed for a passing reason"
                if why is None or not await asyncio.to_thread(self._affordable, why, skill):
                    continue
                try:
                    if left is not None:
                        begun.append(await self._again(left))
                    else:
                        begun.append(await self._learner.submit(team, skill.name, by=itself(why)))
                    log.info("skill %s is trained: %s", skill.name, why)
                except (Conflict, NotFound):  # a run of it goes on, or the skill is gone by now
                    continue
        return begun

    async def _again(self, left: Run) -> Run:
        """Begin a run once more: from where it stood, or else from its beginning."""
        try:
            begun = await self._learner.resume(left.team, left.id, by=itself_again(left))
        except (InvalidInput, Conflict):  # nothing is left to go on with, or it does not fit any more
            begun = await self._learner.submit(left.team, left.skill, by=itself_again(left))
        self._begun_again.add(left.id)
        return begun

    def _left(self, team: str, skill: Skill) -> Run | None:
        """The skill's last training, where it began by itself, failed for a passing reason a while ago, and was not
        begun once more yet."""
        at = now()
        with self._database.connect() as connection:
            runs = _trainings(connection, team, skill)
        if not runs or runs[0].state != "failed" or not runs[0].passing or not first_time(runs[0]):
            return None
        failed = runs[0]
        if failed.ended is None or not ONCE_MORE <= at - failed.ended < WEEK or failed.id in self._begun_again:
            return None
        this_week = sum(within_a_week(run, at) for run in runs[1:] if run.dataset is not None)
        return failed if this_week < skill.spec.learning.runs_a_week else None

    def _due(self, team: str, skill: Skill) -> str | None:
        at = now()
        with self._database.connect() as connection:
            runs = _trainings(connection, team, skill)
            if any(run.state in ("queued", "running") for run in runs):
                return None
            last = runs[0].created if runs else None
            recent = records.acceptance(connection, team, skill.name)
            before = records.acceptance(connection, team, skill.name, until=last) if last else recent
            collected = records.examples_since(connection, team, skill.name)
            situation = Situation(
                examples=len(skill.examples) + collected,
                new=records.examples_since(connection, team, skill.name, last) if last else collected,
                last=last,
                this_week=sum(within_a_week(run, at) for run in runs if run.dataset is not None),
                trained=not runs or runs[0].dataset is not None,
                recent=[accepted for when, accepted in recent if last is not None and when > last][:COMPARED],
                before=[accepted for _, accepted in before][:COMPARED],
            )
        why = due(skill.spec.learning, situation, at)
        first = why is not None and not any(run.dataset for run in runs)
        return None if first and not self._is_provable(team, skill, situation.examples) else why

    def _is_provable(self, team: str, skill: Skill, examples: int) -> bool:
        """Whether a first training could come to a verdict. Counted again only when there are other examples."""
        counted = (skill.digest, examples)
        if self._too_few.get((team, skill.name)) == counted:
            return False
        try:
            heldout = self._heldout(team, skill)
        except InternError:  # the run will say why
            return True
        if heldout >= HELDOUT_GROUPS:
            return True
        self._too_few[team, skill.name] = counted
        log.info("skill %s waits: %d of %d held-out examples for a verdict", skill.name, heldout, HELDOUT_GROUPS)
        return False

    def _affordable(self, why: str, skill: Skill) -> bool:
        if (left := self._budget.left()) > 0:
            self._told = False
            return True
        if not self._told:
            log.warning(
                "skill %s is not trained (%s): %.1f hours of training this week, and INTERN_LEARNING_HOURS is %g",
                skill.name, why, self._budget.hours - left / 3600, self._budget.hours,
            )  # fmt: skip
        self._told = True
        return False


def _trainings(connection: Connection, team: str, skill: Skill) -> list[Run]:
    """Its newest ones; not those of a deleted skill of its name."""
    runs = store.list_runs(connection, team, skill=skill.name, kind="learn", limit=200)
    return [run for run in runs if not run.retired]
