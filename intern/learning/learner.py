"""The learning half of a workspace: runs, queued and carried out one at a time; adapters promoted if the gate says so.

In: requests for runs, from people or from `triggers.py`. Out: runs and events in the store, deployments changed. A run
that was interrupted by the end of the process goes on when the workspace is opened again: its training from the
last checkpoint. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

from intern.errors import Conflict, InternError, InvalidInput, StoreFailure
from intern.learning.adapters.adapter import write_verdict
from intern.learning.adapters.deployments import Deployments
from intern.learning.loop.contracts import Parts
from intern.learning.loop.loop import Finished, Loop
from intern.learning.settled import settled
from intern.learning.train.job import Event
from intern.learning.train.recipe import Recipe
from intern.library import SkillLibrary
from intern.store import learning as store
from intern.store import records
from intern.types import Adapter, Example, Json, Model, Run, RunKind, Variant, new_id, now

log = logging.getLogger(__name__)

_ASKED = "asked.json"
_REST_SECONDS = 30.0
_ENDED = ("done", "failed", "cancelled")
_KEPT_EVENTS = {"answers"}  # told to listeners, not kept: there are hundreds


class Asked(Model):
    """What a run works on beside its skill. `outside` are answers of other systems, by system and example id."""

    examples: tuple[Example, ...] = ()
    outside: Mapping[str, Mapping[str, Json]] = {}
    count: int = 0  # examples to synthesize; 0: as many as the documents give


class Learner:
    """All methods run on the event loop of the workspace."""

    def __init__(
        self, parts: Parts, library: SkillLibrary, deployments: Deployments, *, loop: Callable[..., Loop] = Loop
    ) -> None:
        self._parts = parts
        self._loop = loop
        self._library = library
        self._deployments = deployments
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._current: tuple[str, asyncio.Task[None]] | None = None
        self._asked_to_end: set[str] = set()
        self._choosing = asyncio.Lock()  # of the next run; a run is not cancelled while it is chosen
        self._changed = asyncio.Condition()
        self._ordinals: dict[str, int] = {}
        self._passing: dict[str, Event] = {}  # the newest event that is not kept, by run

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
        run = Run(
            id=new_id("run"),
            team=team,
            skill=skill,
            kind=kind,
            state="queued",
            recipe={
                **(recipe or Recipe()).model_dump(mode="json"),
                "force": force,
                "promote": promote,
                "growth": growth,
            },
            variant=variant,
            started_by=by,
            created=now(),
        )
        if asked is not None:
            await asyncio.to_thread(self._write_asked, run, asked)
        await asyncio.to_thread(self._queue, run)
        self._wake.set()
        return run

    async def cancel(self, team: str, run: str) -> Run:
        """End a run. Raises NotFound; InvalidInput when it has ended already."""
        async with self._choosing:
            found = await asyncio.to_thread(self._get, team, run)
            if found.state in _ENDED:
                raise InvalidInput(f"The run {run} has ended already: {found.state}.")
            if self._current is None or self._current[0] != run:
                await self._save(found.model_copy(update={"state": "cancelled", "ended": now()}))
                return await asyncio.to_thread(self._get, team, run)
            self._asked_to_end.add(run)
            task = self._current[1]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            found = await asyncio.to_thread(self._get, team, run)
            if found.state not in _ENDED:  # it was ended before it could begin
                self._asked_to_end.discard(run)
                await self._save(found.model_copy(update={"state": "cancelled", "ended": now()}))
            return await asyncio.to_thread(self._get, team, run)

    async def events(self, team: str, run: str, *, after: int = -1) -> AsyncGenerator[tuple[int, Event], None]:
        """(ordinal, event) from `after` on, those to come included, until the run has ended. Raises NotFound."""
        passing: Event | None = None
        while True:
            async with self._changed:
                found = await asyncio.to_thread(self._get, team, run)
                rows = await asyncio.to_thread(self._events, team, run, after)
                newest = self._passing.get(run)
                if not rows and newest is passing and found.state not in _ENDED:
                    await self._changed.wait()
                    continue
            for ordinal, body in rows:
                after = ordinal
                yield ordinal, Event.model_validate(body)
            if newest is not None and newest is not passing:
                passing = newest
                yield after, newest
            if found.state in _ENDED and not rows:
                return

    # --- carrying out --------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            try:
                task = await self._next()
                if task is None:
                    await self._wake.wait()
                    continue
                await asyncio.wait({task})
                if not task.cancelled():
                    task.result()
            except asyncio.CancelledError:  # the workspace closes: the run stays as it is
                if self._current is not None:
                    self._current[1].cancel()
                    await asyncio.gather(self._current[1], return_exceptions=True)
                raise
            except Exception:
                log.exception("the learning half stumbled; it looks again in a while")
                await asyncio.sleep(_REST_SECONDS)
            finally:
                self._current = None

    async def _next(self) -> asyncio.Task[None] | None:
        """The next run, begun; None when nothing waits."""
        async with self._choosing:
            waiting = await asyncio.to_thread(self._waiting)
            if not waiting:
                return None
            task = asyncio.create_task(self._carry_out(waiting[0]))
            self._current = (waiting[0].id, task)
            return task

    async def _carry_out(self, run: Run) -> None:
        run = run.model_copy(update={"state": "running"})
        await self._save(run)

        async def tell(event: Event) -> None:
            nonlocal run
            known = {
                "stage": event.stage if event.kind == "stage" and event.stage else run.stage,
                "dataset": event.numbers.get("dataset", run.dataset),
                "adapter": event.numbers.get("adapter", run.adapter),
                "train_seconds": event.numbers.get("train_seconds", run.train_seconds),
            }
            if any(getattr(run, name) != value for name, value in known.items()):
                run = run.model_copy(update=known)
                await self._save(run)
            await self._tell(run, event)

        numbers = {name: value for name, value in run.recipe.items() if name not in ("force", "promote", "growth")}
        loop: Loop | None = None
        try:
            skill = self._library.get(run.team, run.skill)
            loop = self._loop(self._parts, skill, run, Recipe.model_validate(numbers), tell)
            ended = await self._done(lambda: run, loop)
            run = run.model_copy(update={**ended, "state": "done", "ended": now()})
        except asyncio.CancelledError:
            if run.id not in self._asked_to_end:
                raise
            run = run.model_copy(update={"state": "cancelled", "reason": "cancelled", "ended": now()})
        except InternError as error:
            run = run.model_copy(update={"state": "failed", "reason": error.message, "ended": now()})
        except Exception as error:
            log.exception("run %s failed", run.id)
            reason = f"{type(error).__name__}; the log says more"
            run = run.model_copy(update={"state": "failed", "reason": reason, "ended": now()})
        await self._tell(run, Event(kind=run.state, text=run.reason or "", numbers={"decision": run.decision}))
        await self._save(run)
        self._passing.pop(run.id, None)
        self._asked_to_end.discard(run.id)
        if loop is not None:
            await asyncio.to_thread(loop.clear)

    async def _done(self, newest: Callable[[], Run], loop: Loop) -> dict[str, Json]:
        """Carry out the run's work; returns what came of it. `newest` is the run as it is at the time."""
        run = newest()
        serving = await asyncio.to_thread(self._serving, run)
        asked = await asyncio.to_thread(self._read_asked, run)
        if run.kind == "learn":
            asks = {name: bool(run.recipe.get(name)) for name in ("force", "growth")}
            finished = await loop.learn(serving=serving, **asks)
            return await self._conclude(newest, finished, serving)
        if run.kind == "evaluate":
            verdict = await loop.compare(serving=serving, examples=asked.examples, outside=asked.outside)
            body = verdict.model_dump(mode="json")
            await settled(self._keep_evaluation, newest(), body)
            await self._tell(run, Event(kind="verdict", stage="evaluate", numbers=body))
            return {"adapter": serving.name if serving else None}
        written = await loop.synthesize(asked.count)
        added = await asyncio.to_thread(self._add_examples, run, written.examples)
        refused = Counter(row.reason for row in written.refused)
        reason = f"{added} examples were written from {written.passages} passages; {len(written.refused)} were refused."
        numbers = {"added": added, "refused": dict(refused), "failed": written.failed}
        await self._tell(run, Event(kind="written", stage="synthesize", text=reason, numbers=numbers))
        return {"reason": reason}

    async def _conclude(self, newest: Callable[[], Run], finished: Finished, judged: Adapter | None) -> dict[str, Json]:
        """Keep the verdict, and promote where the gate says so, nobody has to approve, and what serves is still what
        the candidate was judged against."""
        ruling = finished.ruling
        adapter = finished.adapter.model_copy(update={"decision": ruling.decision})
        verdict = finished.verdict.model_dump(mode="json")
        ended: dict[str, Json] = {
            "dataset": finished.dataset.id,
            "adapter": adapter.name,
            "decision": ruling.decision,
            "reason": ruling.reason,
            "train_seconds": finished.train_seconds,
        }
        run = newest().model_copy(update=ended)
        await settled(self._keep_verdict, run, adapter, verdict)
        await self._tell(run, Event(kind="verdict", stage="evaluate", text=ruling.reason, numbers=verdict))
        promotes = ruling.decision == "promote" and run.recipe.get("promote", True) and not finished.approve
        if promotes and await asyncio.to_thread(self._serving, run) != judged:
            text = "Something else serves now than the candidate was judged against; a person has to promote it."
            await self._tell(run, Event(kind="warning", stage="promote", text=text))
        elif promotes:
            await self._tell(run, Event(kind="stage", stage="promote", text=f"{adapter.name} goes live"))
            reason = ruling.reason
            await self._deployments.promote(run.team, run.skill, adapter.version, by=f"run {run.id}", reason=reason)
            await self._tell(run, Event(kind="promoted", stage="promote", text=f"{adapter.name} serves"))
            ended["stage"] = "promote"
        return ended

    async def _tell(self, run: Run, event: Event) -> None:
        if event.kind in _KEPT_EVENTS:
            self._passing[run.id] = event
        else:
            ordinal = self._ordinals.get(run.id)
            if ordinal is None:
                known = await asyncio.to_thread(self._events, run.team, run.id, -1)
                ordinal = known[-1][0] + 1 if known else 0
            self._ordinals[run.id] = ordinal + 1
            await settled(self._add_event, run, ordinal, event)
        async with self._changed:
            self._changed.notify_all()

    async def _save(self, run: Run) -> None:
        await settled(self._put, run)
        async with self._changed:
            self._changed.notify_all()

    # --- the store; blocking -------------------------------------------------------------------------------------

    def _queue(self, run: Run) -> None:
        with self._parts.database.begin() as connection:
            going = store.list_runs(connection, run.team, skill=run.skill, states=("queued", "running"), limit=1)
            if going:
                raise Conflict(f"The run {going[0].id} of this skill is {going[0].state}; wait for it, or cancel it.")
            store.save_run(connection, run)

    def _waiting(self) -> list[Run]:
        with self._parts.database.connect() as connection:
            left = store.list_runs(connection, None, states=("running", "queued"), limit=1000)
        return sorted(left, key=lambda run: (run.state != "running", run.id))

    def _serving(self, run: Run) -> Adapter | None:
        deployment = self._deployments.serving(run.team, run.skill)
        if deployment is None or deployment.version is None or (run.team, run.skill) in self._deployments.problems:
            return None
        with self._parts.database.connect() as connection:
            return store.get_adapter(connection, run.team, run.skill, deployment.version)

    def _keep_verdict(self, run: Run, adapter: Adapter, verdict: Mapping[str, Json]) -> None:
        with self._parts.database.begin() as connection:
            store.update_adapter(connection, adapter)
            store.save_run(connection, run, verdict=verdict)
        write_verdict(self._parts.adapters_folder / adapter.digest, verdict)

    def _keep_evaluation(self, run: Run, verdict: Mapping[str, Json]) -> None:
        with self._parts.database.begin() as connection:
            store.save_run(connection, run, verdict=verdict)

    def _add_examples(self, run: Run, examples: Sequence[Example]) -> int:
        with self._parts.database.begin() as connection:
            known = {row.example.id for row in store.collected(connection, run.team, run.skill)}
            new = [example for example in examples if example.id not in known]
            records.add_examples(connection, run.team, run.skill, new)
        return len(new)

    def _write_asked(self, run: Run, asked: Asked) -> None:
        folder = self._parts.runs_folder / run.id
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _ASKED).write_text(asked.model_dump_json(), encoding="utf-8")
        except OSError as error:
            raise StoreFailure(f"The run's folder cannot be written: {error.strerror}.") from error

    def _read_asked(self, run: Run) -> Asked:
        file = self._parts.runs_folder / run.id / _ASKED
        return Asked.model_validate_json(file.read_text(encoding="utf-8")) if file.exists() else Asked()

    def _get(self, team: str, run: str) -> Run:
        with self._parts.database.connect() as connection:
            return store.get_run(connection, team, run)

    def _put(self, run: Run) -> None:
        with self._parts.database.begin() as connection:
            store.save_run(connection, run)

    def _events(self, team: str, run: str, after: int) -> list[tuple[int, dict[str, Json]]]:
        with self._parts.database.connect() as connection:
            return store.list_events(connection, team, run, after=after)

    def _add_event(self, run: Run, ordinal: int, event: Event) -> None:
        with self._parts.database.begin() as connection:
            store.add_event(connection, run.team, run.id, ordinal, event.model_dump(mode="json", exclude_defaults=True))
