"""Examples from files: every bad row is named by its line before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from intern.cli.examples import BATCH_BYTES, BATCH_ROWS, batches, read_examples
from intern.errors import InvalidInput

SCHEMA = {
    "type": "object",
    "properties": {"kind": {"type": "string", "enum": ["paid", "unpaid"]}},
    "required": ["kind"],
    "additionalProperties": False,
}


def test_json_lines_keep_their_line_numbers() -> None:
    rows = read_examples(
        '\n{"input": "a", "output": "b"}\n\n{"input": "c", "output": "d", "group": "g"}\n', None, as_csv=False
    )
    assert rows == [(2, {"input": "a", "output": "b"}), (4, {"input": "c", "output": "d", "group": "g"})]


@pytest.mark.parametrize(
    ("text", "schema", "problem"),
    [
        ('{"input": "a", "output": "b"}\nnonsense', None, "line 2: not valid JSON"),
        ('{"input": "a", "output": "b"}\n[1]', None, "line 2: must be an object"),
        ('{"input": "a"}', None, "line 1: key 'output' is missing"),
        ('{"input": "a", "output": "b", "label": "c"}', None, "line 1: key 'label' is unknown"),
        ('{"input": "a", "output": {"kind": "sick"}}', SCHEMA, "line 1: key 'output' breaks the schema"),
        ('{"input": "a", "output": {"kind": "paid"}}', None, "line 1: key 'output' must be a text"),
        ("", None, "There are no rows"),
    ],
)
def test_a_bad_row_is_named_by_its_line(text: str, schema: dict[str, Any] | None, problem: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_examples(text, schema, as_csv=False)
    assert caught.value.message.startswith(problem)


def test_how_many_rows_are_bad_is_said() -> None:
    with pytest.raises(InvalidInput, match=r"line 1: .*\(2 of 3 rows are bad\)\. Nothing was added\."):
        read_examples('{}\n{"input": "a", "output": "b"}\n{}', None, as_csv=False)


def test_csv_cells_are_text_or_json_as_the_skill_wants() -> None:
    text = 'input,output,group\r\n"two\r\nlines",yes,\r\nsecond,no,g\r\n'
    assert read_examples(text, None, as_csv=True) == [
        (3, {"input": "two\r\nlines", "output": "yes"}),
        (4, {"input": "second", "output": "no", "group": "g"}),
    ]
    structured = 'output,input\n"{""kind"": ""paid""}",a\n'
    assert read_examples(structured, SCHEMA, as_csv=True) == [(2, {"output": {"kind": "paid"}, "input": "a"})]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("question,answer\na,b\n", "The CSV has no column 'input'"),
        ("input,output,score\na,b,1\n", "The CSV has an unknown column 'score'"),
        ("input,output\na\n", "line 2: must have 2 cells"),
        ("input,output\na,b,c\n", "line 2: must have 2 cells"),
        ("input,output\na,paid\n", "line 2: key 'output' must be JSON"),
        ('input,output\na,"b', "line 2: not valid CSV"),
    ],
)
def test_a_bad_csv_is_explained(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_examples(text, SCHEMA, as_csv=True)
    assert caught.value.message.startswith(problem)


def test_batches_keep_every_row_and_both_limits() -> None:
    rows = [(n, {"input": "x" * (BATCH_BYTES // 3), "output": str(n)}) for n in range(7)]
    rows += [(n, {"input": "y", "output": str(n)}) for n in range(7, 7 + BATCH_ROWS + 1)]
    made = list(batches(rows))
    assert [row for batch in made for row in batch] == rows
    assert all(len(batch) <= BATCH_ROWS for batch in made)
    assert all(sum(len(row["input"]) for _, row in batch) <= BATCH_BYTES for batch in made)
    assert [len(batch) for batch in made[:3]] == [2, 2, 2]
