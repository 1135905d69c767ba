"""Nothing that people set, call or type is undocumented."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from fastapi import APIRouter
from fastapi.routing import iter_route_contexts

from intern.cli import app
from intern.cli.skills import new
from intern.cli.up import Host, Port, serve
from intern.learning.imports.mapping import Mapping
from intern.settings import Settings
from intern.skill import SkillSpec
from server.api import routes as api
from server.api.skills import NewSkill
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


def options(group: Any, path: str = "intern") -> Iterator[tuple[str, Any]]:
    """(command, option) of every command below a click group."""
    for part, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from options(command, f"{path} {part}")
        else:
            yield from ((f"{path} {part}", option) for option in command.params if option.param_type_name == "option")


def test_an_option_that_may_be_given_several_times_says_so() -> None:
    several = [(command, option) for command, option in options(typer.main.get_command(app)) if option.multiple]
    assert len(several) >= 3
    for command, option in several:
        assert "several times" in option.help, f"{command} {option.opts[0]}"


@pytest.mark.parametrize(
    ("command", "option", "said"),
    [
        ("intern examples import", "nulls", f"by default {Mapping.model_fields['nulls'].default}"),
        ("intern skills new", "retrieval", "by default not"),
        ("intern keys create", "team", "otherwise the team of the key that asks"),
    ],
)
def test_what_holds_without_an_option_is_told(command: str, option: str, said: str) -> None:
    (found,) = (one for path, one in options(typer.main.get_command(app)) if (path, one.name) == (command, option))
    assert said in found.help


def test_the_groups_name_all_that_their_commands_do() -> None:
    groups = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert "export" in groups["adapters"].help
    assert "written" in groups["examples"].help


def test_the_second_name_of_up_says_that_it_is_one() -> None:
    (row,) = re.findall(r"^\| `intern serve` \| (.+) \|$", page("cli.md"), re.M)
    assert "the same as `intern up`" in row
    assert "the same as `intern up`" in (serve.__doc__ or "")


def test_making_a_skill_names_every_field_that_a_file_may_have() -> None:
    _, _, said = (new.__doc__ or "").partition("With --file it is one JSON object")
    taken = {field.alias or name for name, field in NewSkill.model_fields.items()}
    assert taken - set(re.findall(r"[a-z]+", said)) == set()


@pytest.mark.parametrize(("option", "setting"), [(Host, "host"), (Port, "port")], ids=["host", "port"])
def test_what_a_server_listens_on_is_told_with_setting_and_default(option: Any, setting: str) -> None:
    (found,) = option.__metadata__
    assert f"otherwise INTERN_{setting.upper()}, or {Settings.model_fields[setting].default}" in found.help


def calls(router: APIRouter) -> Iterator[tuple[str, str]]:
    """(method, path) of every route of a router, as the page writes them."""
    for context in iter_route_contexts(router.routes):
        for method in context.methods or ():
            yield method, written(context.path)


def written(path: str | None) -> str:
    """The path of a route as the page writes it."""
    return re.sub(r"{(\w+):path}", r"{\1}", path or "")
