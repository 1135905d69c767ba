"""The questions of `intern skills new` lead to a body that makes a skill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from intern.cli.questions import complete, parse_field
from intern.errors import InvalidInput
from intern.skill import write_skill


def answering(*answers: str) -> Callable[[str], str]:
    left = iter(answers)
    return lambda question: next(left)


def test_the_answers_make_a_skill(tmp_path: Path) -> None:
    body = complete(
        {},
        answering(
            *("Leave Requests!", "leave", "", "Leave", "Reads leave requests.", "Extract days and kind."),
            *("days: number", "kind: paid|unpaid", "what?: text", "note", "", "y", "Can I have Friday off?", ""),
        ),
    )
    assert body["name"] == "leave"
    assert body["schema"]["properties"] == {
        "days": {"type": "number"},
        "kind": {"type": "string", "enum": ["paid", "unpaid"]},
        "note": {"type": "string"},
    }
    assert body["schema"]["required"] == ["days", "kind", "note"]
    name, schema, utterances = body.pop("name"), body.pop("schema"), body.pop("utterances")
    skill = write_skill(tmp_path, name, body, schema=schema, utterances=utterances)
    assert skill.schema is not None
    assert skill.spec.retrieval.enabled
    assert skill.utterances == ("Can I have Friday off?",)


def test_only_what_is_missing_is_asked() -> None:
    known = {"name": "leave", "title": "Leave", "instructions": "I", "schema": {"type": "object"}, "utterances": ["x"]}
    body = complete(known, answering("Reads leave requests.", ""))
    assert body == {**known, "description": "Reads leave requests.", "retrieval": {"enabled": False}}


def test_no_fields_mean_text() -> None:
    assert "schema" not in complete({}, answering("leave", "T", "D", "I", "", "n", ""))


@pytest.mark.parametrize("text", ["two words: text", "1st: text", ": text", "when: someday"])
def test_a_field_that_cannot_be_is_explained(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"is no field name|is no kind"):
        parse_field(text)
