"""What a run came to is told in lines that anybody can read."""

from __future__ import annotations

from typing import Any

import pytest

from intern.cli.results import contract, next_steps, probe_lines, show, verdict_lines
from intern.learning.judging.against import against
from intern.learning.judging.attributes import distribution, identity
from intern.learning.judging.outcomes import Outcome
from intern.learning.judging.probes import Probed, consistency
from intern.learning.judging.summary import summarise
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
    body = run(None, decision="prompting_is_enough", adapter="s@v1", serves=False)
    body["verdict"]["ruling"] = {"best_prompt": best}
    assert next_steps(body)[0].startswith(step)


def judged(decision: str, state: str, why: str = "") -> list[str]:
    """What to do after a verdict, by where the adapter stands now; without the last step, which is the report."""
    service = {"state": state, "why": why}
    return next_steps(run(None, decision=decision, adapter="s@v2", serves=state == "serves", service=service))[:-1]


@pytest.mark.parametrize("decision", ["reject", "inconclusive", "prompting_is_enough"])
def test_where_somebody_promoted_it_all_the_same_it_is_said_that_it_serves(decision: str) -> None:
    first, *rest = judged(decision, "serves")
    assert first == "s@v2 serves, since somebody promoted it. To take it back: intern adapters rollback s"
    assert not [step for step in rest if "still serves" in step or "nothing" in step]
    (only,) = judged(decision, "waits")
    assert "rollback" not in only


@pytest.mark.parametrize(
    ("state", "why", "said"),
    [
        ("serves", "", "s@v2 serves. To take it back: intern adapters rollback s"),
        ("served", "", "s@v2 served, and something else does now: intern adapters promote s@v2"),
        ("going", "", "the run has not ended; whether s@v2 goes into service is decided at its end"),
        ("waits", "", "s@v2 waits for your approval: intern adapters promote s@v2"),
        (
            "waits",
            "The skill was changed while it trained. A person can promote it.",
            "s@v2 did not go into service. The skill was changed while it trained. A person can promote it: "
            "intern adapters promote s@v2",
        ),
    ],
)
def test_a_better_adapter_is_told_with_where_it_stands_and_why(state: str, why: str, said: str) -> None:
    assert judged("promote", state, why) == [said]


# --- measured without a candidate ---------------------------------------------------------------------------------


def answered(right: int, of: int = 60, **more: Any) -> list[Outcome]:
    return [
        Outcome(
            example=str(n), group=str(n), valid=True, fields={"text": float(n < right)}, score=float(n < right),
            expected="x", output="x", request="?", **more,
        )
        for n in range(of)
    ]  # fmt: skip


MEASURED = {
    "base": answered(10, prompt_tokens=80, seconds=0.5),
    "retrieval": answered(32, prompt_tokens=900, texts={"text": {"chrf": 0.25, "token_f1": 0.75}}),
    "serving": answered(30, prompt_tokens=80),
    "other": answered(20, 20),
}


def measured(**more: Any) -> dict[str, Any]:
    """A run of `intern eval` with these outcomes."""
    compared = against(MEASURED)
    assert compared is not None
    rivals = {name: summarise(rows).model_dump(mode="json") for name, rows in MEASURED.items()}
    verdict = {"rivals": rivals, "against": compared.model_dump(mode="json"), **more}
    return run(None, verdict=verdict, train_seconds=None, adapter="s@v1", serves=True)


def test_who_is_better_is_said_by_paired_differences() -> None:
    """Intervals of single scores overlap long before a paired difference is chance."""
    assert verdict_lines(measured()) == [
        "Highest score: other.",
        "Worse than serving, beyond chance: base.",
        "No telling from serving by these examples: retrieval, other.",
        "Go by the differences, on the examples that both answered: overlapping intervals say nothing.",
    ]
    former = run(None, verdict={"rivals": measured()["verdict"]["rivals"]})
    assert verdict_lines(former) == ["Highest score: other."]


def test_a_measurement_says_which_adapter_the_candidate_is() -> None:
    assert verdict_lines(measured(other="s@v3"))[1] == "The candidate is s@v3."


def test_a_measurement_on_what_was_trained_on_says_so() -> None:
    (line,) = [line for line in verdict_lines(measured(trained_on=7)) if "trained on" in line]
    assert line.startswith("7 of these examples, or near copies, were trained on")


def test_the_differences_are_a_table_with_interval_and_exact_test(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    show(measured())
    lines = capsys.readouterr().out.splitlines()
    (head,) = [line for line in lines if "McNemar p" in line]
    assert "score against serving" in head
    base = next(line for line in lines[lines.index(head) :] if " base " in f" {line} ")
    for said in ("-0.333", "1.9e-06", "20", "60"):
        assert said in base, base
    other = next(line for line in lines[lines.index(head) :] if " other " in f" {line} ")
    assert "+0.000" in other
    rest = "\n".join(lines)
    assert "text, chrF" in rest
    assert "0.250" in rest
    assert "prompt tokens" in rest
    assert "900" in rest


def test_programs_get_the_differences_with_the_rivals() -> None:
    rivals = contract({**measured(), "decision": None, "reason": None})["rivals"]
    assert "difference" not in rivals["serving"]
    found = rivals["base"]["difference"]
    assert (found["from"], found["n"], found["mean"]) == ("serving", 60, pytest.approx(-1 / 3))
    assert found["p"] == pytest.approx(2 * 0.5**20)
    assert found["low"] < found["high"] < 0
