"""`intern skills check`: every problem fails, every weakness warns, and no server is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from intern.cli import run
from intern.cli.check import check_folder, near_copies
from intern.skill import write_skill

SPEC = {"title": "Leave", "description": "Reads leave requests.", "instructions": "Read them."}
SUBJECTS = ("ada", "ben", "cleo", "dora", "emil", "finn", "gina", "hugo", "iris", "jana", "kurt")


def examples(count: int, *, heldout: int = 0) -> list[dict[str, object]]:
    return [
        {
            "input": f"{SUBJECTS[n % 11]} asks on day {n} for leave number {n * 7} about topic {n * 13}",
            "output": "yes",
            "split": "heldout" if n < heldout else "train",
        }
        for n in range(count)
    ]


def test_a_good_skill_has_nothing_to_say(tmp_path: Path) -> None:
    write_skill(tmp_path, "leave", SPEC, examples=examples(40, heldout=20), utterances=["I need a day off"])
    report = check_folder(tmp_path / "leave")
    assert (report.problems, report.warnings) == ((), ())


def test_weak_skills_are_warned_of_and_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_skill(tmp_path / "skills", "bare", {**SPEC, "retrieval": {"enabled": True}})
    write_skill(tmp_path / "skills", "unjudged", SPEC, examples=examples(30, heldout=3))
    assert run(["skills", "check", "--home", str(tmp_path)]) == 0
    bare, unjudged = json.loads(capsys.readouterr().out)["data"]
    assert bare["problems"] == unjudged["problems"] == []
    assert [warning.split(":")[0] for warning in bare["warnings"]] == ["examples.jsonl", "utterances.txt", "docs/"]
    assert unjudged["warnings"] == ["examples.jsonl: 3 held out; with 20 and more an adapter can be judged"]


def test_near_copies_are_named_by_their_lines_and_leaks_by_their_split(tmp_path: Path) -> None:
    copies = [
        {"input": "Please move my holiday from the first to the second week of May", "output": "a", "split": "heldout"},
        {"input": "please, move my holiday from the second to the first week of May!", "output": "b", "id": "other"},
    ]
    write_skill(tmp_path, "leave", SPEC, examples=[*examples(40, heldout=20), *copies])
    file = tmp_path / "leave" / "examples.jsonl"
    file.write_text("\n" + file.read_text())
    assert check_folder(tmp_path / "leave").warnings == (
        "examples.jsonl:43: nearly the same as line 42 (Jaccard 1.00); one is held out, so its result would be known",
    )


def test_near_copies_are_those_of_comparing_every_pair() -> None:
    import random

    chance = random.Random(7)
    texts = [frozenset(chance.sample("abcdefghijklmn", chance.randint(0, 12))) for _ in range(400)]
    slow = [
        (i, j)
        for j in range(len(texts))
        for i in range(j)
        if texts[i] | texts[j] and len(texts[i] & texts[j]) / len(texts[i] | texts[j]) > 0.8
    ]
    assert len(slow) > 20
    assert [(i, j) for i, j, _ in near_copies(texts)] == slow


def test_problems_are_all_listed_with_file_and_line_and_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "skill.yaml").write_text("title: T\ndescription: D\ninstructionz: I\n")
    (folder / "examples.jsonl").write_text('{"input": "a", "output": "b"}\nnot json\n')
    assert run(["skills", "check", str(folder)]) == 1
    seen = capsys.readouterr()
    (report,) = json.loads(seen.out)["data"]
    assert report["name"] == "broken"
    assert any(p.startswith("skill.yaml:3: key 'instructionz' is unknown") for p in report["problems"])
    assert any(p.startswith("examples.jsonl:2: not valid JSON") for p in report["problems"])
    assert seen.err.startswith("intern: 1 of 1 skills have problems: broken: ")
    assert len(seen.err.splitlines()) == 1


def test_a_skill_is_found_by_name_or_by_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_skill(tmp_path / "skills", "leave", SPEC)
    write_skill(tmp_path / "elsewhere", "travel", SPEC)
    names = ["leave", str(tmp_path / "elsewhere" / "travel")]
    assert run(["skills", "check", *names, "--home", str(tmp_path)]) == 0
    assert [report["name"] for report in json.loads(capsys.readouterr().out)["data"]] == ["leave", "travel"]
    assert run(["skills", "check", "nobody", "--home", str(tmp_path)]) == 1
    assert "There is no skill 'nobody'" in capsys.readouterr().err
