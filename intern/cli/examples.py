"""`intern examples`: inputs with their right outputs, from a file in any layout, or written from documents.

In: a file and, where wanted, a mapping of its columns. Out: the guessed mapping with sample rows for a person to agree
to, and then the examples, all or none. Reading, guessing and checking is the server's, and so the same over HTTP.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from intern.cli import output
from intern.cli.connection import Api, connect
from intern.cli.learn import carry_out
from intern.cli.options import AsJson, Home, Key, Url, load_settings
from intern.cli.rows import open_input, read_text
from intern.cli.runs import Detach
from intern.errors import InternError, InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

SHOWN_ROWS = 2
SHOWN_PROBLEMS = 5
SHOWN_CHARACTERS = 400

app = typer.Typer(help="Bring examples to a skill, or have them written.", no_args_is_help=True)


@app.callback()
def _examples() -> None:
    pass


@app.command("import")
def import_(
    skill: Annotated[str, typer.Argument(metavar="SKILL", help="The skill that learns from them.")],
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON lines, a JSON list or CSV; - is standard input.")],
    mapping: Annotated[
        str | None, typer.Option("--mapping", metavar="FILE", help="Which columns become what.", show_default=False)
    ] = None,
    show: Annotated[bool, typer.Option("--show-mapping", help="Print the mapping as YAML, and add nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Take the guessed mapping without asking.")] = False,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="COLUMN", help="A column of the input; may be given several times.", show_default=False
        ),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            "--output",
            metavar="COLUMN|FIELD=COLUMN",
            help="The output's column; FIELD=COLUMN may be given several times.",
            show_default=False,
        ),
    ] = None,
    nulls: Annotated[
        Literal["keep", "drop", "explain"] | None,
        typer.Option(
            help="What becomes of empty fields: null, left out, or a text; by default keep.", show_default=False
        ),
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad rows out instead of adding nothing.")] = False,
    layout: Annotated[
        Literal["jsonl", "json", "csv"] | None,
        typer.Option("--format", help="Otherwise by the file's name and content.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Add examples to a skill; the router learns from them at once.

    Rows with the columns input and output (and id, group, person, split where wanted) are taken as they are. Of any
    other layout (OpenAI and ShareGPT conversations, Alpaca, Dolly, question and answer, a spreadsheet) the columns are
    guessed: the mapping is shown with two rows as they would become, and added after a yes. Where nobody can be asked,
    give --yes or --mapping. Every row is checked before the first one is added.

    ```bash
    intern examples import support-triage triaged.jsonl
    intern examples import support-triage tickets.csv --show-mapping > map.yaml
    intern examples import support-triage tickets.csv --mapping map.yaml
    intern examples import support-triage tickets.csv --output category=Queue --output priority=Prio
    intern examples import policy-answers faq.csv --yes --nulls drop --skip-bad
    jq -c '{input: .body, output: .label}' x | intern examples import leave -
    ```
    """
    fields = {"skill": skill, **({"format": layout} if layout else {})}
    given = _given(inputs or [], outputs or [], nulls)
    if mapping is not None:
        from intern.learning.imports.mapping import keys_of, load_keys, make_mapping

        declared = make_mapping({**load_keys(read_text(mapping)), **given})
        fields["mapping"] = json.dumps(keys_of(declared))
    elif given:
        fields["given"] = json.dumps(given)
    with connect(home, url, key) as api:
        sent = [(file, _read(file, home, url))]
        seen = api.upload("/api/examples/preview", sent, fields)
        if seen["mapping"] is None:
            hint = "Name them with --input COLUMN and --output COLUMN, or with --mapping FILE."
            raise InvalidInput(f"{seen['problems'][0]['message']} {hint}")
        if show:
            _print_mapping(seen, as_json)
            return
        own = seen["mapping"]["layout"] == "own"
        agreed = own or yes or mapping is not None or (inputs is not None and outputs is not None)
        if not agreed:
            _explain(seen)
        if seen["good"] < seen["rows"] and (not skip_bad or not seen["good"]):
            raise InvalidInput(_bad(seen))
        if not agreed:
            _ask(seen, skill, as_json)
        fields = {**fields, "mapping": json.dumps(seen["mapping"]), "skip_bad": str(skip_bad).lower()}
        fields.pop("given", None)
        _report(_import(api, sent, fields), own=own, mapping=seen["mapping"], as_json=as_json)


def _given(inputs: list[str], outputs: list[str], nulls: str | None) -> dict[str, Any]:
    """Keys of a mapping from the options. Raises BadParameter."""
    given: dict[str, Any] = {"input": inputs} if inputs else {}
    if len(inputs) > 1:
        given["labels"] = True
    fields = dict(pair.split("=", 1) for pair in outputs if "=" in pair)
    if fields and len(fields) == len(outputs):
        given["output"] = fields
    elif len(outputs) == 1:
        given["output"] = outputs[0]
    elif outputs:
        raise typer.BadParameter("--output is one COLUMN, or several times FIELD=COLUMN with different fields")
    return {**given, **({"nulls": nulls} if nulls else {})}


