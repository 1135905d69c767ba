"""Candidate and reference are measured beside the score as the skill declares, and nothing more is asked of anybody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_examples import no_passages

from intern.engines.base import EngineRequest
from intern.engines.fake import FakeEngine
from intern.learning.judging.evaluate import Evaluation, rivals, score
from intern.learning.judging.outcomes import Outcome
from intern.learning.judging.probes import MOST_REPEATED, Probed, consistency, probe
from intern.models.embedder import Vectors
from intern.skill import Skill, write_skill
from intern.types import Example

SCHEMA = {
    "type": "object",
    "required": ["level", "note"],
    "additionalProperties": False,
    "properties": {"level": {"enum": ["entry", "senior"]}, "note": {"type": "string", "maxLength": 200}},
}
HELDOUT = [
    Example(id=f"e{n}", input=f"request {n}", output={"level": ["entry", "senior"][n % 2], "note": f"Note {n}."})
    for n in range(30)
]
ATTRIBUTE = {"name": "level", "field": "level"}
QUESTION = {"question": "Who are you?", "facts": ["Ada"], "never": ["assistant"]}


def skill(
    folder: Path, evaluation: dict[str, Any], schema: dict[str, Any] | None = SCHEMA, examples: str = "none"
) -> Skill:
    spec = {"title": "T", "description": "D", "instructions": "I", "evaluation": evaluation}
    spec["prompting"] = {"examples": examples}
    return write_skill(folder, "levels", spec, schema=schema)


def said(level: str, note: str) -> str:
    return json.dumps({"level": level, "note": note})


def outcomes(made: Skill, answer: Callable[[int], str]) -> list[Outcome]:
    return [score(made, example, answer(n)) for n, example in enumerate(HELDOUT)]


class Asked:
    """An engine with two adapters, what it was asked, and what was told meanwhile."""

    def __init__(self, made: Skill, reply: Callable[[EngineRequest], str]) -> None:
        self.skill = made
        self.engine = FakeEngine([reply])
        self.told: list[tuple[str, int, int]] = []

    def __call__(self, examples: Sequence[Example]) -> Evaluation:
        return Evaluation(
            self.skill, self.engine, heldout=examples, train=(), retrieve=no_passages, embed=_no_vectors,
            passage_tokens=0,
        )  # fmt: skip

    def probe(self, answered: Mapping[str, list[Outcome]]) -> dict[str, Probed]:
        answering = rivals(
            candidate="new" if "candidate" in answered else None, serving="old" if "serving" in answered else None
        )

        async def run() -> dict[str, Probed]:
            await self.engine.set_adapters({"old": "file", "new": "file"})
            return await probe(self.skill, answering, answered, HELDOUT, self, self.tell)

        return asyncio.run(run())

    async def tell(self, text: str, done: int, of: int) -> None:
        self.told.append((text, done, of))


def _no_vectors(texts: Sequence[str]) -> Vectors:
    return np.zeros((len(texts), 1), dtype=np.float32)


def never(request: EngineRequest) -> str:
    raise AssertionError("nothing may be generated")


ALL = ("base", "few-shot", "serving", "candidate")


def test_a_skill_that_declares_nothing_is_asked_nothing(tmp_path: Path) -> None:
    made = skill(tmp_path, {})
    assert Asked(made, never).probe({name: outcomes(made, lambda n: said("entry", "x")) for name in ALL}) == {}


@pytest.mark.parametrize(
    ("there", "judged"),
    [
        (ALL, ["candidate", "serving"]),
        (("base", "few-shot", "candidate"), ["candidate", "base"]),
        (("base", "few-shot", "serving"), ["serving", "base"]),
        (("base", "few-shot"), ["base"]),
    ],
)
def test_candidate_and_reference_are_measured_and_nobody_else(
    tmp_path: Path, there: Sequence[str], judged: list[str]
) -> None:
    made = skill(tmp_path, {"attributes": [ATTRIBUTE]})
    found = Asked(made, never).probe({name: outcomes(made, lambda n: said("entry", "x")) for name in there})
    assert list(found) == judged


@pytest.mark.parametrize(
    ("there", "judged"),
    [
        (ALL, ["candidate", "serving"]),
        (("base", "few-shot", "candidate"), ["candidate", "few-shot"]),
        (("base", "few-shot"), ["few-shot", "base"]),
        (("base",), ["base"]),
    ],
)
def test_what_serves_has_examples_in_its_prompt_where_the_skill_says_so(
    tmp_path: Path, there: Sequence[str], judged: list[str]
) -> None:
    made = skill(tmp_path, {"attributes": [ATTRIBUTE]}, examples="fixed")
    found = Asked(made, never).probe({name: outcomes(made, lambda n: said("entry", "x")) for name in there})
    assert list(found) == judged


def test_attributes_are_counted_over_the_answers_that_are_there(tmp_path: Path) -> None:
    declared = {**ATTRIBUTE, "name": "declared", "reference": {"senior": 1, "entry": 3}}
    made = skill(tmp_path, {"attributes": [ATTRIBUTE, declared]})
    answers = {"base": outcomes(made, lambda n: said(["entry", "senior"][n % 2], "x"))}
    answers["candidate"] = outcomes(made, lambda n: said("senior", "x") if n else '{"level": "Ada Smith"}')
    found = Asked(made, never).probe(answers)
    heldout, shares = found["candidate"].attributes
    assert [(s.value, s.share.mean, s.reference) for s in heldout.shares] == [
        ("senior", pytest.approx(29 / 30), 0.5),
        ("none", pytest.approx(1 / 30), 0.0),
        ("entry", 0.0, 0.5),
    ]
    assert heldout.p < 0.001 < found["base"].attributes[0].p
    assert {s.value: s.reference for s in shares.shares} == {"senior": 0.25, "none": 0.0, "entry": 0.75}
    assert "Smith" not in found["candidate"].model_dump_json(), "an answer that breaks the schema is not quoted"


def test_attributes_are_compared_request_by_request_and_threads_count_as_one(tmp_path: Path) -> None:
    made = skill(tmp_path, {"attributes": [ATTRIBUTE]})
    right = outcomes(made, lambda n: said(["entry", "senior"][n % 2], "x"))
    # Ten of fifteen that should be entry are answered with senior, and none the other way.
    leaning = outcomes(made, lambda n: said("entry" if n % 2 == 0 and n >= 20 else "senior", "x"))
    threads = [one.model_copy(update={"group": f"thread {place // 20}"}) for place, one in enumerate(leaning)]
    found = {
        name: Asked(made, never).probe({"base": answered})["base"].attributes[0]
        for name, answered in {"right": right, "leaning": leaning, "threads": threads}.items()
    }
    assert found["right"].p == 1.0
    assert found["leaning"].distance.mean == pytest.approx(1 / 3)
    assert found["leaning"].p < 0.01
    assert found["threads"].p > 0.5, "all of them stand in one thread"


def test_questions_about_itself_are_asked_once_and_greedily_of_each(tmp_path: Path) -> None:
    made = skill(tmp_path, {"identity": [QUESTION, {"question": "Where?", "facts": [["Rome", "Roma"]]}]})

    def reply(request: EngineRequest) -> str:
        where = request.messages[-1].content == "Where?"
        note = "In Roma." if where else "I am Ada" if request.adapter == "old" else "An assistant."
        return said("entry", note)

    asked = Asked(made, reply)
    found = asked.probe({name: outcomes(made, lambda n: said("entry", "x")) for name in ALL})
    assert len(asked.engine.requests) == 4
    for request in asked.engine.requests:
        assert (request.sampling.temperature, request.schema_) == (0.0, SCHEMA)
        assert request.messages[0].content == "I"
    assert {request.adapter for request in asked.engine.requests} == {"old", "new"}
    candidate, serving = found["candidate"].identity, found["serving"].identity
    assert candidate is not None
    assert serving is not None
    assert (candidate.share.mean, serving.share.mean) == (0.5, 1.0)
    assert [(m.question, m.lacks, m.says) for m in candidate.missed] == [("Who are you?", ("Ada",), ("assistant",))]
    assert sorted(asked.told) == sorted((f"{r}: about itself", n, 2) for r in ("candidate", "serving") for n in (1, 2))
    assert "An assistant." not in found["candidate"].model_dump_json()
    assert found["candidate"].consistency is None


def test_requests_are_repeated_with_other_seeds_and_at_most_twenty_of_them(tmp_path: Path) -> None:
    made = skill(tmp_path, {"repeats": 3, "temperature": 0.9})

    def reply(request: EngineRequest) -> str:
        steady = request.adapter == "new" or request.sampling.seed != 2
        return said("entry" if steady else "senior", "Always this.")

    asked = Asked(made, reply)
    found = asked.probe({name: outcomes(made, lambda n: said("entry", "x")) for name in ALL})
    requests = [request for request in asked.engine.requests if request.adapter == "new"]
    assert len(requests) == 3 * MOST_REPEATED
    assert {request.sampling.temperature for request in requests} == {0.9}
    by_request: dict[str, set[int | None]] = {}
    for request in requests:
        by_request.setdefault(request.messages[-1].content, set()).add(request.sampling.seed)
    assert by_request == {f"request {n}": {1, 2, 3} for n in range(MOST_REPEATED)}
    steady, other = found["candidate"].consistency, found["serving"].consistency
    assert steady is not None
    assert other is not None
    assert (steady.agreement.mean, steady.same.mean, steady.repeats, steady.temperature) == (1.0, 1.0, 3, 0.9)
    # Of three pairs two differ in one of two fields.
    assert other.agreement.mean == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert (other.same.mean, other.same.n) == (0.0, MOST_REPEATED)
    assert asked.told[-1] == ("serving: again", 60, 60)


def test_broken_answers_agree_with_none_not_even_with_each_other() -> None:
    good = ({"level": "entry"}, True)
    broken = ("{", False)
    found = consistency([[good, good], [broken, broken]], ["a", "b"], {"level": "exact"}, temperature=0.7)
    assert (found.agreement.mean, found.same.mean) == (0.5, 0.5)
    found = consistency([[good, good, broken]], ["a"], {"level": "exact"}, temperature=0.7)
    assert found.agreement.mean == pytest.approx(1 / 3)
    assert found.same.mean == 0.0


def test_a_skill_that_answers_in_text_is_measured_too(tmp_path: Path) -> None:
    attribute = {"name": "who", "patterns": {"she": ["she", "her"], "he": "he"}, "reference": {"she": 1, "he": 1}}
    made = skill(tmp_path, {"repeats": 2, "attributes": [attribute], "identity": [QUESTION]}, schema=None)
    asked = Asked(made, lambda request: f"I am Ada, sample {request.sampling.seed}.")
    found = asked.probe({"base": outcomes(made, lambda n: "She knows her work." if n % 3 else "He does.")})["base"]
    assert {s.value: s.share.mean for s in found.attributes[0].shares} == {
        "she": pytest.approx(2 / 3), "he": pytest.approx(1 / 3),
    }  # fmt: skip
    assert found.identity is not None
    assert found.identity.share.mean == 1.0
    assert found.consistency is not None
    assert 0.5 < found.consistency.agreement.mean < 1
    assert Probed.model_validate(json.loads(found.model_dump_json())) == found
