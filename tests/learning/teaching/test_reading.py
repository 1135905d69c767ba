"""What a teacher wrote outlives the process that asked it."""

from __future__ import annotations

from pathlib import Path

import pytest

from intern.errors import StoreFailure
from intern.learning.teaching.reading import Reading, Readings, Refused
from intern.types import Example


def reading(passage: str) -> Reading:
    example = Example(id=f"syn-{passage}", input="line\nfeed \u2028 ü", output={"a": 1}, provenance="synthesis")
    return Reading(passage=passage, examples=(example,), refused=(Refused(input="x", reason="copy"),))


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    file = tmp_path / "run" / "written.jsonl"
    assert Readings(file).known() == {}
    for passage in ("one", "two"):
        Readings(file).add(reading(passage))
    assert Readings(file).known() == {"one": reading("one"), "two": reading("two")}


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_that_broke_off_spoils_no_other(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "written.jsonl"
    Readings(file).add(reading("one"))
    Readings(file).add(reading("two"))
    file.write_bytes(file.read_bytes()[:-cut])
    assert set(Readings(file).known()) == {"one"}
    Readings(file).add(reading("three"))
    assert set(Readings(file).known()) == {"one", "three"}


def test_without_a_file_nothing_is_kept() -> None:
    Readings(None).add(reading("one"))
    assert Readings(None).known() == {}


def test_what_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFailure, match="cannot be kept"):
        Readings(tmp_path / "file" / "written.jsonl").add(reading("one"))
