"""What runs leave on disk: what a training that failed goes on with, whether it may, and when it goes.

In: runs, as the store has them. Out: `Leftovers`. A training that failed keeps its work until a later one of its skill
is done, or keeps work of its own, or until somebody gives it up; of all other runs that have ended only outcomes stay.
What a killed process left half made elsewhere goes too: adapters, base models. Knows nothing of how runs are carried
out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from intern.errors import Conflict, InvalidInput
from intern.learning.adapters import adapter as adapters
from intern.learning.journal import ENDED
from intern.learning.loop.collecting import anew, check_frozen
from intern.learning.loop.contracts import Parts
from intern.learning.loop.folder import RunFolder
from intern.learning.train.disk import sweep_unpacked
from intern.skill import Skill
from intern.store import learning as store
from intern.types import Run

log = logging.getLogger(__name__)

_MOST = 100_000  # runs that are looked at
_ASKED_SECONDS = 86_400.0  # after which a run that was never queued is none any more


class Leftovers:
    """Blocking."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def folder(self, run: Run) -> RunFolder:
        """Where a run keeps its files."""
        return RunFolder(self._parts.runs_folder / run.id)

    def resumable(self, run: Run) -> bool:
        """Whether a run failed and left something to go on with."""
        return run.state == "failed" and run.kind == "learn" and self.folder(run).resumable

    def check(self, run: Run, skill: Skill) -> None:
        """Raises InvalidInput when a run left nothing to go on with; Conflict when it would go on with what no longer
        is so: base model, schema, examples, or when its adapter serves by now."""
        if not self.resumable(run):
            raise InvalidInput(nothing_left(run))
        base = self._parts.base
        self.folder(run).check(base.sha256 if base else None, skill.schema)
        with self._parts.database.connect() as connection:
            serving = store.get_deployment(connection, run.team, run.skill)
            if serving is not None and serving.version is not None:
                adapter = store.get_adapter(connection, run.team, run.skill, serving.version)
                if adapter.run == run.id:  # judged now, it would have itself for a rival
                    raise Conflict(f"Its adapter {adapter.name} serves already. {anew(run)}")
            check_frozen(connection, run)

    def forget(self, team: str, skill: str) -> None:
        """Remove what runs of a skill keep that is gone: another may come to have its name. Raises OSError."""
        for run in self._ended(team, skill):
            self.folder(run).clear(everything=True)

    def sweep(self) -> None:
        """Remove what runs that have ended keep, but for the last training of each skill that failed and can go on:
        also what a process that was killed had no time to. Only for who carries out the runs."""
        try:
            there = {place.name for place in self._parts.runs_folder.iterdir()}
        except FileNotFoundError:
            return
        past: set[tuple[str, str]] = set()  # skills that have a later training: nobody needs to go on with one before
        ended = self._ended()
        for run in ended:
            skill = (run.team, run.skill)
            keeps = skill not in past and self.resumable(run)
            if keeps or (run.kind == "learn" and run.state == "done"):
                past.add(skill)
            if not keeps and run.id in there:
                try:
                    self.folder(run).clear()
                except OSError:
                    log.exception("what the run %s left cannot be removed", run.id)
        self._sweep_never_queued(there - {run.id for run in ended})
        self._sweep_half_made(ended)

    def _sweep_never_queued(self, there: set[str]) -> None:
        """What runs were asked with that a killed process had no time to queue: nothing else leads to it."""
        for name in there:
            folder = RunFolder(self._parts.runs_folder / name)
            try:
                old = time.time() - folder.path.stat().st_mtime > _ASKED_SECONDS
                if not old or not folder.only_asked:
                    continue
                with self._parts.database.connect() as connection:
                    if not store.is_run(connection, name):
                        folder.clear(everything=True)
            except OSError:
                log.exception("what the run %s was asked with cannot be removed", name)

    def _sweep_half_made(self, ended: Sequence[Run]) -> None:
        """Adapters and base models that a killed process was writing, and adapters of ended runs without a row."""
        try:
            with self._parts.database.connect() as connection:
                known = [row for team in {run.team for run in ended} for row in store.list_adapters(connection, team)]
            runs = {run.id: run.ended for run in ended if run.ended is not None}
            named = {row.digest for row in known}
            if swept := adapters.sweep(self._parts.adapters_folder, runs=runs, named=named):
                log.info("%d adapters were removed that a run had not finished storing", swept)
            sweep_unpacked(self._parts.cache)
        except OSError:
            log.exception("what a run left half made cannot be removed")

    def _ended(self, team: str | None = None, skill: str | None = None) -> list[Run]:
        """Runs that have ended, the newest first; one that another process is ending has not yet."""
        with self._parts.database.connect() as connection:
            found = store.list_runs(connection, team, skill=skill, states=ENDED, limit=_MOST)
        return [run for run in found if run.ended is not None]


def nothing_left(run: Run) -> str:
    """Why a run cannot go on that has nothing to go on with."""
    return f"Nothing of the run {run.id} is left to go on with. {anew(run)}"
