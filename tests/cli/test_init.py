"""`intern init`: a workspace with the starter skills, made once."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from intern.cli import run
from intern.cli.check import check_folder
from intern.cli.init import find_starters


def test_a_workspace_has_the_starter_skills_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "new" / "intern"
    assert run(["init", str(home)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["home"] == str(home)
    assert {"support-triage", "policy-answers"} <= set(answer["skills"])
    assert sorted(path.name for path in home.iterdir()) == ["adapters", "data", "skills"]
    starters = find_starters()
    for name in answer["skills"]:
        assert check_folder(home / "skills" / name).problems == ()
        for file in (starters / name).rglob("*"):
            copy = home / "skills" / name / file.relative_to(starters / name)
            assert copy.is_dir() if file.is_dir() else copy.read_bytes() == file.read_bytes()


def test_skills_that_are_there_are_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "skills").mkdir()
    (tmp_path / "skills" / "mine.txt").write_text("mine")
    assert run(["init", str(tmp_path)]) == 1
    assert "is a workspace already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["skills", "mine.txt"]


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert run(["init", str(tmp_path), "--empty"]) == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert list((tmp_path / "skills").iterdir()) == []


def test_a_start_that_is_interrupted_leaves_no_half_of_the_starter_skills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[Path] = []
    copytree = shutil.copytree

    def refuses(source: Path, *rest: Any, **more: Any) -> None:
        if not (source / "skill.yaml").exists():  # an adapter, which the skills come after
            copytree(source, *rest, **more)
            return
        if copied:
            raise OSError(28, "No space left on device")
        copied.append(source)
        Path(rest[0]).mkdir()

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copytree", refuses)
        assert run(["init", str(tmp_path)]) == 1
    assert copied
    assert list(tmp_path.rglob("*interview*")) == list(tmp_path.rglob("skill.yaml")) == []
    assert run(["init", str(tmp_path)]) == 0
    assert len(list(tmp_path.glob("skills/*/skill.yaml"))) == len(list(find_starters().glob("*/skill.yaml")))


def test_a_file_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(["init", str(tmp_path / "file")]) == 1
    assert "is a file" in capsys.readouterr().err


def test_a_wheel_brings_every_file_of_the_starter_skills() -> None:
    project = Path(__file__).parents[2]
    tables = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    brought = {path for patterns in tables.values() for pattern in patterns for path in project.glob(pattern)}
    wanted = {path for path in find_starters().rglob("*") if path.is_file() and not path.name.startswith(".")}
    assert wanted - brought == set()
    assert all(
        target.removeprefix("share/llama-intern/") == str(Path(patterns[0]).parent)
        for target, patterns in tables.items()
    )
