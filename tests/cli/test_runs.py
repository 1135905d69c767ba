"""`intern runs`, `intern datasets` and `intern skills ready`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cli.owning import Outcome, Owner, make_home
from cli.test_terminal import on_a_terminal
from made_learning import Script, script
from typer import Exit

from intern.cli import run as command
from intern.cli import runs as module
from intern.cli.connection import Api
from intern.cli.runs import _read, follow_to_end
from intern.engines.fake import FakeEngine
from intern.errors import EngineUnavailable, InternError, NotAuthenticated, TrainingFailed
from intern.settings import Settings
from intern.store import learning as store
from intern.types import Run, new_id, now
from intern.workspace import Workspace

Intern = Callable[..., Outcome]


@pytest.fixture
def learning(owner: Owner, tmp_path: Path) -> Script:
    return script(owner.workspace, tmp_path / "scratch")


def test_runs_are_listed_shown_and_cancelled(intern: Intern, learning: Script) -> None:
    first = intern("learn", "leave", "--detach").json["id"]
    assert intern("runs", "follow", first).code == 0
    learning.hold = True
    second = intern("learn", "rules", "--detach").json["id"]
    assert [row["id"] for row in intern("runs", "list").json["data"]] == [second, first]
    assert [row["id"] for row in intern("runs", "list", "--limit", "1").json["data"]] == [second]
    assert [row["id"] for row in intern("runs", "list", "--skill", "leave").json["data"]] == [first]
    assert [row["id"] for row in intern("runs", "list", "--state", "done").json["data"]] == [first]
    shown = intern("runs", "show", first).json
    assert (shown["state"], shown["adapter"], shown["serves"]) == ("done", "leave@v1", True)
    assert shown["verdict"]["ruling"]["decision"] == "promote"
    assert "<html" in intern("runs", "report", first).out
    assert intern("runs", "report", first, "--json").json["decision"] == "promote"
    assert intern("runs", "list", "--state", "odd").code == 2


def test_cancelling_ends_a_run_and_those_who_follow_it(intern: Intern, learning: Script) -> None:
    learning.hold = True
    run = intern("learn", "leave", "--detach").json["id"]
    while not learning.runs:
        intern("runs", "list")
    assert intern("runs", "cancel", run).json["state"] == "cancelled"
    followed = intern("runs", "follow", run)
    assert (followed.code, followed.err) == (1, f"intern: The run {run} was cancelled.\n")
    again = intern("runs", "cancel", run)
    assert (again.code, again.out) == (1, "")
    assert "ended already" in again.err


@pytest.mark.parametrize("what", ["show", "follow", "cancel", "resume", "report"])
def test_a_run_that_does_not_exist_is_said_so(intern: Intern, what: str) -> None:
    done = intern("runs", what, "run_none")
    assert (done.code, done.out) == (1, "")
    assert done.err == "intern: The run 'run_none' does not exist.\n"


def test_a_training_that_failed_says_how_it_goes_on_and_does(intern: Intern, learning: Script) -> None:
    learning.late = TrainingFailed("The disk is full.")
    failed = intern("learn", "leave", "--json")
    (listed,) = intern("runs", "list").json["data"]
    how = f"The disk is full. What it did is kept: intern runs resume {listed['id']}\n"
    assert (failed.code, failed.out, failed.err) == (1, "", f"intern: {how}")
    assert intern("runs", "follow", listed["id"]).err.endswith(how)
    learning.late = None
    done = intern("runs", "resume", listed["id"], "--json")
    assert (done.code, done.err) == (0, "")
    assert (done.json["verdict"], done.json["adapter"]) == ("promote", "leave@v1")
    again = intern("runs", "resume", listed["id"])
    assert (again.code, again.err) == (1, f"intern: The run {listed['id']} did not fail: it is done.\n")


def test_a_resumed_run_can_be_left_to_the_intern(intern: Intern, learning: Script, owner: Owner) -> None:
    learning.late = TrainingFailed("The disk is full.")
    assert intern("learn", "leave", "--json").code == 1
    learning.late = None
    run = intern("runs", "list").json["data"][0]["id"]
    assert "failed, resumable" in " ".join(on_a_terminal(owner, "runs", "list")[1].split())
    assert f"intern runs resume {run}" in on_a_terminal(owner, "runs", "show", run)[1].replace("\r\n", " ")
    left = intern("runs", "resume", run, "--detach")
    assert (left.code, left.json["id"], left.json["state"]) == (0, run, "queued")
    assert intern("runs", "follow", run).code == 0
    assert intern("runs", "show", run).json["decision"] == "promote"


def test_a_failed_run_that_is_cancelled_keeps_nothing(intern: Intern, learning: Script) -> None:
    learning.late = TrainingFailed("The disk is full.")
    assert intern("learn", "leave", "--json").code == 1
    run = intern("runs", "list").json["data"][0]["id"]
    assert intern("runs", "cancel", run).json["state"] == "cancelled"
    assert intern("runs", "resume", run).err == f"intern: The run {run} did not fail: it is cancelled.\n"
    assert "runs resume" not in intern("runs", "follow", run).err


def test_people_see_a_run_as_tables(owner: Owner, intern: Intern, learning: Script) -> None:
    assert intern("learn", "leave", "--json").code == 0
    run = intern("runs", "list").json["data"][0]["id"]
    for arguments in (["runs", "list"], ["runs", "show", run], ["datasets", "list"], ["adapters", "list"]):
        code, said = on_a_terminal(owner, *arguments)
        assert code == 0
        assert "leave" in said
        assert '"data"' not in said
    assert "Better: the new adapter" in on_a_terminal(owner, "runs", "show", run)[1]


def test_datasets_are_listed_and_shown_with_what_was_left_out(intern: Intern, learning: Script, owner: Owner) -> None:
    for _ in range(2):
        assert intern("learn", "leave", "--json").code == 0
    assert len(intern("datasets", "list").json["data"]) == 2
    (listed,) = intern("datasets", "list", "--skill", "leave", "--limit", "1").json["data"]
    assert (listed["train"], listed["heldout"], listed["reasons"]["duplicate"]) == (60, 40, 2)
    shown = intern("datasets", "show", listed["id"]).json
    assert (shown["adapters"], len(shown["dropped"])) == (["leave@v2"], 3)
    assert intern("datasets", "list", "--skill", "rules").json["data"] == []
    said = on_a_terminal(owner, "datasets", "show", listed["id"])[1]
    assert "outvoted by ex_4" in said


def test_a_skill_that_is_not_ready_says_what_is_missing(intern: Intern) -> None:
    done = intern("skills", "ready", "leave")
    assert done.code == 1
    assert done.json["missing"] == ["0 examples, 50 needed."]
    assert len(done.err.splitlines()) == 1
    assert "50 needed." in done.err
    assert intern("skills", "ready", "nobody").out == ""


# --- a server that comes and goes ------------------------------------------------------------------------------


class Flaky:
    """An API whose event streams break off as the test says."""

    private = False

    def __init__(self, *streams: Any) -> None:
        self.streams = list(streams)
        self.asked: list[int] = []

    def events(self, path: str, *, after: int) -> Iterator[dict[str, Any]]:
        self.asked.append(after)
        for event in self.streams.pop(0):
            if isinstance(event, Exception):
                raise event
            yield event

    def get(self, path: str) -> dict[str, Any]:
        return {"state": "done"}


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.0)


GONE = EngineUnavailable("gone")


class Left:
    """The API of a command's own server, where Ctrl-C comes while a run goes on."""

    private = True

    def __init__(self, **run: Any) -> None:
        self.run = {"id": "run_1", "skill": "leave", "recipe": {}, **run}

    def events(self, path: str, *, after: int) -> Iterator[dict[str, Any]]:
        raise KeyboardInterrupt

    def get(self, path: str) -> dict[str, Any]:
        return self.run


