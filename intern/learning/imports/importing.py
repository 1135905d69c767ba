"""Rows of any layout to examples, through one declared mapping; every row that does not fit is named.

In: an opened file of rows, a mapping, the skill's schema. Out: an `Import`: the examples with their lines, and the
problems, each with line, column and what would be right. Nothing is stored here, and nothing is guessed
(`layouts.py` does that). Knows nothing of teams, databases and servers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from collections.abc import Mapping as Map
from typing import Any, NamedTuple

from intern.errors import InvalidInput
from intern.learning.fields import Place, top
from intern.learning.imports.coercion import as_text, coerce
from intern.learning.imports.conversation import content_of, split_conversation, turns_of
from intern.learning.imports.mapping import OWN_COLUMNS, Mapping, fill, holes
from intern.learning.imports.nulls import NULL_WORDS, apply_null_rule, is_null_word
from intern.learning.imports.rowfile import RowFile, names_shown, texts_problem
from intern.schema import OutputSchema, parse_json
from intern.skill import parse_example
from intern.types import Example, Json, Model

MAX_ROWS = 20_000  # one transaction takes them all: while it runs, SQLite has no other writer
MAX_CONTRIBUTOR = 64
MAX_INPUT = 200_000  # characters that one row's columns may be put together to: a template can repeat them
MAX_INPUTS = 40_000_000  # and those of all rows, which are kept in memory
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("heldout", "held-out", "held out", "held_out", "holdout", "test", "testing"), "heldout"),
    **dict.fromkeys(("eval", "evaluation", "validation", "valid", "val", "dev"), "heldout"),
}
_ABSENT: Any = object()  # given for a cell that is not there
_NEEDED: Any = object()  # asks for an error instead


class Problem(Model):
    """What is wrong with one row. `column` is None where the row as a whole is meant."""

    line: int
    column: str | None = None
    message: str

    def __str__(self) -> str:
        named = self.column is None or f"'{self.column}'" in self.message
        place = f"line {self.line}" if named else f"line {self.line}, column '{self.column}'"
        return f"{place}: {self.message}"


class Imported(NamedTuple):
    """A good row: its line, what it became (as examples.jsonl has it), and the example, of provenance `import`."""

    line: int
    row: dict[str, Json]
    example: Example


class Import(NamedTuple):
    """What a file came to. `notes` are for people: what they should know before they agree."""

    examples: tuple[Imported, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    @property
    def rows(self) -> int:
        return len(self.examples) + len(self.problems)


def apply_mapping(file: RowFile, mapping: Mapping, schema: OutputSchema | None) -> Import:
    """Every row of `file` as an example, or as a problem. Raises InvalidInput where the file itself does not fit."""
    _check_columns(file, mapping)
    reader = _Reader(mapping, schema, is_csv=file.format == "csv")
    examples: list[Imported] = []
    problems: list[Problem] = []
    for row in file.rows():
        if len(examples) + len(problems) == MAX_ROWS:
            raise InvalidInput(f"There are more than {MAX_ROWS:,} rows: bring them in several files.", param="file")
        try:
            if row.problem is not None:
                raise InvalidInput(row.problem)
            examples.append(Imported(row.line, *reader.read(row.cells)))
        except InvalidInput as error:
            problems.append(Problem(line=row.line, column=error.param, message=error.message))
        if reader.made > MAX_INPUTS:
            raise InvalidInput(
                f"The mapping makes inputs of more than {MAX_INPUTS:,} characters of these rows: name fewer columns, "
                "or bring the rows in several files.",
                param="mapping",
            )
    if not examples and not problems:
        raise InvalidInput("There are no rows in it.", param="file")
    return Import(tuple(examples), tuple(problems), tuple(_notes(file, mapping, schema)))


def check_whole(found: Import) -> None:
    """Raises InvalidInput with the first problem, and how many there are."""
    if found.problems:
        many = len(found.problems) > 1
        more = f" ({len(found.problems)} of {found.rows} rows are bad)" if many else ""
        raise InvalidInput(f"{found.problems[0]}{more}. Nothing was added.", param="file")


def _check_columns(file: RowFile, mapping: Mapping) -> None:
    """Raises InvalidInput for a mapping that names what no row has: a misspelt `split` must not go unnoticed."""
    if mapping.layout == "own":
        if file.format == "csv":
            _check_own_header(file.columns)
        return
    missing = _not_among(file.columns, mapping.columns)
    if missing and file.format != "csv":  # rows of JSON may have columns that the first ones lack
        missing = _not_among({name for cells in file.cells() for name in cells}, missing)
    if missing:
        raise InvalidInput(
            f"The file has no column '{missing[0][:80]}'; it has {names_shown(file.columns)}.", param="mapping"
        )


def _not_among(present: Collection[str], names: Sequence[str]) -> list[str]:
    """The columns, or dotted paths into them, that are not `present`."""
    known = frozenset(present)
    return [name for name in names if known.isdisjoint((name, name.partition(".")[0]))]


def _check_own_header(columns: Sequence[str]) -> None:
    missing = [name for name in ("input", "output") if name not in columns]
    unknown = [name for name in columns if name not in OWN_COLUMNS]
    if missing or unknown:
        what = f"has no column '{missing[0]}'" if missing else f"has an unknown column '{unknown[0][:80]}'"
        raise InvalidInput(
            f"The CSV {what}; its columns are input, output and, where wanted, id, group, person, split.", param="file"
        )


def _notes(file: RowFile, mapping: Mapping, schema: OutputSchema | None) -> list[str]:
    notes = []
    if not file.encoding.startswith("utf-8"):
        doubt = "" if file.encoding.startswith("utf") else "; look whether accents and special signs are right"
        notes.append(f"The file was read as {file.encoding}{doubt}.")
    used = {name.partition(".")[0] for name in mapping.columns} | set(mapping.columns)
    if unused := [name for name in file.columns if name not in used]:
        notes.append(f"Columns not used: {names_shown(unused)}.")
    if mapping.fields:
        given = {field.partition(".")[0] for field in mapping.fields} | set(mapping.fields)
        if lacking := sorted(top(schema).required - given):
            notes.append(f"No column for the required fields {names_shown(lacking)}: rows cannot keep the schema.")
    if mapping.messages:
        notes.append("The last assistant turn is the output, what stands before it the input.")
    return notes


class _Reader:
    """Makes a row of an example, and the example, of cells. Raises InvalidInput whose `param` is the column.

    `made`: how many characters of inputs were put together of several columns, or by a template, so far.
    """

    def __init__(self, mapping: Mapping, schema: OutputSchema | None, *, is_csv: bool) -> None:
        self._mapping = mapping
        self._schema = schema
        self.made = 0
        self._top = top(schema)
        self._is_csv = is_csv
        self._fields = [(field, column, self._top.at(field)) for field, column in mapping.fields.items()]

    def read(self, cells: Map[str, Json]) -> tuple[dict[str, Json], Example]:
        mapping = self._mapping
        row = self._own(cells) if mapping.layout == "own" else self._mapped(cells)
        if problem := texts_problem(row):
            bad = next((name for name in mapping.columns if texts_problem(_cell(cells, name, None))), None)
            raise InvalidInput(f"column '{bad}' {problem}" if bad else problem, param=bad)
        try:
            example = parse_example(row, self._schema, check_output=mapping.layout == "own")
        except InvalidInput as error:
            if mapping.layout != "own":
                named = {"id": mapping.id, "group": mapping.group, "person": mapping.person}
                error.param = named.get(error.param or "", mapping.columns[0])
            raise
        contributor = self._word(cells, mapping.contributor)
        if contributor is not None and (len(contributor) > MAX_CONTRIBUTOR or texts_problem(contributor)):
            raise InvalidInput(f"must have at most {MAX_CONTRIBUTOR} characters of text", param=mapping.contributor)
        return row, example.model_copy(update={"provenance": "import", "contributor": contributor})

    def _own(self, cells: Map[str, Json]) -> dict[str, Json]:
        """The row as it stands. Of CSV, optional cells that stand for null are none, and an output may be JSON."""
        row = {
            name: cell
            for name, cell in cells.items()
            if not self._is_csv or name in ("input", "output") or not is_null_word(str(cell or ""))
        }
        output = row.get("output")
        if self._schema is not None and isinstance(output, str) and (self._is_csv or "string" not in self._top.kinds):
            value, problems = parse_json(output)
            if not problems:
                row["output"] = value
            elif self._is_csv:
                raise InvalidInput("key 'output' must be JSON: the skill has a schema", param="output")
        if "output" in row:
            row["output"] = self._null_ruled(row["output"], {"": "output"})
        return row

    def _mapped(self, cells: Map[str, Json]) -> dict[str, Json]:
        mapping = self._mapping
        if mapping.messages:
            given, answer = split_conversation(_cell(cells, mapping.messages), mapping.messages, mapping.system)
        else:
            given, answer = self._input(cells), None
        if not given or (isinstance(given, str) and not given.strip()):
            raise InvalidInput("is empty; an input is needed", param=mapping.columns[0])
        row: dict[str, Json] = {"input": given, "output": self._output(cells, answer)}
        for name in ("id", "group", "person"):
            if (word := self._word(cells, getattr(mapping, name))) is not None:
                row[name] = word
        if (word := self._word(cells, mapping.split)) is not None:
            if (split := SPLITS.get(word.casefold())) is None:
                raise InvalidInput(f"'{word[:80]}' must be train or heldout", param=mapping.split)
            row["split"] = split
        return row

    def _input(self, cells: Map[str, Json]) -> Json:
        mapping = self._mapping
        if mapping.template is not None:
            names = holes(mapping.template)
            values = {name: self._shown(_cell(cells, name, None)) for name in dict.fromkeys(names)}
            if not any(values.values()):
                return ""
            self._take(len(mapping.template) + sum(len(values[name] or "") for name in names))
            return fill(mapping.template, {name: text or "" for name, text in values.items()}).strip()
        if len(mapping.input) == 1 and not mapping.labels:
            cell = _cell(cells, mapping.input[0])
            if isinstance(cell, list):
                return turns_of(cell, mapping.input[0])
            return "" if cell is None else as_text(cell)
        parts = []
        for name in mapping.input:
            text = self._shown(_cell(cells, name, None))
            if text:
                parts.append((name, text))
        self._take(sum(len(name) + len(text) for name, text in parts))
        if mapping.labels:
            return "\n".join(f"{name}: {text}" for name, text in parts)
        return "\n\n".join(text for _, text in parts)

    def _take(self, length: int) -> None:
        """Count an input before it is put together. Raises InvalidInput if it would be too long."""
        if length > MAX_INPUT:
            what = f"its columns make an input of {length:,} characters; at most {MAX_INPUT:,} are read"
            raise InvalidInput(what, param=self._mapping.columns[0])
        self.made += length

    def _shown(self, cell: Json) -> str | None:
        """A cell of several that make an input. Where it is labelled, the null rule holds for it as for a field."""
        mapping = self._mapping
        words = mapping.null_words if mapping.labels else ("",)
        if cell is not None and not (isinstance(cell, str) and is_null_word(cell, words)):
            return as_text(cell)
        if not mapping.labels or mapping.nulls == "drop":
            return None
        return mapping.null_text if mapping.nulls == "explain" else "null"

    def _output(self, cells: Map[str, Json], answer: str | None) -> Json:
        mapping = self._mapping
        if self._fields:
            value = self._from_fields(cells, answer)
            columns = mapping.fields
        else:
            column = mapping.output if isinstance(mapping.output, str) else mapping.messages or ""
            value = self._from_column(_cell(cells, column) if answer is None else answer, column)
            columns = {"": column}
        value = self._null_ruled(value, columns)
        if self._schema is None:
            if not isinstance(value, str) or not value.strip():
                empty = value is None or isinstance(value, str)
                what = "is empty; an output is needed" if empty else "must be a text: the skill has no schema"
                raise InvalidInput(what, param=columns.get(""))
        elif broken := self._schema.problems(value):
            path, _, what = broken[0].partition(": ")
            field = path.replace("/", ".")
            named = what if what and field in mapping.fields else f"breaks the schema: {broken[0]}"
            raise InvalidInput(named, param=_column_of(field, columns))
        return value

    def _from_fields(self, cells: Map[str, Json], answer: str | None) -> dict[str, Json]:
        value: dict[str, Json] = {}
        for field, column, place in self._fields:
            is_answer = answer is not None and column == self._mapping.messages
            cell = answer if is_answer else _cell(cells, column, _ABSENT)
            if cell is _ABSENT:
                if field not in self._top.required:
                    continue
                if "null" not in place.kinds and self._mapping.nulls != "explain":
                    raise InvalidInput(f"is missing; the field '{field}' needs it", param=column)
                cell = None
            try:
                coerced = coerce(cell, place, self._mapping)
            except InvalidInput as error:
                raise InvalidInput(f"{error.message} (field '{field}')", param=column) from error
            if coerced is None and self._mapping.nulls == "keep" and "null" not in place.kinds:
                shown = "is null" if cell is None else f"'{cell}' counts as null"
                raise InvalidInput(f"{shown}, and the field '{field}' takes no null", param=column)
            _put(value, field, coerced, self._top)
        return value

    def _from_column(self, cell: Json, column: str) -> Json:
        if isinstance(cell, list) and self._schema is None and cell and isinstance(cell[-1], dict):
            cell = content_of(cell[-1], len(cell), column)  # a completion as a list of one message
        if self._schema is None:
            return as_text(cell) if isinstance(cell, str | int | float) else cell
        if isinstance(cell, str) and "string" not in self._top.kinds:
            value, problems = parse_json(cell)
            if problems:
                raise InvalidInput("must be JSON: the skill has a schema", param=column)
            return value
        return cell

    def _null_ruled(self, value: Json, columns: Map[str, str]) -> Json:
        try:
            return apply_null_rule(value, self._mapping.nulls, self._schema, text=self._mapping.null_text)
        except InvalidInput as error:
            raise InvalidInput(error.message, param=_column_of(error.param or "", columns)) from error

    def _word(self, cells: Map[str, Json], column: str | None) -> str | None:
        """A short text of an optional column; None where it is empty or says that there is none."""
        cell = None if column is None else _cell(cells, column, None)
        if cell is None or (isinstance(cell, str) and is_null_word(cell, (*NULL_WORDS, *self._mapping.null_words))):
            return None
        if not isinstance(cell, str | int | float):
            raise InvalidInput("must be a text or a number", param=column)
        return as_text(cell).strip()


def _column_of(path: str, columns: Map[str, str]) -> str | None:
    """The column that a field's dotted path came from."""
    while path and path not in columns:
        path = path.rpartition(".")[0]
    return columns.get(path)


def _cell(cells: Map[str, Json], column: str, missing: Json = _NEEDED) -> Json:
    """The cell of a column, or of a dotted path into nested objects and lists; `missing`, or InvalidInput, if none."""
    node: Json = cells
    if column in cells:
        return cells[column]
    for part in column.split("."):
        if isinstance(node, Map) and part in node:
            node = node[part]
        elif isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        elif missing is _NEEDED:
            raise InvalidInput("is missing in this row", param=column)
        else:
            return missing
    return node


def _put(value: dict[str, Json], field: str, child: Json, place: Place) -> None:
    """Set a field by its dotted path."""
    while "." in field and field not in place.names:
        first, _, field = field.partition(".")
        value, place = value.setdefault(first, {}), place.child(first)
        if not isinstance(value, dict):
            raise InvalidInput(f"the fields '{first}' and '{first}.{field}' cannot both be given", param=None)
    value[field] = child
