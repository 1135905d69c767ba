"""A module of this package run as a program of its own: in a clean environment, talked to through two pipes.

Whatever it is fed, it cannot touch this process; who starts it limits its time, and itself limits the rest: once it has
loaded what it needs, it lets `forbid` watch over what it does.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess

_ROOT = Path(__file__).resolve().parents[1]
_FORBIDDEN = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "os.startfile",
              "os.kill", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod",
              "os.chown", "os.setxattr", "os.truncate", "os.utime", "shutil.", "sqlite3.", "urllib.", "ftplib.",
              "smtplib.", "imaplib.", "webbrowser.")  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def start(module: str, *, encoding: str | None = None) -> subprocess.Popen[Any]:
    """`python -m module` with pipes for input and output: of bytes, or of text in `encoding`. Raises OSError."""
    import subprocess  # the program that is started needs none of it, and loads this module too

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


def forbid(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: no network, no processes, no writing. A second fence, for libraries that act in good faith."""
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        writes = isinstance(mode, str) and any(letter in mode for letter in "wax+")
        if writes or (isinstance(flags, int) and flags & _WRITING):
            raise PermissionError("this process may not write files")
    elif event.startswith(_FORBIDDEN):
        raise PermissionError(f"this process may not use {event}")
