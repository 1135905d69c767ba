"""Programs apart from this process: what they may not do, and what watching over them costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from intern.apart import forbid

ROOT = Path(__file__).parents[1]


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "act",
    [
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "open('/tmp/never-written', 'w')",
        "import os; os.open('/tmp/never-written', os.O_CREAT | os.O_WRONLY)",
        "import os; os.open('/tmp/never-written', os.O_TRUNC)",
        "import os; os.remove('/tmp/never-written')",
        "import os; os.chown(os.devnull, -1, -1)",
        "import os; os.kill(os.getpid(), 0)",
        "import sqlite3; sqlite3.connect('/tmp/never-written')",
    ],
)
def test_what_is_watched_uses_no_network_no_process_and_no_writing(act: str) -> None:
    done = run(f"import sys\nfrom intern.apart import forbid\nsys.addaudithook(forbid)\n{act}")
    assert "PermissionError: this process may not" in done.stderr


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("socket.connect", ()),
        ("subprocess.Popen", ()),
        ("os.symlink", ()),
        ("open", ("x", "w", 0)),
        ("open", ("x", "", 1)),
    ],
)
def test_reading_is_all_that_it_may(event: str, arguments: tuple[Any, ...]) -> None:
    forbid("open", ("a list of words", "r", 0))
    with pytest.raises(PermissionError, match="may not"):
        forbid(event, arguments)


def test_what_is_started_does_not_load_what_starts_it() -> None:
    assert run("import sys, intern.apart; print('subprocess' in sys.modules)").stdout.strip() == "False"
