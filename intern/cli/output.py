"""What reaches standard output and standard error: JSON for programs, tables and dim notes for people.

Standard output carries results only; notes and progress go to standard error, and progress only to a terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

PROSE = frozenset({"title", "choice", "reason"})
STYLES = {"ok": "green", "warn": "yellow", "bad": "bold red"}


def plain(as_json: bool) -> bool:
    """Whether a program reads along: --json was given, or standard output is no terminal."""
    return as_json or not sys.stdout.isatty()


def document(value: Any) -> None:
    """One JSON document."""
    _write(value, indent=2)


def line(value: Any) -> None:
    """One JSON value on a line of its own, out at once."""
    _write(value, indent=None)


def _write(value: Any, indent: int | None) -> None:
    try:
        sys.stdout.write(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")
    except UnicodeEncodeError:  # lone surrogates, or a terminal without Unicode
        sys.stdout.write(json.dumps(value, indent=indent) + "\n")
    sys.stdout.flush()


def clean(text: str) -> str:
    """Without control characters: what a model or a document says must not steer the terminal."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t")


def console(*, error: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=error, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """A line for people on standard error."""
    from rich.text import Text

    console(error=True).print(Text(clean(text), style="dim"))


def piece(text: str) -> None:
    """A piece of an answer that is being streamed to a terminal."""
    sys.stdout.write(clean(text))
    sys.stdout.flush()


def heading(text: str, aside: str) -> None:
    from rich.text import Text

    console().print(Text.assemble((clean(text), "bold"), "  ", (aside, "dim")))


def text(body: str) -> None:
    """A text as it is, and an empty line."""
    piece(f"{body}\n\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on standard output. Prose gets what width the other columns leave; states are coloured."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        drawn.add_column(column, overflow="fold", no_wrap=column not in PROSE)
    for row in rows:
        cells = ("" if cell is None else clean(str(cell)) for cell in row)
        drawn.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in cells))
    console().print(drawn, soft_wrap=False)


@contextmanager
def progress(what: str, total: int | None, *, hidden: bool = False) -> Iterator[Progress]:
    """A bar on standard error with one task, gone when done; nothing where standard error is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console(error=True), transient=True, disable=hidden or not sys.stderr.isatty())
    bar.add_task(what, total=total)
    with bar:
        yield bar
