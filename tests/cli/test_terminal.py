"""The command line as a program between pipes and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from typing import Any

import pytest
from cli.owning import Owner


def start(owner: Owner, *arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "INTERN_HOME": str(owner.home), "TERM": "xterm", "COLUMNS": "200"}
    command = [sys.executable, "-m", "intern.cli", *arguments]
    # Where the tests themselves run in the background, SIGINT is ignored, and children inherit that.
    return subprocess.Popen(command, env=environment, preexec_fn=_heed_interrupts, **streams)


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def on_a_terminal(owner: Owner, *arguments: str) -> tuple[int, str]:
    ours, theirs = pty.openpty()
    process = start(owner, *arguments, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 4096):
            said += piece
    except OSError:  # the other side is closed
        pass
    os.close(ours)
    return process.wait(30), said.decode()


def test_an_answer_is_shown_as_text_with_skill_and_record(owner: Owner) -> None:
    code, said = on_a_terminal(owner, "ask", "what do the rules say")
    assert code == 0
    assert "The rules say: be kind." in said
    assert "rules" in said.splitlines()[-1] or "rec_" in said
    assert '"output"' not in said


def test_an_answer_cannot_steer_the_terminal(owner: Owner) -> None:
    owner.engine.replies[:] = ["clear \x1b[2J screen \x1b]0;title\x07 done"]
    _, said = on_a_terminal(owner, "ask", "what do the rules say", "--skill", "rules")
    assert "done" in said
    assert "\x1b[2J" not in said
    assert "\x1b]0;" not in said


def test_an_answer_that_breaks_its_schema_in_mid_stream_fails(owner: Owner) -> None:
    code, said = on_a_terminal(owner, "ask", "break my leave", "--skill", "leave")
    assert code == 1
    assert "intern: " in said.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments", [["skills", "list"], ["keys", "list"], ["doctor"], ["route", "i want leave in may"]]
)
def test_people_see_tables_and_programs_json(owner: Owner, arguments: list[str]) -> None:
    code, said = on_a_terminal(owner, *arguments)
    assert code == 0
    with pytest.raises(json.JSONDecodeError):
        json.loads(said)
    code, said = on_a_terminal(owner, *arguments, "--json")
    assert code == 0
    json.loads(said)


def test_a_row_is_answered_before_the_next_one_is_there(owner: Owner) -> None:
    process = start(owner, "route", "--file", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    for text, skill in (("what do the rules say", "rules"), ("i want leave in may", "leave")):
        process.stdin.write(json.dumps({"input": text}).encode() + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["skill"] == skill
    process.stdin.close()
    assert process.stdout.read() == b""
    process.stdout.close()
    assert process.wait(30) == 0


def test_an_interrupt_ends_it_while_it_waits_for_rows(owner: Owner) -> None:
    process = start(
        owner, "route", "--file", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b'{"input": "what do the rules say"}\n')
    process.stdin.flush()
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) not in (0, -signal.SIGABRT)
    _, errors = process.communicate()
    assert b"Traceback" not in errors
    assert b"Fatal" not in errors


def test_a_reader_that_leaves_is_no_error_worth_a_traceback(owner: Owner) -> None:
    process = start(
        owner, "route", "--file", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stdin.write(b'{"input": "what do the rules say"}\n' * 3)
    process.stdin.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 1
    assert b"Traceback" not in errors


def test_text_json_and_documents_come_from_standard_input(owner: Owner) -> None:
    def piped(text: str, *arguments: str) -> Any:
        process = start(owner, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        out, _ = process.communicate(text.encode())
        assert process.returncode == 0
        return json.loads(out)

    assert piped("what do the rules say\n", "route", "-")["input"] == "what do the rules say"
    assert piped("i want leave in may\n", "ask", "-")["output"] == {"kind": "paid"}
    brought = piped("# Rules\n\nThe rules for parking.\n", "ingest", "rules", "-", "--name", "parking.md")
    assert brought["added"] == 1
    assert piped("rules for parking", "retrieve", "rules", "-")["passages"][0]["document"] == "parking.md"
    examples = '{"input": "one day", "output": {"kind": "unpaid"}}\n'
    assert piped(examples, "examples", "import", "leave", "-")["added"] == 1
    spec = {"name": "new", "title": "T", "description": "D", "instructions": "I"}
    assert piped(json.dumps(spec), "skills", "new", "--file", "-")["name"] == "new"
