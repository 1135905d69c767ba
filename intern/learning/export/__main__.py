"""`python -m intern.learning.export FOLDER`: carry out the job in FOLDER, telling events.

Ends with code 0 after `done`, whose numbers are the `Agreement`, and with 2 after `failed`, whose numbers name the kind
of error. It ends also when its standard input is closed: whoever started it is gone.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sys
import threading
import traceback
from pathlib import Path

from intern.errors import InternError, StoreFailure
from intern.learning.export.formats import JOB, ExportJob
from intern.learning.export.work import carry_out
from intern.learning.train.job import Event


def main(folder: Path) -> int:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print must not pass for events

    def tell(event: Event) -> None:
        print(event.model_dump_json(exclude_defaults=True), file=out)

    def failed(code: str, text: str) -> int:
        tell(Event(kind="failed", text=text, numbers={"code": code}))
        return 2

    try:
        job = ExportJob.model_validate_json((folder / JOB).read_text(encoding="utf-8"))
        agreement = asyncio.run(carry_out(folder, job, tell))
    except InternError as error:
        return failed(error.code, error.message)
    except OSError as error:
        free = shutil.disk_usage(folder).free // 1_000_000
        full = f"; {free} MB are free" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        return failed(StoreFailure.code, f"The disk refused: {error.strerror or error}{full}.")
    except MemoryError:
        return failed(InternError.code, "The memory is full. Close other programs, or export on a larger machine.")
    except Exception as error:
        traceback.print_exc()
        return failed(InternError.code, f"{type(error).__name__}: {str(error)[:500]}")
    tell(Event(kind="done", text="the export keeps what was learned", numbers=agreement.model_dump(mode="json")))
    return 0


def _end_with_parent() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(3)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    code = main(Path(sys.argv[1]))
    sys.stderr.flush()
    os._exit(code)  # libraries' threads must not hold it up
