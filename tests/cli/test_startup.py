"""The command line answers at once, teaches, and keeps its exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from intern.cli import run

HEAVY = (
    "torch",
    "chromadb",
    "sqlalchemy",
    "fastapi",
    "uvicorn",
    "numpy",
    "pydantic",
    "transformers",
    "httpx2",
    "server",
)
COMMANDS = [
    ["init"],
    ["up"],
    ["serve"],
    ["doctor"],
    ["ask"],
    ["route"],
    ["retrieve"],
    ["ingest"],
    ["skills", "list"],
    ["skills", "new"],
    ["skills", "check"],
    ["skills", "ready"],
    ["examples", "import"],
    ["examples", "write"],
    ["learn"],
    ["eval"],
    *(["runs", name] for name in ("list", "show", "compare", "follow", "cancel", "report")),
    *(["adapters", name] for name in ("list", "promote", "rollback", "verify", "export")),
    *(["datasets", name] for name in ("list", "show")),
    ["keys", "create"],
    ["keys", "list"],
    ["keys", "revoke"],
]


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom intern.cli import run\nassert run(['--help']) == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "Usage: intern" in done.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_shows_how_it_is_used(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Usage: intern {' '.join(command)}" in shown
    assert shown.count(f"intern {' '.join(command)}") >= 2, "no example"
    assert "--json" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["ask"],
        ["ask", "a text", "--file", "rows.jsonl"],
        ["route", "--nonsense"],
        ["retrieve"],
        ["ingest"],
        ["ingest", "a-skill"],
        ["ingest", "a-skill", "--rebuild"],
        ["keys", "create", "ada", "--role", "king"],
        ["ask", "--file", "rows.jsonl", "--parallel", "0"],
        ["skills", "new", "--title", "no name, and no terminal to ask on"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    assert "Error" in seen.err


@pytest.mark.parametrize("command", [["doctor"], ["up"], ["ask", "hello"], ["skills", "check"]], ids=" ".join)
def test_a_folder_without_skills_is_said_to_be_no_workspace(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, "--home", str(tmp_path)]) == 1
    seen = capsys.readouterr()
    assert "no skills folder" in seen.err
    assert "intern init" in seen.err
    if command != ["up"]:
        assert len(seen.err.splitlines()) == 1
    assert not (tmp_path / "data").exists()


def test_a_bad_setting_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INTERN_PORT", "eighty")
    assert run(["skills", "list", "--home", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("intern: INTERN_PORT: ")


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "intern.cli", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip()
