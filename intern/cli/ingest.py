"""`intern ingest`: documents from files and folders into a skill; or the index rebuilt from the database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from intern.cli import output
from intern.cli.connection import Api, connect
from intern.cli.options import AsJson, Home, Key, Url
from intern.errors import InternError


def ingest(
    skill: Annotated[
        str | None, typer.Argument(metavar="SKILL", help="The skill that answers from them.", show_default=False)
    ] = None,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH", help="Files and folders; - is standard input.")
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make the index again from the database.")] = False,
    name: Annotated[str, typer.Option("--name", help="What to call the document on standard input.")] = "stdin.txt",
    force: Annotated[bool, typer.Option("--force", help="Send unchanged files too.")] = False,
    prune: Annotated[
        bool, typer.Option(help="Remove documents that a folder brought before and no longer holds.")
    ] = True,
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Bring documents to a skill, or rebuild the index.

    A document is called by its path below the folder that was given; a single file by its own name. Unchanged files
    are not sent again, changed ones replace what they were, and what disappeared from a folder is removed. Files that
    cannot be read as documents are refused, each with its reason, and the exit code is 1; the others are taken.
    Hidden files are left out.

    ```bash
    intern ingest policy-answers handbook/
    intern ingest policy-answers handbook/ extra/dress-code.pdf --json
    intern ingest policy-answers - --name rules.md < rules.txt
    intern ingest --rebuild
    ```
    """
    if rebuild:
        if skill is not None:
            raise typer.BadParameter("--rebuild takes no skill and no paths: it rebuilds the whole index")
        _rebuild(home, url, key, as_json)
        return
    if skill is None or not paths:
        raise typer.BadParameter("give a skill and at least one file or folder, or --rebuild")
    from intern.cli.upload import Upload, find_sources, spool

    with spool(name if "-" in paths else None) as piped:
        sources = find_sources([piped if path == "-" and piped else Path(path) for path in paths], piped)
        with connect(home, url, key) as api:
            upload = Upload(api, skill, force=force)
            with output.progress("documents", sum(len(source.files) for source in sources)) as bar:
                for source in sources:
                    upload.send(source, lambda: bar.advance(bar.task_ids[0]))
                    if prune and source.whole:
                        upload.prune(source)
    _report(skill, upload.summary, as_json)


def _rebuild(home: Path | None, url: str | None, key: str | None, as_json: bool) -> None:
    with connect(home, url, key) as api:
        counts = _rebuilt(api)
    if output.plain(as_json):
        output.document(counts)
    else:
        output.table(["rebuilt", "count"], list(counts.items()))


def _rebuilt(api: Api) -> dict[str, Any]:
    with output.progress("rebuilding the index", None):
        return dict(api.post("/api/index/rebuild", {}) or {})


def _report(skill: str, summary: dict[str, Any], as_json: bool) -> None:
    refused = summary["refused"]
    if output.plain(as_json):
        output.document({"skill": skill, **summary})
    else:
        counts = [(what, len(found) if isinstance(found, list) else found) for what, found in summary.items()]
        output.table(["documents", "count"], counts)
        if refused:
            output.table(["refused", "reason"], [(one["name"], one["problem"]) for one in refused])
    if refused:
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise InternError(f"{len(refused)} refused: {refused[0]['name']}: {refused[0]['problem']}{more}")
