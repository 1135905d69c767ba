"""CSV and TSV: each row as one line, `column: value; column: value`, so that a row means something by itself.

In: decoded text. Out: Parsed. The delimiter is the one that gives the most even rows; the first row is taken as the
header when it looks like names. Rows with missing or extra fields keep what they have.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from intern.parsers.limits import Limits, Refused
from intern.parsers.text import Parsed, TextBuilder, one_line

_SAMPLE_LINES = 60
_MAX_COLUMNS = 2_000
_MAX_NAME = 100
_LINES_A_FIELD = 200  # a quoted field with more lines than this is a quotation mark that was never closed
_SEPARATOR_LINE = re.compile(r"\s*\"?sep=(.)\"?[ \t]*(?:\r\n|\r|\n)", re.I)
_VALUE = re.compile(r"[-+(]?[\s$€£¥]*\d[\d\s.,:/%()$€£¥TZ+-]*")


def read(text: str, limits: Limits, *, tabs: bool = False) -> Parsed:
    csv.field_size_limit(2**31 - 1)
    delimiter = "\t" if tabs else None
    if named := _SEPARATOR_LINE.match(text):  # written by Excel
        delimiter, text = named[1], text[named.end() :]
    text = text.replace("\x00", "")
    delimiter = delimiter or _delimiter(text)
    builder = TextBuilder(limits)
    rows = _rows(text, delimiter, quoting=_closed_quotes(text, delimiter))
    head = [next(rows, []), next(rows, [])]
    header = _header(head)
    for row in _chain(head[1:] if header else head, rows):
        if len(row) > _MAX_COLUMNS:
            raise Refused(f"has a row of {len(row):,} columns; at most {_MAX_COLUMNS:,} are read")
        builder.line(_sentence(header, row))
    return builder.finish("text/tab-separated-values" if delimiter == "\t" else "text/csv")


def _delimiter(text: str) -> str:
    sample = [line for line in text[:100_000].splitlines() if line.strip()][:_SAMPLE_LINES]
    best, best_score = ",", 0.0
    for candidate in (",", ";", "\t", "|"):
        widths = Counter(len(row) for row in csv.reader(sample, delimiter=candidate) if row)
        width, count = max(widths.items(), key=lambda item: (item[1] * (item[0] > 1), item[0]), default=(1, 0))
        score = count / max(1, widths.total()) + 0.001 * min(width, 50) if width > 1 else 0.0
        if score > best_score:
            best, best_score = candidate, score
    return best


def _closed_quotes(text: str, delimiter: str) -> bool:
    """Whether quotation marks quote here. One that is never closed would swallow the rest of the file."""
    if '"' not in text:
        return False
    for row in csv.reader(text.splitlines(keepends=True), delimiter=delimiter):
        if any(field.count("\n") > _LINES_A_FIELD for field in row):
            return False
    # An unclosed mark near the end swallows less: the last field then runs over the end of the file.
    try:
        for _ in csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True):
            pass
    except csv.Error as error:
        return "unexpected end" not in str(error)
    return True


def _rows(text: str, delimiter: str, *, quoting: bool) -> Iterator[list[str]]:
    reader = csv.reader(
        text.splitlines(keepends=True), delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE
    )
    for row in reader:
        fields = [one_line(field) for field in row]
        if any(fields):
            yield fields


def _header(rows: list[list[str]]) -> list[str]:
    """The first row if it names columns: filled, distinct, short, and without values such as numbers and dates."""
    first = rows[0]
    while first and not first[-1]:
        first = first[:-1]
    named = (
        len(first) > 0
        and all(name and len(name) <= _MAX_NAME and not _VALUE.fullmatch(name) for name in first)
        and len(set(first)) == len(first)
    )
    return first if named and rows[1] else []


def _sentence(header: list[str], row: list[str]) -> str:
    parts = []
    for number, value in enumerate(row):
        if value:
            parts.append(f"{header[number]}: {value}" if number < len(header) else value)
    return "; ".join(parts)


def _chain(first: Iterable[list[str]], rest: Iterator[list[str]]) -> Iterator[list[str]]:
    yield from first
    yield from rest
