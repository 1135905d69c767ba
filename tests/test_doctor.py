"""The doctor finds what is amiss, says what to do, and never falls ill itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from intern.doctor import examine
from intern.engines.fake import FakeEngine
from intern.errors import ModelUnavailable
from intern.machine import Finding, examine_machine, run_checks
from intern.models.fake import HashEmbedder
from intern.settings import Settings
from intern.skill import write_skill
from intern.store.keys import ensure_admin
from intern.workspace import Workspace

SPEC = {"title": "Leave", "description": "Reads leave requests.", "instructions": "Read them."}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_skill(tmp_path / "skills", "leave", SPEC, utterances=["a day of leave"])
    return tmp_path


def findings(home: Path, *, engine: FakeEngine | None = None, **settings: Any) -> dict[str, Finding]:
    """By part, of a workspace opened for this."""

    async def look() -> list[Finding]:
        workspace = Workspace(Settings(home=home, **settings), engine=engine or FakeEngine(), embedder=HashEmbedder())
        try:
            with workspace.database.begin() as connection:
                ensure_admin(connection, "sk-intern-very-secret")
            return await examine(workspace)
        finally:
            await workspace.close()

    return {finding.part: finding for finding in asyncio.run(look())}


def test_a_healthy_workspace_has_nothing_bad_and_a_reason_for_everything(home: Path) -> None:
    found = findings(home)
    assert [f for f in found.values() if f.state == "bad"] == []
    assert all(f.choice and f.reason for f in found.values())
    assert all(f.advice is None for f in found.values() if f.state == "ok")
    assert all(f.advice for f in found.values() if f.state != "ok")
    assert {"workspace", "engine", "model", "context", "embedder", "database", "index", "limits"} <= set(found)
    assert found["skills (default)"].choice == "leave"
    assert found["database"].choice.startswith("SQLite 3.")


def test_an_engine_that_cannot_serve_is_said_with_its_own_words(home: Path) -> None:
    engine = FakeEngine()
    engine.down = "the model file is gone"
    assert "the model file is gone" in findings(home, engine=engine)["engine"].reason
    assert findings(home, engine=engine)["engine"].state == "warn"


def test_a_broken_skill_is_bad_and_its_first_problem_is_shown(home: Path) -> None:
    (home / "skills" / "broken").mkdir()
    (home / "skills" / "broken" / "skill.yaml").write_text("titel: x\n")
    found = findings(home)["skill broken (default)"]
    assert (found.state, found.choice) == ("bad", "does not serve")
    assert "skill.yaml:1" in found.reason
    assert "intern skills check broken" in str(found.advice)


def test_skills_that_routing_knows_too_little_of_are_warned_of(home: Path) -> None:
    write_skill(home / "skills", "bare", SPEC)
    router = findings(home)["router (default)"]
    assert router.state == "warn"
    assert "only a description to go by: bare" in router.reason


def test_an_open_address_is_warned_of(home: Path) -> None:
    assert findings(home)["address"].state == "ok"
    assert findings(home, host="0.0.0.0")["address"].state == "warn"
    assert findings(home, host="0.0.0.0", allowed_hosts="intern.example.com")["address"].state == "ok"


def test_more_threads_than_processors_are_warned_of(home: Path) -> None:
    assert findings(home, threads=1)["processor"].state == "ok"
    assert findings(home, threads=4096)["processor"].state == "warn"


def test_no_secret_is_shown(home: Path) -> None:
    database = home / "other.db"
    found = findings(
        home,
        api_key="sk-my-first-key",
        engine_key="sk-engine-key",
        database_url=f"sqlite:///{database}",
        chroma_url="http://user:chroma-password@chroma:8000",
    )
    said = json.dumps([finding.model_dump() for finding in found.values()])
    for secret in ("sk-intern-very-secret", "sk-my-first-key", "sk-engine-key", "chroma-password"):
        assert secret not in said
    assert str(database) in said


def test_a_check_that_breaks_becomes_a_finding_and_the_others_go_on() -> None:
    def breaks() -> Iterator[Finding]:
        raise ZeroDivisionError("oops")
        yield

    def fails() -> Iterator[Finding]:
        raise ModelUnavailable("the model is not there")
        yield

    def works() -> Iterator[Finding]:
        yield Finding(part="third", choice="c", reason="r")

    first, second, third = run_checks([("first", breaks), ("second", fails), ("third", works)])
    assert (first.part, first.state, first.reason) == ("first", "bad", "ZeroDivisionError: oops")
    assert (second.state, second.reason) == ("bad", "the model is not there")
    assert third.state == "ok"


def test_the_machine_can_be_looked_at_without_a_workspace(tmp_path: Path) -> None:
    found = {f.part: f for f in examine_machine(Settings(home=tmp_path / "not" / "there"))}
    assert list(found) == ["python", "packages", "processor", "gpu", "memory", "disk"]
    assert found["packages"].state == "ok", found["packages"].reason
    assert not (tmp_path / "not").exists()
