"""What a run came to is told in lines that anybody can read."""

from __future__ import annotations

from typing import Any

import pytest

from intern.cli.results import next_steps, probe_lines, show
from intern.learning.judging.attributes import distribution, identity
from intern.learning.judging.probes import Probed, consistency
from intern.measures import Attribute, Question

QUESTIONS = [Question(question=f"Question {n}?", facts=[f"fact{n}"]) for n in range(5)]
BASE = Probed(
    attributes=(
        distribution(Attribute(name="level", field="level"), [{"level": "senior"}] * 30, {"senior": 1, "entry": 1}),
        distribution(Attribute(name="alike", field="level"), [{"level": "senior"}] * 30, {"senior": 1}),
    ),
    identity=identity(QUESTIONS, ["fact0", "", "", "", ""]),
    consistency=consistency(
        [[("a", True), ("a", True)], [("a", True), ("b", True)]], ["x", "y"], {"text": "exact"}, temperature=0.7
    ),
)


def run(probes: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    """A run of `intern eval` as the server gives it."""
    verdict = {"rivals": {}, "probes": probes}
    return {"id": "run_1", "skill": "s", "decision": None, "reason": None, "verdict": verdict, **more}


def test_what_was_measured_beside_the_score_is_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    body = run({"base": BASE.model_dump(mode="json")})
    lines = [
        "base: 1 of 5 questions about itself right; wrong: Question 1?, Question 2?, Question 3?, ...",
        "base: 2 sampled answers to one request agree by 0.50 (1: always the same)",
        "base: level (in the reference): senior 100% (50%), entry 0% (50%); further from it than chance explains",
        "base: alike (in the reference): senior 100% (100%); no further than chance explains",
        "",
    ]
    assert probe_lines(body) == lines
    show(body)
    assert capsys.readouterr().out == "\n".join(lines) + "\n"


@pytest.mark.parametrize("probes", [None, {}, {"base": Probed().model_dump(mode="json")}])
def test_what_was_not_measured_makes_no_line(probes: dict[str, Any] | None) -> None:
    assert probe_lines(run(probes)) == []
    assert probe_lines(run(None, verdict=None)) == []
    assert probe_lines(run(None, verdict={"rivals": {}})) == [], "a verdict from before this could be declared"


def test_all_right_is_said_without_a_list() -> None:
    known = Probed(identity=identity(QUESTIONS[:1], ["fact0"]))
    assert probe_lines(run({"base": known.model_dump(mode="json")}))[0] == "base: 1 of 1 questions about itself right"


@pytest.mark.parametrize(
    ("best", "step"),
    [
        ("retrieval", "put `prompting: {examples: nearest}` into skill.yaml"),
        ("few-shot", "put `prompting: {examples: fixed}` into skill.yaml"),
        ("base", "nothing: the base model with the skill's instructions does it"),
    ],
)
def test_where_prompting_is_enough_it_says_how_to_serve_that_prompt(best: str, step: str) -> None:
    body = run(None, decision="prompting_is_enough", adapter="s@v1")
    body["verdict"]["ruling"] = {"best_prompt": best}
    assert next_steps(body)[0].startswith(step)
