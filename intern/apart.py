"""A module of this package run as a program of its own: in a clean environment, talked to through two pipes.

Whatever it is fed, it cannot touch this process; who starts it limits its time, and itself limits the rest.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]


def start(module: str, *, encoding: str | None = None) -> subprocess.Popen[Any]:
    """`python -m module` with pipes for input and output: of bytes, or of text in `encoding`. Raises OSError."""
    environment = {"PYTHONPATH": str(_ROOT), "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    if os.name == "nt":  # without it, Windows cannot load the libraries of its own runtime
        shell = os.environ.get("COMSPEC", "C:\\Windows\\System32\\x")
        environment["SYSTEMROOT"] = os.path.dirname(shell).rpartition("\\")[0]
    return subprocess.Popen(
        [sys.executable, "-P", "-s", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=os.path.abspath(os.sep),
        env=environment,
        encoding=encoding,
        start_new_session=True,
        close_fds=True,
    )


def end(process: subprocess.Popen[Any]) -> None:
    """Kill it, if it still runs, and close its pipes."""
    process.kill()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # unsent bytes of a dead process
            if pipe is not None:
                pipe.close()
    process.wait()
