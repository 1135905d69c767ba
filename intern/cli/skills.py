"""`intern skills`: list what there is, make a new one, check folders without a server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from intern.cli import output
from intern.cli.connection import check_home, connect
from intern.cli.options import AsJson, Home, Key, Url, load_settings
from intern.cli.rows import read_text
from intern.errors import InternError, InvalidInput

app = typer.Typer(help="List, make and check skills, and see whether they are ready to learn.", no_args_is_help=True)


@app.command("list")
def list_(as_json: AsJson = False, home: Home = None, url: Url = None, key: Key = None) -> None:
    """List the skills, with what they have and what is wrong with them.

    ```bash
    intern skills list
    intern skills list --json | jq -r '.data[].name'
    ```
    """
    with connect(home, url, key) as api:
        listed = api.get("/api/skills")
    if output.plain(as_json):
        output.document(listed)
        return
    columns = ["name", "title", "output", "examples", "held out", "utterances", "documents", "state"]
    output.table(
        columns,
        [
            (
                skill["name"],
                skill["title"],
                "JSON" if skill["schema"] else "text",
                skill["examples"],
                skill["heldout"],
                skill["utterances"],
                skill["documents"],
                "bad" if skill["problems"] else "ok",
            )
            for skill in listed["data"]
        ],
    )
    for skill in listed["data"]:
        for problem in skill["problems"]:
            output.note(f"{skill['name']}: {problem}")


@app.command()
def new(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="a-z, 0-9 and -.", show_default=False)] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", help="All of it as JSON; - is standard input.", show_default=False)
    ] = None,
    title: Annotated[str | None, typer.Option(help="A few words for people.", show_default=False)] = None,
    description: Annotated[
        str | None, typer.Option(help="What it does, in one sentence; routing uses it.", show_default=False)
    ] = None,
    instructions: Annotated[
        str | None, typer.Option(help="The system prompt: what to do and how.", show_default=False)
    ] = None,
    schema: Annotated[
        str | None, typer.Option(help="File with the output's JSON Schema; otherwise text.", show_default=False)
    ] = None,
    examples: Annotated[str | None, typer.Option(help="File with examples, JSON lines.", show_default=False)] = None,
    utterances: Annotated[
        str | None, typer.Option(help="File with sample requests, one a line.", show_default=False)
    ] = None,
    retrieval: Annotated[
        bool | None, typer.Option(help="Whether it answers from documents; by default not.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Make a skill. What is not given is asked for, on a terminal.

    With --file it is one JSON object, as POST /api/skills takes it: name, title, description, instructions and, where
    wanted, schema, retrieval, prompting, generation, review, learning, evaluation, metrics, examples, utterances. The
    skill serves at once.

    ```bash
    intern skills new
    intern skills new leave --title Leave --schema leave.json \\
      --description "Reads leave requests." --instructions "Extract the dates."
    intern skills new --file leave-skill.json
    ```
    """
    if file is not None:
        spec = _object(file)
        if name is not None:
            spec["name"] = name
    else:
        given = {"name": name, "title": title, "description": description, "instructions": instructions}
        spec = {field: value for field, value in given.items() if value is not None}
        if retrieval is not None:
            spec["retrieval"] = {"enabled": retrieval}
        if schema is not None:
            spec["schema"] = _object(schema)
        if examples is not None:
            from intern.cli.examples import read_examples

            spec["examples"] = [row for _, row in read_examples(read_text(examples), spec.get("schema"), as_csv=False)]
        if utterances is not None:
            spec["utterances"] = [text.strip() for text in read_text(utterances).splitlines() if text.strip()]
        if missing := [field for field, value in given.items() if value is None]:
            if not (sys.stdin.isatty() and sys.stdout.isatty()):
                raise typer.BadParameter(f"give NAME, --title, --description and --instructions; missing: {missing[0]}")
            from intern.cli.questions import complete

            spec = complete(spec)
    with connect(home, url, key) as api:
        made = api.post("/api/skills", spec)
    if output.plain(as_json):
        output.document(made)
    else:
        output.note(f'The skill {made["name"]} serves. Try it: intern ask --skill {made["name"]} "..."')


@app.command()
def check(
    which: Annotated[
        list[str] | None, typer.Argument(metavar="NAME|PATH", help="Names in the workspace, or folders; else all.")
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Check skill folders without a server; every problem with its file and line.

    Problems keep a skill from being loaded: exit code 1. Warnings do not: few examples, no utterances, examples that
    nearly repeat each other.

    ```bash
    intern skills check
    intern skills check support-triage
    intern skills check ./skills/* --json
    ```
    """
    from intern.cli.check import check_folder

    settings = load_settings(home=home)
    folders = [_folder(settings.skills, name) for name in which or ()]
    if not which:
        check_home(settings)
        folders = sorted(path for path in settings.skills.iterdir() if path.is_dir() and path.name[0] not in "._")
    reports = [check_folder(folder) for folder in folders]
    if output.plain(as_json):
        output.document({"data": [report.model_dump(mode="json") for report in reports]})
    else:
        for report in reports:
            state = "bad" if report.problems else "warn" if report.warnings else "ok"
            output.heading(report.name, state)
            for line in (*report.problems, *report.warnings):
                output.piece(f"  {line}\n")
    if bad := [report for report in reports if report.problems]:
        first = bad[0]
        raise InternError(f"{len(bad)} of {len(reports)} skills have problems: {first.name}: {first.problems[0]}")


def _folder(skills: Path, name: str) -> Path:
    for folder in (skills / name, Path(name)) if "/" not in name else (Path(name),):
        if folder.is_dir():
            return folder
    raise InvalidInput(f"There is no skill '{name}' in '{skills}', and no such folder.")


def _object(name: str) -> dict[str, Any]:
    """The JSON object in the file `name`, or on standard input for `-`."""
    try:
        value = json.loads(read_text(name))
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{name}: line {error.lineno}: not valid JSON: {error.msg}.") from error
    except RecursionError as error:
        raise InvalidInput(f"{name}: nests too deep.") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"{name}: must be a JSON object.")
    return value
