"""Each guard lets a sound candidate pass and stops the one fault it is there for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from intern.learning.judging.attributes import identity
from intern.learning.judging.guards import check_guards
from intern.learning.judging.outcomes import Guard, Outcome
from intern.measures import Question
from intern.types import Json

N = 60
WORDS = [a + b for a in ("ba", "do", "ki", "lu", "me", "ro", "ta") for b in ("n", "ck", "st", "ll", "rm")]


def outcome(number: int, expected: Json, output: Json, **more: object) -> Outcome:
    return Outcome.model_validate(
        {
            "example": str(number),
            "group": str(number),
            "valid": isinstance(output, dict),
            "fields": dict.fromkeys(expected if isinstance(expected, dict) else ["text"], 0.0),
            "score": 0.0,
            "expected": expected,
            "output": output,
            "request": "?",
            **more,
        }
    )


def sentence(number: int) -> str:
    return " ".join(np.random.default_rng(number).choice(WORDS, 12))


def expected(number: int) -> dict[str, Json]:
    found = number % 3 > 0
    answer = sentence(number) if found else None
    return {"found": found, "answer": answer, "place": f"room {number % 5}" if number % 2 else None}


def outcomes(answer: Callable[[int], Json], **more: Callable[[int], object]) -> list[Outcome]:
    return [outcome(n, expected(n), answer(n), **{k: v(n) for k, v in more.items()}) for n in range(N)]


def broken(candidate: Sequence[Outcome], reference: Sequence[Outcome], **more: Any) -> dict[str, str]:
    guards = check_guards(candidate, reference, "the base model alone", **more)
    return {guard.name: guard.detail for guard in guards if not guard.passed}


SOUND = outcomes(expected)


def test_a_sound_candidate_passes_every_guard_and_each_says_a_sentence() -> None:
    guards = check_guards(SOUND, SOUND, "the base model alone")
    assert {guard.name for guard in guards} == {"schema", "refusal", "variety", "loops", "constant"}
    for guard in guards:
        assert guard.passed, guard
        assert guard.detail[0].isupper() or guard.detail[0].isdigit()
        assert guard.detail.endswith(".")


def test_schema_validity_may_not_fall() -> None:
    assert "schema" in broken(outcomes(lambda n: expected(n) if n % 11 else "{"), SOUND)
    assert "schema" not in broken(outcomes(lambda n: expected(n) if n else "{"), SOUND), "one of sixty may be chance"


def test_schema_validity_has_a_floor_where_the_reference_is_no_better() -> None:
    poor = outcomes(lambda n: expected(n) if n % 5 else "{")
    assert "at least 90% must" in broken(poor, poor)["schema"]


def grounded(support: Callable[[int], float | None], expected_support: float = 0.9) -> list[Outcome]:
    return outcomes(expected, support=support, support_expected=lambda n: expected_support)


def test_what_answers_say_may_not_lose_its_support() -> None:
    firm = grounded(lambda n: 0.9)
    assert (
        "fewer than with the base model alone" in broken(grounded(lambda n: 0.9 if n % 4 else 0.2), firm)["grounding"]
    )
    assert not broken(grounded(lambda n: 0.9 if n else 0.2), firm)
    assert not broken(grounded(lambda n: None if n % 4 else 0.9), firm)
    assert "grounding" not in {guard.name for guard in check_guards(SOUND, SOUND, "x")}


def test_other_words_for_the_same_are_no_loss_of_support() -> None:
    firm = grounded(lambda n: 0.97, 0.97)
    assert not broken(grounded(lambda n: 0.94, 0.97), firm), "a little, though beyond chance"
    assert "grounding" in broken(grounded(lambda n: 0.90, 0.97), firm)


def test_answers_as_well_supported_as_the_expected_ones_are_enough() -> None:
    """A base model that copies whole passages has the highest support, and is no reason to."""
    copies = grounded(lambda n: 1.0)
    assert not broken(grounded(lambda n: 0.8, 0.8), copies)
    assert "fewer than with the expected outputs" in broken(grounded(lambda n: 0.4, 0.8), copies)["grounding"]


def test_a_reference_without_support_does_not_excuse_a_candidate_that_lost_nothing() -> None:
    assert not broken(grounded(lambda n: 0.4, 0.8), grounded(lambda n: 0.3, 0.8)), "no worse than what serves"
    assert "grounding" in broken(grounded(lambda n: 0.4, 0.8), outcomes(expected)), "only the expected ones tell"


def test_the_right_sources_must_be_cited_as_before() -> None:
    before = outcomes(expected, sources=lambda n: 1.0)
    assert "sources are right" in broken(outcomes(expected, sources=lambda n: n % 3 / 2), before)["grounding"]
    assert not broken(outcomes(expected, sources=lambda n: 1.0), outcomes(expected, sources=lambda n: 0.4))


def invents(number: int) -> dict[str, Json]:
    return {**expected(number), "answer": sentence(number + N), "found": True}


def test_what_was_left_out_rightly_may_not_be_made_up() -> None:
    assert "fewer than with the base model alone" in broken(outcomes(invents), SOUND)["refusal"]


def test_leaving_out_more_elsewhere_makes_up_for_nothing() -> None:
    silent = {"found": True, "answer": None, "place": None}
    swapped = outcomes(lambda n: silent if expected(n)["found"] else invents(n))
    assert "refusal" in broken(swapped, SOUND)
    assert "refusal" not in broken(outcomes(lambda n: silent), SOUND)


def test_a_declared_refusal_is_what_counts() -> None:
    keeps = outcomes(lambda n: {**expected(n), "found": True})
    assert "refusal" not in broken(keeps, SOUND)
    assert "refusal" in broken(keeps, SOUND, refusal=("found", False))
    assert "refusal" not in broken(SOUND, SOUND, refusal=("found", False))


def test_a_reference_that_refuses_everything_is_no_measure() -> None:
    nothing = outcomes(lambda n: {"found": False, "answer": None, "place": None})
    some = outcomes(lambda n: expected(n) if n % 2 else invents(n))
    assert "refusal" not in broken(some, nothing)
    assert "refusal" not in broken(some, nothing, refusal=("found", False))
    assert "refusal" in broken(some, SOUND, refusal=("found", False))


REFUSES_ALL: dict[str, Json] = {"found": False, "answer": None, "place": None}
DECLARED = {"refusal": ("found", False)}


def refusing(right: int) -> list[Outcome]:
    """Of the 20 requests that are to be refused, so many are; the others are answered as expected."""
    return outcomes(lambda n: expected(n) if n // 3 < right else invents(n) | {"found": n % 3 > 0 or n // 3 >= right})


def test_where_the_reference_is_no_measure_the_best_prompt_is() -> None:
    everything = outcomes(lambda n: REFUSES_ALL)
    nothing = outcomes(lambda n: {**expected(n), "found": True})
    prompts = {"the base model alone": everything, "fixed examples in the prompt": refusing(20)}
    for useless in (everything, nothing):
        found = broken(refusing(12), useless, **DECLARED, prompts=prompts)
        assert "fewer than with fixed examples in the prompt" in found["refusal"]
        assert not broken(refusing(20), useless, **DECLARED, prompts=prompts)
    assert not broken(refusing(12), everything, **DECLARED, prompts={"the base model alone": everything})


def test_refusals_have_a_floor_where_nobody_is_a_measure() -> None:
    everything = outcomes(lambda n: REFUSES_ALL)
    for right, stopped in ((0, True), (3, True), (9, False), (20, False)):
        found = broken(refusing(right), everything, **DECLARED)
        assert ("at least 50% must be" in found.get("refusal", "")) is stopped, right


def test_two_requests_to_refuse_are_too_few_for_the_floor() -> None:
    few = [outcome(n, {"label": "a" if n > 1 else None}, {"label": "a"}) for n in range(N)]
    assert "refusal" not in broken(few, few)


def test_refusal_is_no_matter_where_nothing_is_to_be_refused() -> None:
    texts = [outcome(n, f"text {n}", f"text {n}", valid=True) for n in range(N)]
    assert "refusal" not in {guard.name for guard in check_guards(texts, texts, "the base model alone")}


def test_worn_out_answers_are_stopped() -> None:
    phrase = "please contact the people team for more about this question of yours"
    worn = outcomes(lambda n: {**expected(n), "answer": f"{phrase} {n}" if expected(n)["found"] else None})
    assert "variety" in broken(worn, SOUND)


def test_the_variety_of_little_text_is_not_judged() -> None:
    short = [outcome(n, {"answer": f"room {n}"}, {"answer": "room one"}) for n in range(N)]
    assert "variety" not in broken(short, short)


def test_loops_are_stopped_unless_they_should_be() -> None:
    def looping(number: int) -> Json:
        return {**expected(number), "answer": "and so on and on it goes " * 9}

    assert "loops" in broken(outcomes(lambda n: looping(n) if n % 4 == 0 else expected(n)), SOUND)
    assert "loops" not in broken(outcomes(lambda n: looping(n) if n == 0 else expected(n)), SOUND)
    meant = [outcome(n, looping(n), looping(n)) for n in range(N)]
    assert "loops" not in broken(meant, meant)


def labels(answer: Callable[[int], str], right: Callable[[int], str]) -> list[Outcome]:
    return [outcome(n, {"label": right(n)}, {"label": answer(n)}) for n in range(N)]


@pytest.mark.parametrize(
    ("answer", "right", "stopped"),
    [
        (lambda n: "a", lambda n: "ab"[n % 2], True),
        (lambda n: "a" if n else "b", lambda n: "aab"[n % 3], True),
        (lambda n: "a" if n % 10 else "b", lambda n: "aab"[n % 3], False),  # cautious, not constant
        (lambda n: "a", lambda n: "a" if n else "b", False),
        (lambda n: "a", lambda n: "a", False),
    ],
)
def test_a_constant_answer_is_stopped_where_it_should_differ(
    answer: Callable[[int], str], right: Callable[[int], str], stopped: bool
) -> None:
    candidate = labels(answer, right)
    assert ("constant" in broken(candidate, candidate)) is stopped


QUESTIONS = [Question(question=f"Question {n}?", facts=[f"fact{n}"], never=["robot"]) for n in range(40)]


def persona(candidate: int, reference: int, of: int) -> dict[str, str]:
    """What is broken where the candidate has the last `candidate` questions right, the reference the last ones too."""
    both = tuple(
        identity(QUESTIONS[:of], [f"fact{n}" if n >= of - right else "a robot" for n in range(of)])
        for right in (candidate, reference)
    )
    return broken(SOUND, SOUND, identities=both)


@pytest.mark.parametrize(
    ("candidate", "reference", "of", "stopped"),
    [
        (5, 5, 5, False),
        (4, 5, 5, False),  # one may be said in other words
        (3, 5, 5, True),
        (1, 3, 5, True),
        (5, 1, 5, False),
        (0, 0, 5, False),
        (0, 1, 1, True),
        (0, 1, 3, True),
        (37, 40, 40, False),
        (36, 40, 40, True),
    ],
)
def test_a_persona_may_not_forget_who_it_is(candidate: int, reference: int, of: int, stopped: bool) -> None:
    assert ("identity" in persona(candidate, reference, of)) is stopped


def test_the_guard_names_the_questions_that_were_forgotten_and_why() -> None:
    assert persona(1, 3, 5)["identity"] == (
        "Only 1 of 5 questions about itself are answered right, against 3 with the base model alone. No longer right: "
        "'Question 2?' (lacks fact2; says robot); 'Question 3?' (lacks fact3; says robot)."
    )
    assert persona(0, 40, 40)["identity"].endswith("; and 37 more.")


def test_forgetting_is_made_up_for_by_what_was_learned() -> None:
    known, learned = ["fact0", "fact1", "", "", ""], ["", "", "fact2", "fact3", "fact4"]
    both = (identity(QUESTIONS[:5], learned), identity(QUESTIONS[:5], known))
    assert "identity" not in broken(SOUND, SOUND, identities=both)
    names = {guard.name for guard in check_guards(SOUND, SOUND, "x")}
    assert "identity" not in names
    assert {guard.name for guard in check_guards(SOUND, SOUND, "x", None, both)} == {*names, "identity"}


def test_very_few_outcomes_break_nothing() -> None:
    few = SOUND[:1]
    assert all(guard.passed for guard in check_guards(few, few, "the base model alone"))
    assert isinstance(check_guards(few, few, "x")[0], Guard)
