"""Runs as the store has them, and what happens in them, told to whoever follows.

In: runs, their events and verdicts. Out: rows, and events as they come, to any number of followers, also of a run that
another process on the same database carries out: what that one keeps is looked for now and then. What is kept waits for
a database that is out of reach for a moment. Knows nothing of how runs are carried out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path

from sqlalchemy.engine import Connection
from sqlalchemy.engine import Engine as Database

from intern.errors import Conflict
from intern.learning.adapters.adapter import write_verdict
from intern.learning.settled import stored
from intern.learning.train.job import Event
from intern.store import learning as store
from intern.store.lock import serialise
from intern.types import Adapter, Json, Run, now

ENDED = ("done", "failed", "cancelled")
_PASSING = {"answers"}  # told to followers, not kept: there are hundreds


class Journal:
    """All methods run on one event loop. `look`: seconds between two looks at what other processes kept."""

    def __init__(self, database: Database, adapters: Path, *, look: float) -> None:
        self._database = database
        self._adapters = adapters
        self._look = look
        self._changed = asyncio.Condition()
        self._told = 0  # changes so far: whoever read before one of them reads again
        self._ordinals: dict[str, int] = {}
        self._passing: dict[str, Event] = {}  # the newest event that is not kept, by run

    # --- runs ----------------------------------------------------------------------------------------------------

    async def queue(self, run: Run) -> None:
        """Keep a new run. Raises Conflict while one of its skill waits or goes on."""
        await asyncio.to_thread(self._queue, run)

    async def put_back(self, run: Run) -> None:
        """Queue a run that failed. Raises Conflict as `queue`, and when it is no failed one any more."""
        await asyncio.to_thread(self._queue, run, failed=True)
        await self._notify()

    async def drop(self, run: Run) -> None:
        """End for good a run that failed. Raises Conflict when it is no failed one any more."""
        await asyncio.to_thread(self._drop, run)
        await self.tell(run, Event(kind=run.state, text="given up"))
        self.forget(run)

    async def end(self, run: Run) -> bool:
        """Keep that a run which nobody carries out is cancelled, and tell it. False, and nothing is kept or told, when
        it has ended meanwhile, or another process has begun it."""
        kept = await stored(self._end, run, now())
        await self._notify()
        self.forget(run)
        return kept

    async def ask_to_end(self, run: Run) -> bool:
        """Keep that a run is to be ended by whoever carries it out. False, and nothing is kept, when it has ended
        meanwhile."""
        kept = await stored(self._ask_to_end, run)
        await self._notify()
        return kept

    async def get(self, team: str, run: str) -> Run:
        """Raises NotFound, also for another team's."""
        return await asyncio.to_thread(self._get, team, run)

    async def next(self) -> Run | None:
        """What is to be carried out: a run that an earlier process left, or else the one that waits longest."""
        return next(iter(await asyncio.to_thread(self.waiting)), None)

    async def save(self, run: Run) -> bool:
        """Keep a run as it is now. False, and nothing is kept, when it is to go on and somebody ended it. One that
        failed when somebody was ending it is kept as cancelled."""
        kept = await stored(self._put, run)
        await self._notify()
        return kept

    async def save_verdict(self, run: Run, verdict: Mapping[str, Json], adapter: Adapter | None = None) -> bool:
        """As `save`, with a verdict, which is kept beside the adapter that it is on as well. Raises StoreFailure."""
        return await stored(self._put_verdict, run, verdict, adapter)

    # --- events --------------------------------------------------------------------------------------------------

    def forget(self, run: Run) -> None:
        """What is told of the run from here ends, or begins anew: another process may have told more of it."""
        self._ordinals.pop(run.id, None)
        self._passing.pop(run.id, None)

    async def tell(self, run: Run, event: Event) -> None:
        """Keep what happened, and tell it."""
        if event.kind in _PASSING:
            self._passing[run.id] = event
        else:
            if run.id not in self._ordinals:
                known = await stored(self._events, run.team, run.id, -1)
                self._ordinals[run.id] = known[-1][0] + 1 if known else 0
            ordinal = self._ordinals[run.id]
            self._ordinals[run.id] += 1
            await stored(self._add_event, run, ordinal, event)
        await self._notify()

    async def follow(self, team: str, run: str, *, after: int = -1) -> AsyncGenerator[tuple[int, Event], None]:
        """(ordinal, event) from `after` on, those to come included, until the run has ended. Raises NotFound."""
        passing: Event | None = None
        while True:
            told = self._told
            found = await asyncio.to_thread(self._get, team, run)
            rows = await asyncio.to_thread(self._events, team, run, after)
            newest = self._passing.get(run)
            if not rows and newest is passing and found.state not in ENDED:
                with suppress(TimeoutError):  # another process may carry it out
                    async with asyncio.timeout(self._look), self._changed:
                        await self._changed.wait_for(partial(self._is_past, told))
                continue
            for ordinal, body in rows:
                after = ordinal
                yield ordinal, Event.model_validate(body)
            if newest is not None and newest is not passing:
                passing = newest
                yield after, newest
            if found.state in ENDED and not rows:
                return

    def _is_past(self, told: int) -> bool:
        return self._told != told

    async def _notify(self) -> None:
        self._told += 1
        async with self._changed:
            self._changed.notify_all()

    # --- the store; blocking -------------------------------------------------------------------------------------

    def waiting(self) -> list[Run]:
        """Every team's runs that have not ended, in the order in which they are carried out."""
        with self._database.connect() as connection:
            left = store.list_runs(connection, None, states=("running", "queued"), limit=1000)
        return sorted(left, key=lambda run: (run.state != "running", run.id))

    def _queue(self, run: Run, *, failed: bool = False) -> None:
        with self._database.begin() as connection:
            serialise(connection, _runs_of(run))  # of two requests at once, one is refused
            going = store.list_runs(connection, run.team, skill=run.skill, states=("queued", "running"), limit=1)
            if going:
                raise Conflict(f"The run {going[0].id} of this skill is {going[0].state}; wait for it, or cancel it.")
            if failed:
                _still_failed(connection, run)
            store.save_run(connection, run)

    def _drop(self, run: Run) -> None:
        with self._database.begin() as connection:
            serialise(connection, _runs_of(run))
            _still_failed(connection, run)
            store.save_run(connection, run)

    def _get(self, team: str, run: str) -> Run:
        with self._database.connect() as connection:
            return store.get_run(connection, team, run)

    def _put(self, run: Run) -> bool:
        with self._database.begin() as connection:
            if run.state == "running":
                return store.save_going(connection, run)
            failed_late = run.state == "failed" and not store.save_going(connection, run)  # or it was kept a moment ago
            if failed_late and store.get_run(connection, run.team, run.id).state == "cancelled":
                run = run.model_copy(update={"state": "cancelled"})
            store.save_run(connection, run)
            return True

    def _end(self, run: Run, when: datetime) -> bool:
        """In one: what a run came to that another process ends at this moment is not written over."""
        with self._database.begin() as connection:
            serialise(connection, _runs_of(run))
            found = store.get_run(connection, run.team, run.id, lock=True)
            if found.ended is not None:
                return found.ended == when  # or the connection was lost after it had been kept
            if run.state == "queued" and found.state == "running":
                return False
            told = store.list_events(connection, run.team, run.id)
            ended = found.model_copy(update={"state": "cancelled", "ended": when})
            store.save_run(connection, ended)
            body = Event(kind=ended.state).model_dump(mode="json", exclude_defaults=True)
            store.add_event(connection, run.team, run.id, told[-1][0] + 1 if told else 0, body)
            return True

    def _ask_to_end(self, run: Run) -> bool:
        with self._database.begin() as connection:
            serialise(connection, _runs_of(run))
            found = store.get_run(connection, run.team, run.id, lock=True)
            if found.ended is None:
                store.save_run(connection, found.model_copy(update={"state": "cancelled"}))
            return found.ended is None

    def _put_verdict(self, run: Run, verdict: Mapping[str, Json], adapter: Adapter | None) -> bool:
        with self._database.begin() as connection:
            if not store.save_going(connection, run, verdict=verdict):
                return False
            if adapter is not None:
                store.update_adapter(connection, adapter)
        if adapter is not None:
            write_verdict(self._adapters / adapter.digest, verdict)
        return True

    def _events(self, team: str, run: str, after: int) -> list[tuple[int, dict[str, Json]]]:
        with self._database.connect() as connection:
            return store.list_events(connection, team, run, after=after)

    def _add_event(self, run: Run, ordinal: int, event: Event) -> None:
        body = json.loads(event.model_dump_json(exclude_defaults=True))  # a loss that is NaN is null there
        with self._database.begin() as connection:
            there = store.list_events(connection, run.team, run.id, after=ordinal - 1)
            if not there or there[0][0] != ordinal:  # else the connection was lost after it had been kept
                store.add_event(connection, run.team, run.id, ordinal, body)


def _runs_of(run: Run) -> str:
    return f"run of {run.team}/{run.skill}"


def _still_failed(connection: Connection, run: Run) -> None:
    state = store.get_run(connection, run.team, run.id).state
    if state != "failed":
        raise Conflict(f"The run {run.id} was changed meanwhile: it is {state}.")
