"""`intern ask`: a request in, an answer out; streamed to a terminal, as JSON otherwise."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from intern.cli import output
from intern.cli.connection import Api, connect
from intern.cli.options import AsJson, Home, Key, Parallel, Rows, Url
from intern.cli.rows import given, one_of, patiently, run_rows

FIELDS = ("output", "skill", "adapter", "valid", "citations", "record")
BLANK: dict[str, Any] = {
    "output": None,
    "skill": None,
    "adapter": None,
    "valid": False,
    "citations": [],
    "record": None,
}


def ask(
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="The request; - is standard input.", show_default=False)
    ] = None,
    file: Rows = None,
    skill: Annotated[
        str | None,
        typer.Option(
            "--skill", "-s", help="Ask this skill (NAME or NAME@VERSION), without routing.", show_default=False
        ),
    ] = None,
    parallel: Parallel = 4,
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Answer a request.

    It is routed to the skill that fits it, unless --skill names one. On a terminal the answer appears as it is made;
    otherwise one line of JSON comes out, with the output (an object for a skill with a schema), skill, adapter,
    valid, citations and the record's id, by which it can be reviewed. Output and skill are null when nothing fits, and
    refusal says so. With --file, each line holds an input, and a line of JSON comes out for each; a row that fails has
    its reason under error.

    ```bash
    intern ask "The printer on floor 3 jams since Monday"
    intern ask --skill policy-answers "May I work from abroad?" --json
    cat mail.txt | intern ask -
    intern ask --file requests.jsonl --skill support-triage > answers.jsonl
    ```
    """
    one_of(text, file)
    with connect(home, url, key, engine=True) as api:
        if file is not None:
            if run_rows(file, lambda value: _ask(api, value, skill), blank=BLANK, parallel=parallel):
                raise typer.Exit(1)
            return
        asked = given(str(text))
        if output.plain(as_json):
            output.line({"input": asked, **patiently(lambda: _ask(api, asked, skill))})
        else:
            _stream(api, asked, skill)


def _ask(api: Api, value: Any, skill: str | None) -> dict[str, Any]:
    body = {"input": value}
    if skill is not None:
        body["skill"], at, version = skill.partition("@")
        body |= {"version": version} if at else {}
    answer = api.post("/api/ask", body)
    refusal = answer.get("refusal")
    return {name: answer[name] for name in FIELDS} | ({} if refusal is None else {"refusal": refusal})


def _stream(api: Api, asked: str, skill: str | None) -> None:
    body = {
        "model": "intern-auto" if skill is None else f"intern/{skill}",
        "messages": [{"role": "user", "content": asked}],
        "stream": True,
    }
    about: dict[str, Any] = {}
    for event in api.events("/v1/chat/completions", body):
        about = event.get("intern", about)
        for choice in event["choices"]:
            delta = choice["delta"]
            output.piece(delta.get("content") or delta.get("refusal") or "")
    output.piece("\n")
    if about:
        route = about["route"]
        sure = f"  {route['confidence']:.0%}" if skill is None else ""
        served = about["adapter"] or "base model"
        output.note(f"{about['skill'] or 'no skill fits'}{sure}  {served}  {about['record']}")
        for citation in about["citations"]:
            heading = f" › {citation['heading']}" if citation["heading"] else ""
            output.note(f"  {citation['document']}{heading} ({citation['start']}-{citation['end']})")
        for remark in about["notes"]:
            output.note(f"  {remark}")
