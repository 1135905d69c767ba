"""`intern eval`: every rival on the same held-out examples, or on those of a file."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from intern.cli.connection import Api, connect, segment
from intern.cli.learn import carry_out
from intern.cli.options import AsJson, Home, Key, Url
from intern.cli.rows import read_text
from intern.cli.runs import Detach
from intern.errors import InvalidInput


def evaluate(
    skill: Annotated[str, typer.Argument(metavar="SKILL", help="The skill to measure.")],
    file: Annotated[
        str | None,
        typer.Option(
            "--file", "-f", help='Examples, JSON lines {"input", "output"}; - is standard input.', show_default=False
        ),
    ] = None,
    outside: Annotated[
        list[str] | None,
        typer.Option(
            "--outside",
            metavar="NAME=FILE",
            help="Another system's answers. With --file: a JSON value a line, in the order of its examples, null "
            'where it has none. Without: JSON lines {"input", "output"}, of which those held out are taken. May be '
            "given several times.",
            show_default=False,
        ),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(
            metavar="SKILL@vN", help="One that does not serve, to be measured as well: `candidate`.", show_default=False
        ),
    ] = None,
    detach: Detach = False,
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Measure how well a skill answers, without training: every rival on the same examples, with 95% intervals.

    Everybody is compared with what serves (the base model, where no adapter does), on the examples that both answered:
    the differences and their intervals say who is better, and McNemar's test where answers are right or wrong.

    Rivals are the base model alone (base), with fixed examples in the prompt (few-shot), with the training examples
    nearest to the request in the prompt (retrieval), the adapter in service (serving), if there is one, and that of
    --adapter (candidate). They answer the skill's held-out examples, or those of --file; neither these nor near copies
    of them then are in a rival's prompt, and a warning says how many of them the skill was trained on. Fields are
    compared as the skill's metrics say; the score is their mean, and an answer that breaks the schema scores 0.

    ```bash
    intern eval support-triage
    intern eval support-triage --file fresh-tickets.jsonl
    intern eval support-triage --file fresh-tickets.jsonl --outside other-assistant=its-answers.jsonl
    intern eval support-triage --outside other-assistant=inputs-with-its-outputs.jsonl
    intern eval support-triage --file fresh-tickets.jsonl --adapter support-triage@v3
    intern eval support-triage --json | jq '.rivals | map_values(.score)'
    jq -c '{input: .body, output: .label}' tickets.json | intern eval leave --file -
    ```
    """
    with connect(home, url, key, engine=True) as api:
        body: dict[str, Any] = {"skill": skill, "kind": "evaluate"}
        if file is not None:
            body["examples"] = _read(api, skill, file)
        if outside:
            body["outside"] = dict(map(_answers, outside))
        if adapter is not None:
            body["adapter"] = adapter
        carry_out(api, body, detach=detach, as_json=as_json)


def _answers(given: str) -> tuple[str, list[Any]]:
    """The system's name and its answers. Raises InvalidInput naming the line."""
    name, equals, file = given.partition("=")
    if not equals or not name or not file:
        raise InvalidInput(f"--outside {given}: write NAME=FILE.", param="--outside")
    answers = []
    for number, line in enumerate(read_text(file).removesuffix("\n").split("\n"), 1):
        try:
            answers.append(json.loads(line))
        except ValueError as error:
            raise InvalidInput(
                f"{file}:{number}: a JSON value a line is needed: {error}.", param="--outside"
            ) from error
    return name, answers


def _read(api: Api, skill: str, file: str) -> list[dict[str, Any]]:
    """The examples of a file, checked against the skill's schema. Raises InvalidInput naming the line."""
    from intern.cli.examples import read_examples

    schema = api.get(f"/api/skills/{segment(skill)}")["schema"]
    return [row for _, row in read_examples(read_text(file), schema, as_csv=file.lower().endswith(".csv"))]
