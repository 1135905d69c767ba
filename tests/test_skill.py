"""A skill folder is read whole or refused with every problem, each naming file, line or key and what would be right."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from intern.cli.check import check_folder
from intern.cli.init import find_starters
from intern.errors import Conflict, SkillInvalid
from intern.library import SkillLibrary
from intern.skill import Skill, read_skill, write_skill

GOOD = "title: T\ndescription: D\ninstructions: I\n"
SCHEMA = {"type": "object", "properties": {"label": {"enum": ["a", "b"]}}, "required": ["label"]}


def folder(tmp_path: Path, yaml: str | bytes = GOOD, name: str = "my-skill", **files: str | bytes) -> Path:
    place = tmp_path / name
    place.mkdir(parents=True)
    for file, content in {"skill.yaml": yaml, **files}.items():
        path = place / file.replace("__", ".")
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return place


def problems(place: Path) -> list[str]:
    with pytest.raises(SkillInvalid) as caught:
        read_skill(place)
    return caught.value.problems


BROKEN: dict[str, tuple[str | bytes, str]] = {
    "an unknown key": (
        GOOD + "retreival: {enabled: true}\n",
        "skill.yaml:4: key 'retreival' is unknown; did you mean 'retrieval'",
    ),
    "an unknown inner key": (
        GOOD + "retrieval:\n  passage: 3\n",
        "skill.yaml:5: key 'retrieval.passage' is unknown; did you mean 'passages'",
    ),
    "a missing key": ("title: T\ninstructions: I\n", "key 'description' is missing"),
    "a key that JSON has not": (GOOD.replace("I\n", "{2024-01-01: x}\n"), "skill.yaml:3: key 'instructions'"),
    "a wrong type": (GOOD + "generation:\n  max_tokens: many\n", "skill.yaml:5: key 'generation.max_tokens'"),
    "a value out of range": (GOOD + "review: {rate: 2}\n", "skill.yaml:4: key 'review.rate'"),
    "a key twice": (GOOD + "title: Again\n", "skill.yaml:4: key 'title' stands twice"),
    "broken YAML": ("title: [\n", "skill.yaml:2: not valid YAML"),
    "YAML that is a list": ("- title\n", "must hold keys"),
    "an alias": ("title: &a x\ndescription: *a\ninstructions: I\n", "aliases"),
    "a Python tag": ("title: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    "no UTF-8": (b"title: T\ndescription: \xff\n", "skill.yaml:2: byte 22 is not UTF-8"),
    "an empty file": ("", "must hold keys"),
    "a missing schema": (GOOD + "output: schema.json\n", "'schema.json' is no file"),
    "a schema elsewhere": (GOOD + "output: ../other/schema.json\n", "is no file beside"),
    "an unknown key in a list": (
        GOOD + "evaluation:\n  identity:\n    - question: Who?\n      facts: [Ada]\n      nevr: [Bob]\n",
        "skill.yaml:8: key 'evaluation.identity.0.nevr' is unknown; did you mean 'never'",
    ),
    "a deciding field that is none": (
        GOOD + "learning: {primary: topic}\n",
        "key 'learning.primary': the output has no such",
    ),
    "one repeat": (GOOD + "evaluation: {repeats: 1}\n", "one answer has no other to agree with; use 0 (off), or 2"),
    "greedy repeats": (
        GOOD + "evaluation: {temperature: 0}\n",
        "key 'evaluation.temperature': input should be greater",
    ),
    "a question without facts": (
        GOOD + "evaluation: {identity: [{question: Who}]}\n",
        "key 'evaluation.identity.0.facts' is missing",
    ),
    "a phrase that is none": (
        GOOD + "evaluation:\n  identity:\n    - question: Who?\n      facts: ['a*b*']\n",
        "skill.yaml:7: key 'evaluation.identity.0.facts.0.0': 'a*b*' is no phrase",
    ),
    "a question twice": (
        GOOD + "evaluation: {identity: [{question: Who, facts: [a]}, {question: who, facts: [b]}]}\n",
        "key 'evaluation.identity.1.question': 'who' is there already",
    ),
    "an attribute of no field": (
        GOOD + "evaluation: {attributes: [{name: a, field: b, patterns: {x: [y]}}]}\n",
        "key 'evaluation.attributes.0.field': the output has no field 'b'",
    ),
    "an attribute of any text": (
        GOOD + "evaluation: {attributes: [{name: a}]}\n",
        "key 'evaluation.attributes.0' needs patterns",
    ),
    "a name that YAML reads as a truth": (
        GOOD + "evaluation: {attributes: [{name: a, patterns: {yes: [y]}}]}\n",
        "put names such as 'yes', 'no' and '1' in quotes",
    ),
    "a class called none": (
        GOOD + "evaluation: {attributes: [{name: a, patterns: {none: [y]}}]}\n",
        "'none' cannot be a name",
    ),
    "a reference of another kind": (
        GOOD + "evaluation: {attributes: [{name: a, patterns: {x: [y]}, reference: train}]}\n",
        "key 'evaluation.attributes.0.reference': use 'heldout', or a share for each value such as",
    ),
    "shares of nothing": (
        GOOD + "evaluation: {attributes: [{name: a, patterns: {x: [y]}, reference: {x: 0}}]}\n",
        "shares are numbers from 0 on, not all of them 0",
    ),
    "a share that is no number": (
        GOOD + "evaluation: {attributes: [{name: a, patterns: {x: [y]}, reference: {x: .nan}}]}\n",
        "shares are numbers from 0 on",
    ),
    "a share of another value": (
        GOOD + "evaluation: {attributes: [{name: a, patterns: {x: [y]}, reference: {z: 1}}]}\n",
        "key 'evaluation.attributes.0.reference': 'z' is none of its values: x, none, mixed",
    ),
    "a metric for no field": (GOOD + "metrics: {label: exact}\n", "key 'metrics.label': the output has no such field"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_skill_file_is_refused_where_it_is_broken(name: str, tmp_path: Path) -> None:
    yaml, expected = BROKEN[name]
    found = problems(folder(tmp_path, yaml))
    assert any(expected in p for p in found), found


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    rows = [
        '{"input": "x", "output": {"label": "a"}}',
        '{"input": "y", "output": {"label": "c"}}',
        '{"input": "z"}',
        "not json",
        '{"input": "w", "output": {"label": "a"}, "lable": 1}',
        '{"input": [{"role": "assistant", "content": "hm"}], "output": {"label": "a"}}',
    ]
    place = folder(
        tmp_path, GOOD + "output: schema.json\n", schema__json=json.dumps(SCHEMA), examples__jsonl="\n".join(rows)
    )
    found = problems(place)
    assert [p.split(": ")[0] for p in found] == [f"examples.jsonl:{n}" for n in (2, 3, 4, 5, 6)]


def test_a_folder_name_must_be_usable_as_a_model_name(tmp_path: Path) -> None:
    assert "use 1 to 64 of a-z" in problems(folder(tmp_path, name="My Skill"))[0]
    assert "reserved" in problems(folder(tmp_path, name="base"))[0]


def test_line_separators_inside_texts_do_not_split_rows(tmp_path: Path) -> None:
    row = json.dumps({"input": "one\u2028two", "output": "ok"}, ensure_ascii=False)
    assert read_skill(folder(tmp_path, examples__jsonl=row)).examples[0].input == "one\u2028two"


def test_the_same_id_twice_is_a_problem(tmp_path: Path) -> None:
    rows = '{"id": "1", "input": "x", "output": "a"}\n{"id": "1", "input": "y", "output": "b"}\n'
    assert "stands already on line 1" in problems(folder(tmp_path, examples__jsonl=rows))[0]


def test_the_digest_follows_what_changes_a_prompt_and_nothing_else(tmp_path: Path) -> None:
    first = read_skill(folder(tmp_path / "1")).digest
    assert read_skill(folder(tmp_path / "2", GOOD + "learning: {min_examples: 9}\n")).digest == first
    assert read_skill(folder(tmp_path / "4", GOOD + "evaluation: {repeats: 3}\n")).digest == first
    assert read_skill(folder(tmp_path / "3", GOOD.replace("instructions: I", "instructions: J"))).digest != first


def test_a_written_skill_reads_back_and_is_not_overwritten(tmp_path: Path) -> None:
    spec = {"title": "T", "description": "D", "instructions": "First line.\nSecond: line # no comment.\n"}
    rows = [{"input": "hi", "output": {"label": "a"}}]
    skill = write_skill(tmp_path, "fresh", spec, schema=SCHEMA, examples=rows, utterances=["one\ntwo"])
    assert skill.spec.instructions == spec["instructions"]
    assert (skill.utterances, len(skill.examples)) == (("one two",), 1)
    with pytest.raises(Conflict):
        write_skill(tmp_path, "fresh", spec)
    assert [p.name for p in tmp_path.iterdir()] == ["fresh"]


def test_a_skill_that_cannot_be_read_back_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(SkillInvalid):
        write_skill(tmp_path, "bad", {"title": "T"})
    assert list(tmp_path.iterdir()) == []


def test_the_library_follows_the_folders(tmp_path: Path) -> None:
    library = SkillLibrary(tmp_path)
    place = folder(tmp_path / "skills")
    key = ("default", "my-skill")
    assert library.refresh().added == {key}
    assert not library.refresh()
    (place / "skill.yaml").write_text(GOOD.replace("title: T", "title: Better"))
    assert library.refresh().changed == {key}
    assert library.get(*key).spec.title == "Better"
    (place / "docs").mkdir()
    (place / "docs" / "a.md").write_text("# A")
    assert library.refresh().documents == {key}
    (place / "skill.yaml").write_text("title: [")
    assert not library.refresh().changed
    assert library.get(*key).spec.title == "Better", "the last good version keeps serving"
    assert "not valid YAML" in library.problems()[key][0]
    for path in sorted(place.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    place.rmdir()
    assert library.refresh().removed == {key}
    assert library.all("default") == []
    assert library.problems() == {}


def test_teams_have_folders_of_their_own(tmp_path: Path) -> None:
    folder(tmp_path / "teams" / "blue" / "skills", name="theirs")
    library = SkillLibrary(tmp_path)
    library.refresh()
    assert [s.name for s in library.all("blue")] == ["theirs"]
    assert library.all("default") == []


def test_a_folder_that_no_reader_foresaw_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "skills", name="good")
    folder(tmp_path / "skills", name="odd")

    def read(path: Path) -> Skill:
        if path.name == "odd":
            raise ZeroDivisionError("whatever it was")
        return read_skill(path)

    monkeypatch.setattr("intern.library.read_skill", read)
    library = SkillLibrary(tmp_path)
    library.refresh()
    assert [s.name for s in library.all("default")] == ["good"]
    assert "whatever it was" in library.problems()["default", "odd"][0]


@pytest.mark.parametrize(
    "starter", sorted(p.parent for p in find_starters().glob("*/skill.yaml")), ids=lambda p: p.name
)
def test_a_starter_skill_can_be_used_as_it_is(starter: Path) -> None:
    report = check_folder(starter)
    assert report.problems == ()
    assert report.warnings == ()
    skill = read_skill(starter)
    held_out = [e for e in skill.examples if e.split == "heldout"]
    assert len(skill.examples) >= 60
    assert len(held_out) >= 20
    assert len(skill.utterances) >= 20
    known = {" ".join(re.findall(r"\w+", u.casefold())) for u in skill.utterances}
    assert not [e.text for e in held_out if " ".join(re.findall(r"\w+", e.text.casefold())) in known]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ('{"input": "a", "output": ' + "9" * 5000 + "}", "examples.jsonl:1: not valid JSON: a number of thousands"),
        ('{"input": "half \\ud800", "output": "x"}', "examples.jsonl:1: half of a surrogate pair"),
    ],
)
def test_a_row_that_no_store_or_answer_could_carry_is_refused(tmp_path: Path, row: str, problem: str) -> None:
    assert problems(folder(tmp_path, examples__jsonl=row))[0].startswith(problem)


def test_fields_are_compared_by_what_their_references_lead_to(tmp_path: Path) -> None:
    """As pydantic writes the schema of a model with enums, lists and optional parts."""
    schema = {
        "$defs": {
            "Colour": {"enum": ["red", "green"], "type": "string"},
            "Share": {"type": "number"},
            "Tags": {"type": "array", "items": {"$ref": "#/$defs/Colour"}},
            "Node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}}},
        },
        "type": "object",
        "properties": {
            "colour": {"$ref": "#/$defs/Colour"},
            "shade": {"anyOf": [{"$ref": "#/$defs/Colour"}, {"type": "null"}]},
            "inline": {"enum": ["red", "green"], "type": "string"},
            "fixed": {"const": "red", "type": "string"},
            "share": {"anyOf": [{"$ref": "#/$defs/Share"}, {"type": "null"}]},
            "tags": {"$ref": "#/$defs/Tags", "description": "What is on it."},
            "node": {"$ref": "#/$defs/Node"},
            "remark": {"type": ["string", "null"]},
        },
    }
    spec = {"title": "T", "description": "D", "instructions": "I", "metrics": {"inline": "text"}}
    assert write_skill(tmp_path, "paint", spec, schema=schema).metrics == {
        **{"colour": "exact", "shade": "exact", "inline": "text", "fixed": "exact"},
        **{"share": "number", "tags": "set", "node": "exact", "remark": "text"},
    }
