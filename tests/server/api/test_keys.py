"""Keys over HTTP: the secret is shown once, and a revoked key stops at once."""

from __future__ import annotations

from typing import Any

import pytest


def test_a_key_works_until_it_is_revoked_and_then_not_a_moment_longer(server: Any) -> None:
    http = server.http()
    made = http.post("/api/keys", json={"name": "for a test"})
    assert made.status_code == 201
    key = made.json()
    assert (key["role"], key["team"], key["revoked"]) == ("user", "default", None)
    assert key["secret"].startswith(key["prefix"])
    assert server.http(key["secret"]).get("/v1/models").status_code == 200
    listed = http.get("/api/keys")
    assert key["secret"] not in listed.text
    assert any(k["id"] == key["id"] for k in listed.json()["data"])
    assert http.delete(f"/api/keys/{key['id']}").status_code == 204
    assert server.http(key["secret"]).get("/v1/models").status_code == 401
    assert http.delete(f"/api/keys/{key['id']}").status_code == 404


def test_the_installations_admin_makes_keys_for_other_teams(server: Any) -> None:
    made = server.http().post("/api/keys", json={"name": "green", "team": "green", "role": "admin"}).json()
    http = server.http(made["secret"])
    assert http.get("/api/skills").json() == {"data": []}
    about = {"name": "green-things", "title": "Green", "description": "D", "instructions": "I"}
    assert http.post("/api/skills", json=about).status_code == 201
    assert http.post("/api/ask", json={"input": "green"}).json()["skill"] == "green-things"
    assert http.delete("/api/skills/green-things").status_code == 204
    assert server.http().delete(f"/api/keys/{made['id']}").status_code == 204


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x", "role": "king"}, "role"),
        ({"name": "x", "team": "Not A Team"}, "team"),
        ({"name": "x", "team": "../x"}, "team"),
        ({"name": "x", "secret": "mine"}, "secret"),
    ],
)
def test_a_bad_key_is_not_made(server: Any, body: dict[str, Any], param: str) -> None:
    answer = server.http().post("/api/keys", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
