"""Adapters over HTTP: where they come from, which serves, and whether their files are as they were stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_learning import BASE, Script

from intern.learning.loop.contracts import BaseModel
from intern.types import Adapter


def folder(server: Any, adapter: Adapter) -> Path:
    return Path(server.workspace.settings.home / "adapters" / adapter.digest)


def test_adapters_are_listed_newest_first_and_the_serving_one_is_marked(server: Any, learning: Script) -> None:
    first, second = (learning.adapter("default", "mood") for _ in range(2))
    deploy = {"skill": "mood", "adapter": first.name}
    assert server.http().post("/api/deployments", json=deploy).status_code == 200
    found = server.http("user").get("/api/adapters?skill=mood").json()["data"]
    assert [a["name"] for a in found[:2]] == [second.name, first.name]
    assert [a["name"] for a in found if a["serves"]] == [first.name]
    assert {a["skill"] for a in found} == {"mood"}
    assert found[0]["base"] == BASE


def test_one_adapter_comes_with_its_manifest_and_its_verdict(server: Any, learning: Script) -> None:
    run = server.http().post("/api/runs", json={"skill": "mood", "promote": False}).json()
    _ = server.http("user").get(f"/api/runs/{run['id']}/events").text
    name = server.http("user").get(f"/api/runs/{run['id']}").json()["adapter"]
    found = server.http("user").get(f"/api/adapters/{name}").json()
    assert (found["name"], found["decision"], found["serves"]) == (name, "promote", False)
    assert found["manifest"]["run"] == run["id"]
    assert found["manifest"]["curves"]["step_loss"] == [2.0, 1.4, 1.1, 0.9]
    assert found["verdict"]["ruling"]["reason"] == learning.reason
    assert found["problem"] is None


def test_a_trained_adapter_has_its_model_card_beside_it(server: Any, learning: Script) -> None:
    run = server.http().post("/api/runs", json={"skill": "mood", "promote": False}).json()
    _ = server.http("user").get(f"/api/runs/{run['id']}/events").text
    name = server.http("user").get(f"/api/runs/{run['id']}").json()["adapter"]
    digest = server.http("user").get(f"/api/adapters/{name}").json()["digest"]
    card = (server.workspace.settings.home / "adapters" / digest / "README.md").read_text()
    assert f"({name})" in card
    assert "| **this adapter** | 0.840 [" in card
    assert learning.reason in card
    assert server.http("user").post(f"/api/adapters/{name}/verify").status_code == 200


def test_an_adapter_whose_files_are_gone_is_still_shown(server: Any, learning: Script) -> None:
    adapter = learning.adapter("default", "mood")
    folder(server, adapter).rename(folder(server, adapter).with_name("gone"))
    found = server.http("user").get(f"/api/adapters/{adapter.name}").json()
    assert found["manifest"] is None
    assert "cannot be read" in found["problem"]
    folder(server, adapter).with_name("gone").rename(folder(server, adapter))


def test_sound_files_are_confirmed_with_their_hashes(server: Any, learning: Script) -> None:
    adapter = learning.adapter("default", "mood")
    found = server.http("user").post(f"/api/adapters/{adapter.name}/verify").json()
    assert (found["name"], found["digest"], found["base"]["sha256"]) == (adapter.name, adapter.digest, BASE)
    assert set(found["files"]) == {"adapter_config.json", "adapter_model.safetensors", "adapter.gguf"}


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: (path / "adapter.gguf").write_bytes(b"x"), "was changed after it was stored"),
        (lambda path: (path / "adapter.gguf").unlink(), "is missing"),
        (lambda path: (path / "training_args.bin").write_bytes(b"x"), "can run code"),
    ],
)
def test_harm_is_found_and_named(server: Any, learning: Script, harm: Any, said: str) -> None:
    adapter = learning.adapter("default", "mood")
    harm(folder(server, adapter))
    answer = server.http("user").post(f"/api/adapters/{adapter.name}/verify")
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "adapter_refused"
    assert said in answer.json()["error"]["message"]


def test_an_adapter_of_another_base_model_is_refused(server: Any, learning: Script) -> None:
    adapter = learning.adapter("default", "mood")
    base = server.workspace.base
    server.workspace.base = BaseModel(path=base.path, name="other", sha256="c" * 64)
    answer = server.http("user").post(f"/api/adapters/{adapter.name}/verify")
    assert answer.status_code == 422
    assert "another one" in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["mood", "mood@v0", "mood@v99999", "mood@v9999999999999", "MOOD@v1", "mood@base"])
def test_a_name_of_no_adapter_is_not_found(server: Any, learning: Script, name: str) -> None:
    for answer in (
        server.http("user").get(f"/api/adapters/{name}"),
        server.http("user").post(f"/api/adapters/{name}/verify"),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_another_teams_adapter_does_not_exist(server: Any, learning: Script) -> None:
    theirs = learning.adapter("default", "chat")
    http = server.http("blue")
    assert http.get("/api/adapters?skill=chat").json()["data"] == []
    assert http.get(f"/api/adapters/{theirs.name}").status_code == 404
    assert http.post(f"/api/adapters/{theirs.name}/verify").status_code == 404
    assert http.post("/api/deployments", json={"skill": "chat", "adapter": theirs.name}).status_code == 404
