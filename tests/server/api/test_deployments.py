"""Deployments over HTTP: what serves is changed by admins, tried first, and taken back."""

from __future__ import annotations

from typing import Any

import pytest
from made_learning import Script


def deploy(server: Any, adapter: str, skill: str = "mood", **more: Any) -> Any:
    return server.http().post("/api/deployments", json={"skill": skill, "adapter": adapter, **more})


def serving(server: Any) -> str | None:
    """What really answers."""
    server.says('{"mood": "good"}')
    answer = server.http("user").post("/api/ask", json={"input": "a day", "skill": "mood"}).json()
    found: str | None = answer["adapter"]
    return found


def test_promoting_and_rolling_back_change_what_answers(server: Any, learning: Script) -> None:
    one, two = (learning.adapter("default", "mood").name for _ in range(2))
    deploy(server, "base")
    assert deploy(server, one).json()["adapter"] == one
    assert serving(server) == one
    changed = deploy(server, two, reason="a try").json()
    assert (changed["adapter"], changed["previous"], changed["by"]) == (two, one, server.ids["admin"])
    assert serving(server) == two
    assert deploy(server, "previous").json()["adapter"] == one
    assert serving(server) == one
    assert deploy(server, "base").json()["adapter"] is None
    assert serving(server) is None
    found = server.http("user").get("/api/deployments/mood").json()
    assert [change["adapter"] for change in found["history"][:4]] == [None, one, two, one]
    assert found["history"][2]["reason"] == "a try"
    assert found["history"][1]["reason"] == "rolled back"


def test_every_skill_is_listed_also_without_an_adapter(server: Any, learning: Script) -> None:
    name = learning.adapter("default", "mood").name
    deploy(server, name)
    found = {d["skill"]: d for d in server.http("user").get("/api/deployments").json()["data"]}
    assert {"mood", "docs"} <= found.keys()
    assert found["mood"]["adapter"] == name
    assert (found["docs"]["adapter"], found["docs"]["changed"], found["docs"]["problem"]) == (None, None, None)
    assert server.http("user").get("/api/deployments/docs").json()["history"] == []


def test_an_adapter_that_gives_no_answer_does_not_go_live(server: Any, learning: Script) -> None:
    from intern.errors import EngineFailure

    name = learning.adapter("default", "mood").name
    deploy(server, "base")
    server.says(EngineFailure("The engine broke."))
    assert deploy(server, name).status_code == 502
    assert serving(server) is None
    assert server.http("user").get("/api/deployments/mood").json()["adapter"] is None


def test_a_damaged_adapter_does_not_go_live(server: Any, learning: Script) -> None:
    adapter = learning.adapter("default", "mood")
    deploy(server, "base")
    (server.workspace.settings.home / "adapters" / adapter.digest / "adapter.gguf").write_bytes(b"x")
    answer = deploy(server, adapter.name)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "adapter_refused")
    assert serving(server) is None


@pytest.mark.parametrize(
    ("adapter", "status", "param"),
    [("mood@v99999", 404, None), ("newest", 400, "adapter"), ("", 400, "adapter"), ("mood@newest", 404, None)],
)
def test_what_cannot_serve_is_refused(
    server: Any, learning: Script, adapter: str, status: int, param: str | None
) -> None:
    answer = deploy(server, adapter)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


def test_an_adapter_serves_its_own_skill_only(server: Any, learning: Script) -> None:
    answer = deploy(server, learning.adapter("default", "mood").name, skill="chat")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "adapter")
    assert deploy(server, "base", skill="nothing").status_code == 404


def test_a_skill_that_never_had_an_adapter_cannot_be_rolled_back(server: Any, learning: Script) -> None:
    answer = deploy(server, "previous", skill="docs")
    assert answer.status_code == 404
    assert "never had an adapter" in answer.json()["error"]["message"]


def test_why_an_adapter_does_not_serve_is_said(server: Any, learning: Script) -> None:
    name = learning.adapter("default", "mood").name
    deploy(server, name)
    server.workspace.deployments._problems["default", "mood"] = "It was trained on another base model."
    found = server.http("user").get("/api/deployments/mood").json()
    assert (found["adapter"], found["problem"]) == (name, "It was trained on another base model.")
    assert server.http("blue").get("/api/deployments").json()["data"][0]["problem"] is None


def test_only_admins_change_what_serves_and_only_their_teams(server: Any, learning: Script) -> None:
    name = learning.adapter("default", "mood").name
    deploy(server, "base")
    body = {"skill": "mood", "adapter": name}
    assert server.http("user").post("/api/deployments", json=body).status_code == 403
    assert server.http("blue").post("/api/deployments", json=body).status_code == 404
    assert server.http("blue").get("/api/deployments/mood").status_code == 404
    assert "mood" not in {d["skill"] for d in server.http("blue").get("/api/deployments").json()["data"]}
    assert serving(server) is None


def test_a_deleted_skill_s_adapter_serves_no_skill_of_its_name(server: Any, learning: Script) -> None:
    about = {"name": "brief", "title": "T", "description": "D", "instructions": "I"}
    http = server.http()
    assert http.post("/api/skills", json=about).status_code == 201
    assert deploy(server, learning.adapter("default", "brief").name, skill="brief").status_code == 200
    learning.hold = True
    run = http.post("/api/runs", json={"skill": "brief"}).json()["id"]
    assert http.delete("/api/skills/brief").status_code == 204
    learning.go_on()
    assert http.get(f"/api/runs/{run}").json()["state"] == "cancelled"
    assert http.post("/api/skills", json=about).status_code == 201
    server.says("fine")
    assert http.post("/api/ask", json={"input": "a day", "skill": "brief"}).json()["adapter"] is None
    assert http.delete("/api/skills/brief").status_code == 204
