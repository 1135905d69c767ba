"""`intern up` and `intern serve`: this process owns the workspace and answers on a port until it is told to stop."""

from __future__ import annotations

import json
import shlex
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intern.cli import output
from intern.cli.connection import check_home
from intern.cli.options import AsJson, Home, load_settings
from intern.errors import WorkspaceBusy

if TYPE_CHECKING:
    from intern.settings import Settings
    from intern.workspace import Workspace

Host = Annotated[
    str | None,
    typer.Option("--host", help="Address to listen on; otherwise INTERN_HOST, or 127.0.0.1.", show_default=False),
]
Port = Annotated[
    int | None,
    typer.Option("--port", "-p", help="Port; otherwise INTERN_PORT, or 8000; 0 picks a free one.", show_default=False),
]
_TAKE_TRIES = 10
_TAKE_SECONDS = 0.1


def up(home: Home = None, host: Host = None, port: Port = None, as_json: AsJson = False) -> None:
    """Start the intern on this workspace: serve its skills until Ctrl-C.

    Loads the models, reads the skills and their documents, and then prints the API's address, a key (made and shown
    once, at the first start, unless INTERN_API_KEY gives it) and a curl command to try. Skills may appear, change and
    disappear meanwhile.

    ```bash
    intern up
    intern up --home my-intern --port 8080
    INTERN_API_KEY="$(cat key.txt)" intern up --host 0.0.0.0
    ```
    """
    _serve(home, host, port, as_json)


def serve(home: Home = None, host: Host = None, port: Port = None, as_json: AsJson = False) -> None:
    """Start the intern on this workspace: the same as `intern up`.

    It learns and trains, too. This is the name that stays with the server when work gets processes of its own.

    ```bash
    intern serve --port 8080
    intern serve --host 0.0.0.0 --json
    ```
    """
    _serve(home, host, port, as_json)


def _serve(home: Any, host: str | None, port: int | None, as_json: bool) -> None:
    settings = load_settings(home=home, host=host, port=port)
    check_home(settings)
    _say("starting")
    import asyncio

    from intern.cli.serving import address, bind, serve_until_signalled, set_up_logging
    from intern.store.keys import ensure_admin

    set_up_logging(settings)
    workspace = _take(settings)
    try:
        listener = bind(settings.host, settings.port)
        url = address(listener)
        secret = settings.api_key.get_secret_value() if settings.api_key else None
        with workspace.database.begin() as connection:
            made = ensure_admin(connection, secret)
    except BaseException:
        asyncio.run(workspace.close())
        raise
    workspace.say = _say

    def ready() -> None:
        workspace.ownership.announce(url)
        _ready(workspace, url, made, given=secret is not None, as_json=as_json)

    if asyncio.run(serve_until_signalled(workspace, listener, ready)):
        _say("stopped")
    else:
        _say("stopped while loading")


def _take(settings: Settings) -> Workspace:
    """The open workspace. Raises WorkspaceBusy naming the owner."""
    from intern.workspace import Workspace

    for _ in range(_TAKE_TRIES):
        try:
            return Workspace(settings)
        except WorkspaceBusy as error:
            busy = error
            # A command that only looks who the owner is holds the lock for a moment.
            time.sleep(_TAKE_SECONDS)
    raise busy


def _say(text: str) -> None:
    """Progress, for people: on standard error."""
    print(f"intern: {text}", file=sys.stderr, flush=True)


def _ready(workspace: Workspace, url: str, made: str | None, *, given: bool, as_json: bool) -> None:
    """The last lines: the address, the key or where it is, and a command to paste."""
    skills = [skill.name for skill in workspace.library.all("default")]
    curl = curl_command(url, made or "$INTERN_API_KEY", _sample(workspace))
    if as_json:
        output.line({"url": url, "key": made, "skills": skills, "curl": curl})
        return
    output.piece(f"\nLLaMA Intern is ready at {url} with {len(skills)} skills: {', '.join(skills) or 'none yet'}\n")
    if made is not None:
        output.piece(f"Admin key, shown this once: {made}\n")
    elif given:
        output.piece("Admin key: the one in INTERN_API_KEY\n")
    else:
        output.piece(
            "Admin key: made at an earlier start; put it into INTERN_API_KEY for the command below, or make another "
            "with: intern keys create NAME --role admin\n"
        )
    output.piece(f"Try it: {curl}\n")


def _sample(workspace: Workspace) -> str:
    """A request that one of the skills fits."""
    for skill in workspace.library.all("default"):
        for text in (*skill.utterances, *(example.text for example in skill.examples)):
            if len(text) <= 120 and "\n" not in text:
                return text
    return "What can you do?"


def curl_command(url: str, key: str, text: str) -> str:
    """A shell command that asks `text`. A key that begins with $ is left to the shell."""
    body = json.dumps({"model": "intern-auto", "messages": [{"role": "user", "content": text}]}, ensure_ascii=False)
    quote = '"' if key.startswith("$") else "'"
    return (
        f"curl {url}/v1/chat/completions -H {quote}Authorization: Bearer {key}{quote} "
        f"-H 'Content-Type: application/json' -d {shlex.quote(body)}"
    )
