"""A deleted skill is gone: nothing of it serves, is listed or comes back with another skill of its name."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from made_adapters import keep_adapter
from made_learning import Script

from intern import removal
from intern.cli import results
from intern.errors import StoreFailure
from intern.store import learning as store
from intern.store import records
from intern.store.learning import Item
from intern.types import Adapter, Example

ABOUT = {"name": "brief", "title": "T", "description": "D", "instructions": "I"}
EXAMPLE = Example(id="ex_1", input="a long story", output="short")


@pytest.fixture(autouse=True)
def gone(server: Any, learning: Script) -> Iterator[None]:
    """No test finds another's skill, whatever became of it."""
    yield
    server.http().delete("/api/skills/brief")


def deploy(server: Any, adapter: str) -> Any:
    return server.http().post("/api/deployments", json={"skill": "brief", "adapter": adapter}).json()


def trained(server: Any, learning: Script) -> tuple[str, Adapter]:
    """A skill with a dataset, held-out inputs, and two adapters of which the second serves: (dataset, the first)."""
    assert server.http().post("/api/skills", json=ABOUT).status_code == 201
    learning.items = [Item(example=EXAMPLE, key="k", split="train")]
    dataset = learning.dataset("default", "brief")
    with server.workspace.database.begin() as connection:
        store.hold_out(connection, "default", "brief", ["held"])
    first, second = (learning.adapter("default", "brief", dataset=dataset) for _ in range(2))
    for adapter in (first, second):
        assert deploy(server, adapter.name)["adapter"] == adapter.name
    return dataset.id, first


def adapters(server: Any) -> list[str]:
    return [row["name"] for row in server.http().get("/api/adapters?skill=brief").json()["data"]]


def in_trash(server: Any) -> Path:
    found: Path = max((server.workspace.settings.data / "trash").glob("default-brief-*"))
    return found


def asked(server: Any, model: str) -> Mapping[str, Any]:
    server.says("fine")
    body = {"model": model, "messages": [{"role": "user", "content": "a long story"}]}
    found: Mapping[str, Any] = server.http().post("/v1/chat/completions", json=body).json()
    return found


def last_version(server: Any) -> int:
    with server.workspace.database.connect() as connection:
        return store.last_version(connection, "default", "brief")


def test_nothing_that_a_deleted_skill_learned_comes_back_with_its_name(server: Any, learning: Script) -> None:
    http = server.http()
    dataset, first = trained(server, learning)
    assert asked(server, f"intern/{first.name}")["intern"]["adapter"] == first.name
    assert http.delete("/api/skills/brief").status_code == 204
    assert http.post("/api/skills", json=ABOUT).status_code == 201
    assert adapters(server) == []
    assert asked(server, "intern/brief")["intern"]["adapter"] is None
    assert asked(server, f"intern/{first.name}")["error"]["code"] == "model_not_found"
    assert "`intern adapters list` names" in deploy(server, first.name)["error"]["message"]
    assert deploy(server, "previous")["adapter"] is None
    assert http.get(f"/api/datasets/{dataset}").status_code == 404
    with server.workspace.database.connect() as connection:
        assert store.heldout_keys(connection, "default", "brief") == set()
    kept = in_trash(server) / "adapters" / first.digest
    assert json.loads((kept / "manifest.json").read_text())["name"].startswith("brief@v")
    assert not (server.workspace.settings.home / "adapters" / first.digest).exists()
    before = last_version(server)
    later = learning.adapter("default", "brief")
    assert later.version == before + 1 > 2
    assert adapters(server) == [later.name]
    assert deploy(server, later.name)["adapter"] == later.name