@app.command("write")
def write(
    skill: Annotated[str, typer.Argument(metavar="SKILL", help="The skill whose documents are read.")],
    count: Annotated[
        int, typer.Option("--count", "-n", min=0, help="At most so many; 0: what the documents give.")
    ] = 0,
    detach: Detach = False,
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Have examples written from a skill's documents: questions with their answers, each tied to its passage.

    The teacher is INTERN_TEACHER_URL with INTERN_TEACHER_MODEL, any OpenAI-compatible endpoint; without one, the engine
    in use, of which a small local model is a poor one. A pair counts only when its answer stands in the passage, the
    retriever finds that passage for the question, and nothing like it is there yet. They are trained on where it is
    asked for, and never held out: intern learn SKILL --variant augmented

    ```bash
    intern examples write policy-answers --count 40
    intern learn policy-answers --variant augmented
    ```
    """
    with connect(home, url, key, engine=True) as api:
        body = {"skill": skill, "kind": "synthesize", "count": count}
        carry_out(api, body, detach=detach, as_json=as_json)


def _read(name: str, home: Path | None, url: str | None) -> bytes:
    """The bytes of a file. Raises InvalidInput for more than this workspace's server takes at once."""
    limit = load_settings(home=home).upload_bytes if url is None else None
    with open_input(name) as file:
        try:
            data = file.read(-1 if limit is None else limit + 1)
        except OSError as error:
            raise InvalidInput(f"{name}: cannot be read: {error.strerror}.") from error
    if limit is not None and len(data) > limit:
        raise InvalidInput(
            f"{name}: larger than the {limit / 1e6:g} MB that are taken at once. Bring it in parts, or raise "
            "INTERN_UPLOAD_BYTES."
        )
    return data


def _import(api: Api, sent: list[tuple[str, bytes]], fields: dict[str, str]) -> dict[str, Any]:
    with output.progress("adding examples", None):
        return dict(api.upload("/api/examples/import", sent, fields))


def _print_mapping(seen: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.document(seen["mapping"])
        return
    from intern.learning.imports.mapping import dump_mapping, make_mapping

    output.piece(dump_mapping(make_mapping(seen["mapping"])))


def _explain(seen: dict[str, Any]) -> None:
    """The mapping, rows as they would become, and what is odd about them, for people."""
    from intern.learning.imports.mapping import dump_mapping, make_mapping

    output.note(f"The columns were taken like this ({seen['format']}, {seen['encoding']}):\n")
    output.note(dump_mapping(make_mapping(seen["mapping"])))
    for example in seen["examples"][:SHOWN_ROWS]:
        for side in ("input", "output"):
            value = example[side]
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            more = "..." if len(text) > SHOWN_CHARACTERS else ""
            output.note(f"line {example['line']}, {side}: {text[:SHOWN_CHARACTERS]}{more}")
    for line in (*seen["notes"], *_named(seen["problems"])):
        output.note(line)


def _ask(seen: dict[str, Any], skill: str, as_json: bool) -> None:
    """Go on if a person says so. Raises InternError if not, or if there is nobody to ask."""
    if as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InvalidInput(
            "The file is not in the project's own layout, so its columns were guessed. Look at --show-mapping, then "
            "give --yes, or the corrected mapping with --mapping FILE. Nothing was added."
        )
    bad = seen["rows"] - seen["good"]
    skipping = f", without the {bad} bad rows" if bad else ""
    if not typer.confirm(f"Add {seen['good']} examples like these to {skill}{skipping}?", err=True):
        raise InternError("Nothing was added.")


def _bad(seen: dict[str, Any]) -> str:
    bad = seen["rows"] - seen["good"]
    more = f" ({bad} of {seen['rows']} rows are bad)" if bad > 1 else ""
    return f"{next(_named(seen['problems']))}{more}. Nothing was added."


def _named(problems: list[dict[str, Any]]) -> Any:
    from intern.learning.imports.importing import Problem

    return (str(Problem(**problem)) for problem in problems[:SHOWN_PROBLEMS])


def _report(answer: dict[str, Any], *, own: bool, mapping: dict[str, Any], as_json: bool) -> None:
    if output.plain(as_json):
        skipped = {name: answer[name] for name in ("skipped", "problems") if answer["skipped"]}
        output.document(
            {
                "skill": answer["skill"],
                "added": answer["added"],
                **({"same": answer["same"]} if answer["same"] else {}),
                **skipped,
                **({"notes": answer["notes"]} if answer["notes"] else {}),
                **({} if own else {"mapping": mapping}),
            }
        )
        return
    there = f"; {answer['same']} were there already" if answer["same"] else ""
    output.note(f"{answer['added']} examples were added to {answer['skill']}{there}.")
    for line in answer["notes"]:
        output.note(line)
    if answer["skipped"]:
        output.note(f"{answer['skipped']} bad rows were left out:")
        for line in _named(answer["problems"]):
            output.note(line)
        if answer["skipped"] > SHOWN_PROBLEMS:
            output.note("--json lists them all.")


def read_examples(text: str, schema: dict[str, Any] | None, *, as_csv: bool) -> list[tuple[int, dict[str, Any]]]:
    """(line, row) of each example in `text`, in the project's own layout, as a skill's folder keeps them.

    Raises InvalidInput with the first bad line and how many there are.
    """
    from intern.learning.imports.importing import apply_mapping, check_whole
    from intern.learning.imports.mapping import OWN
    from intern.learning.imports.rowfile import open_rows
    from intern.schema import check_schema

    rows = open_rows(text.encode(), format="csv" if as_csv else "jsonl")
    found = apply_mapping(rows, OWN, None if schema is None else check_schema(schema))
    check_whole(found)
    return [(good.line, good.row) for good in found.examples]
