"""`intern keys`: the API keys of a workspace."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from intern.cli import output
from intern.cli.connection import connect, segment
from intern.cli.options import AsJson, Home, Key, Url

app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who or what uses it.")],
    role: Annotated[Literal["user", "admin"], typer.Option("--role", help="An admin also changes skills.")] = "user",
    team: Annotated[
        str | None,
        typer.Option(
            "--team", help="The team it works for; otherwise the team of the key that asks.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Make a key. It is shown this once; only a hash of it is kept.

    ```bash
    intern keys create "ticket system"
    intern keys create ada --role admin --team legal
    ```
    """
    body = {"name": name, "role": role} | ({} if team is None else {"team": team})
    with connect(home, url, key) as api:
        made = api.post("/api/keys", body)
    if output.plain(as_json):
        output.document(made)
        return
    output.note(f"{made['id']}  {made['role']}  team {made['team']}; shown this once:")
    output.piece(f"{made['secret']}\n")


@app.command("list")
def list_(as_json: AsJson = False, home: Home = None, url: Url = None, key: Key = None) -> None:
    """List every key, also the revoked ones, without the secrets.

    ```bash
    intern keys list
    intern keys list --json
    ```
    """
    with connect(home, url, key) as api:
        listed = api.get("/api/keys")
    if output.plain(as_json):
        output.document(listed)
        return
    columns = ("id", "name", "role", "team", "prefix", "created", "revoked")
    output.table(columns, [[entry[column] for column in columns] for entry in listed["data"]])


@app.command()
def revoke(
    ident: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `intern keys list` shows it.")],
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Revoke a key: it stops working at once, for ever. Take it out of INTERN_API_KEY too: no start accepts it there.

    ```bash
    intern keys revoke key_0193f0c2b1d47c3f8a51e6d2c4b7a980
    ```
    """
    with connect(home, url, key) as api:
        api.delete(f"/api/keys/{segment(ident)}")
    if output.plain(as_json):
        output.document({"revoked": ident})
    else:
        output.note(f"{ident} is revoked.")
