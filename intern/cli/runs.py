"""`intern runs`: trainings and evaluations: listed, shown, followed, ended, resumed. `attend` waits for a new one.

Following survives a server that is started again. Ctrl-C ends the following, and asks what is to become of the run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, Literal

import typer

from intern.cli import output, results
from intern.cli.connection import Api, connect, segment
from intern.cli.options import AsJson, Home, Key, Limit, Url
from intern.cli.progress import Event, duration, shown
from intern.errors import Conflict, EngineUnavailable, InternError, NotAuthenticated

RECONNECT_SECONDS = 60.0
INTERRUPTED = 130  # what a shell calls a command that Ctrl-C ended
ENDED = ("done", "failed", "cancelled")
_PAUSE_SECONDS = 1.0

app = typer.Typer(help="List, show, follow, end and resume runs: trainings and evaluations.", no_args_is_help=True)

Detach = Annotated[bool, typer.Option("--detach", help="Print the run's id and leave it to the intern.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, as `intern runs list` shows it.")]


@app.command("list")
def list_(
    skill: Annotated[str | None, typer.Option("--skill", "-s", help="Of this skill only.", show_default=False)] = None,
    state: Annotated[
        Literal["queued", "running", "done", "failed", "cancelled"] | None,
        typer.Option("--state", help="In this state only.", show_default=False),
    ] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """List runs, the newest first. `failed, resumable`: it keeps its work on disk, until it is resumed or cancelled.

    ```bash
    intern runs list
    intern runs list --skill support-triage --state failed
    ```
    """
    asked = {"skill": skill, "state": state, "limit": limit}
    with connect(home, url, key) as api:
        listed = api.get("/api/runs", **{name: value for name, value in asked.items() if value is not None})
    if output.plain(as_json):
        output.document(listed)
        return
    columns = ["run", "skill", "kind", "state", "stage", "decision", "adapter", "created"]
    rows = [[_told(run, column) for column in columns] for run in listed["data"]]
    output.table(columns, rows)


def _told(run: dict[str, Any], column: str) -> Any:
    if column == "state" and run.get("resumable"):
        return f"{run['state']}, resumable"
    return run["id"] if column == "run" else run["created"][:16] if column == "created" else run[column]


@app.command()
def compare(
    run: RunId,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The run that it is compared with.")],
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Compare two trainings of a skill: their candidates, on the held-out examples that both answered.

    Shows what a dataset variant, a recipe or a number brought. Differences are the first minus the other, with 95%
    intervals; one that reaches over 0 may be chance.

    ```bash
    intern learn policy-answers --no-promote
    intern learn policy-answers --no-promote --variant augmented
    intern runs compare $(intern runs list --skill policy-answers --json | jq -r '.data[:2][].id')
    ```
    """
    with connect(home, url, key) as api:
        found = api.get(f"/api/runs/{segment(run)}/against/{segment(other)}")
    if output.plain(as_json):
        output.document(found)
        return
    rows = [("score", found["score"]["mean"], found["other_score"]["mean"], found["difference"])]
    rows += [(field, None, None, difference) for field, difference in found["fields"].items()]
    output.table(
        [f"{found['n']} examples", "first", "other", "difference", "95% interval", "better", "worse"],
        [_compared(*row) for row in rows],
    )
    if found["corrected"]:
        output.note(
            f"{found['corrected']} examples are left out: request or right answer was another one in the other run"
        )
    if found["failed"]:
        output.note(f"{found['failed']} examples are left out: the engine failed to answer them")


def _compared(name: str, first: float | None, other: float | None, difference: dict[str, Any]) -> list[str]:
    interval = difference["interval"]
    span = "too few" if interval["low"] is None else f"{interval['low']:+.2f} to {interval['high']:+.2f}"
    means = ["" if mean is None else f"{mean:.3f}" for mean in (first, other)]
    return [name, *means, f"{interval['mean']:+.3f}", span, str(difference["wins"]), str(difference["losses"])]


