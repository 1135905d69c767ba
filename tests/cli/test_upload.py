"""Which files `intern ingest` finds, and what they are called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from intern.cli.upload import find_sources
from intern.errors import InvalidInput


def test_documents_are_called_by_their_path_below_the_folder(tmp_path: Path) -> None:
    for name in ("b.md", "a/z.md", "a/b/c.md", ".hidden", ".git/config", "a/.tmp"):
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (source,) = find_sources([tmp_path / "docs"])
    assert [name for name, _ in source.files] == ["b.md", "a/z.md", "a/b/c.md"]
    assert source.name == str(tmp_path / "docs")
    assert source.whole


def test_the_source_is_the_same_however_the_folder_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("a")
    monkeypatch.chdir(tmp_path)
    written = [Path("docs"), Path("./docs/"), Path("docs/../docs"), tmp_path / "docs"]
    assert {find_sources([path])[0].name for path in written} == {str(tmp_path / "docs")}


def test_a_single_file_is_called_by_its_name_and_stands_for_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("a")
    (source,) = find_sources([tmp_path / "a.md"])
    assert source.files == (("a.md", tmp_path / "a.md"),)
    assert source.name == str(tmp_path)
    assert not source.whole


def test_two_files_of_one_name_are_told_apart_from_one_file_given_twice(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.md").write_text(folder)
    with pytest.raises(InvalidInput, match=r"would both be called 'a\.md'"):
        find_sources([tmp_path / "x", tmp_path / "y"])
    assert len(find_sources([tmp_path / "x", tmp_path / "x" / "a.md"])) == 2


def test_a_path_that_is_not_there_or_holds_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        find_sources([tmp_path / "nowhere"])
    with pytest.raises(InvalidInput, match="holds no files"):
        find_sources([tmp_path])


def test_a_link_in_a_circle_ends(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("a")
    os.symlink(tmp_path, tmp_path / "again")
    (source,) = find_sources([tmp_path])
    assert [name for name, _ in source.files] == ["a.md"]
