"""`intern datasets`: what runs trained on. `intern skills ready`: what a run would train on now, and what it lacks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from intern.cli import output
from intern.cli.connection import connect, segment
from intern.cli.options import AsJson, Home, Key, Limit, Url
from intern.errors import InternError

app = typer.Typer(help="List and show datasets: frozen examples that runs trained on.", no_args_is_help=True)

_SHOWN = 20  # examples that were left out


@app.command("list")
def list_(
    skill: Annotated[str | None, typer.Option("--skill", "-s", help="Of this skill only.", show_default=False)] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """List datasets, the newest first.

    ```bash
    intern datasets list
    intern datasets list --skill support-triage --json
    ```
    """
    asked = {"limit": limit, **({} if skill is None else {"skill": skill})}
    with connect(home, url, key) as api:
        listed = api.get("/api/datasets", **asked)
    if output.plain(as_json):
        output.document(listed)
        return
    columns = ["dataset", "skill", "variant", "train", "held out", "left out", "erased", "created"]
    output.table(columns, [_row(dataset) for dataset in listed["data"]])


def _row(dataset: dict[str, Any]) -> list[Any]:
    counts = [dataset["train"], dataset["heldout"], sum(dataset["reasons"].values()), dataset["erased"]]
    return [dataset["id"], dataset["skill"], dataset["variant"], *counts, dataset["created"][:16]]


@app.command()
def show(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Its id, as `intern datasets list` shows it.")],
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Show one dataset: its size, and every example that was left out with the reason.

    ```bash
    intern datasets show ds_0193f0c2b1d47c3f8a51e6d2c4b7a980
    intern datasets show ds_0193f0c2b1d47c3f8a51e6d2c4b7a980 --json | jq .dropped
    ```
    """
    with connect(home, url, key) as api:
        found = api.get(f"/api/datasets/{segment(dataset)}")
    if output.plain(as_json):
        output.document(found)
        return
    about = {name: found[name] for name in ("skill", "variant", "train", "heldout", "erased", "digest", "created")}
    output.table(["dataset", found["id"]], [*about.items(), ("adapters", ", ".join(found["adapters"]))])
    _left_out(found["reasons"])
    dropped = found["dropped"]
    if dropped:
        output.table(["example", "reason"], [(row["example"], row["detail"]) for row in dropped[:_SHOWN]])
    if len(dropped) > _SHOWN:
        output.note(f"{len(dropped) - _SHOWN} more; --json shows all.")


def _left_out(reasons: dict[str, int]) -> None:
    if reasons:
        rows = sorted(reasons.items(), key=lambda pair: -pair[1])
        output.table(["left out because of", "examples"], [(why.replace("_", " "), count) for why, count in rows])


def ready(
    skill: Annotated[str, typer.Argument(metavar="SKILL", help="The skill that would learn.")],
    variant: Annotated[
        Literal["original", "augmented"],
        typer.Option("--variant", help="Augmented: with examples written from the skill's documents."),
    ] = "original",
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Say whether a skill has what it needs to learn, and what is missing. Trains and stores nothing.

    Examples are checked, freed of personal data, compared and split as a run would do it. Exit code 1 when `intern
    learn` would refuse.

    ```bash
    intern skills ready support-triage
    intern skills ready support-triage && intern learn support-triage
    intern skills ready support-triage --json | jq -r '.missing[]'
    ```
    """
    with connect(home, url, key) as api, output.progress("looking through the examples", None):
        found = api.get(f"/api/skills/{segment(skill)}/readiness", variant=variant)
    missing = [*found["missing"], *([found["unavailable"]] if found["unavailable"] else [])]
    if output.plain(as_json):
        output.document(found)
    else:
        output.heading(skill, "not ready" if missing else "ready to learn")
        output.piece(f"  {found['train']} examples to train on, {found['heldout']} held out\n")
        for note in found["notes"]:
            output.piece(f"  {note}\n")
        _left_out(found["dropped"])
    if missing:
        raise InternError(" ".join(missing))