@app.command()
def show(run: RunId, as_json: AsJson = False, home: Home = None, url: Url = None, key: Key = None) -> None:
    """Show one run: what it is, how far it came, and its verdict.

    ```bash
    intern runs show run_0193f0c2b1d47c3f8a51e6d2c4b7a980
    intern runs show run_0193f0c2b1d47c3f8a51e6d2c4b7a980 --json | jq .verdict.ruling
    ```
    """
    with connect(home, url, key) as api:
        found = api.get(f"/api/runs/{segment(run)}")
    if output.plain(as_json):
        output.document(found)
        return
    trained = duration(found["train_seconds"]) if found["train_seconds"] else None
    about = {**{name: found[name] for name in ("skill", "kind", "state", "stage", "dataset", "adapter", "created")}}
    rows = [*about.items(), ("recipe", found["recipe"].get("name")), ("trained in", trained)]
    output.table(["run", found["id"]], [row for row in rows if row[1]])
    results.show(found)
    if found["decision"] is None and found["reason"]:
        output.note(_why(found))


@app.command()
def follow(run: RunId, as_json: AsJson = False, home: Home = None, url: Url = None, key: Key = None) -> None:
    """Follow a run to its end, from its beginning.

    On a terminal it is drawn as `intern learn` draws it, with the verdict at the end; otherwise each event is a line of
    JSON. Exit code 1 when the run fails or is cancelled. Ctrl-C leaves it running, or cancels it: you are asked.

    ```bash
    intern runs follow run_0193f0c2b1d47c3f8a51e6d2c4b7a980
    intern runs follow run_0193f0c2b1d47c3f8a51e6d2c4b7a980 --json | jq -r 'select(.kind == "step") | .loss'
    ```
    """
    with connect(home, url, key) as api:
        found = api.get(f"/api/runs/{segment(run)}")
        if api.private and found["state"] not in ENDED:
            raise Conflict(f"The run is {found['state']}, and nothing works on this workspace now. Start: intern up")
        if output.plain(as_json):
            found = _read(api, run, output.line)
        else:
            found = follow_to_end(api, run)
            results.show(found)
    check(found)


@app.command()
def cancel(run: RunId, as_json: AsJson = False, home: Home = None, url: Url = None, key: Key = None) -> None:
    """End a run that waits or goes on. What it made so far serves nobody.

    A training that failed keeps its work for `intern runs resume`; cancelling it removes that.

    ```bash
    intern runs cancel run_0193f0c2b1d47c3f8a51e6d2c4b7a980
    intern runs list --state queued --json | jq -r '.data[].id' | xargs -n 1 intern runs cancel
    ```
    """
    with connect(home, url, key) as api:
        found = api.post(f"/api/runs/{segment(run)}/cancel")
    if output.plain(as_json):
        output.document(found)
    else:
        output.note(f"{run} is {found['state']}.")