@pytest.mark.parametrize(
    ("run", "goes_on"),
    [
        ({"kind": "learn"}, "`intern up`, or `intern learn leave` again, goes on with it."),
        ({"kind": "evaluate"}, "`intern up`, or `intern eval leave` again, goes on with it."),
        ({"kind": "evaluate", "recipe": {"asked": True}}, "`intern up` goes on with it."),
        ({"kind": "synthesize"}, "`intern up`, or `intern examples write leave` again, goes on with it."),
    ],
    ids=["learn", "eval", "eval of a file", "write"],
)
def test_who_interrupts_a_command_hears_what_really_goes_on_with_its_run(
    run: dict[str, Any], goes_on: str, capsys: pytest.CaptureFixture[str]
) -> None:
    api: Any = Left(**run)
    with pytest.raises(Exit):
        follow_to_end(api, "run_1", quiet=True)
    assert capsys.readouterr().err == f"run_1 waits: {goes_on} Or end it: intern runs cancel run_1\n"


def test_a_stream_that_breaks_off_is_taken_up_where_it_was(at_once: None) -> None:
    api: Any = Flaky([{"id": 0}, {"id": 1}, GONE], [GONE], [{"kind": "answers"}, {"id": 2}, GONE], [{"id": 3}])
    seen: list[Any] = []
    assert _read(api, "run_1", seen.append)["state"] == "done"
    assert [event["id"] for event in seen if "id" in event] == [0, 1, 2, 3]
    assert api.asked == [-1, 1, 1, 2]


