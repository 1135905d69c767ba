"""Fixtures: a workspace that is owned, and a way to run a command line on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli.owning import Outcome, Owner, make_home, owning

from intern.cli import run


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    with owning(make_home(tmp_path / "home")) as found:
        yield found


@pytest.fixture
def intern(owner: Owner, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command line on the owned workspace, in this process."""

    def call(*arguments: str) -> Outcome:
        code = run([*arguments, "--home", str(owner.home)])
        seen = capsys.readouterr()
        return Outcome(code, seen.out, seen.err)

    return call
