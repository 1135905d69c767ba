"""Files of rows: every format and encoding, every bad row by its line, and nothing hostile gets through."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intern.errors import InvalidInput
from intern.learning.imports import encoding as encodings
from intern.learning.imports import rowfile
from intern.learning.imports.rowfile import MAX_COLUMNS, Format, Row, open_rows


def rows(data: bytes | str, name: str = "", format: Format | None = None) -> list[Row]:
    return list(open_rows(data.encode() if isinstance(data, str) else data, name=name, format=format).rows())


def refusal(data: bytes | str, **how: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        rows(data, **how)
    assert caught.value.param == "file"
    return caught.value.message


# --- formats ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "format", "cells"),
    [
        ('{"a": 1}\n\n{"a": 2}\n', "", "jsonl", [{"a": 1}, {"a": 2}]),
        ('{"a": 1}\r\n{"a": 2}', "x.json", "jsonl", [{"a": 1}, {"a": 2}]),
        ('[{"a": 1},\n {"a": 2}]', "x.json", "json", [{"a": 1}, {"a": 2}]),
        ('{\n "a": 1}\n{\n "a": 2}', "", "json", [{"a": 1}, {"a": 2}]),
        ("a,b\n1,2\n", "", "csv", [{"a": "1", "b": "2"}]),
        ("a;b\n1;2,5\n", "x.csv", "csv", [{"a": "1", "b": "2,5"}]),
        ("a\tb\n1,5\t2;5\n", "x.tsv", "csv", [{"a": "1,5", "b": "2;5"}]),
        ("a\tb\n1,5\t2;5\n", "", "csv", [{"a": "1,5", "b": "2;5"}]),
        ("sep=;\r\na;b\r\n1;2\r\n", "x.csv", "csv", [{"a": "1", "b": "2"}]),
        ("a,b\r1,2\r3,4\r", "", "csv", [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]),
        ('a,b\n"x\u2028y\x0bz","=1+1"\n', "", "csv", [{"a": "x\u2028y\x0bz", "b": "=1+1"}]),
        ("a,b\n,\n1,2\n\n,,\n", "", "csv", [{"a": "1", "b": "2"}]),
        ("a,,b\n1,2,3\n", "", "csv", [{"a": "1", "column 2": "2", "b": "3"}]),
    ],
)
def test_a_format_is_known_by_name_and_content(text: str, name: str, format: str, cells: list[dict[str, Any]]) -> None:
    file = open_rows(text.encode(), name=name)
    assert file.format == format
    assert [row.cells for row in file.rows()] == cells
    assert file.columns == tuple(cells[0])
    assert list(file.rows()) == list(file.rows()), "rows can be read again"


def test_a_format_that_was_said_is_law() -> None:
    assert rows("a,b\n1,2", format="csv") == [Row(2, {"a": "1", "b": "2"})]
    assert refusal("a,b\n1,2", format="jsonl").startswith("line 1: not valid JSON")


def test_a_row_is_named_by_the_line_it_begins_on() -> None:
    csv = 'sep=,\na,b\n"one\ntwo",1\n\n3,4\n5\n'
    assert [(row.line, bool(row.problem)) for row in rows(csv)] == [(3, False), (6, False), (7, True)]
    listed = '[\n{"a": 1},\n\n{"a":\n 2}, {"a": 3},\n7]'
    assert [(row.line, bool(row.problem)) for row in rows(listed)] == [(2, False), (4, False), (5, False), (6, True)]
    lines = '\n{"a": 1}\nnot json\n{"a": 2}'
    assert [(row.line, bool(row.problem)) for row in rows(lines)] == [(2, False), (3, True), (4, False)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "There are no rows in it."),
        (" \n\n ", "There are no rows in it."),
        ("a,b\n", "There are no rows in it."),
        ("[]", "There are no rows in it."),
        ("nonsense", "line 1: not valid JSON: Expecting value (column 1)."),
        ("[1, 2]", "line 1: must be an object"),
        ('[{"a": 1} {"a": 2}]', "line 1: a comma, or the ] that ends the list, is missing."),
        ('[{"a": 1},\n{"a": 2}', "line 2: a comma, or the ] that ends the list, is missing."),
        ('[{"a": 1},\n]', "line 2: not valid JSON: Expecting value (column 1)."),
        ('[{"a": 1}]\n[{"a": 2}]', "line 2: something follows the end of the list."),
        ("a,b,a\n1,2,3\n", "line 1: the column 'a' stands twice"),
        ("column 2,,b\n1,2,3\n", "line 1: the column 'column 2' stands twice"),
        ('a,b\n1,2\n"3,4\n5,6\n', "line 3: not valid CSV: a quotation mark that opens in this row is never closed."),
        ('a,b\n"1"x,2\n', "line 2: not valid CSV: "),
    ],
)
def test_what_cannot_be_read_on_is_refused_with_its_line(text: str, problem: str) -> None:
    assert refusal(text).startswith(problem)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[1]", "must be an object"),
        ('{"a": NaN}', "not valid JSON: NaN is not JSON"),
        ('{"a": 1e999}', "out of range"),
        ('{"a": ' + "9" * 5_000 + "}", "a number of thousands of digits"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ('{"a": ' + "[" * 10_000 + "]" * 10_000 + "}", "nests too deep"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "nests deeper than 64 levels"),
        (json.dumps({f"c{n}": 1 for n in range(MAX_COLUMNS + 1)}), "columns; at most"),
        ('{"a": "\x00' + 300 * "x" + '"}', "not valid JSON: Invalid control character"),
    ],
)
def test_a_bad_line_is_one_bad_row_and_the_others_are_read(line: str, problem: str) -> None:
    good, bad, last = rows('{"a": 1}\n' + line + '\n{"a": 2}')
    assert (good.cells, last.cells) == ({"a": 1}, {"a": 2})
    assert bad.line == 2
    assert problem in (bad.problem or "")


# --- encodings -------------------------------------------------------------------------------------------------

TEXT = "text,label\n" + "Das Café schließt früher, wärmere Tage kämen,ja\n".replace(", w", "; w") * 20


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (TEXT.encode(), "utf-8"),
        (TEXT.encode("utf-8-sig"), "utf-8 with byte order mark"),
        (TEXT.encode("utf-16"), "utf-16"),
        (b"\xfe\xff" + TEXT.encode("utf-16-be"), "utf-16"),
        (TEXT.encode("cp1252"), "windows-1252"),
        (TEXT.replace("Café", "Кафе").replace("ß", "s").encode(), "utf-8"),
    ],
)
def test_an_encoding_is_recognised_and_told(data: bytes, encoding: str) -> None:
    file = open_rows(data)
    assert file.encoding == encoding
    assert file.columns == ("text", "label"), "no mark sticks to the first column"
    assert "schlie" in str(file.sample[0]["text"])
    if encoding != "utf-8":
        assert file.sample[0]["text"] == "Das Café schließt früher; wärmere Tage kämen"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("a,b\né,1\n".encode() * 9 + b"\xe9,2\n", "line 19: the file is damaged UTF-8"),
        (b"a,b\n" + "é,1\n".encode() * 3 + b"\xe9,2\n" * 3, "line 5: "),
        ("é\n".encode() + TEXT.encode("cp1252"), "line 3: in another encoding than line 1: one is UTF-8, one is not."),
        ("a,b\né,1\n".encode("utf-16")[:-1], "line 2: the file begins with the mark of UTF-16"),
        ("a,b\né,1\n".encode("utf-16-le"), "The file is UTF-16 without its byte order mark"),
        (b"a,b\n\x81\x8d\x8f\x90\x9d,1\n", "line 2: "),
        (bytes(range(256)) * 40, "line 1: the file is binary data"),
        (b"\x00" * 5_000, "line 1: the file is binary data"),
        (b"PK\x03\x04 whatever", "The file is a spreadsheet or zip file; save the sheet as CSV in UTF-8."),
    ],
)
def test_bytes_that_are_no_text_refuse_the_file_with_the_line(data: bytes, problem: str) -> None:
    assert refusal(data).startswith(problem)


# --- hostile ---------------------------------------------------------------------------------------------------


def test_columns_are_bounded_by_row_by_header_and_in_all() -> None:
    header = ",".join(f"c{n}" for n in range(100_000))
    assert "100,000 columns" in refusal(f"{header}\n{'1,' * 99_999}1\n")
    wide = json.dumps({f"c{n}": 1 for n in range(100_000)})
    assert "100,000 columns" in refusal(wide)
    shifting = "\n".join(json.dumps({f"c{row}_{n}": 1 for n in range(300)}) for row in range(5))
    assert "different columns" in refusal(shifting)


class Name(str):
    """Counts how often names are compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return str.__eq__(self, other)


