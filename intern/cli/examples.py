"""`intern examples import`: inputs with their right outputs, from JSON lines or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import typer

from intern.cli import output
from intern.cli.connection import connect, segment
from intern.cli.options import AsJson, Home, Key, Url
from intern.cli.rows import read_text
from intern.errors import InternError, InvalidInput

BATCH_ROWS = 500
BATCH_BYTES = 1_000_000
COLUMNS = ("input", "output", "id", "group", "split")

app = typer.Typer(help="Bring examples to a skill.", no_args_is_help=True)


@app.callback()
def _examples() -> None:
    pass


@app.command("import")
def import_(
    skill: Annotated[str, typer.Argument(metavar="SKILL", help="The skill that learns from them.")],
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON lines or CSV; - is standard input.")],
    layout: Annotated[
        Literal["jsonl", "csv"] | None,
        typer.Option("--format", help="Otherwise by the file's name; JSON lines if that does not tell."),
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Add examples to a skill; the router learns from them at once.

    A row of JSON lines is {"input": text or messages, "output": text or object}, with id, group and split
    ("train" or "heldout") where wanted. A CSV has the columns input and output; an output is JSON if the skill has a
    schema. Every row is checked before the first one is sent.

    ```bash
    intern examples import support-triage triaged.jsonl
    intern examples import policy-answers questions.csv
    jq -c '{input: .body, output: .label}' x | intern examples import leave -
    ```
    """
    as_csv = layout == "csv" or (layout is None and file.lower().endswith(".csv"))
    body = read_text(file)
    with connect(home, url, key) as api:
        schema = api.get(f"/api/skills/{segment(skill)}")["schema"]
        rows = read_examples(body, schema, as_csv=as_csv)
        added = 0
        with output.progress("examples", len(rows)) as bar:
            for batch in batches(rows):
                try:
                    added += api.post("/api/examples", {"skill": skill, "examples": [row for _, row in batch]})["added"]
                except InternError as error:
                    lines = f"lines {batch[0][0]} to {batch[-1][0]}"
                    raise InternError(f"{added} examples were added; {lines} were not: {error.message}") from error
                bar.advance(bar.task_ids[0], len(batch))
    if output.plain(as_json):
        output.document({"skill": skill, "added": added})
    else:
        output.note(f"{added} examples were added to {skill}.")


def read_examples(text: str, schema: dict[str, Any] | None, *, as_csv: bool) -> list[tuple[int, dict[str, Any]]]:
    """(line, row) of each example in `text`. Raises InvalidInput with the first bad line and how many there are."""
    from intern.schema import check_schema
    from intern.skill import parse_example

    checked = None if schema is None else check_schema(schema)
    found: list[tuple[int, dict[str, Any]]] = []
    problems: list[str] = []
    for line, row in _csv(text, schema is not None) if as_csv else _jsonl(text):
        try:
            if isinstance(row, str):
                raise InvalidInput(row)
            parse_example(row, checked)
            found.append((line, row))
        except InvalidInput as error:
            problems.append(f"line {line}: {error.message}")
    if problems:
        more = f" ({len(problems)} of {len(problems) + len(found)} rows are bad)" if len(problems) > 1 else ""
        raise InvalidInput(f"{problems[0]}{more}. Nothing was added.")
    if not found:
        raise InvalidInput("There are no rows in it.")
    return found


def _jsonl(text: str) -> Iterator[tuple[int, Any]]:
    """(line, value), or (line, what is wrong with it)."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            yield number, value if isinstance(value, dict) else 'must be an object {"input": ..., "output": ...}'
        except json.JSONDecodeError as error:
            yield number, f"not valid JSON: {error.msg} (column {error.colno})"
        except RecursionError:
            yield number, "nests too deep"


def _csv(text: str, structured: bool) -> Iterator[tuple[int, Any]]:
    """(line, row), or (line, what is wrong with it). `structured`: an output is JSON."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = reader.fieldnames or []
        missing = [name for name in ("input", "output") if name not in columns]
        unknown = [name for name in columns if name not in COLUMNS]
        if missing or unknown:
            what = f"has no column '{missing[0]}'" if missing else f"has an unknown column '{unknown[0]}'"
            raise InvalidInput(f"The CSV {what}; its columns are input, output and, where wanted, id, group, split.")
        for cells in reader:
            if None in cells or any(cell is None for cell in cells.values()):
                yield reader.line_num, f"must have {len(columns)} cells, as the first line"
                continue
            row: dict[str, Any] = {name: cell for name, cell in cells.items() if cell or name in ("input", "output")}
            try:
                row["output"] = json.loads(row["output"]) if structured else row["output"]
            except (json.JSONDecodeError, RecursionError):
                yield reader.line_num, "key 'output' must be JSON: the skill has a schema"
                continue
            yield reader.line_num, row
    except csv.Error as error:
        yield reader.reader.line_num, f"not valid CSV: {error}"


def batches(rows: list[tuple[int, dict[str, Any]]]) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """The rows in runs that one request can carry."""
    batch: list[tuple[int, dict[str, Any]]] = []
    size = 0
    for line, row in rows:
        length = len(json.dumps(row))
        if batch and (len(batch) >= BATCH_ROWS or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((line, row))
        size += length
    if batch:
        yield batch
