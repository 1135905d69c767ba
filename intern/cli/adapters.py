"""`intern adapters`: what was trained, what of it serves, and whether its files are sound."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from intern.cli import output
from intern.cli.connection import connect, segment
from intern.cli.options import AsJson, Home, Key, Url
from intern.errors import InternError, InvalidInput

app = typer.Typer(help="List, promote, roll back, verify and export adapters.", no_args_is_help=True)

Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the history.", show_default=False)]


@app.command("list")
def list_(
    skill: Annotated[
        str | None, typer.Argument(metavar="SKILL", help="Of this skill only.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """List adapters, by skill, the newest first, and which of them serve.

    ```bash
    intern adapters list
    intern adapters list support-triage --json | jq -r '.data[] | select(.serves) | .name'
    ```
    """
    with connect(home, url, key) as api:
        listed = api.get("/api/adapters", **({} if skill is None else {"skill": skill}))
        problems = [d for d in api.get("/api/deployments")["data"] if d["problem"]]
    if output.plain(as_json):
        output.document(listed)
        return
    columns = ["adapter", "serves", "decision", "recipe", "dataset", "created"]
    output.table(columns, [_row(adapter) for adapter in listed["data"]])
    for deployment in problems:
        output.note(f"{deployment['adapter']} does not serve: {deployment['problem']}")


def _row(adapter: dict[str, Any]) -> list[Any]:
    serves = "ok" if adapter["serves"] else ""
    return [
        adapter["name"],
        serves,
        adapter["decision"],
        adapter["recipe"],
        adapter["dataset"],
        adapter["created"][:16],
    ]


@app.command()
def promote(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="Its name, SKILL@vN.")],
    reason: Reason = "",
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Let an adapter serve its skill, whatever the gate decided.

    It is verified, loaded and tried first; when that fails, what served goes on serving. No request is lost: those
    under way finish on the former adapter.

    ```bash
    intern adapters promote support-triage@v3
    intern adapters promote support-triage@v2 --reason "v3 is curt with customers"
    ```
    """
    skill, at, _ = adapter.partition("@")
    if not at:
        raise InvalidInput(f"'{adapter}' is no adapter: give SKILL@vN, as `intern adapters list` shows it.")
    _deploy({"skill": skill, "adapter": adapter, "reason": reason}, as_json, home, url, key)


@app.command()
def rollback(
    skill: Annotated[str, typer.Argument(metavar="SKILL", help="The skill to take back.")],
    base: Annotated[bool, typer.Option("--base", help="To the base model, without an adapter.")] = False,
    reason: Reason = "",
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Let what served a skill before serve it again. A second rollback takes back the first.

    ```bash
    intern adapters rollback support-triage
    intern adapters rollback support-triage --base --reason "complaints since Monday"
    ```
    """
    _deploy({"skill": skill, "adapter": "base" if base else "previous", "reason": reason}, as_json, home, url, key)


def _deploy(body: dict[str, str], as_json: bool, home: Any, url: str | None, key: str | None) -> None:
    with connect(home, url, key, engine=True) as api, output.progress("loading and trying the adapter", None):
        changed = api.post("/api/deployments", body)
    if output.plain(as_json):
        output.document(changed)
    else:
        output.note(f"{changed['skill']} is served by {changed['adapter'] or 'the base model'}.")


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="ADAPTER", help="SKILL@vN; otherwise every one.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Check adapters' files as they are checked before each load: hashes, tensors, nothing that runs code, base model.

    Exit code 1 when one of them would be refused, with the reason.

    ```bash
    intern adapters verify
    intern adapters verify support-triage@v3 --json
    ```
    """
    found = []
    with connect(home, url, key) as api:
        for name in names or [adapter["name"] for adapter in api.get("/api/adapters")["data"]]:
            try:
                api.post(f"/api/adapters/{segment(name)}/verify")
                found.append({"adapter": name, "state": "ok", "problem": None})
            except InvalidInput as error:
                found.append({"adapter": name, "state": "bad", "problem": error.message})
    if output.plain(as_json):
        output.document({"data": found})
    else:
        output.table(["adapter", "state", "reason"], [list(row.values()) for row in found])
    if bad := [row for row in found if row["problem"]]:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise InternError(f"{bad[0]['adapter']}: {bad[0]['problem']}{more}")
