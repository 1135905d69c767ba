"""The learning half of a workspace: runs, queued and carried out one at a time; adapters promoted if the gate says so.

In: requests for runs, from people or from `triggers.py`. Out: runs and events in the store, deployments changed. A run
that was interrupted by the end of the process goes on when the workspace is opened again: its training from the
last checkpoint. One that failed does so when somebody asks for it. One that nobody asked for is ended when the hours of
the week are used up (`budget.py`). Of several processes on one database one carries out the runs, whoever of them was
asked; the others wait until it is gone. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from math import inf

from intern.errors import (
    Conflict,
    DeadlineExceeded,
    EngineFailure,
    EngineUnavailable,
    InternError,
    InvalidInput,
    ModelUnavailable,
    Overloaded,
    StoreFailure,
    TrainingFailed,
)
from intern.learning.adapters.deployments import Deployments
from intern.learning.budget import Budget, by_hand, by_itself
from intern.learning.carrying import Carrying
from intern.learning.journal import ENDED, Journal
from intern.learning.leftovers import Leftovers, nothing_left
from intern.learning.loop.contracts import Parts
from intern.learning.loop.folder import Asked as Asked
from intern.learning.loop.folder import RunFolder
from intern.learning.loop.growing import GROWTH
from intern.learning.loop.loop import Loop
from intern.learning.settled import OUT_OF_REACH, StoreAway, StoreFull, settled, stored, went_away
from intern.learning.train.job import Event
from intern.learning.train.process import Clock
from intern.learning.train.recipe import Recipe
from intern.library import SkillLibrary
from intern.store.lock import SessionLock
from intern.types import Adapter, Json, Run, RunKind, Variant, new_id, now

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0  # between two looks at what other processes of the database did
MOST_TAKEN_UP = 3  # times that a run is taken up after the server ended, or lost its database, in the middle of it
_REST_SECONDS = 30.0
_END_SECONDS = 60.0
_SWEEP_SECONDS = 86_400.0  # between two looks for what nothing leads to any more
_SAVED_SECONDS = 30.0  # between two times that a run's seconds are kept
# What may be gone after a while: a full disk, too little memory, an engine or a model that could not be had.
_PASSING = (
    StoreFailure,
    TrainingFailed,
    EngineFailure,
    EngineUnavailable,
    ModelUnavailable,
    Overloaded,
    DeadlineExceeded,
)
_ASKS = ("force", "promote", "growth", "asked")  # what stands beside the numbers in a run's recipe


class Learner:
    """All methods run on the event loop of the workspace."""

    def __init__(
        self,
        parts: Parts,
        library: SkillLibrary,
        deployments: Deployments,
        *,
        hours: float = math.inf,
        loop: Callable[..., Loop] = Loop,
        look: float = LOOK_SECONDS,
    ) -> None:
        """`hours` within seven days are for runs that nobody asked for; all runs count."""
        self._parts = parts
        self._leftovers = Leftovers(parts)
        self._budget = Budget(parts.database, hours)
        self._loop = loop
        self._look = look
        self._library = library
        self._journal = Journal(parts.database, parts.adapters_folder, look=look)
        self._carrying = Carrying(parts, library, deployments, self._journal, self._keep)
        self._turn = SessionLock(parts.database, "runs")  # whoever holds it carries out runs
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._current: tuple[Run, asyncio.Task[None]] | None = None
        self._began = 0.0  # when the run that goes on was begun or taken up here, by time.monotonic
        self._left = 0.0  # seconds that it may take
        self._waits = False  # for the training of another workspace, which costs this one no hours
        self._waited = 0.0  # seconds
        self._asked_to_end: set[str] = set()
        self._over_budget: set[str] = set()
        self._choosing = asyncio.Lock()  # of the next run; a run is not cancelled while it is chosen

    def start(self) -> None:
        """Begin to carry out runs: first those that an earlier process left."""
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Stop; the run that is going on stays `running` in the store and is taken up again."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
            self._worker = None
        await asyncio.to_thread(self._turn.release)

    # --- what people ask -------------------------------------------------------------------------------------------

    async def submit(
        self,
        team: str,
        skill: str,
        *,
        kind: RunKind = "learn",
        recipe: Recipe | None = None,
        variant: Variant = "original",
        by: str = "",
        force: bool = False,
        promote: bool = True,
        growth: bool = False,
        asked: Asked | None = None,
    ) -> Run:
        """Queue a run. `promote` False: decide and stop there, for a person to approve. `force`: train on too few.
        `growth`: say what more examples would bring.

        `asked` are the examples of a run of the kind evaluate, and the numbers of one of the kind synthesize.
        Raises NotFound for an unknown skill, Conflict while a run of this skill waits or goes on, StoreFailure.
        """
        self._library.get(team, skill)
        asks = {"force": force, "promote": promote, "growth": growth, **({} if asked is None else {"asked": True})}
        run = Run(
            id=new_id("run"),
            team=team,
            skill=skill,
            kind=kind,
            state="queued",
            recipe={**(recipe or Recipe()).model_dump(mode="json"), **asks},
            variant=variant,
            started_by=by,
            created=now(),
        )
        folder = self._leftovers.folder(run)
        try:
            if asked is not None:
                await asyncio.to_thread(folder.keep, asked)
            await self._journal.queue(run)
        except BaseException:  # what was asked with must not be left where no run leads to it
            await settled(folder.clear, everything=True)
            raise
        self._wake.set()
        return run

    async def cancel(self, team: str, run: str) -> Run:
        """End a run, and remove what only its work needed. When this returns, nothing of it goes on. One that failed
        and could be resumed is given up so.

        Raises NotFound; InvalidInput when it has ended already; Conflict when another process carries it out and does
        not end it within a minute, or changed it at this moment.
        """
        async with self._choosing:
            found = await self._journal.get(team, run)
            if found.state in ENDED and found.ended is not None:
                if not await asyncio.to_thread(self.resumable, found):
                    raise InvalidInput(f"The run {run} has ended already: {found.state}.")
                await self._journal.drop(found.model_copy(update={"state": "cancelled"}))
                await settled(self.clear, found)
            elif self._current is not None and self._current[0].id == run:
                self._asked_to_end.add(run)
                task = self._current[1]
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                found = await self._journal.get(team, run)
                if found.state not in ENDED:  # it was ended before it could begin
                    self._asked_to_end.discard(run)
                    await self._end(found)
            else:
                elsewhere = found.state != "queued" and not await self._nobody_else()
                if elsewhere or not await self._end(found):
                    found = await self._journal.get(team, run)
                    if found.ended is not None or not await self._end_elsewhere(found):
                        found = await self._journal.get(team, run)
                        raise InvalidInput(f"The run {run} has ended already: {found.state}.")
            return await self._journal.get(team, run)

    async def resume(self, team: str, run: str, *, by: str = "") -> Run:
        """Queue a training that failed: it goes on from its last checkpoint, or judges the adapter that it stored. The
        skill is taken as it is then, but for its schema, as for a run that was interrupted. `by` is said by whoever is
        no person.

        Raises NotFound, also when its skill is gone; InvalidInput when it did not fail, or left nothing to go on with;
        Conflict while a run of the skill waits or goes on, when base model or schema are others by now, when examples
        of its dataset were deleted, and when its adapter serves; StoreFailure.
        """
        async with self._choosing:
            found = await self._journal.get(team, run)
            if found.state != "failed":
                raise InvalidInput(f"The run {run} did not fail: it is {found.state}.")
            skill = self._library.get(team, found.skill)
            await asyncio.to_thread(self._leftovers.check, found, skill)
            await asyncio.to_thread(self._leftovers.folder(found).put_down)
            anew = {"state": "queued", "reason": None, "ended": None, "passing": False}
            back = found.model_copy(update={**anew, "started_by": by or by_hand(found)})
            await self._journal.put_back(back)
        self._wake.set()
        return back

    def resumable(self, run: Run) -> bool:
        """Whether a run failed and left something to go on with; blocking."""
        return self._leftovers.resumable(run)

    def clear(self, run: Run) -> None:
        """Remove what only the work of a run that nobody carries out needed; blocking. Raises OSError."""
        self._leftovers.folder(run).clear()

    async def forget(self, team: str, skill: str) -> None:
        """Remove what runs of a skill keep that is gone: another may come to have its name. Raises OSError."""
        await settled(self._leftovers.forget, team, skill)

    def events(self, team: str, run: str, *, after: int = -1) -> AsyncGenerator[tuple[int, Event], None]:
        """(ordinal, event) from `after` on, those to come included, until the run has ended. Raises NotFound."""
        return self._journal.follow(team, run, after=after)

    async def _end(self, run: Run) -> bool:
        """End a run that nobody carries out. False when it came to its end meanwhile, or another process began it."""
        if not await self._journal.end(run):
            return False
        await settled(self.clear, run)
        return True

    async def _end_elsewhere(self, run: Run) -> bool:
        """Have the process that carries the run out end it: it looks now and then, and says when it has. False when it
        came to its end meanwhile."""
        if not await self._journal.ask_to_end(run):
            return False
        for _ in range(round(_END_SECONDS / self._look)):
            await asyncio.sleep(self._look)
            if (await self._journal.get(run.team, run.id)).ended is not None:
                return True
        raise Conflict(f"Another server carries out the run {run.id} and has not ended it yet. Ask again in a minute.")

    async def _nobody_else(self) -> bool:
        """Whether no other process carries out runs."""
        free = await settled(self._turn.take)
        if free and self._worker is None:
            await asyncio.to_thread(self._turn.release)
        return free

    # --- carrying out --------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        waited, swept = False, -inf
        while True:
            self._wake.clear()
            try:
                if not await settled(self._turn.take):
                    if not waited:
                        log.info("another process carries out the runs of this database; this one waits for its turn")
                    waited, swept = True, -inf
                    await self._woken()
                    continue
                if waited:  # the former one has time to see that it lost its connection
                    await asyncio.sleep(2 * self._look)
                    waited = False
                    continue
                if time.monotonic() - swept > _SWEEP_SECONDS:  # at first: what who had the turn before did not come to
                    await settled(self._leftovers.sweep)
                    swept = time.monotonic()
                if (task := await self._next()) is None:
                    await self._woken()
                    continue
                await self._attend(task)
                if not task.cancelled():
                    task.result()
            except asyncio.CancelledError:  # the workspace closes: the run stays as it is
                if self._current is not None:
                    self._current[1].cancel()
                    await asyncio.gather(self._current[1], return_exceptions=True)
                raise
            except (StoreAway, *OUT_OF_REACH) as error:
                away = error if isinstance(error, StoreAway) else went_away(error)
                log.error("runs rest for a while: %s", away.message)
                await asyncio.sleep(_REST_SECONDS)
            except Exception:
                log.exception("the learning half stumbled; it looks again in a while")
                await asyncio.sleep(_REST_SECONDS)
            finally:
                if self._current is not None:
                    self._asked_to_end.discard(self._current[0].id)
                    self._over_budget.discard(self._current[0].id)
                self._current = None

    async def _woken(self) -> None:
        """Wait for something to do; what other processes queued wakes nobody here."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._look):
                await self._wake.wait()

    async def _next(self) -> asyncio.Task[None] | None:
        """The next run, begun; None when nothing waits."""
        async with self._choosing:
            if (run := await self._journal.next()) is None:
                return None
            self._began, self._left = time.monotonic(), 0.0
            self._waits, self._waited = False, 0.0
            self._current = (run, asyncio.create_task(self._carry_out(run)))
            return self._current[1]

    async def _attend(self, task: asyncio.Task[None]) -> None:
        """Wait for a run's end. It ends here, too, when another process cancelled it, or carries out runs by now, and
        when nobody asked for it and the week's hours are used up."""
        assert self._current is not None
        run = self._current[0]
        while not (await asyncio.wait({task}, timeout=self._look))[0]:
            try:
                ours = await settled(self._turn.take)
                found = await self._journal.get(run.team, run.id)
                cancelled = found.state == "cancelled"
                over = found.decision is None and await self._is_over_budget(run)
                if over:  # a verdict may have come meanwhile
                    over = (await self._journal.get(run.team, run.id)).decision is None
            except OUT_OF_REACH:  # its own writes will find out
                continue
            if run.id in self._asked_to_end:  # it is ending
                continue
            if over and ours and not cancelled:
                self._over_budget.add(run.id)
                task.cancel()
                await asyncio.wait({task})
                return
            if cancelled:
                self._asked_to_end.add(run.id)
            elif not ours:
                log.warning("another process carries out the runs of this database by now; %s goes on there", run.id)
            if cancelled or not ours:
                task.cancel()
                await asyncio.wait({task})
            if cancelled:
                found = await self._journal.get(run.team, run.id)
                if found.ended is None:  # it was just coming to its end by itself
                    await self._end(found)
                await settled(self.clear, found)

    async def _is_over_budget(self, run: Run) -> bool:
        """Whether a run that nobody asked for has taken what was left of the week's hours."""
        if not by_itself(run) or self._waits:
            return False
        took = run.wall_seconds + time.monotonic() - self._began - self._waited
        if took > self._left:  # meanwhile it can only have become more: what other runs took is a week ago
            self._left = await asyncio.to_thread(self._budget.left, but=run.id)
        return took > self._left

    async def _carry_out(self, run: Run) -> None:
        """Carry out a run to its end. Raises CancelledError when it is left as it is, StoreAway."""
        folder = self._leftovers.folder(run)
        try:
            run = await self._through(run, folder)
        except (asyncio.CancelledError, StoreFull):
            folder.put_down()
            raise
        finally:
            self._journal.forget(run)
        await stored(self._leftovers.sweep)

    async def _through(self, run: Run, folder: RunFolder) -> Run:
        """The run as it ended."""
        clock = Clock(run.spent_seconds)
        began = saved = time.monotonic()
        before = run.wall_seconds
        loops = False  # it was taken up, and ended the server, again and again
        resumed = run.state == "queued" and run.dataset is not None
        run = run.model_copy(update={"state": "running"})

        def wall() -> float:
            return round(before + time.monotonic() - began - self._waited, 2)

        async def tell(event: Event) -> None:
            nonlocal run, saved
            clock.see(event)
            self._waits = event.kind == "waiting"
            self._waited += event.numbers.get("waited", 0.0)
            known = {
                "stage": event.stage if event.kind == "stage" and event.stage else run.stage,
                "dataset": event.numbers.get("dataset", run.dataset),
                "adapter": event.numbers.get("adapter", run.adapter),
                "train_seconds": event.numbers.get("train_seconds", run.train_seconds),
            }
            news = any(getattr(run, name) != value for name, value in known.items())
            seconds = {"spent_seconds": round(clock.total, 2), "wall_seconds": wall()}
            run = run.model_copy(update={**known, **seconds})
            if news or time.monotonic() - saved > _SAVED_SECONDS:
                saved = time.monotonic()
                await self._going(run)
            await self._journal.tell(run, event)

        try:
            await self._going(run)
            loops = await asyncio.to_thread(folder.begin) > 1 + MOST_TAKEN_UP
            if loops and run.stage != GROWTH:
                raise TrainingFailed(
                    f"It was taken up {MOST_TAKEN_UP} times: each time the server ended in the middle of it, or lost "
                    "its database. If the machine ran out of memory, start it again with shorter examples."
                )
            if resumed:
                if not await asyncio.to_thread(lambda: folder.resumable):  # cleared since, or it lies elsewhere
                    raise InvalidInput(nothing_left(run))
                await tell(Event(kind="note", stage=run.stage, text="it failed, and goes on where it stood"))
            skill = self._library.get(run.team, run.skill)
            numbers = {name: value for name, value in run.recipe.items() if name not in _ASKS}
            loop = self._loop(self._parts, skill, run, Recipe.model_validate(numbers), tell)
            ended = await self._carrying.carry_out(lambda: run, loop, skill)
            run = concluded = run.model_copy(update=ended)
            if loops:
                text = "what more examples would bring is not known: the server ended in the middle of it, each time"
                await self._journal.tell(run, Event(kind="warning", stage=GROWTH, text=text))
            elif run.kind == "learn":
                await self._carrying.grow(lambda: run, loop)
            run = run.model_copy(update={"stage": concluded.stage, "state": "done"})
        except asyncio.CancelledError:
            if run.id not in self._asked_to_end | self._over_budget:
                raise
            run = run.model_copy(update=await self._cut_off(run, folder))
        except StoreAway:
            raise
        except OUT_OF_REACH as error:
            raise went_away(error) from error
        except Exception as error:
            reason, passing = _why(error, run)
            if isinstance(error, TrainingFailed) and error.final:
                folder.give_up()
            run = run.model_copy(update={"state": "failed", "reason": reason, "passing": passing and not loops})
        run = run.model_copy(update={"wall_seconds": wall(), "ended": now()})
        last = Event(kind=run.state, text=run.reason or "", numbers={"decision": run.decision})
        await self._journal.tell(run, last)
        await self._journal.save(run)
        return run

    async def _cut_off(self, run: Run, folder: RunFolder) -> dict[str, Json]:
        """What becomes of a run that was ended: by somebody, or since the week's hours are used up."""
        if run.id in self._asked_to_end:
            return {"state": "cancelled", "reason": run.reason or "cancelled"}
        reason = self._budget.used_up(run, resumable=await asyncio.to_thread(lambda: folder.resumable))
        return {"state": "failed", "reason": reason, "passing": True}

    async def _going(self, run: Run) -> None:
        """Keep a run that goes on. Raises CancelledError when another process ended it."""
        if not await self._journal.save(run):
            self._give_up(run)

    async def _keep(self, run: Run, verdict: Mapping[str, Json], adapter: Adapter | None) -> None:
        """Keep a verdict. Raises CancelledError when another process ended the run."""
        if not await self._journal.save_verdict(run, verdict, adapter):
            self._give_up(run)

    def _give_up(self, run: Run) -> None:
        self._asked_to_end.add(run.id)
        raise asyncio.CancelledError


def _why(error: Exception, run: Run) -> tuple[str, bool]:
    """Why a run failed, for people, and whether that may pass."""
    if isinstance(error, InternError):
        return error.message, isinstance(error, _PASSING) and not (isinstance(error, TrainingFailed) and error.final)
    log.exception("run %s failed", run.id)
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    reason = "The disk is full." if full else f"{type(error).__name__}; the log says more"
    return reason, isinstance(error, OSError | MemoryError)
