"""`intern up` as a process: what it says when it is ready, and how it ends."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest
from cli.owning import make_home

from intern.cli.serving import GRACE_SECONDS, bind
from intern.cli.up import curl_command
from intern.errors import Conflict
from intern.ownership import is_owned, read_owner
from intern.skill import write_skill


class Process:
    """A command line of its own, on a workspace."""

    def __init__(self, *arguments: str, home: Path, **settings: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("INTERN_")}
        environment |= {"INTERN_HOME": str(home), "HF_HUB_OFFLINE": "1", **settings}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "intern.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.process.stderr is not None
        assert self.process.stdout is not None
        self.errors: list[str] = []
        self._reader = threading.Thread(target=self.errors.extend, args=(self.process.stderr,))
        self._reader.start()
        self.out = self.process.stdout

    def lines_until(self, beginning: str) -> list[str]:
        lines: list[str] = []
        for line in self.out:
            lines.append(line.rstrip("\n"))
            if line.startswith(beginning):
                return lines
        raise AssertionError(f"ended without '{beginning}': {lines} {self.errors}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(60)
        self._reader.join(10)
        self.out.close()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@dataclass
class Running:
    home: Path
    process: Process
    url: str

    @property
    def token(self) -> str:
        owner = read_owner(self.home / "data")
        assert owner is not None
        assert owner.url == self.url
        return owner.token


@contextmanager
def running_at(home: Path, **settings: str) -> Iterator[Running]:
    process = Process("up", "--port", "0", "--json", home=home, **settings)
    ready = json.loads(process.lines_until('{"url"')[-1])
    yield Running(home, process, ready["url"])
    if process.process.poll() is None:
        process.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[Path, list[str]]:
    """A workspace that was up once, and the lines of that start. The prepared embedder is kept for the next run."""
    home = make_home(tmp_path_factory.mktemp("up") / "home")
    kept = request.config.cache.mkdir("embedder")
    copy_of(kept, home / "data" / "cache")
    process = Process("up", "--port", "0", home=home)
    lines = process.lines_until("Try it: ")
    assert process.stop() == 0
    copy_of(home / "data" / "cache", kept)
    return home, lines


def copy_of(folder: Path, to: Path) -> Path:
    """A copy for another test, without preparing the embedder again."""
    shutil.copytree(folder, to, copy_function=_copy, dirs_exist_ok=True)
    return to


def _copy(one: str, other: str) -> None:
    if not one.endswith(".onnx"):
        shutil.copy2(one, other)
    elif not os.path.exists(other):
        try:
            os.link(one, other)
        except OSError:  # another file system
            shutil.copy2(one, other)


@pytest.fixture
def home(started: tuple[Path, list[str]], tmp_path: Path) -> Path:
    return copy_of(started[0], tmp_path / "home")


@pytest.fixture(scope="module")
def running(started: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_at(copy_of(started[0], tmp_path_factory.mktemp("running") / "home")) as found:
        yield found


def test_the_last_lines_have_address_key_and_a_command_that_works_when_pasted(
    started: tuple[Path, list[str]], running: Running
) -> None:
    address, key, curl = started[1][-3:]
    secret = key.rpartition(" ")[2]
    assert address.startswith("LLaMA Intern is ready at http://127.0.0.1:")
    assert key.startswith("Admin key, shown this once: sk-intern-")
    words = shlex.split(curl.removeprefix("Try it: "))
    assert words[0] == "curl"
    assert f"Authorization: Bearer {secret}" in words
    body = json.loads(words[words.index("-d") + 1])
    answer = httpx2.post(
        f"{running.url}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {secret}"}, timeout=60
    )
    assert answer.status_code == 200
    assert answer.json()["intern"]["skill"] == "leave"


def test_a_later_start_tells_where_the_key_is_and_shows_none(home: Path) -> None:
    process = Process("up", "--port", "0", home=home)
    lines = process.lines_until("Try it: ")
    assert "intern keys create" in lines[-2]
    assert '"Authorization: Bearer $INTERN_API_KEY"' in lines[-1]
    assert "sk-intern-" not in "".join(lines)
    assert process.stop(signal.SIGINT) == 0
    assert not is_owned(home / "data")


def test_a_second_start_is_refused_and_names_the_owner(running: Running) -> None:
    second = Process("up", "--port", "0", home=running.home)
    assert second.wait() == 1
    said = second.errors[-1]
    assert running.url in said
    assert str(running.process.process.pid) in said


def test_a_port_that_is_taken_is_refused_at_once_and_frees_the_workspace(home: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        process = Process("up", "--port", str(port), home=home)
        assert process.wait() == 1
    assert f"Port {port} on 127.0.0.1 is taken" in process.errors[-1]
    assert not is_owned(home / "data")


def test_commands_work_through_the_owner(running: Running) -> None:
    assert running.token
    other = Process("skills", "list", home=running.home)
    lines = list(other.out)
    assert other.wait() == 0
    assert [skill["name"] for skill in json.loads("".join(lines))["data"]] == ["leave", "rules"]


class Endless(BaseHTTPRequestHandler):
    """An engine's server whose answer has a first word and no end."""

    def do_GET(self) -> None:
        self._begin("application/json")
        self.wfile.write(b'{"object": "list", "data": [{"id": "endless", "object": "model"}]}')

    def do_POST(self) -> None:
        self._begin("text/event-stream")
        delta = {"index": 0, "delta": {"role": "assistant", "content": "Once"}, "finish_reason": None}
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "endless", "choices": [delta]}
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.flush()
        self.rfile.read()  # until the other side leaves

    def _begin(self, kind: str) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-type", kind)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def endless() -> Iterator[dict[str, str]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        yield {"INTERN_ENGINE": "openai", "INTERN_ENGINE_URL": url, "INTERN_ENGINE_MODEL": "endless"}
        server.shutdown()


