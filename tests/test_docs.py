"""Nothing that people set, call or type is undocumented."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from fastapi import APIRouter
from fastapi.routing import iter_route_contexts

from intern.cli import app
from intern.settings import Settings
from intern.skill import SkillSpec
from server.api import routes as api
from server.health import router as health
from server.openai import routes as openai

DOCS = Path(__file__).parents[1] / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text()


def test_every_setting_is_documented_with_its_default() -> None:
    text = page("operations.md")
    for name, field in Settings.model_fields.items():
        row = re.search(rf"^\| `INTERN_{name.upper()}` \| (.+) \| (.+) \|$", text, re.M)
        assert row is not None, f"docs/operations.md lacks INTERN_{name.upper()}"
        assert row[1] == field.description, name
        default = "unset" if field.default is None else "empty" if field.default == () else f"`{field.default}`"
        assert row[2] == default, name


def test_every_documented_setting_exists() -> None:
    known = {f"INTERN_{name.upper()}" for name in Settings.model_fields}
    for path in [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]:
        assert set(re.findall(r"INTERN_[A-Z0-9_]*[A-Z0-9]", path.read_text())) <= known, path.name


def test_every_key_of_a_skill_is_documented() -> None:
    text = page("skills.md")
    for name, field in SkillSpec.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        for key in [f"{name}.{k}" for k in inner] if inner else [name]:
            assert f"`{key}" in text or f"`{key.split('.')[-1]}`" in text, f"docs/skills.md lacks {key}"


def test_every_command_is_documented() -> None:
    text = page("cli.md")
    found = commands(typer.main.get_command(app))
    assert {"up", "adapters rollback"} <= set(found)
    for command in found:
        assert f"`intern {command}" in text, f"docs/cli.md lacks intern {command}"


def commands(group: object, path: str = "") -> list[str]:
    """Every command below a click group, as it is typed."""
    inner = getattr(group, "commands", None)
    if inner is None:
        return [path.strip()]
    return [name for part, command in inner.items() for name in commands(command, f"{path} {part}")]


def test_every_route_is_documented() -> None:
    text = page("api.md")
    found = [call for router in (health, openai.router, api.router) for call in calls(router)]
    assert len(found) > 30
    for method, path in found:
        assert f"`{method} {path}`" in text, f"docs/api.md lacks {method} {path}"


def test_every_field_that_a_call_takes_is_documented_beside_it() -> None:
    rows = re.findall(r"^\| (`[A-Z]+ /api/.+?) \| (.+) \|$", page("api.md"), re.M)
    looked_at = 0
    for context in iter_route_contexts(api.router.routes):
        taken = fields(context.original_route)
        for method in context.methods or ():
            call = f"`{method} {written(context.path)}`"
            told = next(text for named, text in rows if call in named)
            looked_at += len(taken)
            assert {name for name in taken if f"`{name}`" not in told and f"?{name}=" not in told} == set(), call
    assert looked_at > 50


def fields(route: Any) -> set[str]:
    """What a route takes in its query and body, as it is written in a call."""
    found = {parameter.alias for parameter in route.dependant.query_params}
    for parameter in route.dependant.body_params:
        inner = getattr(parameter.field_info.annotation, "model_fields", None)
        found |= {parameter.alias} if inner is None else {field.alias or name for name, field in inner.items()}
    return found


def calls(router: APIRouter) -> Iterator[tuple[str, str]]:
    """(method, path) of every route of a router, as the page writes them."""
    for context in iter_route_contexts(router.routes):
        for method in context.methods or ():
            yield method, written(context.path)


def written(path: str | None) -> str:
    """The path of a route as the page writes it."""
    return re.sub(r"{(\w+):path}", r"{\1}", path or "")
