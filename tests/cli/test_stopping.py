"""A server that is stopped while it answers tells every client, and leaves nothing running under the parts."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cli.owning import make_home

from intern.cli.serving import EdgeServer, address, bind, serve
from intern.engines.base import EngineRequest, Token
from intern.engines.fake import FakeEngine
from intern.models.fake import HashEmbedder
from intern.ownership import is_owned
from intern.settings import Settings
from intern.store import records
from intern.store.engine import open_database
from intern.workspace import Workspace

PATIENCE = 20.0
SLOTS, WAITING = 2, 3


class Endless(FakeEngine):
    """Says one word, and then nothing more until it is closed."""

    async def generate(self, request: EngineRequest) -> AsyncGenerator[Token, None]:
        entered = await self.turns.enter()
        try:
            yield Token(text="one")
            await asyncio.Event().wait()
        finally:
            self.turns.leave(entered)


@dataclass
class Seen:
    """What a server that stopped with a stream, an answer and several waiting requests on their way left behind."""

    answers: list[httpx2.Response]
    stream: list[str]
    load: tuple[int, int]
    errors: list[str | None]


def stopped(home: Path, *, at_once: bool) -> Seen:
    engine = Endless(slots=SLOTS)
    workspace = Workspace(Settings(home=make_home(home)), engine=engine, embedder=HashEmbedder())
    listener = bind("127.0.0.1", 0)
    headers = {"authorization": f"Bearer {workspace.ownership.token}"}
    stream: list[str] = []
    begun = threading.Event()

    def read(client: httpx2.Client, body: dict[str, Any]) -> None:
        with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as response:
            for line in response.iter_lines():
                if line.startswith("data:"):
                    stream.append(line.removeprefix("data:").strip())
                    begun.set()

    async def run(client: httpx2.Client, clients: ThreadPoolExecutor) -> list[httpx2.Response]:
        servers: list[EdgeServer] = []
        up = asyncio.Event()
        serving = asyncio.ensure_future(serve(workspace, listener, up.set, warm=True, servers=servers))
        await up.wait()
        servers[0].config.timeout_graceful_shutdown = 1
        loop = asyncio.get_running_loop()
        body = {"model": "intern/leave", "messages": [{"role": "user", "content": "a day of leave please"}]}
        reading = loop.run_in_executor(clients, read, client, {**body, "model": "intern/rules"})
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        asking = [
            loop.run_in_executor(clients, lambda: client.post("/v1/chat/completions", json=body))
            for _ in range(SLOTS - 1 + WAITING)
        ]
        while engine.load != (SLOTS, WAITING):  # noqa: ASYNC110 - the engine tells nobody
            await asyncio.sleep(0.01)
        servers[0].should_exit, servers[0].force_exit = True, at_once
        async with asyncio.timeout(PATIENCE):
            await serving
        assert not is_owned(workspace.settings.data)
        assert not [task for task in asyncio.all_tasks() if "RequestResponseCycle" in repr(task)]
        await reading
        return list(await asyncio.gather(*asking))

    with (
        httpx2.Client(base_url=address(listener), headers=headers, timeout=PATIENCE) as client,
        ThreadPoolExecutor(1 + SLOTS + WAITING) as clients,
    ):
        answers = asyncio.run(run(client, clients))
    database = open_database(f"sqlite:///{home / 'data' / 'intern.db'}")
    with database.connect() as connection:
        errors = [record.error for record in records.list_records(connection, "default")]
    database.dispose()
    return Seen(answers, stream, engine.load, errors)


@pytest.mark.parametrize("at_once", [False, True], ids=["after the grace", "at a second signal"])
def test_whoever_waits_is_told_that_the_server_stops(tmp_path: Path, at_once: bool) -> None:
    seen = stopped(tmp_path / "home", at_once=at_once)
    assert [answer.status_code for answer in seen.answers] == [503] * len(seen.answers)
    for answer in seen.answers:
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
        assert answer.json()["error"]["code"] == "server_stopping"
        assert answer.headers["x-intern-request-id"].startswith("req_")
        assert answer.headers["retry-after"] == "1"
    assert json.loads(seen.stream[-1])["error"]["code"] == "server_stopping"
    assert seen.load == (0, 0)
    assert len(seen.errors) == 1 + len(seen.answers)
    assert all(error is not None and error.startswith("cancelled") for error in seen.errors)


def test_a_command_that_is_told_to_end_closes_what_it_has_open() -> None:
    """As at Ctrl-C: a training that it carries out is put down, and goes on later."""
    program = """
import signal
from intern import cli
def waiting(arguments):
    try:
        print("waits", flush=True)
        signal.pause()
    finally:
        print("closed", flush=True)
cli.run = waiting
cli.main()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "waits\n"
        process.terminate()
        assert process.wait(PATIENCE) == 143
        assert (process.stdout.read(), process.stderr.read()) == ("closed\n", "")
