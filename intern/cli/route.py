"""`intern route`: which skill would serve a request, how surely, and why."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from intern.cli import output
from intern.cli.connection import Api, connect
from intern.cli.options import AsJson, Home, Key, Parallel, Rows, Url
from intern.cli.rows import given, one_of, run_rows

BLANK: dict[str, Any] = {"skill": None, "confidence": None, "candidates": [], "reason": None}


def route(
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="The request; - is standard input.", show_default=False)
    ] = None,
    file: Rows = None,
    parallel: Parallel = 4,
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Say which skill fits a request.

    The decision comes with its calibrated confidence, the candidates and the nearest example. A request that fits no
    skill has the skill null. With --file, each line holds an input, and a line of JSON comes out for each.

    ```bash
    intern route "My badge no longer opens the garage"
    intern route --file requests.jsonl > routes.jsonl
    echo '{"input": "Where is my refund?"}' | intern route --file -
    ```
    """
    one_of(text, file)
    with connect(home, url, key) as api:
        if file is not None:
            if run_rows(file, lambda value: _route(api, value), blank=BLANK, parallel=parallel):
                raise typer.Exit(1)
            return
        asked = given(str(text))
        answer = {"input": asked, **_route(api, asked)}
    if output.plain(as_json):
        output.line(answer)
        return
    output.note(f"{answer['skill'] or 'no skill fits'}  {answer['confidence']:.0%}")
    output.table(["skill", "score"], [(c["skill"], f"{c['score']:.3f}") for c in answer["candidates"]])
    output.note(answer["reason"])


def _route(api: Api, value: Any) -> dict[str, Any]:
    answer = api.post("/api/route", {"input": value})
    return {name: answer[name] for name in BLANK}
