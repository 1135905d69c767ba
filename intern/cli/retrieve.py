"""`intern retrieve`: the passages of a skill's documents that a request would be answered from."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from intern.cli import output
from intern.cli.connection import Api, connect, segment
from intern.cli.options import AsJson, Home, Key, Parallel, Rows, Url
from intern.cli.rows import given, one_of, run_rows

BLANK: dict[str, Any] = {"passages": []}


def retrieve(
    skill: Annotated[str, typer.Argument(metavar="SKILL", help="The skill whose documents are searched.")],
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="The request; - is standard input.", show_default=False)
    ] = None,
    file: Rows = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="Passages a request; otherwise the skill's setting.")
    ] = None,
    parallel: Parallel = 4,
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Show the passages that a request finds in a skill's documents.

    Best first, each with its document, heading, character offsets and score. With --file, each line holds an input,
    and a line of JSON comes out for each.

    ```bash
    intern retrieve policy-answers "How many days of leave do I have?"
    intern retrieve policy-answers --file questions.jsonl --limit 20 > found.jsonl
    ```
    """
    one_of(text, file)

    def find(api: Api, value: Any) -> dict[str, Any]:
        body = {"input": value} | ({} if limit is None else {"limit": limit})
        return {"passages": api.post(f"/api/skills/{segment(skill)}/retrieve", body)["passages"]}

    with connect(home, url, key) as api:
        if file is not None:
            if run_rows(file, lambda value: find(api, value), blank=BLANK, parallel=parallel):
                raise typer.Exit(1)
            return
        asked = given(str(text))
        answer = {"input": asked, **find(api, asked)}
    if output.plain(as_json):
        output.line(answer)
        return
    for passage in answer["passages"]:
        heading = f" › {passage['heading']}" if passage["heading"] else ""
        place = f"{passage['document']}{heading} ({passage['start']}-{passage['end']})"
        output.heading(place, f"{passage['score']:.3f}")
        output.text(passage["text"])
    if not answer["passages"]:
        output.note("Nothing was found.")
