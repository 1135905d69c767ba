"""`intern adapters`: what serves is changed, taken back and checked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from cli.owning import Outcome, Owner, make_home
from made_learning import Script, script

from intern.cli import run
from intern.cli.connection import connect
from intern.engines.fake import FakeEngine
from intern.settings import Settings
from intern.store import learning as store
from intern.types import Deployment, now
from intern.workspace import Workspace

Intern = Callable[..., Outcome]


@pytest.fixture
def learning(owner: Owner, tmp_path: Path) -> Script:
    return script(owner.workspace, tmp_path / "scratch")


def serving(intern: Intern) -> str | None:
    """What really answers."""
    found: str | None = intern("ask", "a day of leave please", "--skill", "leave").json["adapter"]
    return found


def test_adapters_are_listed_with_the_one_that_serves(intern: Intern, learning: Script) -> None:
    assert intern("adapters", "list").json == {"data": []}
    for _ in range(2):
        learning.adapter("default", "leave")
    learning.adapter("default", "rules")
    assert intern("adapters", "promote", "leave@v1").code == 0
    found = intern("adapters", "list").json["data"]
    assert [(a["name"], a["serves"]) for a in found] == [("leave@v2", False), ("leave@v1", True), ("rules@v1", False)]
    assert [a["name"] for a in intern("adapters", "list", "rules").json["data"]] == ["rules@v1"]


def test_promoting_and_rolling_back_change_what_answers(intern: Intern, learning: Script) -> None:
    for _ in range(2):
        learning.adapter("default", "leave")
    assert serving(intern) is None
    assert intern("adapters", "promote", "leave@v1").json["adapter"] == "leave@v1"
    assert serving(intern) == "leave@v1"
    changed = intern("adapters", "promote", "leave@v2", "--reason", "a try").json
    assert (changed["previous"], changed["reason"]) == ("leave@v1", "a try")
    assert intern("adapters", "rollback", "leave").json["adapter"] == "leave@v1"
    assert serving(intern) == "leave@v1"
    assert intern("adapters", "rollback", "leave").json["adapter"] == "leave@v2"
    assert intern("adapters", "rollback", "leave", "--base").json["adapter"] is None
    assert serving(intern) is None


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["promote", "leave"], "give SKILL@vN"),
        (["promote", "leave@v9"], "leave@v9"),
        (["promote", "nobody@v1"], "nobody"),
        (["rollback", "leave"], "never had an adapter"),
        (["rollback", "nobody"], "nobody"),
        (["verify", "leave@v9"], "leave@v9"),
    ],
)
def test_a_refusal_is_one_line(intern: Intern, learning: Script, arguments: list[str], reason: str) -> None:
    done = intern("adapters", *arguments)
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert reason in done.err


def test_every_adapter_is_verified_and_the_bad_one_named(intern: Intern, learning: Script, owner: Owner) -> None:
    one, two = (learning.adapter("default", "leave") for _ in range(2))
    done = intern("adapters", "verify")
    assert (done.code, [row["state"] for row in done.json["data"]]) == (0, ["ok", "ok"])
    (owner.home / "adapters" / one.digest / "adapter.gguf").write_bytes(b"x")
    done = intern("adapters", "verify")
    assert done.code == 1
    assert {row["adapter"]: row["state"] for row in done.json["data"]} == {one.name: "bad", two.name: "ok"}
    assert done.err.startswith(f"intern: {one.name}: ")
    assert "was changed after it was stored" in done.err
    assert intern("adapters", "verify", two.name).code == 0
    refused = intern("adapters", "promote", one.name)
    assert (refused.code, serving(intern)) == (1, None)


@pytest.mark.needs_model
def test_a_command_on_a_new_workspace_works_with_the_adapters_that_came_with_it(tmp_path: Path) -> None:
    """Without `intern up` before: a training would leave them out of its rivals, and keep them out of service."""
    home = tmp_path / "home"
    assert run(["init", str(home)]) == 0
    with connect(home, None, None, engine=True) as api:
        assert api.private
        found = api.get("/api/deployments/support-triage")
    assert (found["adapter"], found["by"], found["problem"]) == ("support-triage@v1", "workspace", None)


@pytest.mark.needs_model
def test_a_private_server_knows_what_serves(tmp_path: Path) -> None:
    """Whoever works on a workspace that nobody owns gets the adapters in service, or hears why not."""
    home = make_home(tmp_path / "home")
    workspace = Workspace(Settings(home=home), engine=FakeEngine())
    with workspace.database.begin() as connection:
        store.deploy(connection, Deployment(team="default", skill="leave", version=3, changed=now()))
    asyncio.run(workspace.close())
    with connect(home, None, None, engine=True) as api:
        found = api.get("/api/deployments/leave")
        assert api.private
    assert found["adapter"] == "leave@v3"
    assert "leave@v3" in found["problem"]