def test_a_name_that_stands_twice_among_many_is_found_without_comparing_each_with_each() -> None:
    assert "stands twice" in refusal('{"z": 1, ' + ",".join(f'"k{n}": 1' for n in range(60_000)) + ', "z": 2}')
    check = rowfile._DECODER.object_pairs_hook
    with pytest.raises(ValueError, match="the key 'k7' stands twice"):
        check([(Name(f"k{n % 2_000}"), 1) for n in range(7, 2_008)])
    assert 0 < Name.compared < 10 * 2_000


class Reads:
    """Counts the characters that are looked at, in place of what rowfile reads a text with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.characters = 0
        self._decoder, self._line, self._space = rowfile._DECODER, rowfile._LINE, rowfile._SPACE
        reads = self

        class Text(str):
            def count(self, *given: Any) -> int:
                _, start, end = given
                reads.characters += end - start
                return str.count(self, *given)

        def read_text(data: bytes) -> tuple[str, str]:
            text, encoding = encodings.read_text(data)
            return Text(text), encoding

        monkeypatch.setattr(rowfile, "read_text", read_text)
        monkeypatch.setattr(rowfile, "_DECODER", self)
        monkeypatch.setattr(rowfile, "_LINE", mock.Mock(finditer=self._lines))
        monkeypatch.setattr(rowfile, "_SPACE", mock.Mock(match=self._spaces))

    def decode(self, text: str) -> Any:
        self.characters += len(text)
        return self._decoder.decode(text)

    def raw_decode(self, text: str, start: int) -> tuple[Any, int]:
        end = len(text)
        try:
            value, end = self._decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            end = error.pos
            raise
        finally:
            self.characters += end - start + 1
        return value, end

    def _lines(self, text: str, start: int = 0) -> Iterator[re.Match[str]]:
        for found in self._line.finditer(text, start):
            self.characters += found.end() - found.start()
            yield found

    def _spaces(self, text: str, start: int) -> re.Match[str] | None:
        found = self._space.match(text, start)
        self.characters += 1 + (found.end() - start if found else 0)
        return found


@pytest.mark.parametrize(
    "data",
    [
        b'a,b\n"' + b"x,y\n" * 100_000,
        b"a,b\n" + b'"' * 200_000,
        b"[" * 200_000,
        b'{"a": ' * 50_000,
        b"\n" * 200_000,
        b'[{"a": 1}' + b"," * 200_000,
        b'[{"a": 1}' + b',\n{"a": 1}' * 20_000,
    ],
    ids=["unclosed", "quotes", "lists", "objects", "empty", "commas", "endless"],
)
def test_of_nonsense_every_sign_is_read_a_few_times_at_most(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    reads = Reads(monkeypatch)
    assert refusal(data)
    assert reads.characters < 8 * len(data)


@pytest.mark.parametrize(
    "data",
    ['{"a": 1}\n' * 5_000, "[" + '{"a": 1},\n' * 5_000 + '{"a": 1}]', '{"a":\n1}\n' * 5_000, "a,b\n" + "1,2\n" * 5_000],
    ids=["lines", "list", "objects", "csv"],
)
def test_of_good_rows_every_sign_is_read_a_few_times(monkeypatch: pytest.MonkeyPatch, data: str) -> None:
    reads = Reads(monkeypatch)
    assert len(rows(data)) >= 5_000
    assert len(data) < reads.characters < 8 * len(data)


def test_many_megabytes_of_nonsense_are_refused() -> None:
    for data in (b'a,b\n"' + b"x,y\n" * 2_000_000, b"[" * 1_000_000, b"\n" * 5_000_000, b"a,b\n" + b'"' * 2_000_000):
        assert refusal(data)


def test_fifty_megabytes_are_read() -> None:
    line = json.dumps({"input": "word " * 1_000, "output": "fine"}).encode() + b"\n"
    file = open_rows(line * (50_000_000 // len(line)))
    assert sum(row.problem is None for row in file.rows()) == 50_000_000 // len(line)


@given(st.binary(max_size=300) | st.text(alphabet='{}[]":,;\n\t\r a1\x00é=', max_size=200).map(str.encode))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    with suppress(InvalidInput):
        for row in open_rows(data).rows():
            assert row.problem is None or row.cells == {}
