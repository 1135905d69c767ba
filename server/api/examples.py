"""/api/examples: right outputs for inputs, from a skill's folder, from people, and from files in any layout."""

from __future__ import annotations

import json
from collections.abc import Mapping as Map
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, UploadFile
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from intern.errors import InvalidInput, NotAllowed, NotFound
from intern.learning.imports.importing import Problem, apply_mapping, check_whole
from intern.learning.imports.layouts import guess_mapping
from intern.learning.imports.mapping import Mapping, keys_of, load_keys, load_mapping
from intern.learning.imports.rowfile import Format, RowFile, open_rows
from intern.schema import OutputSchema
from intern.skill import Skill, parse_example
from intern.store import records
from intern.store.keys import Key
from intern.store.lock import serialise
from intern.types import Example, Json, new_id
from server.auth import Entered, KeyedRoute, User, Work

LEARNED_AT_ONCE = 64  # inputs that the router takes in before the answer; more wait for its next fit, seconds later
SHOWN_EXAMPLES = 5  # of a preview
SHOWN_PROBLEMS = 1_000  # more are counted
_HELD_OUT = "which examples are held out"
_WHOSE = "whose words examples are"

router = APIRouter(prefix="/api/examples", route_class=KeyedRoute, tags=["examples"])


class NewExamples(BaseModel):
    model_config = ConfigDict(extra="forbid")

    skill: str
    examples: Annotated[list[dict[str, Json]], Field(min_length=1, max_length=10_000)]
    provenance: Literal["api", "import"] = "api"
    contributor: Annotated[str | None, Field(min_length=1, max_length=64)] = None


@router.get("")
def listed(skill: Annotated[str, Query()], caller: User, workspace: Work) -> dict[str, Any]:
    """Every example of a skill: those of its folder first."""
    found = list(workspace.library.get(caller.team, skill).examples)
    with workspace.database.connect() as connection:
        found += records.list_examples(connection, caller.team, skill)
    return {"data": [{**example.model_dump(mode="json"), "skill": skill} for example in found]}


@router.post("", status_code=201)
def add(body: NewExamples, key: Entered, workspace: Work) -> dict[str, Any]:
    """Add examples, all or none. One that is there already, input and output alike, is not added twice.

    `contributor` is who they are from, the key itself unless an admin names another. Only an admin says `import`,
    whose words examples are (`person`), and which are held out (`split`).
    """
    known = workspace.library.get(key.team, body.skill)
    if body.contributor not in (None, key.id):
        _check_admin(key, "that examples are from others", "contributor")
    if body.provenance == "import":
        _check_admin(key, "that examples are an import", "provenance")
    made = {"provenance": body.provenance, "contributor": body.contributor or key.id}
    examples = [_example(row, number, known.schema, made) for number, row in enumerate(body.examples)]
    added, ids = _keep(workspace, key, known, _brought(key, examples))
    return {"added": added, "data": [{"id": ident} for ident in ids], "notes": _notes(known, examples)}


def _example(row: dict[str, Json], number: int, schema: OutputSchema | None, made: dict[str, str]) -> Example:
    try:
        example = parse_example(row, schema)
    except InvalidInput as error:
        param = f"examples.{number}" + (f".{error.param}" if error.param else "")
        raise InvalidInput(f"examples.{number}: {error.message}. Nothing was added.", param=param) from error
    return example.model_copy(update=made)


def _check_admin(key: Key, what: str, param: str) -> None:
    """What one contributor may bring is capped, and what is held out judges every adapter: not everybody may speak for
    others, or say what an adapter is judged by. Raises NotAllowed."""
    if key.role != "admin":
        raise NotAllowed(f"Only an admin key can say {what}: leave '{param}' out.")


def _brought(key: Key, examples: Sequence[Example]) -> list[Example]:
    """Examples as this key may bring them. Raises NotAllowed.

    An admin's stay as they are. Any other key's are no import, which would count without limit, and its groups are its
    own: one that is named like the folder's would draw the folder's examples to the side that its own are on. Nor does
    it say whose words they are, which would do the same.
    """
    if key.role == "admin":
        return list(examples)
    if any(example.person is not None for example in examples):
        _check_admin(key, _WHOSE, "person")
    if any(example.split is not None for example in examples):
        _check_admin(key, _HELD_OUT, "split")
    return [
        example.model_copy(update={"provenance": "api", "group": example.group and f"{key.id}:{example.group}"})
        for example in examples
    ]


