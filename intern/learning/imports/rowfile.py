"""A file of rows (JSON lines, a JSON list, CSV) as cells by column, each row with the line that it begins on.

In: bytes, the file's name, and its format if somebody said so. Out: a `RowFile` whose rows can be read again and again.
A bad row is told apart and the next one read; what makes the rest of the file unsure (bytes that are no text, a
quotation mark that is never closed) refuses the file, with the line. Knows nothing of examples and mappings.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from intern import strict_json
from intern.errors import InvalidInput
from intern.learning.imports.encoding import read_text
from intern.schema import MAX_VALUE_DEPTH, deeper_than
from intern.types import Json

Format = Literal["jsonl", "json", "csv"]

MAX_COLUMNS = 1_000
SAMPLE = 200  # good rows that a mapping is guessed from
_LOOKED_AT = 2_000  # rows that the sample is looked for among
_DELIMITERS = (",", ";", "\t", "|")
_SUFFIXES: dict[str, Format] = {"csv": "csv", "tsv": "csv", "jsonl": "jsonl", "ndjson": "jsonl", "json": "json"}
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+\Z")
_SPACE = re.compile(r"[ \t\r\n]*")
_SEPARATOR_LINE = re.compile(r"sep=([,;\t|])[ ]*(?:\r\n|\r|\n)", re.I)


class Row(NamedTuple):
    """Cells by column, or the `problem` that there is instead. `line` is where the row begins, from 1."""

    line: int
    cells: dict[str, Json]
    problem: str | None = None


class RowFile:
    """An opened file. `columns` are the header's, or those of the sample; `encoding` is a name for people."""

    def __init__(self, text: str, encoding: str, format: Format, delimiter: str | None) -> None:
        self._text = text
        self.encoding = encoding
        self.format: Format = format
        self.delimiter = delimiter
        self.header = tuple(self._header()) if format == "csv" else ()
        good = [row.cells for row in itertools.islice(self.rows(), _LOOKED_AT) if row.problem is None]
        self.sample = tuple(good[:SAMPLE])
        if not good:
            first = next(self.rows(), None)
            what = "There are no rows in it." if first is None else f"line {first.line}: {first.problem}."
            raise InvalidInput(what, param="file")
        self.columns = self.header or tuple(dict.fromkeys(name for cells in self.sample for name in cells))
        if len(self.columns) > MAX_COLUMNS:
            raise InvalidInput(f"The rows have more than {MAX_COLUMNS:,} different columns.", param="file")

    def rows(self) -> Iterator[Row]:
        """Every row in order, the bad ones too. Raises InvalidInput where the file cannot be read on."""
        if self.format == "csv":
            return self._csv_rows()
        if self.format == "jsonl":
            return self._json_lines()
        return self._json_list() if self._text.lstrip().startswith("[") else self._json_objects()

    def cells(self) -> Iterator[dict[str, Json]]:
        """The cells of every good row, in order."""
        return (row.cells for row in self.rows() if row.problem is None)

    def _json_lines(self) -> Iterator[Row]:
        for line, text in enumerate(self._text.split("\n"), 1):
            if text.strip():
                try:
                    yield _json_row(line, _DECODER.decode(text))
                except ValueError as error:
                    yield Row(line, {}, _json_problem(error))
                except RecursionError:
                    yield Row(line, {}, "nests too deep")

    def _json_list(self) -> Iterator[Row]:
        cursor = _Cursor(self._text)
        cursor.skip("[")
        if not cursor.skip("]"):
            yield cursor.row()
            while cursor.skip(","):
                yield cursor.row()
            if not cursor.skip("]"):
                raise cursor.refused("a comma, or the ] that ends the list, is missing")
        if not cursor.at_end:
            raise cursor.refused("something follows the end of the list")

    def _json_objects(self) -> Iterator[Row]:
        cursor = _Cursor(self._text)
        while not cursor.at_end:
            yield cursor.row()

    def _header(self) -> Iterator[str]:
        names = next((cells for _, cells in self._records() if any(cells)), [])
        if len(names) > MAX_COLUMNS:
            raise InvalidInput(f"line 1 has {len(names):,} columns; at most {MAX_COLUMNS:,} are read.", param="file")
        seen = set()
        for number, cell in enumerate(names, 1):
            name = cell.strip() or f"column {number}"
            if name in seen:
                raise InvalidInput(
                    f"line 1: the column '{name[:80]}' stands twice; columns need different names.", param="file"
                )
            seen.add(name)
            yield name

    def _csv_rows(self) -> Iterator[Row]:
        records = (record for record in self._records() if any(record[1]))  # spreadsheets save empty rows too
        next(records, None)
        width = len(self.header)
        for line, cells in records:
            if len(cells) == width:
                yield Row(line, dict(zip(self.header, cells, strict=True)))
            else:
                yield Row(line, {}, f"must have {width} cells, as the first line, not {len(cells)}")

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        assert self.delimiter is not None
        named = _SEPARATOR_LINE.match(self._text)
        skipped = named.end() if named else 0
        lines = (found[0] for found in _LINE.finditer(self._text, skipped))
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        offset = before = 1 if named else 0
        try:
            for cells in reader:
                yield before + 1, cells
                before = offset + reader.line_num
        except csv.Error as error:
            raise InvalidInput(f"line {before + 1}: not valid CSV: {_csv_problem(error)}.", param="file") from error


