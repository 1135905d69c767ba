"""What people see of a run while it goes on: its events folded into a few lines, drawn on a terminal.

In: the objects of a run's event stream. Out: `Course`, where the run is, with the lines that stay on the screen; and
`shown`, which draws them on standard error: live on a terminal, as JSON lines where a program reads along. Knows
nothing of where events come from, and of what is printed at the end.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from intern.cli import output

if TYPE_CHECKING:
    from rich.console import RenderableType

BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH = 24  # of a sparkline
_STAYS = {"note", "waiting", "warning", "dataset", "device", "rows", "adapter", "parity", "rival", "promoted"}

Event = dict[str, Any]


class Course:
    """Where a run is. Times are seconds on a clock of the caller's."""

    def __init__(self) -> None:
        self.stage = ""
        self.doing = "waiting to begin"
        self.phase = ""
        self.step = self.steps = 0
        self.losses: list[float] = []
        self.heldout: list[float] = []
        self._origin: tuple[int, float] | None = None  # (step, seconds) that the pace is measured from
        self._last = (0, 0.0, 0.0)  # (step, seconds, when it was heard of)

    @property
    def training(self) -> bool:
        return self.stage == "train" and self.steps > 0

    def take(self, event: Event, at: float) -> list[str]:
        """Take in one event; returns the lines that it leaves on the screen."""
        kind, text = event["kind"], str(event.get("text", ""))
        if kind == "stage":
            self._enter(str(event.get("stage", "")), text)
            return [f"{self.stage:<9} {text}".rstrip()]
        if kind == "phase":
            return self._begin(event)
        if kind == "step":
            self._count(event, at)
        elif kind == "heldout" and event.get("loss") is not None:
            self.heldout.append(float(event["loss"]))
        elif kind == "answers":
            self.doing, self.step, self.steps = text, int(event.get("step", 0)), int(event.get("steps", 0))
        elif kind == "loading":
            self.doing = text
        elif kind == "done" and "train_seconds" in event.get("numbers", {}):
            self.step, self.steps, self.doing = 0, 0, "storing the adapter"
            return [f"{'':<9} trained in {duration(event['numbers']['train_seconds'])}{self._curve()}"]
        if kind == "rival":
            self.step = self.steps = 0
        return [_line(kind, text)] if kind in _STAYS and text else []

    def remaining(self, at: float) -> float | None:
        """Seconds until the last step of this phase, by the pace so far; None before there is one."""
        step, seconds, heard = self._last
        if self._origin is None or step <= self._origin[0]:
            return None
        pace = (seconds - self._origin[1]) / (step - self._origin[0])
        return max(pace * (self.steps - step) - (at - heard), 0.0)

    def curves(self) -> str:
        """The training loss and the held-out loss so far, each with a sparkline."""
        parts = []
        if self.losses:
            parts.append(f"loss {self.losses[-1]:.3f} {sparkline(self.losses)}")
        if self.heldout:
            first = f"{self.heldout[0]:.3f} → " if len(self.heldout) > 1 else ""
            parts.append(f"held out {first}{self.heldout[-1]:.3f} {sparkline(self.heldout)}")
        return "   ".join(parts)

    def _enter(self, stage: str, text: str) -> None:
        self.stage, self.doing = stage, text
        self.step = self.steps = 0
        self._origin = None

    def _begin(self, event: Event) -> list[str]:
        """A training has parts, each with steps and curves of its own; an interrupted one begins in the middle."""
        phase, before = str(event.get("stage", "")), self.phase
        if phase != before:
            self.losses, self.heldout = [], []
        self.phase, self.doing = phase, phase
        self.step, self.steps = int(event.get("step", 0)), int(event.get("steps", 0))
        self._origin = None
        if self.step:
            return [f"{'':<9} goes on at step {self.step} of {self.steps}"]
        return [f"{'':<9} now on {phase}"] if before and phase != before else []

    def _count(self, event: Event, at: float) -> None:
        self.step, self.steps = int(event.get("step", 0)), int(event.get("steps", self.steps))
        seconds = float(event.get("seconds", at))
        if self._origin is None or seconds < self._last[1]:
            self._origin = (self.step, seconds)
        self._last = (self.step, seconds, at)
        if (loss := event.get("loss")) is not None:
            self.losses.append(float(loss))

    def _curve(self) -> str:
        if not self.heldout:
            return ""
        return f"; loss on held-out examples {self.heldout[0]:.3f} → {self.heldout[-1]:.3f}"


def _line(kind: str, text: str) -> str:
    return f"{'':<9} {'warning: ' if kind == 'warning' else ''}{text}"


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """A curve in block characters, from its lowest value to its highest; neighbours are averaged to fit `width`."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    count = min(width, len(finite))
    edges = [round(place * len(finite) / count) for place in range(count + 1)]
    means = [sum(finite[low:high]) / (high - low) for low, high in pairwise(edges)]
    lowest, span = min(means), max(means) - min(means)
    return "".join(BLOCKS[round((mean - lowest) / span * (len(BLOCKS) - 1)) if span else 0] for mean in means)


def duration(seconds: float) -> str:
    """For people: '8 s', '2:05 min', '1:02 h'."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02} h"


# --- drawing ---------------------------------------------------------------------------------------------------


@contextmanager
def shown(*, quiet: bool = False) -> Iterator[Callable[[Event], None]]:
    """Takes events, and shows them on standard error. `quiet`: only where that is a terminal."""
    if sys.stderr.isatty():
        with _drawn() as take:
            yield take
    elif quiet:
        yield lambda event: None
    else:
        yield lambda event: print(json.dumps(event, ensure_ascii=True), file=sys.stderr, flush=True)


@contextmanager
def _drawn() -> Iterator[Callable[[Event], None]]:
    from rich.live import Live
    from rich.text import Text

    course = Course()
    console = output.console(error=True)
    with Live(get_renderable=lambda: _now(course), console=console, transient=True, refresh_per_second=4) as live:

        def take(event: Event) -> None:
            for line in course.take(event, time.monotonic()):
                style = "yellow" if line.lstrip().startswith("warning:") else ""
                live.console.print(Text(output.clean(line), style=style))

        yield take


def _now(course: Course) -> RenderableType:
    """What moves: a bar with what is left to do, and under it the curves."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.spinner import Spinner
    from rich.table import Table
    from rich.text import Text

    doing = Text(output.clean(f"{'':<9} {course.doing}"), style="dim")
    row = Table.grid(padding=(0, 1))
    if not course.steps:
        row.add_row(doing, Spinner("dots"))
        return row
    left = course.remaining(time.monotonic())
    about = f"{course.step}/{course.steps}" + (f"  {duration(left)} left" if course.training and left else "")
    row.add_row(doing, ProgressBar(total=course.steps, completed=course.step, width=32), Text(about))
    return Group(row, Text(f"{'':<9} {course.curves()}")) if course.training and course.losses else row
