"""Rows: read as they come, done a few at a time, given out in order, with the bad ones among them."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from intern.cli.rows import LONGEST_PAUSE, TRIES, in_order, patiently, read_rows, run_rows
from intern.errors import EngineFailure, InvalidInput, Overloaded


def test_results_come_in_the_order_of_the_items_whichever_is_done_first() -> None:
    first_may_end = threading.Event()

    def do(number: int) -> int:
        if number == 0:
            assert first_may_end.wait(10)
        if number == 2:
            first_may_end.set()
        return number * 10

    assert list(in_order(range(8), do, parallel=3)) == [n * 10 for n in range(8)]


def test_a_result_comes_out_while_the_source_still_waits_for_its_next_item() -> None:
    seen = threading.Event()

    def slow_source() -> Iterator[int]:
        yield 1
        assert seen.wait(10), "the first result did not come before the second item"
        yield 2

    results = in_order(slow_source(), lambda n: n, parallel=2)
    assert next(results) == 1
    seen.set()
    assert list(results) == [2]


def test_as_many_are_under_way_as_allowed_and_no_more() -> None:
    lock = threading.Lock()
    together = threading.Barrier(3, timeout=10)
    running = 0
    most = 0

    def do(number: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait()
        with lock:
            running -= 1

    list(in_order(range(9), do, parallel=3))
    assert most == 3


def test_reading_runs_ahead_by_a_bounded_number_of_items() -> None:
    read = 0
    hold = threading.Event()

    def source() -> Iterator[int]:
        nonlocal read
        for number in itertools.count():
            read = number + 1
            yield number

    def do(number: int) -> int:
        if number == 5:
            assert hold.wait(10)
        return number

    results = in_order(source(), do, parallel=2)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert read <= 5 + 4 * 2 + 1
    hold.set()
    assert isinstance(results, Generator)
    results.close()


def test_what_reading_or_doing_raises_is_raised_in_its_place() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    results = in_order(source(), lambda n: n, parallel=2)
    assert next(results) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(results)
    with pytest.raises(ZeroDivisionError):
        list(in_order([1, 0], lambda n: 1 // n, parallel=2))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{not json}", "line 2: not valid JSON"),
        (b'"a text"', "line 2: must be an object"),
        (b'{"text": "x"}', "line 2: must be an object"),
        (b'{"input": 3}', "line 2: 'input' must be a text or a list"),
        (b'{"input": ""}', "line 2: 'input' must be a text or a list"),
        (b'{"input": "\xff"}', "line 2: not UTF-8"),
        (b"[" * 100_000, "line 2: nests too deep"),
    ],
)
def test_a_bad_line_is_a_row_that_names_its_line(line: bytes, problem: str) -> None:
    rows = list(read_rows([b'{"input": "good"}\n', line + b"\n", b'{"input": "good too"}\n']))
    assert [row.problem is None for row in rows] == [True, False, True]
    assert rows[1].problem is not None
    assert rows[1].problem.startswith(problem)


def test_blank_lines_a_byte_order_mark_and_other_keys_are_no_problem() -> None:
    rows = list(read_rows([b'\xef\xbb\xbf{"input": "a", "expected": "x"}\r\n', b"\n", b"  \n", b'{"input": "b"}']))
    assert [(row.number, row.input, row.problem) for row in rows] == [(1, "a", None), (4, "b", None)]


def test_an_overloaded_server_is_waited_for_as_long_as_it_asks() -> None:
    pauses: list[float] = []
    full: list[Overloaded | str] = [Overloaded("full", retry_after=7), Overloaded("full", retry_after=1)]
    answers = iter([*full, "done"])

    def do() -> str:
        answer = next(answers)
        if isinstance(answer, Overloaded):
            raise answer
        return answer

    assert patiently(do, pause=pauses.append) == "done"
    assert 7 <= pauses[0] <= 7 * 1.25
    assert 1 <= pauses[1] <= 1.25


def test_waiting_grows_and_ends() -> None:
    pauses: list[float] = []

    def do() -> None:
        raise Overloaded("full", retry_after=0)

    with pytest.raises(Overloaded):
        patiently(do, pause=pauses.append)
    assert len(pauses) == TRIES - 1
    assert pauses[-1] > 10 * pauses[0]
    assert max(pauses) <= LONGEST_PAUSE * 1.25


def test_other_errors_are_not_tried_again() -> None:
    tries: list[int] = []

    def do() -> None:
        tries.append(1)
        raise EngineFailure("broke")

    with pytest.raises(EngineFailure):
        patiently(do, pause=lambda seconds: pytest.fail("waited"))
    assert tries == [1]


def test_every_row_gives_one_line_and_failures_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(
        '{"input": "good"}\nnonsense\n{"input": "fails"}\n{"input": [{"role": "user", "content": "Grüße"}]}\n'
    )

    def do(value: Any) -> dict[str, Any]:
        if value == "fails":
            raise InvalidInput("it does not like this")
        return {"output": "yes"}

    assert run_rows(str(file), do, blank={"output": None}, parallel=2) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"input": "good", "output": "yes"},
        {"input": None, "output": None, "error": "line 2: not valid JSON: Expecting value (column 1)"},
        {"input": "fails", "output": None, "error": "it does not like this"},
        {"input": [{"role": "user", "content": "Grüße"}], "output": "yes"},
    ]
    assert "Grüße" in lines[3]


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"no-such\.jsonl: cannot be read"):
        run_rows("no-such.jsonl", lambda value: {}, blank={}, parallel=1)
