"""`python -m intern.learning.train FOLDER [TASK [DEVICE]]`: carry out the job in FOLDER, telling events.

Ends with code 0 when `adapter/` is there (TASK `agree`: `agreement.jsonl`), and with 2 after a `failed` event.
It ends also when its standard input is closed: whoever started it is gone. Started again, it goes on from its last
checkpoint. Of one user's trainers on a machine one works at a time on the same device, whatever workspace they belong
to: two would need twice the memory, and neither would be done sooner. The others wait.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from intern.errors import InternError, InvalidInput, TrainingFailed
from intern.learning.train import job as jobs
from intern.learning.train.job import Event

_held: list[FileLock] = []


def main(folder: Path, task: str = "train", device: str = "") -> int:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print must not pass for events
    started = time.monotonic()

    def tell(event: Event) -> None:
        seconds = round(time.monotonic() - started, 3)
        print(event.model_copy(update={"seconds": seconds}).model_dump_json(exclude_defaults=True), file=out)

    try:
        waited = wait_for_turn(tell, turn(device))
        started = time.monotonic()  # waiting is no training
        if waited:
            tell(Event(kind="waited", text="it is this one's turn", numbers={"waited": round(waited, 2)}))
        job = jobs.read_job(folder)
        tell(Event(kind="loading", text="loading the training libraries and the base model"))
        if task == "agree":
            from intern.learning.train.agree import agree

            agree(folder, job)
            tell(Event(kind="done", text="compared"))
        else:
            from intern.learning.train.run import run

            run(folder, job, tell)
        return 0
    except InternError as error:
        final = isinstance(error, InvalidInput | TrainingFailed)  # of the job itself, which would fail so again
        tell(Event(kind="failed", text=error.message, numbers={"final": final}))
    except OSError as error:
        tell(Event(kind="failed", text=_disk(folder, str(error.strerror or error))))
    except MemoryError:
        tell(Event(kind="failed", text="The memory is full: use shorter rows or a smaller base model."))
    except Exception as error:
        import traceback

        traceback.print_exc()
        # safetensors and torch have errors of their own for a disk that refuses.
        refused = any(word in str(error) for word in ("os error", "I/O error", "file write failed"))
        text = f"{type(error).__name__}: {str(error)[:500]}"
        tell(Event(kind="failed", text=_disk(folder, text) if refused else text))
    return 2


def turn(device: str) -> FileLock:
    """Held by the trainer that works on the device (CUDA's name for it); the system frees it at any death."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    name = re.sub(r"\W+", "-", f"llama-intern-training-{user}-{device}")
    return FileLock(Path(tempfile.gettempdir()) / f"{name}.lock", mode=0o600)


def wait_for_turn(tell: Callable[[Event], None], lock: FileLock) -> float:
    """Wait until no other trainer works; returns the seconds of it. Goes on without a turn where there can be no
    lock."""
    waited = 0.0
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            began = time.monotonic()
            tell(Event(kind="waiting", text="another training goes on on this machine; this one waits for its end"))
            lock.acquire()
            waited = time.monotonic() - began
    except OSError:  # a folder for temporary files that takes none
        return waited
    _held.append(lock)  # a lock that nobody holds on to is freed
    return waited


def _disk(folder: Path, reason: str) -> str:
    free = shutil.disk_usage(folder).free // 1_000_000
    return f"The disk refused to write: {reason}; {free} MB are free. Make room, then start the run again."


def peak_memory() -> int:
    """The most memory this process held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _end_with_parent() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(3)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    code = main(Path(sys.argv[1]), *sys.argv[2:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # libraries' threads must not hold it up