def test_it_stops_within_seconds_while_a_stream_is_open(home: Path, endless: dict[str, str]) -> None:
    body = {"model": "intern/leave-notes", "messages": [{"role": "user", "content": "Tell me more."}], "stream": True}
    write_skill(home / "skills", "leave-notes", {"title": "T", "description": "D", "instructions": "I"})
    with (
        running_at(home, **endless) as found,
        httpx2.Client(headers={"authorization": f"Bearer {found.token}"}, timeout=60) as client,
        client.stream("POST", f"{found.url}/v1/chat/completions", json=body) as response,
    ):
        assert response.status_code == 200
        lines = response.iter_lines()  # kept, since the stream is closed with it
        assert next(lines).startswith("data:")
        began = time.monotonic()
        assert found.process.stop() == 0
        assert GRACE_SECONDS - 1 < time.monotonic() - began < 10
    assert not is_owned(home / "data")


def test_a_port_is_held_before_models_are_loaded() -> None:
    with bind("127.0.0.1", 0) as listener, pytest.raises(Conflict, match="is taken"):
        bind("127.0.0.1", listener.getsockname()[1])


def test_a_command_without_an_owner_opens_the_workspace_and_leaves_it(home: Path) -> None:
    both = [Process("keys", "create", name, home=home) for name in ("one", "two")]
    made = [json.loads(process.out.read()) for process in both]
    assert [process.wait() for process in both] == [0, 0]
    assert {key["name"] for key in made} == {"one", "two"}
    assert not is_owned(home / "data")
    assert read_owner(home / "data") is None


def test_the_pasteable_command_survives_quotes() -> None:
    words = shlex.split(curl_command("http://x", "sk-1", 'it\'s "quoted" $HOME'))
    assert json.loads(words[-1])["messages"][0]["content"] == 'it\'s "quoted" $HOME'
    assert "Authorization: Bearer sk-1" in words
