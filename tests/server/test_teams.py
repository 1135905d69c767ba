"""Teams never meet: with another team's key, what is the first's does not exist, on any route."""

from __future__ import annotations

import json
from typing import Any

import pytest

MARK = "zanzibar"  # stands in everything that team blue owns here, and no other team ever says it


@pytest.fixture(scope="module")
def blue(running: Any) -> dict[str, str]:
    """What team blue owns: ids by kind."""
    running.says(f"{MARK} says the engine")
    http = running.http("blue")
    assert http.post(
        "/api/skills/secret/documents", files={"file": ("plan.md", f"# {MARK}\n\nThe {MARK} plan.".encode())}
    ).is_success
    rows = [{"input": f"{MARK} input", "output": f"{MARK} output"}]
    example = http.post("/api/examples", json={"skill": "secret", "examples": rows}).json()["data"][0]["id"]
    chat = {"model": "intern/secret", "messages": [{"role": "user", "content": f"{MARK} question"}], "user": "eve"}
    completion = http.post("/v1/chat/completions", json=chat).json()
    record = completion["intern"]["record"]
    review = http.post("/api/reviews", json={"record": record, "verdict": "accept", "reason": MARK}).json()["id"]
    key = http.post("/api/keys", json={"name": MARK}).json()["id"]
    return {"example": example, "record": record, "review": review, "key": key}


def test_the_owners_see_it_all(running: Any, blue: dict[str, str]) -> None:
    http = running.http("blue")
    assert {"secret", "chat"} == {s["name"] for s in http.get("/api/skills").json()["data"]}
    assert http.get(f"/api/records/{blue['record']}").json()["team"] == "blue"
    assert [r["id"] for r in http.get("/api/reviews").json()["data"]] == [blue["review"]]
    assert any(e["id"] == blue["example"] for e in http.get("/api/examples?skill=secret").json()["data"])
    assert [d["name"] for d in http.get("/api/skills/secret/documents").json()["data"]] == ["plan.md"]


def calls(blue: dict[str, str]) -> list[tuple[str, str, Any]]:
    question = [{"role": "user", "content": "blue question"}]
    return [
        ("GET", "/v1/models", None),
        ("GET", "/v1/models/intern/secret", None),
        ("POST", "/v1/chat/completions", {"model": "intern/secret", "messages": question}),
        ("POST", "/v1/chat/completions", {"model": "intern-auto", "messages": question}),
        ("POST", "/v1/chat/completions", {"model": "intern-auto", "messages": question, "stream": True}),
        ("GET", "/api/skills", None),
        ("GET", "/api/skills/secret", None),
        ("DELETE", "/api/skills/secret", None),
        ("GET", "/api/examples?skill=secret", None),
        ("GET", "/api/examples?skill=chat", None),
        ("POST", "/api/examples", {"skill": "secret", "examples": [{"input": "x", "output": "y"}]}),
        ("DELETE", f"/api/examples/{blue['example']}?skill=secret", None),
        ("DELETE", f"/api/examples/{blue['example']}?skill=chat", None),
        ("GET", "/api/skills/secret/documents", None),
        ("GET", "/api/skills/chat/documents", None),
        ("GET", "/api/skills/secret/documents/plan.md", None),
        ("GET", "/api/skills/chat/documents/plan.md", None),
        ("DELETE", "/api/skills/secret/documents/plan.md", None),
        ("POST", "/api/skills/secret/documents/prune", {"source": "upload", "keep": []}),
        ("POST", "/api/skills/secret/retrieve", {"input": "the plan"}),
        ("POST", "/api/skills/chat/retrieve", {"input": "the plan"}),
        ("POST", "/api/skills/secret/try", {"input": "the plan"}),
        ("POST", "/api/route", {"input": "blue things"}),
        ("POST", "/api/ask", {"input": "the plan", "skill": "secret"}),
        ("POST", "/api/ask", {"input": "blue things"}),
        ("GET", "/api/records", None),
        ("GET", "/api/records?skill=secret", None),
        ("GET", f"/api/records/{blue['record']}", None),
        ("DELETE", f"/api/records/{blue['record']}", None),
        ("GET", "/api/reviews", None),
        ("GET", f"/api/reviews?record={blue['record']}", None),
        ("POST", "/api/reviews", {"record": blue["record"], "verdict": "reject"}),
        ("DELETE", "/api/persons/eve", None),
    ]


def test_with_another_teams_key_nothing_of_it_exists(running: Any, blue: dict[str, str]) -> None:
    running.says("ok")
    http = running.http("admin")
    before = len(running.engine.requests)
    for method, path, body in calls(blue):
        answer = http.request(method, path, json=body)
        assert answer.status_code in (200, 404), (method, path, answer.text)
        assert MARK not in answer.text, (method, path)
        assert "Blue" not in answer.text, (method, path)
        sent = path + json.dumps(body)
        for ident in blue.values():
            assert ident in sent or ident not in answer.text, (method, path)
    assert not any(MARK in request.model_dump_json() for request in running.engine.requests[before:])


def test_what_names_a_thing_of_another_team_is_not_found(running: Any, blue: dict[str, str]) -> None:
    http = running.http("admin")
    naming = [
        (method, path, body)
        for method, path, body in calls(blue)
        if any(name in path.partition("?")[0] for name in ("secret", "plan.md", *blue.values()))
        or "intern/secret" in json.dumps(body)
    ]
    assert len(naming) >= 15
    for method, path, body in naming:
        assert http.request(method, path, json=body).status_code == 404, (method, path)


def test_nothing_that_another_teams_key_tried_did_harm(running: Any, blue: dict[str, str]) -> None:
    http = running.http("admin")
    for method, path, body in calls(blue):
        http.request(method, path, json=body)
    test_the_owners_see_it_all(running, blue)
    assert http.delete("/api/persons/eve").json()["records"] == 0


def test_an_admin_of_one_team_is_none_of_the_installation(running: Any, blue: dict[str, str]) -> None:
    http = running.http("blue")
    for method, path in (("GET", "/api/doctor"), ("POST", "/api/index/rebuild"), ("GET", "/metrics")):
        assert http.request(method, path).status_code == 403, path
    assert {key["team"] for key in http.get("/api/keys").json()["data"]} == {"blue"}
    assert http.post("/api/keys", json={"name": "x", "team": "default"}).status_code == 403
    assert http.delete(f"/api/keys/{running.ids['user']}").status_code == 404
    assert running.http("user").get("/v1/models").status_code == 200


def test_skills_of_the_same_name_are_two(running: Any) -> None:
    running.says("ok")
    titles = {key: running.http(key).get("/api/skills/chat").json()["title"] for key in ("user", "blue")}
    assert titles == {"user": "Talk", "blue": "Blue talk"}
    about = {"title": "Two", "description": "d", "instructions": "i"}
    assert running.http("blue").post("/api/skills", json={"name": "mood", **about}).status_code == 201
    assert running.http("user").get("/api/skills/mood").json()["title"] == "Moods"
    assert running.http("blue").delete("/api/skills/mood").status_code == 204
    assert running.http("user").get("/api/skills/mood").json()["title"] == "Moods"