def _keep(workspace: Work, key: Key, skill: Skill, examples: Sequence[Example]) -> tuple[int, list[str]]:
    """Add what is not there yet, in one transaction; (how many were added, the id of each).

    What others brought and an administrator imports now is an import from now on: it counts without limit, and is no
    longer theirs to delete. The same words of two people are two examples, for one of them may have to go.
    """
    team = key.team
    new = []
    confirmed = {}
    ids = []
    with workspace.database.begin() as connection:
        serialise(connection, f"examples of {team}/{skill.name}")  # of two at once, the second finds the first one's
        stored = records.list_examples(connection, team, skill.name)
        others = {example.id: example for example in stored if example.provenance != "import"}
        there: dict[str, dict[str | None, str]] = {}  # by content, then by whose words they are: id
        for example in (*skill.examples, *stored):
            there.setdefault(_content(example), {})[example.person] = example.id
        folder = {example.id for example in skill.examples}
        whose: dict[str, str] = {}
        for example in examples:
            same = there.setdefault(_content(example), {})
            ident = _same(same, example.person)
            if ident is None:
                ident = same[example.person] = new_id("ex")
                new.append(example.model_copy(update={"id": ident}))
            elif example.person is not None and example.person not in same and ident not in folder:
                same[example.person] = same.pop(None)
                whose[ident] = example.person
            if example.provenance == "import" and ident in others:
                taken = example.model_dump(include={"provenance", "contributor", "group", "split"})
                confirmed[ident] = others[ident].model_copy(update=taken)
            ids.append(ident)
        added = [example.model_copy(update={"person": whose.get(example.id, example.person)}) for example in new]
        records.add_examples(connection, team, skill.name, added)
        records.take_over(connection, team, skill.name, list(confirmed.values()))
        records.name_persons(connection, team, skill.name, whose)
    for example in [example for example in new if example.split != "heldout"][:LEARNED_AT_ONCE]:
        workspace.routes.learn(team, example.text, skill=skill.name)
    workspace.routes.outdate(team)
    return len(new), ids


def _notes(skill: Skill, examples: Sequence[Example]) -> list[str]:
    """What people should know of examples with a person whom a deletion would not find in the skill's folder."""
    unnamed = {_content(example) for example in skill.examples if example.person is None}
    count = sum(example.person is not None and _content(example) in unnamed for example in examples)
    if count == 0:
        return []
    return [
        f"{count} of the examples name a person, but stand in the folder of {skill.name} without one. The folder's are "
        "what is trained on, and deleting the person will not find them: name the person in examples.jsonl."
    ]


def _same(there: Map[str | None, str], person: str | None) -> str | None:
    """The id of the example that says the same: that person's, nobody's, or, where no person is named, anybody's."""
    found = there.get(person, there.get(None))
    return next(iter(there.values()), None) if found is None and person is None else found


def _content(example: Example) -> str:
    return json.dumps(example.model_dump(mode="json", include={"input", "output"}))


# --- files of any layout ---------------------------------------------------------------------------------------

Declared = Annotated[str | None, Form(description="A mapping, as YAML or JSON.")]


