"""However much long work there is, keys are looked up and health is answered: nobody stops everybody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from intern.errors import StoreFailure
from intern.skill import write_skill

MANY = 40
PATIENCE = 20.0
QUICK = 5.0  # what waits for long work takes PATIENCE


@pytest.fixture
def go() -> Iterator[threading.Event]:
    """Ends everything that a test holds up."""
    event = threading.Event()
    yield event
    event.set()


def test_other_requests_go_on_while_every_shared_thread_is_taken(server: Any, go: threading.Event, until: Any) -> None:
    begun = threading.Semaphore(0)

    def hang() -> None:
        begun.release()
        go.wait(PATIENCE)

    async def fill() -> list[Any]:
        return [asyncio.ensure_future(asyncio.to_thread(hang)) for _ in range(MANY)]

    jobs = asyncio.run_coroutine_threadsafe(fill(), server.loop).result(10)
    assert begun.acquire(timeout=10)
    server.app.state.keys.forget()
    server.app.state.readiness.forget()
    assert server.http("blue").get("/v1/models", timeout=QUICK).status_code == 200
    assert server.http(None).get("/readyz", timeout=QUICK).status_code == 200
    go.set()
    until(lambda: all(job.done() for job in jobs))


def test_a_new_folder_that_is_read_for_minutes_stops_no_other_team(
    server: Any, go: threading.Event, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = server.workspace
    read, begun = Path.open, threading.Event()

    def slowly(self: Path, *arguments: Any, **more: Any) -> Any:
        if self.name == "glacier.md":
            begun.set()
            go.wait(PATIENCE)
        return read(self, *arguments, **more)

    about = {"title": "Ice", "description": "D.", "instructions": "I.", "retrieval": {"enabled": True}}
    skill = write_skill(workspace.settings.skills, "ice", about)
    skill.docs.mkdir()
    (skill.docs / "glacier.md").write_text("# Ice\n\nThe glacier moves.\n")
    monkeypatch.setattr(Path, "open", slowly)
    workspace.refresh()

    def ask(_: int) -> str:
        try:
            answer = server.http("user").post("/api/ask", json={"input": "ice", "skill": "ice"}, timeout=1.0)
        except httpx2.ReadTimeout:
            return "left"
        return str(answer.status_code)

    try:
        with ThreadPoolExecutor(MANY) as clients:
            assert set(clients.map(ask, range(MANY))) == {"left"}
        assert begun.is_set()
        server.app.state.keys.forget()
        server.app.state.readiness.forget()
        assert server.http(None).get("/readyz", timeout=QUICK).status_code == 200
        other = server.http("blue").post("/v1/chat/completions", json=hello("intern-auto"), timeout=QUICK)
        assert (other.status_code, other.json()["model"]) == (200, "intern/chat@base")
        go.set()
        answer = server.http("user").post("/api/ask", json={"input": "ice", "skill": "ice"})
        assert answer.status_code == 200
    finally:
        go.set()
        assert server.http().delete("/api/skills/ice").status_code == 204


def hello(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hello blue"}]}


def test_a_part_that_hangs_takes_one_thread_however_often_it_is_asked(
    server: Any, go: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def hang() -> str | None:
        asked.append(True)
        go.wait(PATIENCE)
        return None

    monkeypatch.setattr("server.health._PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(server.workspace.knowledge, "health", hang)
    for _ in range(6):
        server.app.state.readiness.forget()
        body = server.http(None).get("/readyz", timeout=QUICK).json()
        assert body["parts"]["index"].startswith("does not answer")
        assert body["parts"]["store"].startswith("SQLite")
    assert len(asked) == 1
    server.app.state.keys.forget()
    assert server.http("blue").get("/v1/models", timeout=QUICK).status_code == 200
    go.set()
    monkeypatch.undo()
    server.app.state.readiness.forget()
    assert server.http(None).get("/readyz").status_code == 200


def test_a_part_that_breaks_is_named_and_asked_again(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str | None:
        raise StoreFailure("no")

    with monkeypatch.context() as broken:
        broken.setattr(server.workspace.knowledge, "health", fail)
        server.app.state.readiness.forget()
        answer = server.http(None).get("/readyz")
        assert (answer.status_code, answer.json()["parts"]["index"]) == (503, "store_failure")
    server.app.state.readiness.forget()
    assert server.http(None).get("/readyz").status_code == 200