@app.command()
def resume(
    run: RunId,
    detach: Detach = False,
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Go on with a training that failed: from its last checkpoint, or from the adapter that it stored.

    For when what it failed on is put right: a full disk, a service that was away. It keeps its dataset and its recipe;
    the skill's instructions and settings are taken as they are now; the base model and the schema must be the same, and
    no example deleted since. It is shown from its beginning, and ends as `intern learn` does. What it kept is removed
    when a later training of the skill is done, or fails and keeps its own, and by `intern runs cancel RUN`.

    ```bash
    intern runs resume run_0193f0c2b1d47c3f8a51e6d2c4b7a980
    intern runs list --state failed --json | jq -r '.data[0].id' | xargs intern runs resume --detach
    ```
    """
    with connect(home, url, key, engine=True) as api:
        attend(api, api.post(f"/api/runs/{segment(run)}/resume"), detach=detach, as_json=as_json)


@app.command()
def report(run: RunId, as_json: AsJson = False, home: Home = None, url: Url = None, key: Key = None) -> None:
    """Print a run's report: one HTML page with curves, rivals, and the answers that changed most.

    It quotes held-out requests and answers, so it is for people who may read the skill's examples. With --json it is
    the same facts as an object.

    ```bash
    intern runs report run_0193f0c2b1d47c3f8a51e6d2c4b7a980 > report.html
    intern runs report run_0193f0c2b1d47c3f8a51e6d2c4b7a980 --json | jq .comparison.regressions
    ```
    """
    path = f"/api/runs/{segment(run)}/report"
    with connect(home, url, key) as api:
        if as_json:
            output.document(api.get(path, format="json"))
        else:
            sys.stdout.buffer.write(api.text(path).encode())
            sys.stdout.flush()


# --- following -------------------------------------------------------------------------------------------------


def attend(api: Api, run: dict[str, Any], *, detach: bool, as_json: bool) -> None:
    """Follow a run that was just queued, and print what it came to. Raises InternError when it does not come to an
    end."""
    if detach:
        _leave(api, run, as_json)
        return
    run = follow_to_end(api, run["id"], quiet=as_json)
    check(run)
    if output.plain(as_json):
        output.document(results.contract(run))
    else:
        results.show(run)


def _leave(api: Api, run: dict[str, Any], as_json: bool) -> None:
    if output.plain(as_json):
        output.document(run)
    else:
        output.note(f"{run['id']} is {run['state']}. Follow it with: intern runs follow {run['id']}")
    if api.private:
        output.note("Nothing works on this workspace now: `intern up` will carry it out.")


def follow_to_end(api: Api, run: str, *, quiet: bool = False) -> dict[str, Any]:
    """Show a run as it goes on; returns it as it ended. Raises Exit when Ctrl-C ends the following, not the run."""
    with shown(quiet=quiet) as take:
        try:
            return _read(api, run, take)
        except KeyboardInterrupt:
            pass
    # Asked when nothing is drawn any more.
    _interrupted(api, run)
    return dict(api.get(f"/api/runs/{segment(run)}"))


def check(run: dict[str, Any]) -> None:
    """Raises InternError with the reason of a run that did not come to its end."""
    if run["state"] == "cancelled":
        raise InternError(f"The run {run['id']} was cancelled.")
    if run["state"] != "done":
        raise InternError(_why(run))


def _why(run: dict[str, Any]) -> str:
    """Why a run did not come to its end, and how it goes on where it can."""
    reason = run["reason"] or f"The run {run['id']} is {run['state']}."
    return f"{reason} What it did is kept: intern runs resume {run['id']}" if run.get("resumable") else str(reason)


def _read(api: Api, run: str, take: Callable[[Event], object]) -> dict[str, Any]:
    path = f"/api/runs/{segment(run)}"
    after = -1
    lost: float | None = None
    while True:
        try:
            for event in api.events(f"{path}/events", after=after):
                lost = None
                after = max(after, event.get("id", -1))
                take(event)
            return dict(api.get(path))
        except EngineUnavailable:
            lost = lost or time.monotonic()
            if api.private or time.monotonic() - lost > RECONNECT_SECONDS:
                raise
            time.sleep(_PAUSE_SECONDS)
        except NotAuthenticated as error:
            if lost is None:
                raise
            raise EngineUnavailable(f"The intern was started again. Go on with: intern runs follow {run}") from error


def again(run: dict[str, Any]) -> str | None:
    """The command that goes on with a run that was left in the middle, where nothing else works on the workspace. None
    for a measurement with examples or answers of its own: who measures again may bring others."""
    from intern.learning.loop.collecting import COMMANDS

    if run["kind"] == "evaluate" and run["recipe"].get("asked"):
        return None
    command: str = COMMANDS[run["kind"]]
    return f"{command} {run['skill']}"


def _interrupted(api: Api, run: str) -> None:
    """Ask what is to become of the run; who cannot be asked, or does not answer, leaves it."""
    later = "stop here, and have `intern up` go on later" if api.private else "leave it running"
    answer = ""
    if sys.stdin.isatty() and sys.stderr.isatty():
        with suppress(typer.Abort, KeyboardInterrupt):
            answer = typer.prompt(f"Cancel the run, or {later}? [c/L]", default="", show_default=False, err=True)
    if answer.strip().lower() not in ("c", "cancel"):
        if api.private:
            command = again(api.get(f"/api/runs/{segment(run)}"))
            also = f", or `{command}` again," if command else ""
            output.note(f"{run} waits: `intern up`{also} goes on with it. Or end it: intern runs cancel {run}")
        else:
            output.note(f"{run} goes on. Follow it with: intern runs follow {run}")
        raise typer.Exit(INTERRUPTED)
    api.post(f"/api/runs/{segment(run)}/cancel")
