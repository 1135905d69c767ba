"""Default deny: nothing but health answers without a key, and admin routes answer admins only."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts

OPEN = {("GET", "/healthz"), ("GET", "/readyz")}
ADMIN = {
    ("POST", "/api/skills"),
    ("DELETE", "/api/skills/{skill}"),
    ("DELETE", "/api/records/{id}"),
    ("DELETE", "/api/persons/{person}"),
    ("POST", "/api/index/rebuild"),
    ("GET", "/api/keys"),
    ("POST", "/api/keys"),
    ("DELETE", "/api/keys/{id}"),
    ("GET", "/api/doctor"),
    ("POST", "/api/runs"),
    ("POST", "/api/runs/{run}/cancel"),
    ("POST", "/api/runs/{run}/resume"),
    ("POST", "/api/deployments"),
    ("POST", "/api/adapters/{name}/export"),
}
BODIES = {
    "/api/skills": {"name": "n", "title": "t", "description": "d", "instructions": "i"},
    "/api/keys": {"name": "n"},
    "/api/runs": {"skill": "mood"},
    "/api/deployments": {"skill": "mood", "adapter": "base"},
    "/api/adapters/{name}/export": {"format": "peft"},
}


def routes(app: Any) -> set[tuple[str, str]]:
    """Every (method, path) that the application knows."""
    return {
        (method, re.sub(r"{(\w+):path}", r"{\1}", context.path or ""))
        for context in iter_route_contexts(app.routes)
        for method in context.methods or ()
    }


def declared(app: Any) -> set[tuple[str, str]]:
    """Those whose function asks for an admin's key."""
    return {
        (method, re.sub(r"{(\w+):path}", r"{\1}", context.path or ""))
        for context in iter_route_contexts(app.routes)
        for method in context.methods or ()
        if {"Admin", "Operator"} & set(getattr(context.endpoint, "__annotations__", {}).values())
    }


def filled(path: str) -> str:
    return re.sub(r"\{[^}]+\}", "x", path)


def test_every_route_is_seen_here(server: Any) -> None:
    seen = routes(server.app)
    assert len(seen) > 30
    assert seen >= OPEN | ADMIN
    assert {("POST", "/v1/chat/completions"), ("GET", "/metrics"), ("POST", "/api/ask")} <= seen


@pytest.mark.parametrize("sent", [None, "Bearer", "Bearer sk-intern-made-up", "Bearer ünïcode"])
def test_nothing_but_health_answers_without_a_key(server: Any, sent: str | None) -> None:
    headers = {} if sent is None else {"authorization": sent.encode()}
    http = server.http(None)
    for method, path in routes(server.app):
        answer = http.request(method, filled(path), headers=headers, content=b"{")
        if (method, path) in OPEN:
            assert answer.status_code == 200
            continue
        assert answer.status_code == 401, (method, path)
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"


def test_another_scheme_than_bearer_is_no_key(server: Any) -> None:
    answer = server.http(None).get("/v1/models", headers={"authorization": f"Basic {server.keys['admin']}"})
    assert answer.status_code == 401


def test_admin_routes_are_those_that_are_named_here(server: Any) -> None:
    assert declared(server.app) == ADMIN


def test_admin_routes_refuse_a_users_key(server: Any) -> None:
    http = server.http("user")
    for method, path in routes(server.app):
        if (method, path) in ADMIN:
            answer = http.request(method, filled(path), json=BODIES.get(path, {}) if method == "POST" else None)
            assert answer.status_code == 403, (method, path)
            assert answer.json()["error"]["code"] == "not_allowed"


def test_the_owners_local_token_is_an_admin_key(server: Any) -> None:
    assert server.http(server.workspace.ownership.token).get("/api/keys").status_code == 200
