"""Deletes an end user's data, or one record, everywhere that the platform keeps it, and says where it had been.

In: a person (the `user` of their requests, the `person` of examples) or a record's id. Out: `Erased`. Reaches the store
(records, reviews, utterances, examples, datasets), the files that runs left, and the answers that evaluations remember.
A run that is working with the data is cancelled, and one that worked with it keeps outcomes of others alone: its
checkpoints have learned of it. What an adapter has learned cannot be taken out of it: it is named. Nor is a skill's
folder written to, which its owners keep: skills whose folders still hold examples of a person are named too. Knows no
HTTP.

The files go first: after a crash between the two, the rows are still there to find them by, and asking again ends it.
An evaluation's examples may stand in no row: given in a file, replaced by a later review, deleted by hand. Its folder
says whose they were (`RunFolder.owners`), and forgets that last.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from sqlalchemy.engine import Connection

from intern.errors import InvalidInput
from intern.learning.learner import Learner
from intern.learning.loop.folder import Owner, RunFolder
from intern.learning.parts import WorkspaceParts
from intern.library import SkillLibrary
from intern.store import learning as store
from intern.store import records
from intern.types import Json, Model, Run

_MOST = 100_000  # runs that are looked at
_GOING = ("queued", "running")  # one that waits has data only where it was resumed


class Erased(Model):
    """How many rows of what are gone; the datasets that held some of it, the adapters trained on those, the runs that
    were cancelled because they worked with it, and the skills whose folders have examples of the person."""

    counts: Mapping[str, int] = {}
    datasets: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()  # skill@vN
    cancelled: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


class Erasure:
    """Deletion in one workspace."""

    def __init__(
        self, parts: WorkspaceParts, learner: Learner, library: SkillLibrary, flush: Callable[[], None]
    ) -> None:
        self._parts = parts
        self._learner = learner
        self._library = library
        self._flush = flush  # writes the records that are still on their way to the store

    async def person(self, team: str, person: str) -> Erased:
        """Delete everything kept of an end user. Raises StoreFailure, OSError."""
        named = {
            skill.name: ids
            for skill in self._library.all(team)
            if (ids := tuple(example.id for example in skill.examples if example.person == person))
        }
        erased = await self._erase(
            team,
            lambda connection: records.delete_person(connection, team, person),
            store.Whose(person=person, folders=named),
        )
        return erased.model_copy(update={"folders": tuple(named)})

    async def record(self, team: str, record: str) -> Erased:
        """Delete a record with everything made from it. Raises NotFound, StoreFailure, OSError."""

        def delete(connection: Connection) -> dict[str, int]:
            records.delete_record(connection, team, record)
            return {}

        return await self._erase(team, delete, store.Whose(record=record))

    async def _erase(self, team: str, delete: Callable[[Connection], dict[str, int]], whose: store.Whose) -> Erased:
        def rows(delete: Callable[[Connection], dict[str, int]]) -> tuple[dict[str, int], store.Reached, store.Traces]:
            there = self._traces(team, whose)
            with self._parts.database.begin() as connection:
                there = _both(there, store.traces(connection, team, whose))
                return delete(connection), store.erase(connection, team, whose), there

        await asyncio.to_thread(self._flush)
        traces = await asyncio.to_thread(self._traces, team, whose)
        cancelled = await self._end_runs(team, traces)
        await asyncio.to_thread(self._clean, team, traces)
        counts, reached, there = await asyncio.to_thread(rows, delete)
        traces = _both(traces, there)
        if traces.skills or traces.runs:  # a run that began in between had read the examples already
            cancelled += await self._end_runs(team, traces)
            _, late, there = await asyncio.to_thread(rows, lambda connection: {})
            await asyncio.to_thread(self._clean, team, _both(traces, there))
            reached = store.Reached(
                datasets=tuple(sorted({*reached.datasets, *late.datasets})),
                adapters=tuple(sorted({*reached.adapters, *late.adapters})),
            )
        ended = tuple(dict.fromkeys(cancelled))
        return Erased(counts=counts, datasets=reached.datasets, adapters=reached.adapters, cancelled=ended)

    def _traces(self, team: str, whose: store.Whose) -> store.Traces:
        with self._parts.database.connect() as connection:
            found = store.traces(connection, team, whose)
            evaluated = store.list_runs(connection, team, kind="evaluate", limit=_MOST)
        runs = {}
        for run in evaluated:
            owners = self._folder(run).owners().items()
            if theirs := frozenset(example for example, owner in owners if _is_of(owner, whose)):
                runs[run.id] = theirs
        return found.model_copy(update={"runs": runs})

    def _folder(self, run: Run) -> RunFolder:
        return RunFolder(self._parts.runs_folder / run.id)

    async def _end_runs(self, team: str, traces: store.Traces) -> list[str]:
        """Cancel what works with the data: runs on its datasets, runs that are collecting examples, evaluations."""

        def going() -> list[str]:
            with self._parts.database.connect() as connection:
                runs = store.list_runs(connection, team, states=_GOING, limit=_MOST)
            near = [run for run in runs if run.skill in traces.skills]
            collecting = [run for run in near if run.dataset is None and run.state == "running"]
            works = [run for run in near if run in collecting or run.dataset in traces.datasets]
            return [run.id for run in runs if run in works or run.id in traces.runs]

        ended = []
        for run in await asyncio.to_thread(going):
            with suppress(InvalidInput):  # it came to its end by itself
                await self._learner.cancel(team, run)
                ended.append(run)
        return ended

    def _clean(self, team: str, traces: store.Traces) -> None:
        with self._parts.database.connect() as connection:
            near = [r for skill in traces.skills for r in store.list_runs(connection, team, skill=skill, limit=_MOST)]
            runs = {run.id: run for run in near} | {run: store.get_run(connection, team, run) for run in traces.runs}
        for skill in traces.skills.union(run.skill for run in runs.values()):
            self._parts.memory(team, skill).forget()
        for run in runs.values():
            own = traces.runs.get(run.id, frozenset())
            examples = own | traces.examples if run.skill in traces.skills else own
            folder = self._folder(run)
            reached = [_without(file, examples) for file in sorted(folder.path.rglob("*.jsonl"))]
            if run.state != "running" and (any(reached) or own or run.dataset in traces.datasets):
                self._learner.clear(run)
            if run.state not in _GOING:
                folder.disown(examples)


def _both(one: store.Traces, other: store.Traces) -> store.Traces:
    return store.Traces(
        examples=one.examples | other.examples,
        skills=one.skills | other.skills,
        datasets=one.datasets | other.datasets,
        runs={
            run: one.runs.get(run, frozenset()) | other.runs.get(run, frozenset()) for run in (*one.runs, *other.runs)
        },
    )


def _is_of(owner: Owner, whose: store.Whose) -> bool:
    if whose.person is not None:
        return owner.person == whose.person
    return owner.record == whose.record


def _without(file: Path, examples: frozenset[str]) -> bool:
    """Rewrite a file of JSON lines without those that belong to one of `examples`; whether there were any."""
    with file.open("rb") as opened:  # by line feeds only, and perhaps cut in the middle of a character
        lines = list(opened)
    kept = [line for line in lines if _example_of(line) not in examples]
    if len(kept) < len(lines):
        temporary = file.with_name(f".{file.name}")
        temporary.write_bytes(b"".join(kept))
        os.replace(temporary, file)
    return len(kept) < len(lines)


def _example_of(line: bytes) -> Json:
    """Rows, pairs, prompts and answers have the example's id as `id`, outcomes as `example`."""
    try:
        body = json.loads(line)
    except ValueError:  # the last line of a process that was killed
        return None
    return body.get("example", body.get("id")) if isinstance(body, dict) else None
