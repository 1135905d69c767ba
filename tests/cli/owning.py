"""A workspace that a process owns, the way `intern up` would, with a scripted engine and a quick embedder."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from intern.cli.serving import EdgeServer, address, bind, serve
from intern.engines.base import EngineRequest
from intern.engines.fake import FakeEngine
from intern.models.fake import HashEmbedder
from intern.settings import Settings
from intern.skill import write_skill
from intern.workspace import Workspace

KIND = {
    "type": "object",
    "properties": {"kind": {"type": "string", "enum": ["paid", "unpaid"]}},
    "required": ["kind"],
    "additionalProperties": False,
}


def make_home(home: Path) -> Path:
    """A workspace with a skill that answers in JSON, and one that answers in text from documents."""
    leave = ["please give me a day of leave", "leave on friday please", "i want leave in may", "a week of leave please"]
    write_skill(
        home / "skills",
        "leave",
        {"title": "Leave", "description": "Reads leave requests.", "instructions": "LEAVE"},
        schema=KIND,
        utterances=leave,
    )
    rules = ["which rules hold for travel", "what do the rules say", "rules about laptops", "where are the rules"]
    write_skill(
        home / "skills",
        "rules",
        {
            "title": "Rules",
            "description": "Answers questions about rules.",
            "instructions": "RULES",
            "retrieval": {"enabled": True},
        },
        utterances=rules,
    )
    return home


def reply(request: EngineRequest) -> str:
    if any("break" in message.content for message in request.messages):
        return "this is no JSON"
    return '{"kind": "paid"}' if request.messages[0].content.startswith("LEAVE") else "The rules say: be kind."


class Owner:
    """The running server of one workspace."""

    def __init__(self, home: Path, workspace: Workspace, engine: FakeEngine, url: str) -> None:
        self.home = home
        self.workspace = workspace
        self.engine = engine
        self.url = url


@contextmanager
def owning(home: Path, **settings: Any) -> Iterator[Owner]:
    engine = FakeEngine([reply])
    workspace = Workspace(Settings(home=home, **settings), engine=engine, embedder=HashEmbedder())
    listener = bind("127.0.0.1", 0)
    url = address(listener)
    servers: list[EdgeServer] = []
    up = threading.Event()

    def ready() -> None:
        workspace.ownership.announce(url)
        up.set()

    thread = threading.Thread(
        target=lambda: asyncio.run(serve(workspace, listener, ready, warm=False, servers=servers))
    )
    thread.start()
    try:
        assert up.wait(30)
        yield Owner(home, workspace, engine, url)
    finally:
        servers[0].should_exit = True
        thread.join(30)


class Outcome:
    """Exit code and what was said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def rows(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]
