"""Runs an export in a process of its own: writes its folder, streams its events, ends it.

In: an `ExportJob`, prompts, a folder. Out: events as they come; after the last one, `done`, the folder has the export.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from intern.errors import AdapterRefused, InternError, ModelUnavailable, StoreFailure
from intern.learning.export.formats import JOB, PROMPTS, ExportJob, Prompt
from intern.learning.train.job import LINE_BYTES, Event, write_lines
from intern.learning.train.process import inherited, step_back

_ERRORS = "errors.log"
_PREFIX = re.compile(r"^adapter [^:]+: ")  # how AdapterRefused begins


def prepare(folder: Path, job: ExportJob, prompts: Sequence[Prompt]) -> None:
    """Write the folder of a job. Raises OSError."""
    folder.mkdir(parents=True)
    write_lines(folder / PROMPTS, prompts)
    (folder / JOB).write_text(job.model_dump_json(indent=1), encoding="utf-8")


async def run(folder: Path, job: ExportJob) -> AsyncGenerator[Event, None]:
    """Carry out the job in `folder`; the last event is `done`. Closing the generator ends the process.

    Raises AdapterRefused when the export does not keep what was learned, ModelUnavailable, StoreFailure, and
    InternError with whatever else the process died of.
    """
    errors = folder / _ERRORS
    with errors.open("wb") as log:
        # Its standard input stays open as long as we live: when it closes, the process ends itself.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "intern.learning.export",
            str(folder),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            limit=LINE_BYTES,
            env=inherited(os.environ),
            preexec_fn=step_back,
        )
        assert process.stdout is not None
        done = False
        try:
            async for line in process.stdout:
                with suppress(ValidationError):  # a library that wrote past our pipe
                    event = Event.model_validate_json(line)
                    if event.kind == "failed":
                        raise _error(event, job.name)
                    done = event.kind == "done"
                    yield event
            code = await process.wait()
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
    if not done:
        raise InternError(_ending(code, errors))


def _error(event: Event, name: str) -> InternError:
    """What the process says that went wrong, as the error that it raised there."""
    code = event.numbers.get("code")
    if code == AdapterRefused.code:
        return AdapterRefused(_PREFIX.sub("", event.text), adapter=name)
    return next((kind for kind in (ModelUnavailable, StoreFailure) if kind.code == code), InternError)(event.text)


def _ending(code: int, errors: Path) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        kill = " (often: the machine ran out of memory)" if -code == signal.SIGKILL else ""
        return f"The export's process was ended by {name}{kill}."
    lines = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"The export's process ended with code {code}{': ' + lines[-1][:300] if lines else ''}."
