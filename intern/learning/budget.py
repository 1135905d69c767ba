"""How long skills may train by themselves: hours within seven days, of all skills of a database together.

In: runs, as the store has them. Out: which of them began by themselves, and the seconds that are left. What counts is
the time that a run took from its beginning to its end, evaluation included, whoever asked for it; what people ask for
is never refused or ended. Knows nothing of when a skill should train.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy.engine import Engine as Database

from intern.store import learning as store
from intern.types import Run, now

WEEK = timedelta(days=7)
_LOOK_BACK = timedelta(days=60)  # a training that failed and was resumed began before the week that it ended in
_ITSELF, _AGAIN = "itself: ", "itself, again: "
_BY_HAND = "resumed by hand, began by "


def itself(why: str) -> str:
    """As whom a run begins that nobody asked for."""
    return f"{_ITSELF}{why}"


def itself_again(run: Run) -> str:
    """As whom a run that began by itself is begun once more."""
    return f"{_AGAIN}{run.started_by.removeprefix(_ITSELF)}"


def by_hand(run: Run) -> str:
    """As whom a run goes on that a person resumes: one that began by itself is bound by no budget from then on."""
    return f"{_BY_HAND}{run.started_by}" if by_itself(run) else run.started_by


def by_itself(run: Run) -> bool:
    """Whether nobody asked for a run, nor resumed it."""
    return run.started_by.startswith((_ITSELF, _AGAIN))


def first_time(run: Run) -> bool:
    """Whether a run that began by itself was not begun once more yet."""
    return run.started_by.startswith(_ITSELF)


def within_a_week(run: Run, at: datetime) -> bool:
    """Whether a run goes on, or was begun or ended within a week. One that was resumed counts whole."""
    return run.state in ("queued", "running") or at - (run.ended or run.created) < WEEK


class Budget:
    """`hours` within seven days. Blocking."""

    def __init__(self, database: Database, hours: float) -> None:
        self._database = database
        self.hours = hours

    def spent(self, *, but: str | None = None) -> float:
        """Seconds that trainings took within the last seven days; `but`: without this run."""
        at = now()
        with self._database.connect() as connection:
            runs = store.list_runs(connection, None, kind="learn", limit=10_000, since=at - _LOOK_BACK)
        return sum(_seconds(run) for run in runs if run.id != but and within_a_week(run, at))

    def left(self, *, but: str | None = None) -> float:
        """Seconds that are left; below 0 when more were spent."""
        return self.hours * 3600 - self.spent(but=but)

    def used_up(self, run: Run, *, resumable: bool) -> str:
        """Why a run was ended that has taken what was left."""
        if resumable:
            further = f"`intern runs resume {run.id}` goes on where it stood"
        else:
            further = f"`intern learn {run.skill}` trains"
        return (
            f"It was ended: skills may train by themselves for {self.hours:g} hours within seven days "
            f"(INTERN_LEARNING_HOURS), and those are used up. {further} whatever was used."
        )


def _seconds(run: Run) -> float:
    return max(run.wall_seconds, run.spent_seconds, run.train_seconds or 0.0)
