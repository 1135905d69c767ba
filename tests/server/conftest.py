"""A real server on a free loopback port, once a session, on a workspace of small skills and scripted parts.

What is scripted: the engine (each test says what it answers), the router (by common words, so that a test can know the
route) and the embedder (hashed words). The rest is the platform: SQL, index, parsers, pipeline, uvicorn.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import uvicorn
from fastapi import FastAPI

from intern.engines.base import EngineRequest, Token
from intern.engines.fake import FakeEngine, Reply
from intern.errors import InternError
from intern.knowledge import ExactIndex, Knowledge
from intern.knowledge.parse import Parser
from intern.models.fake import HashEmbedder
from intern.routing.router import SkillTexts
from intern.settings import Settings
from intern.skill import write_skill
from intern.store import keys
from intern.types import Candidate, Route
from intern.workspace import Workspace
from server.app import create_app
from server.tracing import Tracing

MOOD = {
    "type": "object",
    "properties": {"mood": {"enum": ["good", "bad"]}},
    "required": ["mood"],
    "additionalProperties": False,
}
SOURCED = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "sources": {"type": "array", "items": {"type": "string"}}},
    "required": ["answer", "sources"],
    "additionalProperties": False,
}
BODY_BYTES = 100_000
UPLOAD_BYTES = 200_000


class WordRouter:
    """Routes to the skill whose texts share the most words with a request, and abstains when none does."""

    def __init__(self) -> None:
        self.texts: dict[str, dict[str, set[str]]] = {}
        self.fits = 0

    def fit(self, team: str, skills: Sequence[SkillTexts], **_: Any) -> None:
        self.fits += 1
        self.texts[team] = {s.skill: set(" ".join((s.title, *s.utterances)).lower().split()) for s in skills}

    def learn(self, team: str, text: str, *, skill: str | None, not_skill: str | None = None) -> None:
        if skill is not None:
            self.texts[team][skill] |= set(text.lower().split())

    def learned(self, team: str) -> int:
        return 0

    def embed(self, text: str) -> Any:
        return HashEmbedder().embed([text])[0]

    def skills(self, team: str) -> tuple[str, ...]:
        return tuple(self.texts.get(team, ()))

    def route(self, team: str, text: str, *, vector: Any = None, among: Any = None) -> Route:
        words = set(text.lower().split())
        allowed = {skill: known for skill, known in self.texts[team].items() if among is None or skill in among}
        shared = {skill: len(words & known) / len(words) for skill, known in allowed.items()}
        ranked = sorted(shared.items(), key=lambda pair: (-pair[1], pair[0]))
        candidates = tuple(Candidate(skill=skill, score=score) for skill, score in ranked)
        if not ranked or ranked[0][1] == 0:
            return Route(skill=None, confidence=0.1, candidates=candidates, reason="No word is known.")
        return Route(skill=ranked[0][0], confidence=0.9, candidates=candidates, reason="Words in common.")


class SmallWorkspace(Workspace):
    """A workspace with a router that tests can foresee, and an index that costs nothing to open."""

    @cached_property
    def router(self) -> WordRouter:  # type: ignore[override]
        return WordRouter()

    @cached_property
    def knowledge(self) -> Knowledge:
        settings = self.settings
        parser = Parser(
            seconds=settings.parse_seconds,
            memory_bytes=settings.parse_bytes,
            pages=settings.upload_pages,
            file_bytes=settings.upload_bytes,
            inflated_bytes=settings.inflated_bytes,
        )
        return Knowledge(self.database, self.embedder, parser, ExactIndex())


def write_skills(home: Path) -> None:
    about = {"description": "D.", "instructions": "Do it."}
    mood = {"input": "what a lovely day", "output": {"mood": "good"}, "split": "heldout"}
    write_skill(home / "skills", "mood", {"title": "Moods", **about}, schema=MOOD, examples=[mood])
    write_skill(home / "skills", "chat", {"title": "Talk", **about}, utterances=["hello there", "please chat with me"])
    grounded = {"title": "Answers", **about, "retrieval": {"enabled": True, "citations": "sources"}}
    skill = write_skill(home / "skills", "docs", grounded, schema=SOURCED, utterances=["how many days of leave"])
    skill.docs.mkdir()
    (skill.docs / "leave.md").write_text("# Leave\n\nEverybody has thirty days of leave a year.\n")
    write_skill(home / "teams" / "blue" / "skills", "secret", {"title": "Blue", **about}, utterances=["blue things"])
    write_skill(home / "teams" / "blue" / "skills", "chat", {"title": "Blue talk", **about}, utterances=["hello blue"])


@dataclass
class Server:
    """A running server, and what a test needs to reach it. Keys: admin, user (both of the default team), blue."""

    url: str
    app: FastAPI
    workspace: SmallWorkspace
    loop: asyncio.AbstractEventLoop
    keys: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    clients: dict[str | None, httpx2.Client] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)  # of the event loop: exceptions that nobody retrieved

    @property
    def engine(self) -> FakeEngine:
        engine = self.workspace.engine
        assert isinstance(engine, FakeEngine)
        return engine

    def says(self, *replies: Reply, fail_after: int | None = None, failure: InternError | None = None) -> None:
        """What the engine answers from now on."""
        self.engine.replies = list(replies)
        self.engine.fail_after, self.engine.failure = fail_after, failure

    def hold(self) -> None:
        """Have the engine stop before its next token."""
        self.on_loop(self.engine.pause.clear)

    def go_on(self) -> None:
        self.on_loop(self.engine.pause.set)

    def on_loop(self, function: Callable[[], Any]) -> Any:
        """Run `function` on the server's event loop."""

        async def run() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def http(self, key: str | None = "admin") -> httpx2.Client:
        """A client with the key of that name, or with the key itself, or with none."""
        if key not in self.clients:
            headers = {} if key is None else {"authorization": f"Bearer {self.keys.get(key, key)}"}
            self.clients[key] = httpx2.Client(base_url=self.url, headers=headers, timeout=20, verify=False)
        return self.clients[key]

    def openai(self, key: str = "user") -> openai.OpenAI:
        """The official client with the key of that name."""
        http = self.http(key)
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.keys[key], max_retries=0, http_client=http)


