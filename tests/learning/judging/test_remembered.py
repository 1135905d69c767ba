"""Answers outlive the process, the newest that were asked for; neither memory nor file grows without end."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from intern.learning.judging.evaluate import Generated
from intern.learning.judging.remembered import AnswerMemory


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "team" / "skill.jsonl"


def answer(number: int) -> Generated:
    return Generated(text=f"answer {number}", tokens=number, finish_reason="stop")


def known(memory: AnswerMemory, numbers: range) -> list[int]:
    return [number for number in numbers if memory.get(str(number)) == answer(number)]


def lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def test_an_answer_is_known_to_the_next_process(file: Path) -> None:
    AnswerMemory(file).put("1", answer(1))
    assert AnswerMemory(file).get("1") == answer(1)
    assert AnswerMemory(file).get("2") is None


def test_of_many_answers_the_newest_are_kept_and_the_file_stays_short(file: Path) -> None:
    memory = AnswerMemory(file, most=10)
    for number in range(50):
        memory.put(str(number), answer(number))
        assert lines(file) <= 20
    assert known(memory, range(50)) == list(range(40, 50))
    assert known(AnswerMemory(file, most=10), range(50)) == list(range(40, 50))
    assert [path.name for path in file.parent.iterdir()] == ["skill.jsonl"]


def test_an_answer_that_is_asked_for_is_kept_longer_than_one_that_is_not(file: Path) -> None:
    memory = AnswerMemory(file, most=10)
    for number in range(30):
        memory.put(str(number), answer(number))
        memory.get("0")
    assert known(memory, range(30)) == [0, *range(21, 30)]


def test_a_line_that_was_cut_off_costs_no_other_answer(file: Path) -> None:
    AnswerMemory(file).put("1", answer(1))
    with file.open("a", encoding="utf-8") as opened:
        opened.write('["2", {"text": "ans')  # by a process that was killed
    memory = AnswerMemory(file)
    memory.put("3", answer(3))
    assert known(AnswerMemory(file), range(5)) == [1, 3]


def test_what_is_forgotten_is_in_no_file(file: Path) -> None:
    memory = AnswerMemory(file)
    memory.put("1", answer(1))
    memory.forget()
    assert memory.get("1") is None
    assert list(file.parent.iterdir()) == []
    memory.put("2", answer(2))
    assert known(AnswerMemory(file), range(5)) == [2]


def test_an_odd_byte_or_line_costs_that_answer_only(tmp_path: Path) -> None:
    file = tmp_path / "skill.jsonl"
    AnswerMemory(file).put("a", Generated(text="one"))
    with file.open("ab") as opened:
        opened.write(b"\xff\xfe\n7\n[1, 2, 3]\n")
    memory = AnswerMemory(file)
    assert memory.get("a") == Generated(text="one")
    memory.forget()
    assert not file.exists()


def test_a_disk_that_refuses_costs_no_answer(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    memory = AnswerMemory(tmp_path / "file" / "skill.jsonl")
    memory.put("a", Generated(text="one"))
    assert memory.get("a") == Generated(text="one")


def test_opening_writes_nothing_even_where_a_line_was_cut_off(file: Path) -> None:
    AnswerMemory(file).put("1", answer(1))
    with file.open("a", encoding="utf-8") as opened:
        opened.write('["2", {"text": "ans')
    before = file.read_bytes()
    assert AnswerMemory(file).get("1") == answer(1)
    assert file.read_bytes() == before


def test_who_asks_for_an_answer_waits_for_no_disk(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, go_on = threading.Event(), threading.Event()
    replace = os.replace

    def slow(*given: Any) -> None:
        writing.set()
        go_on.wait()
        replace(*given)

    monkeypatch.setattr("intern.learning.judging.remembered.os.replace", slow)
    memory = AnswerMemory(file, most=2)
    for number in range(4):
        memory.put(str(number), answer(number))
    with ThreadPoolExecutor(2) as pool:
        try:
            put = pool.submit(memory.put, "4", answer(4))
            assert writing.wait(30)
            assert pool.submit(memory.get, "3").result(timeout=10) == answer(3)
        finally:
            go_on.set()
        put.result()
    assert known(AnswerMemory(file, most=2), range(5)) == [3, 4]