def open_rows(data: bytes, *, name: str = "", format: Format | None = None) -> RowFile:
    """Open the bytes of a file. `name` tells the format where `format` does not; else the content does.

    Raises InvalidInput for what cannot be read: bytes that are no text in one encoding, no rows, a broken header.
    """
    text, encoding = read_text(data)
    if not text.strip():
        raise InvalidInput("There are no rows in it.", param="file")
    suffix = name.rpartition(".")[2].lower()
    kind = format or _recognised(text, _SUFFIXES.get(suffix))
    if kind == "json" and format is None and not text.lstrip().startswith("[") and _is_json(_first_line(text)):
        kind = "jsonl"  # one object a line, whatever the file is called
    if kind != "csv":
        return RowFile(text, encoding, kind, None)
    named = _SEPARATOR_LINE.match(text)
    delimiter = named[1] if named else "\t" if suffix == "tsv" else _delimiter(text)
    return RowFile(text, encoding, "csv", delimiter)


def _recognised(text: str, by_name: Format | None) -> Format:
    start = text.lstrip()[:1]
    if start == "[" and by_name != "csv" and by_name != "jsonl":
        return "json"
    if start == "{":
        if _is_json(_first_line(text)):
            return "jsonl"
        if by_name != "csv" and _is_value(text):  # objects over several lines
            return "json"
    if by_name is None and start not in ("{", "["):
        line = _first_line(text)
        return "csv" if any(delimiter in line for delimiter in _DELIMITERS) else "jsonl"
    return by_name if by_name == "csv" else "jsonl"


def _first_line(text: str) -> str:
    start = _after_space(text, 0)
    end = text.find("\n", start)
    return text[start : end if end >= 0 else len(text)]


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _is_value(text: str) -> bool:
    try:
        _DECODER.raw_decode(text, _after_space(text, 0))
    except (ValueError, RecursionError):
        return False
    return True


def _after_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    assert found is not None
    return found.end()


# --- JSON ------------------------------------------------------------------------------------------------------


class _Cursor:
    """A place in a text of JSON values, and the line it is on."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._line = 1
        self._place = 0
        self._move(_after_space(text, 0))

    @property
    def at_end(self) -> bool:
        return self._place == len(self._text)

    def skip(self, sign: str) -> bool:
        """Step over `sign` and the space behind it, if it stands here."""
        found = self._text.startswith(sign, self._place)
        if found:
            self._move(_after_space(self._text, self._place + len(sign)))
        return found

    def row(self) -> Row:
        """The value that begins here. Behind a broken one nobody knows where the next begins: raises InvalidInput."""
        try:
            value, end = _DECODER.raw_decode(self._text, self._place)
        except ValueError as error:
            if isinstance(error, json.JSONDecodeError):
                self._move(error.pos)
            raise self.refused(_json_problem(error)) from error
        except RecursionError as error:
            raise self.refused("nests too deep") from error
        row = _json_row(self._line, value)
        self._move(_after_space(self._text, end))
        return row

    def refused(self, what: str) -> InvalidInput:
        return InvalidInput(f"line {self._line}: {what}.", param="file")

    def _move(self, place: int) -> None:
        self._line += self._text.count("\n", self._place, place)
        self._place = place


def _json_row(line: int, value: Json) -> Row:
    if not isinstance(value, dict):
        return Row(line, {}, 'must be an object {"input": ..., "output": ...}')
    if len(value) > MAX_COLUMNS:
        return Row(line, {}, f"has {len(value):,} columns; at most {MAX_COLUMNS:,} are read")
    if deeper_than(value, MAX_VALUE_DEPTH):
        return Row(line, {}, f"nests deeper than {MAX_VALUE_DEPTH} levels")
    return Row(line, value)


def _json_problem(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg} (column {error.colno})"
    reason = "a number of thousands of digits" if "limit" in str(error) else str(error)
    return f"not valid JSON: {reason}"


_DECODER = strict_json.decoder()


# --- CSV -------------------------------------------------------------------------------------------------------


def _delimiter(text: str) -> str:
    """The delimiter whose rows agree most often with the width of their header."""
    lines = [found[0] for found in itertools.islice(_LINE.finditer(text[:200_000]), 100)]
    scores = []
    for candidate in _DELIMITERS:
        try:
            rows = [row for row in csv.reader(lines, delimiter=candidate) if row]
        except csv.Error:
            continue
        width = len(rows[0]) if rows else 0
        if width > 1:
            scores.append((sum(len(row) == width for row in rows) / len(rows), width, candidate))
    return max(scores)[2] if scores else ","


def _csv_problem(error: csv.Error) -> str:
    if "unexpected end" in str(error):
        return "a quotation mark that opens in this row is never closed"
    if "field limit" in str(error):
        return f"a cell has more than {csv.field_size_limit():,} characters; is a quotation mark never closed?"
    return str(error)


# --- for messages ----------------------------------------------------------------------------------------------


def texts_problem(value: Json) -> str | None:
    """Why a JSON value holds text that cannot be kept everywhere (a NUL, half of a surrogate pair), or None."""
    waiting: list[Json] = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            waiting += [*node, *node.values()]
        elif isinstance(node, list):
            waiting += node
        elif isinstance(node, str):
            if "\x00" in node:
                return "holds a NUL character; this is no text"
            if not _is_sound(node):
                return "holds half of a surrogate pair (\\ud800 to \\udfff); this is no text"
    return None


def _is_sound(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def names_shown(names: Sequence[str], most: int = 12) -> str:
    """Column names for a message."""
    shown = ", ".join(f"'{name[:80]}'" for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