def test_a_server_that_stays_away_is_given_up(at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECONNECT_SECONDS", -1.0)
    api: Any = Flaky([{"id": 0}, GONE])
    with pytest.raises(EngineUnavailable, match="gone"):
        _read(api, "run_1", lambda event: None)


def test_a_server_with_another_key_says_how_to_go_on(at_once: None) -> None:
    api: Any = Flaky([{"id": 0}, GONE], [NotAuthenticated("no")])
    with pytest.raises(EngineUnavailable, match="intern runs follow run_1"):
        _read(api, "run_1", lambda event: None)
    unknown: Any = Flaky([NotAuthenticated("no")])
    with pytest.raises(NotAuthenticated):
        _read(unknown, "run_1", lambda event: None)


class Answers(BaseHTTPRequestHandler):
    """Answers every request with one event stream."""

    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[Callable[[str], Api]]:
    """Makes an API that answers with a text."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    api = Api(f"http://127.0.0.1:{server.server_address[1]}", "", local=True)

    def answer(text: str) -> Api:
        Answers.body = text.encode()
        return api

    yield answer
    api.close()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_that_stops_is_told_apart_from_what_fails(answering: Callable[[str], Api]) -> None:
    error = 'data: {"error": {"message": "so it is", "code": "%s"}}\n\n'
    for text in (error % "server_stopping", 'data: {"kind": "step"}\n\n', ""):
        with pytest.raises(EngineUnavailable):
            list(answering(text).events("/events"))
    with pytest.raises(InternError, match="so it is") as caught:
        list(answering(error % "internal_error").events("/events"))
    assert not isinstance(caught.value, EngineUnavailable)
    whole = ': nothing new\n\nid: 3\ndata: {"id": 3}\n\ndata: [DONE]\n\n'
    assert list(answering(whole).events("/events")) == [{"id": 3}]


def test_a_run_that_nobody_carries_out_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = make_home(tmp_path / "home")
    run = Run(id=new_id("run"), team="default", skill="leave", state="queued", created=now())
    left(home, run)
    assert command(["runs", "follow", run.id, "--home", str(home)]) == 1
    assert "Start: intern up" in capsys.readouterr().err


def left(home: Path, run: Run) -> None:
    """What a process that ended left in the store."""
    workspace = Workspace(Settings(home=home), engine=FakeEngine())
    with workspace.database.begin() as connection:
        store.save_run(connection, run)
    asyncio.run(workspace.close())
