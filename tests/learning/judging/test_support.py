"""What an answer says is looked for in the passages that it cites, and in no other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from intern.learning.judging.support import Grounding, grounding, support
from intern.skill import Skill, write_skill
from intern.types import Example, Json, Passage

SCHEMA = {
    "type": "object",
    "required": ["found", "answer", "kind", "days", "sources"],
    "properties": {
        "found": {"type": "boolean"},
        "answer": {"type": ["string", "null"]},
        "kind": {"anyOf": [{"enum": ["holiday", "sickness"]}, {"type": "null"}]},
        "days": {"type": ["number", "null"]},
        "sources": {"type": "array", "items": {"type": "string"}},
    },
}
SHOWN = [
    Passage(
        id="1", document="leave.md", heading="Annual leave", start=0, end=9, score=1, text="Everyone gets 28 days."
    ),
    Passage(id="2", document="pay.md", heading="", start=0, end=9, score=1, text="Salaries of 1,500 come on Friday."),
]
ASKED = "How much annual leave do part-timers get?"


def handbook(root: Path, *, schema: dict[str, Any] | None = SCHEMA, **more: Any) -> Skill:
    retrieval = {"enabled": True, **({"citations": "sources"} if schema else {})}
    spec = {"title": "T", "description": "D", "instructions": "I", "retrieval": retrieval, **more}
    return write_skill(root, "handbook", spec, schema=schema)


def output(answer: str | None, sources: Sequence[str], **more: Json) -> dict[str, Json]:
    return {"found": True, "answer": answer, "kind": "holiday", "days": None, "sources": list(sources), **more}


RIGHT = output("Everyone gets 28 days.", ["leave.md"])


def measured(skill: Skill, given: Json, *, expected: Json = RIGHT, shown: Any = SHOWN) -> Grounding:
    return grounding(skill, Example(id="e", input=ASKED, output=expected), given, shown)


@pytest.fixture
def skill(tmp_path: Path) -> Skill:
    return handbook(tmp_path, learning={"refusal": {"found": False}})


@pytest.mark.parametrize(
    ("answer", "sources", "share"),
    [
        ("Everyone gets 28 days.", ["leave.md"], 1.0),
        ("everyone GETS 28 days of annual leave!", ["leave.md"], 1.0),
        ("Everyone gets 30 days.", ["leave.md"], 3 / 4),
        ("Managers receive bonuses.", ["leave.md"], 0.0),
        ("Everyone gets 28 days.", ["pay.md"], 0.0),  # true, and not by what it cites
        ("Everyone gets 28 days.", ["pay.md", "leave.md"], 1.0),
        ("Salaries of 1500 come.", ["pay.md"], 1.0),
        ("Everyone gets 28 days.", [], 0.0),
        ("Everyone gets 28 days.", ["secret.md"], 0.0),  # no passage of it was shown
    ],
)
def test_words_and_numbers_must_stand_in_what_is_cited(
    skill: Skill, answer: str, sources: list[str], share: float
) -> None:
    found = measured(skill, output(answer, sources))
    assert found.support == pytest.approx(share)
    assert found.expected == 1.0


def test_numbers_count_where_they_stand_in_a_field_of_their_own_and_labels_do_not(skill: Skill) -> None:
    assert measured(skill, output("28", ["leave.md"], days=28, kind="sickness")).support == 1.0
    assert measured(skill, output("28", ["leave.md"], days=30)).support == 0.5


def test_what_the_request_says_counts_neither_way(skill: Skill) -> None:
    assert measured(skill, output("Part-timers get 28 days.", ["leave.md"])).support == 1.0
    assert measured(skill, output("annual leave for part-timers", ["leave.md"])).support is None
    assert support(["leave"], ["leave"]) == 1.0


def test_saying_no_states_nothing(skill: Skill, tmp_path: Path) -> None:
    no = output("The handbook does not tell.", [], found=False)
    assert measured(skill, no).support is None
    assert measured(skill, no, expected=no) == Grounding()
    assert measured(skill, output(None, [])).support is None
    undeclared = handbook(tmp_path / "other")
    assert measured(undeclared, no).support == 0.0, "a source was expected, and something was said"
    assert measured(undeclared, no, expected=no).support is None


def test_the_sources_are_compared_with_those_expected(skill: Skill) -> None:
    assert measured(skill, RIGHT).sources == 1.0
    assert measured(skill, output("x", ["leave.md", "pay.md"])).sources == pytest.approx(2 / 3), (
        "all is not the right one"
    )
    assert measured(skill, output("x", [])).sources == 0.0
    assert measured(skill, "broken").sources == 0.0
    assert measured(skill, RIGHT, expected=output("x", [])).sources is None
    assert measured(skill, RIGHT, shown=None) == Grounding(sources=1.0), "nobody knows what an outside system saw"


def test_what_is_expected_is_no_yardstick_where_its_source_was_not_shown(skill: Skill) -> None:
    found = measured(skill, output("Salaries come.", ["pay.md"]), shown=SHOWN[1:])
    assert (found.support, found.expected) == (1.0, None)


def test_without_citations_all_that_was_shown_counts(tmp_path: Path) -> None:
    texts = handbook(tmp_path, schema=None)
    found = measured(texts, "Salaries for everyone. Bonuses!", expected="Everyone gets 28 days.")
    assert found.support == pytest.approx(2 / 3)
    assert (found.expected, found.sources) == (1.0, None)
    assert measured(texts, "Salaries.", expected="x", shown=[]).support is None


def test_a_skill_without_documents_has_nothing_to_measure(tmp_path: Path) -> None:
    plain = handbook(tmp_path, retrieval={"enabled": False})
    assert measured(plain, RIGHT) == Grounding()


def test_scripts_without_spaces_have_words_too() -> None:
    assert support(["年假三十天"], ["年假二十天"]) == pytest.approx(4 / 5)