def wait_until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait for a condition, and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.005)
    return value


def start(home: Path, *, tracing: Tracing | None = None, **more: Any) -> tuple[Server, Callable[[], None]]:
    """A server on `home`, and what stops it."""
    settings = Settings(home=home, body_bytes=BODY_BYTES, upload_bytes=UPLOAD_BYTES, **more)
    made: list[Server] = []
    failed: list[BaseException] = []

    async def serve() -> None:
        workspace = SmallWorkspace(settings, engine=FakeEngine(context=2_000), embedder=HashEmbedder())
        app = create_app(workspace, tracing=tracing)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False, lifespan="on"))
        job = asyncio.create_task(server.serve())
        while not server.started and not job.done():  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(0.01)
        if job.done():
            await job
        port = server.servers[0].sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        made.append(Server(f"http://127.0.0.1:{port}", app, workspace, loop))
        loop.set_exception_handler(lambda _, context: made[0].complaints.append(str(context)))
        stopping.append(lambda: setattr(server, "should_exit", True))
        await job

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failed.append(error)

    stopping: list[Callable[[], None]] = []
    thread = threading.Thread(target=run, name="server")
    thread.start()
    wait_until(lambda: stopping or failed, 30)
    if failed:
        raise failed[0]
    server = made[0]
    with server.workspace.database.begin() as connection:
        made_for: dict[str, tuple[str, keys.Scope]] = {
            "admin": ("default", "admin"),
            "user": ("default", "user"),
            "blue": ("blue", "admin"),
        }
        for name, (team, role) in made_for.items():
            key, secret = keys.create_key(connection, team=team, name=name, role=role)
            server.keys[name], server.ids[name] = secret, key.id

    def stop() -> None:
        for client in server.clients.values():
            client.close()
        stopping[0]()
        thread.join(20)
        assert not thread.is_alive()

    return server, stop


@pytest.fixture(scope="session")
def launch() -> Callable[..., tuple[Server, Callable[[], None]]]:
    """Makes another server on a folder of the same skills."""

    def make(home: Path, **more: Any) -> tuple[Server, Callable[[], None]]:
        write_skills(home)
        return start(home, **more)

    return make


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("served")
    write_skills(home)
    server, stop = start(home)
    yield server
    server.on_loop(gc.collect)
    stop()
    assert server.complaints == []


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    """The server with a fresh script, and nothing in flight before or after."""
    running.says("ok")
    running.engine.requests.clear()
    running.engine.closed_early = 0
    running.go_on()
    yield running
    running.go_on()
    wait_until(lambda: running.engine.load == (0, 0))
    running.on_loop(lambda: gc.collect(1))
    assert running.complaints == []


class TalkingEngine(FakeEngine):
    """An engine that gives exactly the tokens of its script, and at HOLD says nothing more until it is closed."""

    def __init__(self) -> None:
        super().__init__(tools=True)
        self.script: list[dict[str, Any]] = []

    async def generate(self, request: EngineRequest) -> AsyncGenerator[Token, None]:
        entered = await self.turns.enter()
        finished = False
        try:
            self.requests.append(request)
            for fields in self.script:
                if fields is HOLD:
                    await asyncio.Event().wait()
                yield Token(**fields)
            finished = True
        finally:
            self.closed_early += not finished
            self.turns.leave(entered)


HOLD: dict[str, Any] = {}


@pytest.fixture(name="until")
def _until() -> Callable[..., Any]:
    """Waits for a condition, and returns its value."""
    return wait_until


@pytest.fixture
def hold() -> dict[str, Any]:
    return HOLD


@pytest.fixture
def talking(server: Server) -> Iterator[TalkingEngine]:
    """The server's engine is another one for a while."""
    engine = TalkingEngine()
    before, server.workspace.pipeline.engine = server.workspace.pipeline.engine, engine
    yield engine
    wait_until(lambda: engine.load == (0, 0))
    server.workspace.pipeline.engine = before