def test_a_deletion_that_broke_off_can_be_done_again(
    server: Any, learning: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    http = server.http()
    _, first = trained(server, learning)

    def full(*args: Any) -> None:
        raise StoreFailure("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(removal, "_forget", full)
        assert http.delete("/api/skills/brief").status_code == 503
    assert adapters(server) != []
    assert http.delete("/api/skills/brief").status_code == 204
    assert adapters(server) == []
    assert (in_trash(server) / "adapters" / first.digest).is_dir()
    assert http.delete("/api/skills/brief").status_code == 404


def test_a_run_of_a_deleted_skill_keeps_its_verdict_and_quotes_nothing(server: Any, learning: Script) -> None:
    http = server.http()
    assert http.post("/api/skills", json=ABOUT).status_code == 201
    run = http.post("/api/runs", json={"skill": "brief"}).json()["id"]
    assert "[DONE]" in http.get(f"/api/runs/{run}/events").text
    folder = server.workspace.parts.runs_folder / run
    assert list(folder.glob("outcomes-*"))
    assert http.delete("/api/skills/brief").status_code == 204
    assert not folder.exists()
    found = http.get(f"/api/runs/{run}").json()
    assert (found["state"], found["verdict"]["ruling"]["decision"]) == ("done", "promote")
    report = http.get(f"/api/runs/{run}/report", headers={"accept": "application/json"})
    assert report.status_code == 200


def test_while_a_skill_is_deleted_no_other_gets_its_name(server: Any, learning: Script) -> None:
    http = server.http()
    with server.workspace.removing("default", "brief"):
        for answer in (http.post("/api/skills", json=ABOUT), http.delete("/api/skills/brief")):
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
            assert "being deleted" in answer.json()["error"]["message"]
    assert http.post("/api/skills", json=ABOUT).status_code == 201


def test_what_is_promoted_until_the_adapters_are_gone_does_not_serve(
    server: Any, learning: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = trained(server, learning)
    deployments, forget = server.workspace.deployments, removal._forget
    promoted: list[int | None] = []

    def late(*given: Any) -> None:
        if not promoted:
            promoting = deployments.promote("default", "brief", first.version, by="test", reason="late")
            promoted.append(asyncio.run_coroutine_threadsafe(promoting, server.loop).result(20).version)
        forget(*given)

    monkeypatch.setattr(removal, "_forget", late)
    assert server.http().delete("/api/skills/brief").status_code == 204
    assert promoted == [first.version]
    left = deployments.serving("default", "brief")
    assert (left.version, left.previous) == (None, None)


def test_what_no_table_names_goes_at_the_next_attempt(server: Any, learning: Script) -> None:
    """A deletion that broke off just behind the folder, of a skill of which nothing is stored but an evaluation."""
    http = server.http()
    assert http.post("/api/skills", json=ABOUT).status_code == 201
    run = http.post("/api/runs", json={"skill": "brief", "kind": "evaluate"}).json()["id"]
    assert "[DONE]" in http.get(f"/api/runs/{run}/events").text
    folder = server.workspace.parts.runs_folder / run
    assert list(folder.glob("outcomes-*"))
    removal._set_aside(server.workspace, "default", "brief")
    assert http.delete("/api/skills/brief").status_code == 404
    assert not folder.exists()


def test_a_move_to_another_volume_that_broke_off_is_finished(server: Any, learning: Script) -> None:
    _, first = trained(server, learning)
    root = server.workspace.settings.home / "adapters"
    (root / first.digest).rename(root / f".{first.digest}")
    skills = server.workspace.settings.skills
    hidden = skills / ".default-brief-20260101T000000000000"
    shutil.copytree(skills / "brief", hidden)
    (arrived := server.workspace.settings.data / "trash" / hidden.name[1:]).mkdir()
    shutil.copytree(hidden, arrived, dirs_exist_ok=True)
    (hidden / "skill.yaml").unlink()  # it was being removed, since all of it had arrived
    other = skills / ".default-brief-too-20260101T000000000000"
    other.mkdir()
    assert server.http().delete("/api/skills/brief").status_code == 204
    assert not (root / f".{first.digest}").exists()
    assert (in_trash(server) / "adapters" / first.digest / "manifest.json").exists()
    assert not hidden.exists()
    assert (server.workspace.settings.data / "trash" / hidden.name[1:] / "skill.yaml").exists()
    assert other.exists(), "another skill's"
    other.rmdir()


def test_what_the_router_was_told_about_a_deleted_skill_is_forgotten(server: Any, learning: Script) -> None:
    assert server.http().post("/api/skills", json=ABOUT).status_code == 201
    with server.workspace.database.begin() as connection:
        records.add_utterance(connection, "default", "not that", skill=None, not_skill="brief", source="review")
    assert server.http().delete("/api/skills/brief").status_code == 204
    with server.workspace.database.connect() as connection:
        assert "not that" not in [text for *_, text in records.list_utterances(connection, "default")]


def test_a_run_of_a_deleted_skill_advises_nothing_about_its_adapter(server: Any, learning: Script) -> None:
    http = server.http()
    learning.approve = True
    assert http.post("/api/skills", json=ABOUT).status_code == 201
    run = http.post("/api/runs", json={"skill": "brief"}).json()["id"]
    assert "[DONE]" in http.get(f"/api/runs/{run}/events").text
    assert http.get(f"/api/runs/{run}").json()["service"]["state"] == "waits"
    assert http.delete("/api/skills/brief").status_code == 204
    found = http.get(f"/api/runs/{run}").json()
    assert (found["service"]["state"], found["retired"]) == ("gone", True)
    assert results.next_steps(found)[0] == f"{found['adapter']} went with its skill, which was deleted"
    assert "went with its skill, which was deleted" in http.get(f"/api/runs/{run}/report").text


def test_what_other_skills_have_too_stays_where_it_lies(server: Any, learning: Script) -> None:
    _, first = trained(server, learning)
    with server.workspace.database.begin() as connection:
        keep_adapter(connection, first.model_copy(update={"skill": "mood"}))
    assert server.http().delete("/api/skills/brief").status_code == 204
    assert (server.workspace.settings.home / "adapters" / first.digest).is_dir()


def test_what_the_workspace_has_too_stays_where_it_lies(server: Any, learning: Script) -> None:
    http = server.http()
    _, first = trained(server, learning)
    root = server.workspace.settings.home / "adapters"
    named = root / "shipped.json"
    named.write_text(json.dumps([first.digest]))
    try:
        assert http.delete("/api/skills/brief").status_code == 204
    finally:
        named.unlink()
    assert (root / first.digest).is_dir()
    assert not (in_trash(server) / "adapters" / first.digest).exists()
