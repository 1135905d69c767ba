"""JSON lines in, JSON lines out: what `ask`, `route` and `retrieve` do with --file.

Rows are read as they come, a few are under way at once, and each is printed as soon as it and all before it are done.
A row that cannot be read or that failed is printed too, with its reason under `error`, and counted. A server that is
overloaded is waited for. Knows nothing of what is done with a row.
"""

from __future__ import annotations

import itertools
import json
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

import typer

from intern.cli import output
from intern.errors import InternError, InvalidInput, Overloaded

T = TypeVar("T")
R = TypeVar("R")

TRIES = 10
LONGEST_PAUSE = 30.0
_AHEAD = 4  # rows read and not yet printed, for each that is under way


class Row:
    """One line: its `input`, or the `problem` that it has instead."""

    def __init__(self, number: int, value: Any = None, problem: str | None = None) -> None:
        self.number = number
        self.input = value
        self.problem = problem


def one_of(text: str | None, file: str | None) -> None:
    """Wrong usage unless exactly one of TEXT and --file is given."""
    if (text is None) == (file is None):
        raise typer.BadParameter("give either TEXT or --file, - being standard input")


def given(text: str) -> str:
    """TEXT itself, or all of standard input for `-`, without its last line break."""
    return read_text("-").rstrip("\r\n") if text == "-" else text


def open_input(name: str) -> IO[bytes]:
    """The file `name`, or standard input for `-`. Raises InvalidInput."""
    if name == "-":
        # A reader of its own: the interpreter cannot end while a thread waits inside sys.stdin.
        return open(0, "rb", closefd=False)
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise InvalidInput(f"{name}: cannot be read: {error.strerror}.") from error


def read_text(name: str) -> str:
    """All of the file `name`, or of standard input for `-`. Raises InvalidInput."""
    with open_input(name) as file:
        try:
            return file.read().decode("utf-8-sig")
        except OSError as error:
            raise InvalidInput(f"{name}: cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise InvalidInput(f"{name}: line {line} is not UTF-8.") from error


def read_rows(lines: Iterable[bytes]) -> Iterator[Row]:
    """A Row for each line that is not blank. Keys other than `input` are ignored."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError:
            yield Row(number, problem=f"line {number}: not UTF-8")
        except json.JSONDecodeError as error:
            yield Row(number, problem=f"line {number}: not valid JSON: {error.msg} (column {error.colno})")
        except RecursionError:
            yield Row(number, problem=f"line {number}: nests too deep")
        else:
            if not isinstance(value, dict) or "input" not in value:
                yield Row(number, problem=f'line {number}: must be an object {{"input": ...}}')
            elif not isinstance(value["input"], str | list) or not value["input"]:
                yield Row(number, value["input"], f"line {number}: 'input' must be a text or a list of messages")
            else:
                yield Row(number, value["input"])


def run_rows(name: str, do: Callable[[Any], Mapping[str, Any]], *, blank: Mapping[str, Any], parallel: int) -> int:
    """Print a line for each row of the file `name`; returns how many failed.

    `do` makes the fields beside `input` from a row's input and may raise InternError; `blank` stands for them then.
    """

    def one(row: Row) -> dict[str, Any]:
        if row.problem is not None:
            return {"input": row.input, **blank, "error": row.problem}
        try:
            return {"input": row.input, **patiently(lambda: do(row.input))}
        except InternError as error:
            return {"input": row.input, **blank, "error": error.message}

    failed = 0
    file = open_input(name)
    # Rows on the terminal are their own progress.
    with output.progress("rows", None, hidden=sys.stdout.isatty()) as bar:
        for result in in_order(read_rows(file), one, parallel=parallel):
            output.line(result)
            failed += "error" in result
            bar.advance(bar.task_ids[0])
    # Not closed when interrupted: a thread may be waiting inside it, and closing would wait for that thread.
    file.close()
    return failed


def patiently(do: Callable[[], R], *, pause: Callable[[float], None] = time.sleep) -> R:
    """`do`, again while the server is overloaded: after what it asks for, or twice as long each time, with jitter."""
    for attempt in itertools.count(1):
        try:
            return do()
        except Overloaded as error:
            if attempt == TRIES:
                raise
            seconds = max(error.retry_after, 0.25 * 2**attempt)
            pause(min(LONGEST_PAUSE, seconds) * random.uniform(1.0, 1.25))
    raise AssertionError


def in_order(items: Iterable[T], do: Callable[[T], R], *, parallel: int) -> Iterator[R]:
    """`do(item)` for each item, `parallel` at once, yielded in the items' order as soon as possible.

    At most `4 * parallel` items are read ahead of what was yielded. What reading or `do` raises is raised in its place.
    The threads are daemons: leaving early, or an interrupt, waits for none of them.
    """
    todo: queue.SimpleQueue[tuple[int, T] | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Callable[[], R] | None]] = queue.SimpleQueue()
    room = threading.Semaphore(_AHEAD * parallel)
    left = threading.Event()

    def read() -> None:
        number = 0
        end: Callable[[], R] | None = None
        try:
            for item in items:
                room.acquire()
                if left.is_set():
                    return
                todo.put((number, item))
                number += 1
        except BaseException as error:
            end = _raiser(error)
        finally:
            done.put((number, end))

    def work() -> None:
        while (job := todo.get()) is not None:
            number, item = job
            try:
                result = do(item)
            except BaseException as error:
                done.put((number, _raiser(error)))
            else:
                done.put((number, lambda result=result: result))  # type: ignore[misc]

    for task in (read, *[work] * parallel):
        threading.Thread(target=task, daemon=True).start()
    waiting: dict[int, Callable[[], R] | None] = {}
    try:
        for number in itertools.count():
            while number not in waiting:
                key, outcome = done.get()
                waiting[key] = outcome
            outcome = waiting.pop(number)
            if outcome is None:
                return
            yield outcome()
            room.release()
    finally:
        left.set()
        room.release()
        for _ in range(parallel):
            todo.put(None)


def _raiser(error: BaseException) -> Callable[[], Any]:
    def throw() -> Any:
        raise error

    return throw
