"""Runs a training in a process of its own: writes the job's folder, streams its events, ends it, lets it go on.

In: a `Job`, rows, a folder. Out: events as they come, then the adapter's folder. A process that was killed is started
again from its last checkpoint; one that gives a reason for failing is not. Knows nothing of skills or the store.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from pathlib import Path

from pydantic import ValidationError

from intern.errors import StoreFailure, TrainingFailed, TrainingUnavailable
from intern.learning.train import disk
from intern.learning.train import job as jobs
from intern.learning.train.job import LINE_BYTES, Event, Job, Pair, Row

NEEDED = ("torch", "transformers", "peft", "trl", "datasets", "accelerate")
FREE_BYTES = 500_000_000  # checkpoints and the adapter of a small model, with room to spare
BEHIND = 5  # by how much a training's priority is below that of who started it
AUTOGROUP = Path("/proc/self/autogroup")
_RESTARTS = 2
# What a training process runs with.
# glibc gives large blocks back to the kernel and asks for them again at every step: a third of the time on CPU.
# Threads that wait for each other give the core away soon: beside a busy server a sixth faster, alone the same.
# The base model is on disk by now, and nobody is told that a training begins (TRL would tell the Hugging Face hub).
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_MMAP_THRESHOLD_": "100000000000",
    "GOMP_SPINCOUNT": "2000",
    "TOKENIZERS_PARALLELISM": "false",
}
# What it does without: the server's settings, its keys and database among them, and what opens other doors.
_WITHHELD = re.compile(
    r"INTERN_.*|(.*_)?(\w*(TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS|CREDS|PASSFILE)|PASS|KEY_ID|DSN|URL)"
    r"|.*_PWD",
    re.IGNORECASE,
)


class Clock:
    """Seconds that training processes take, one after the other, by the `seconds` of their events."""

    def __init__(self, before: float = 0.0) -> None:
        self.before = before  # of the processes that have ended
        self._last = 0.0

    @property
    def total(self) -> float:
        return self.before + self._last

    def see(self, event: Event) -> None:
        if event.seconds is not None:
            if event.seconds < self._last:  # another process began
                self.before += self._last
            self._last = event.seconds


def inherited(given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a training process whose parent has `given`: without the server's settings and secrets.

    It sees one GPU, the first of those that `given` names: on several, the Trainer would wrap the model in
    DataParallel, which splits a batch whose rows share their prefix.
    """
    visible = given.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    kept = {name: value for name, value in given.items() if not _WITHHELD.fullmatch(name)}
    return {**kept, **ENVIRONMENT, "CUDA_VISIBLE_DEVICES": visible}


def check_installed(also: Sequence[str] = ()) -> None:
    """Raises TrainingUnavailable, which says what to install, when a training library is missing."""
    missing = [name for name in (*NEEDED, *also) if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainingUnavailable.lacks("Training", missing)


def prepare(
    folder: Path,
    job: Job,
    rows: Sequence[Row],
    *,
    heldout: Sequence[Row] = (),
    texts: Sequence[str] = (),
    pairs: Sequence[Pair] = (),
    heldout_pairs: Sequence[Pair] = (),
) -> None:
    """Write a job's folder. Raises StoreFailure when the disk is full or nearly so."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(folder).free) < FREE_BYTES:
            raise StoreFailure(
                f"{free // 1_000_000} MB of disk are free, and a training needs about {FREE_BYTES // 1_000_000} MB. "
                "Trainings that failed keep their work: `intern runs list --state failed` shows which, and "
                "`intern runs cancel RUN` removes it."
            )
        jobs.write_lines(folder / jobs.ROWS, rows)
        jobs.write_lines(folder / jobs.HELDOUT, heldout)
        jobs.write_texts(folder / jobs.TEXTS, texts)
        jobs.write_lines(folder / jobs.PAIRS, pairs)
        jobs.write_lines(folder / jobs.HELDOUT_PAIRS, heldout_pairs)
        unfinished = folder / f".{jobs.JOB}"
        unfinished.write_text(job.model_dump_json(indent=1), encoding="utf-8")
        disk.settle(folder)
        os.replace(unfinished, folder / jobs.JOB)  # last: now it is complete
    except OSError as error:
        raise StoreFailure(f"The training's folder cannot be written: {error.strerror}.") from error


def checkpoints(folder: Path) -> Iterator[tuple[Path, bool]]:
    """The checkpoints of a job's folder, each with whether it is whole; blocking."""
    for place in (folder / jobs.STAGES).glob("*/checkpoint-*"):
        yield place, disk.is_whole(place)


def mend(folder: Path) -> None:
    """Remove checkpoints that were being written when the disk was full, the process was killed or the power went: the
    one before is still there. Blocking."""
    for place in [place for place, whole in checkpoints(folder) if not whole]:
        shutil.rmtree(place, ignore_errors=True)


async def train(
    folder: Path, *, task: str = "train", environment: Mapping[str, str] | None = None
) -> AsyncGenerator[Event, None]:
    """Carry out the job in `folder`; the last event is `done`. Closing the generator ends the process.

    `task` agree compares the engine's answers (`train/agree.py`) instead.

    Raises TrainingFailed with the process's own reason, or with how it ended. It is `final` where the job itself is
    the reason.
    """
    restarts = 0
    while True:
        await asyncio.to_thread(mend, folder)
        last: Event | None = None
        ended: tuple[int, str] = (0, "")
        async with aclosing(_process(folder, task, environment or {})) as told:
            async for event in told:
                if isinstance(event, tuple):
                    ended = event
                    continue
                last = event
                if event.kind == "failed":
                    raise TrainingFailed(event.text, final=bool(event.numbers.get("final")))
                yield event
        code, tail = ended
        if code == 0 and last is not None and last.kind == "done":
            return
        restarts += 1
        if code >= 0 or restarts > _RESTARTS:
            raise TrainingFailed(_ending(code, tail))
        yield Event(kind="warning", text=f"{_ending(code, '')} It goes on from its last checkpoint.")


async def _process(
    folder: Path, task: str, environment: Mapping[str, str]
) -> AsyncGenerator[Event | tuple[int, str], None]:
    """Events of one process, then (its exit code, the end of what it wrote to standard error)."""
    errors = folder / "errors.log"
    theirs = {**inherited(os.environ), **environment}
    # Its standard input stays open as long as we live: when it closes, the process ends itself.
    with errors.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "intern.learning.train",
            str(folder),
            task,
            theirs["CUDA_VISIBLE_DEVICES"],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=theirs,
            limit=LINE_BYTES,
            preexec_fn=step_back,
            start_new_session=True,  # Ctrl-C on a terminal is for us; we end the process ourselves
        )
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                with suppress(ValidationError):  # a library that wrote past our pipe
                    yield Event.model_validate_json(line)
            code = await process.wait()
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGKILL)
                await process.wait()
    yield code, _tail(errors)


def step_back() -> None:
    """Whoever waits for an answer goes first: called in a process that has just begun, in a session of its own.

    Where Linux schedules sessions against each other (autogroup, sched(7)), nice says nothing across them; then the
    session itself steps back.
    """
    with suppress(OSError):
        os.nice(BEHIND)
    with suppress(OSError), AUTOGROUP.open("w") as group:
        group.write(str(BEHIND))


def _tail(path: Path, size: int = 2_000) -> str:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - size, 0))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else ""


def _ending(code: int, tail: str) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        kill = " (often: the machine ran out of memory)" if -code == signal.SIGKILL else ""
        return f"The training process was ended by {name}{kill}."
    return f"The training process ended with code {code}{': ' + tail if tail else ''}."