@router.post("/preview")
def preview(
    file: UploadFile,
    skill: Annotated[str, Form()],
    key: Entered,
    workspace: Work,
    mapping: Declared = None,
    given: Annotated[str | None, Form(description="Keys of a mapping that stand; the others are guessed.")] = None,
    format: Annotated[Format | None, Form()] = None,
) -> dict[str, Any]:
    """What an import of `file` would make: the mapping that fits, the first examples, and every problem.

    `mapping` is null where none could be guessed; `problems` then says why. Nothing is added.
    """
    known = workspace.library.get(key.team, skill)
    schema = known.schema
    rows = open_rows(file.file.read(), name=file.filename or "", format=format)
    answer = {"format": rows.format, "encoding": rows.encoding, "delimiter": rows.delimiter, "columns": rows.columns}
    try:
        agreed = load_mapping(mapping) if mapping is not None else _guess(rows, schema, key, given)
    except InvalidInput as error:
        if mapping is not None or error.param != "columns":
            raise
        problem = {"line": None, "column": None, "message": error.message}
        return {"mapping": None, **answer, "rows": 0, "good": 0, "examples": [], "problems": [problem], "notes": []}
    _check_mapping(key, agreed)
    found = apply_mapping(rows, agreed, schema)
    brought = _brought(key, [good.example for good in found.examples])
    return {
        "mapping": keys_of(agreed),
        **answer,
        "rows": found.rows,
        "good": len(found.examples),
        "examples": [{"line": good.line, **good.row} for good in found.examples[:SHOWN_EXAMPLES]],
        "problems": _listed(found.problems),
        "notes": [*found.notes, *_notes(known, brought)],
    }


@router.post("/import", status_code=201)
def import_(
    file: UploadFile,
    skill: Annotated[str, Form()],
    key: Entered,
    workspace: Work,
    mapping: Declared = None,
    skip_bad: Annotated[bool, Form()] = False,
    format: Annotated[Format | None, Form()] = None,
) -> dict[str, Any]:
    """Add the rows of `file` as examples, all or none, or without the bad ones if `skip_bad`.

    Only a file in the project's own layout needs no `mapping`.
    """
    known = workspace.library.get(key.team, skill)
    rows = open_rows(file.file.read(), name=file.filename or "", format=format)
    agreed = _guess(rows, known.schema, key, None) if mapping is None else load_mapping(mapping)
    if mapping is None and agreed.layout != "own":
        raise InvalidInput(
            "The file's columns are not input and output. Send the mapping that POST /api/examples/preview answers, "
            "once somebody has looked at it.",
            param="mapping",
        )
    _check_mapping(key, agreed)
    found = apply_mapping(rows, agreed, known.schema)
    if not skip_bad or not found.examples:
        check_whole(found)
    examples = [good.example for good in found.examples]
    examples = [one.model_copy(update={"contributor": one.contributor or key.id}) for one in examples]
    added, _ = _keep(workspace, key, known, _brought(key, examples))
    same, skipped = len(examples) - added, len(found.problems)
    return {
        "skill": known.name,
        "added": added,
        "same": same,
        "skipped": skipped,
        "problems": _listed(found.problems),
        "notes": _notes(known, examples),
    }


def _guess(rows: RowFile, schema: OutputSchema | None, key: Key, given: str | None) -> Mapping:
    """The likeliest mapping; no column is taken for what only an admin may say."""
    stands = load_keys(given) if given else {}
    guess = guess_mapping(rows.columns, rows.sample, schema, given=stands)
    if key.role == "admin" or guess.layout == "own":
        return guess
    return guess.model_copy(update={name: None for name in ("contributor", "person", "split") if name not in stands})


def _check_mapping(key: Key, mapping: Mapping) -> None:
    """Raises NotAllowed for a column that only an admin may name. Rows of the own layout are read as they stand."""
    if mapping.contributor is not None:
        _check_admin(key, "that examples are from others", "mapping.contributor")
    if mapping.person is not None and mapping.layout != "own":
        _check_admin(key, _WHOSE, "mapping.person")
    if mapping.split is not None and mapping.layout != "own":
        _check_admin(key, _HELD_OUT, "mapping.split")


def _listed(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    return [problem.model_dump(mode="json") for problem in problems[:SHOWN_PROBLEMS]]


@router.delete("/{id}", status_code=204)
def delete(id: str, skill: Annotated[str, Query()], key: Entered, workspace: Work) -> Response:
    """Delete an example that did not come from the skill's folder: an admin any, others those they brought."""
    with workspace.database.begin() as connection:
        found = next((e for e in records.list_examples(connection, key.team, skill) if e.id == id), None)
        if found is None:
            raise NotFound("example", id, "Examples of the skill's folder are deleted there.")
        if key.role != "admin" and found.contributor != key.id:
            raise NotAllowed("Only an admin key, or the one that brought it, can delete an example.")
        records.delete_example(connection, key.team, skill, id)
    workspace.routes.outdate(key.team)
    return Response(status_code=204)
