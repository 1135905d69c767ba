"""The gate promotes what is better, keeps what is not, and says why in numbers that a business reader can check."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intern.errors import InvalidInput
from intern.learning.judging.gate import GateSettings, decide
from intern.learning.judging.outcomes import Outcome, Ruling
from intern.learning.judging.statistics import confidence_for

N = 60


def rival(scores: list[float] | np.ndarray, *, groups: int | None = None, valid: float = 1.0) -> list[Outcome]:
    """Outcomes with these scores; different labels are expected and given, so that no guard is broken."""
    return [
        Outcome(
            example=str(i),
            group=str(i % groups if groups else i),
            valid=i >= round((1 - valid) * len(scores)),
            fields={"intent": float(score), "other": 1 - float(score)},
            score=float(score),
            expected={"intent": f"label {i % 9}", "other": None},
            output={"intent": f"label {i % 9 if score else i % 7}", "other": None},
            request=f"request {i}",
        )
        for i, score in enumerate(scores)
    ]


def right(share: float, n: int = N, *, first: bool = True) -> list[float]:
    """Of n scores the first (or last) `share` are 1."""
    scores = [1.0] * round(share * n) + [0.0] * (n - round(share * n))
    return scores if first else scores[::-1]


def rule(*, confidence: float = 0.95, config: GateSettings | None = None, **scores: list[float]) -> Ruling:
    names = {"few_shot": "few-shot"}
    return decide(
        {names.get(name, name): rival(some) for name, some in scores.items()}, settings=config, confidence=confidence
    )


# --- promote ---------------------------------------------------------------------------------------------------


def test_better_than_every_rival_is_promoted_with_the_numbers() -> None:
    ruling = rule(candidate=right(0.85), base=right(0.1), few_shot=right(0.6), serving=right(0.65))
    assert ruling.decision == "promote"
    assert ruling.best_prompt == "few-shot"
    assert ruling.reason.startswith("0.85 against 0.60 with fixed examples in the prompt: better by 0.25 (0.1")
    assert "with the adapter in service: better by 0.20" in ruling.reason
    assert "on 60 held-out examples" in ruling.reason
    assert [d.rival for d in ruling.differences] == ["base", "few-shot", "serving"]
    assert ruling.collect is None
    assert all(guard.passed for guard in ruling.guards)


def test_what_the_engine_failed_to_answer_makes_no_candidate_better() -> None:
    failed = [
        outcome.model_copy(update={"failed": i < 15, "valid": i >= 15, "score": outcome.score if i >= 15 else 0.0})
        for i, outcome in enumerate(rival(right(0.6)))
    ]
    assert rule(candidate=right(0.6), base=[o.score for o in failed]).decision == "promote", "which it would be"
    ruling = decide({"candidate": rival(right(0.6)), "base": failed})
    assert ruling.decision != "promote"
    assert (ruling.differences[0].interval.n, ruling.differences[0].interval.mean) == (45, 0.0)


def test_the_adapter_in_service_must_be_beaten_too() -> None:
    ruling = rule(candidate=right(0.85), base=right(0.1), serving=right(0.83))
    assert ruling.decision == "inconclusive"
    assert "the adapter in service" in ruling.reason


def test_every_prompt_only_rival_must_be_beaten_not_only_the_best_scoring_one() -> None:
    """Retrieval scores higher on average; few-shot is right where the candidate is wrong."""
    candidate = right(0.8)
    retrieval = right(0.6)
    few_shot = [1.0 if i >= 28 else 0.0 for i in range(N)]  # 0.53, and all twelve that the candidate misses
    ruling = decide(
        {"candidate": rival(candidate), "retrieval": rival(retrieval), "few-shot": rival(few_shot)},
        confidence=0.99,
    )
    assert ruling.best_prompt == "retrieval"
    assert (ruling.differences[0].interval.low or 0) > 0
    assert (ruling.differences[1].interval.low or 0) < 0
    assert ruling.decision == "inconclusive"


def test_outside_systems_are_compared_and_decide_nothing() -> None:
    ruling = rule(candidate=right(0.85), base=right(0.1), vendor=right(1.0))
    assert ruling.decision == "promote"
    assert [d.rival for d in ruling.differences] == ["base", "vendor"]


def test_five_lucky_examples_are_not_enough() -> None:
    """Student's t would promote this; McNemar's exact test says 0.06."""
    ruling = rule(candidate=right(0.4), base=right(0.4 - 5 / N))
    assert ruling.decision == "inconclusive"
    assert ruling.differences[0].p == pytest.approx(0.0625)


def test_later_looks_ask_for_more() -> None:
    ruled = partial(rule, candidate=right(0.5), base=right(0.4))
    assert ruled().decision == "promote"
    assert ruled(confidence=confidence_for(10)).decision == "inconclusive"


def test_one_field_may_decide() -> None:
    ruled = partial(rule, candidate=right(0.2), base=right(0.6))
    assert ruled().decision != "promote"
    ruling = ruled(config=GateSettings(field="other"))
    assert ruling.decision == "promote"
    assert "on 60 held-out examples, by the field 'other'." in ruling.reason
    with pytest.raises(InvalidInput, match="'wrong'"):
        ruled(config=GateSettings(field="wrong"))


# --- reject ----------------------------------------------------------------------------------------------------


def test_worse_than_the_adapter_in_service_is_rejected() -> None:
    ruling = rule(candidate=right(0.5), base=right(0.1), serving=right(0.8))
    assert ruling.decision == "reject"
    assert ruling.reason.startswith("0.50 against 0.80 with the adapter in service: worse by 0.30 (0.1")


def test_worse_than_a_prompt_that_is_no_good_either_is_rejected() -> None:
    ruling = rule(candidate=right(0.05), base=right(0.3))
    assert ruling.decision == "reject"


def labelled(share: float, refused: range, *, out: range = range(20)) -> list[Outcome]:
    """Of 60 requests those `out` of scope should have the label none, and have it where they are in `refused`."""
    return [
        outcome.model_copy(
            update={
                "expected": {"intent": "none" if i in out else f"label {i % 9}"},
                "output": {"intent": "none" if i in refused else f"label {i % 8}"},
            }
        )
        for i, outcome in enumerate(rival(right(share)))
    ]


REFUSAL = GateSettings(refusal=("intent", "none"))


def test_a_base_model_that_refuses_everything_lets_nobody_forget_how_to_refuse() -> None:
    rivals = {"base": labelled(0.1, range(N)), "few-shot": labelled(0.4, range(20))}
    forgot = decide({**rivals, "candidate": labelled(0.9, range(10))}, settings=REFUSAL)
    assert forgot.decision == "reject"
    assert "fewer than with fixed examples in the prompt" in forgot.reason
    assert decide({**rivals, "candidate": labelled(0.9, range(20))}, settings=REFUSAL).decision == "promote"
    nobody = {name: labelled(0.1, range(N)) for name in rivals}
    never = decide({**nobody, "candidate": labelled(0.9, range(0))}, settings=REFUSAL)
    assert never.decision == "reject"
    assert "Only 0% of what the request does not tell is left out; at least 50% must be." in never.reason


def test_where_nothing_is_out_of_scope_nothing_has_to_be_refused() -> None:
    none = range(0)
    rivals = {"base": labelled(0.1, range(N), out=none), "candidate": labelled(0.9, none, out=none)}
    ruling = decide(rivals, settings=REFUSAL)
    assert ruling.decision == "promote"
    assert "refusal" not in {guard.name for guard in ruling.guards}


def test_a_broken_guard_rejects_whatever_the_score() -> None:
    candidate = rival(right(0.9), valid=0.8)
    ruling = decide({"candidate": candidate, "base": rival(right(0.1))})
    assert ruling.decision == "reject"
    assert "80% of the answers keep the schema" in ruling.reason
    assert [guard.name for guard in ruling.guards if not guard.passed] == ["schema"]


def test_guards_compare_with_the_adapter_in_service_where_there_is_one() -> None:
    rivals = {"candidate": rival(right(0.9), valid=0.9), "base": rival(right(0.1), valid=0.9)}
    assert decide(rivals).decision == "promote"
    assert decide({**rivals, "serving": rival(right(0.2))}).decision == "reject"


# --- prompting is enough ---------------------------------------------------------------------------------------


def test_prompting_is_enough_where_training_brings_nothing() -> None:
    ruling = rule(candidate=right(0.7), base=right(0.1), few_shot=right(0.9))
    assert ruling.decision == "prompting_is_enough"
    assert "With fixed examples in the prompt the score is 0.90 (0." in ruling.reason


def test_prompting_is_enough_where_nothing_is_left_to_gain() -> None:
    ruling = rule(candidate=right(1.0), base=right(1.0))
    assert ruling.decision == "prompting_is_enough"
    assert "1.00 against 1.00 with the base model alone: no difference (-0.0" in ruling.reason


def test_many_examples_show_that_there_is_no_difference_worth_a_training() -> None:
    scores = [0.8, 0.6] * 1000
    ruling = rule(candidate=[s + 0.001 for s in scores], few_shot=scores)
    assert ruling.decision == "prompting_is_enough"


def test_a_poor_prompt_is_not_enough_even_where_nothing_beats_it() -> None:
    assert rule(candidate=right(0.05), few_shot=right(0.3), serving=right(0.25)).decision == "reject"


def test_prompting_is_not_enough_where_the_adapter_in_service_does_better() -> None:
    ruling = rule(candidate=right(0.6), few_shot=right(0.8), serving=right(0.95))
    assert ruling.decision == "reject"
    assert "the adapter in service" in ruling.reason


# --- inconclusive ----------------------------------------------------------------------------------------------


def test_under_thirty_examples_nothing_is_decided() -> None:
    ruling = rule(candidate=right(1.0, 22), base=right(0.0, 22))
    assert (ruling.decision, ruling.collect) == ("inconclusive", 10)
    assert "22 held-out examples" in ruling.reason
    assert "collect about 10 more" in ruling.reason


def test_groups_count_rather_than_examples() -> None:
    ruling = decide({"candidate": rival(right(0.9), groups=12), "base": rival(right(0.1), groups=12)})
    assert (ruling.decision, ruling.collect) == ("inconclusive", 20)
    assert "60 held-out examples in 12 independent groups" in ruling.reason
    fewer = GateSettings(least_groups=12)
    rivals = {"candidate": rival(right(0.9), groups=12), "base": rival(right(0.1), groups=12)}
    assert decide(rivals, settings=fewer).decision == "promote"


def test_one_group_alone_is_inconclusive_and_says_so() -> None:
    ruling = decide({"candidate": rival(right(0.9), groups=1), "base": rival(right(0.1), groups=1)})
    assert (ruling.decision, ruling.collect) == ("inconclusive", 30)
    assert "60 held-out examples in one group" in ruling.reason


def test_a_difference_that_may_be_chance_says_how_many_examples_would_tell() -> None:
    candidate = [1.0 if i % 10 < 6 else 0.0 for i in range(N)]
    base = [1.0 if i % 10 in (0, 1, 2, 3, 6) else 0.0 for i in range(N)]
    ruling = rule(candidate=candidate, base=base)
    assert ruling.decision == "inconclusive"
    assert ruling.collect is not None
    assert ruling.collect % 10 == 0
    needed = ruling.differences[0].needed
    assert needed is not None
    assert 0 <= ruling.collect - (needed - N) < 10
    assert f"Collect about {ruling.collect} more held-out examples" in ruling.reason


def test_collecting_what_was_asked_for_decides() -> None:
    """The promise behind `collect`: with so many more, and the same difference, the gate mostly makes up its mind."""
    random = np.random.default_rng(0)

    def ruling(n: int) -> Ruling:
        both = random.random(n)
        candidate, base = (np.clip(0.3 + 0.4 * both + random.normal(m, 0.2, n), 0, 1) for m in (0.1, 0.03))
        return rule(candidate=list(candidate), base=list(base))

    asked = [r.collect for _ in range(60) if (r := ruling(40)).collect and 0.05 < r.differences[0].interval.mean < 0.09]
    more = int(np.median(asked))
    promoted = sum(ruling(40 + more).decision == "promote" for _ in range(60))
    assert promoted >= 36


def test_no_difference_at_all_asks_for_no_more_held_out_examples() -> None:
    ruling = rule(candidate=right(0.4), base=right(0.4))
    assert (ruling.decision, ruling.collect) == ("inconclusive", None)
    assert "training examples" in ruling.reason


def test_a_candidate_that_is_not_ahead_is_told_to_train_more() -> None:
    ruling = rule(candidate=right(0.38), base=right(0.42))
    assert ruling.decision == "inconclusive"
    assert "More training examples may help" in ruling.reason


def test_held_out_examples_that_would_not_be_judged_are_not_asked_for() -> None:
    ruled = partial(rule, candidate=right(0.55), base=right(0.5))
    asked = ruled(config=GateSettings(most_judged=2_000)).collect
    assert asked is not None
    ruling = ruled(config=GateSettings(most_judged=N + asked - 1))
    assert (ruling.decision, ruling.collect) == ("inconclusive", None)
    assert f"held-out ones would not: at most {N + asked - 1} are judged by" in ruling.reason


def test_prompting_is_enough_where_no_held_out_example_is_left_that_could_tell() -> None:
    same = partial(rule, candidate=right(0.96, 200), retrieval=right(0.96, 200, first=False))
    ruling = same(config=GateSettings(most_judged=200))
    assert (ruling.decision, ruling.collect) == ("prompting_is_enough", None)
    assert "no difference" in ruling.reason
    assert same(config=GateSettings(most_judged=201)).decision == "inconclusive"  # more of them may tell
    wide = rule(candidate=right(0.6, 200), retrieval=right(0.6, 200, first=False), config=GateSettings(most_judged=200))
    assert wide.decision == "inconclusive"  # it may be a tenth better
    lost = [outcome.model_copy(update={"failed": outcome.example == "5"}) for outcome in rival(right(0.96, 200))]
    ruling = decide(
        {"candidate": rival(right(0.96, 200, first=False)), "retrieval": lost}, settings=GateSettings(most_judged=200)
    )
    assert ruling.decision == "prompting_is_enough", "one answer that the engine did not give leaves none to collect"
    for share, decision in ((0.98, "inconclusive"), (1.0, "promote")):
        ahead = rule(candidate=right(share, 200), retrieval=right(0.96, 200), config=GateSettings(most_judged=200))
        assert ahead.decision == decision


def test_guards_compare_with_the_prompt_that_serves_the_skill() -> None:
    outcomes = {
        "candidate": rival(right(0.9), valid=0.9),
        "base": rival(right(0.1), valid=0.8),
        "few-shot": rival(right(0.1), valid=0.8),
        "retrieval": rival(right(0.5), valid=1.0),
    }
    for examples, decision in (("none", "promote"), ("fixed", "promote"), ("nearest", "reject")):
        assert decide(outcomes, settings=GateSettings(examples=examples)).decision == decision
    ruling = decide(outcomes, settings=GateSettings(examples="nearest"))
    assert "than with the nearest examples in the prompt" in ruling.reason
    served = decide({**outcomes, "serving": rival(right(0.3), valid=0.8)}, settings=GateSettings(examples="nearest"))
    assert served.decision == "promote"  # an adapter answers without examples


# --- what must always hold -------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.floats(0, 1)] * 4), st.sampled_from([20, 30, 60]))
def test_only_what_beats_every_judge_goes_live(seed: int, shares: tuple[float, ...], n: int) -> None:
    random = np.random.default_rng(seed)
    names = ("candidate", "base", "few-shot", "serving")
    ruling = decide({name: rival(random.random(n) < share) for name, share in zip(names, shares, strict=True)})
    lows = [difference.interval.low or 0.0 for difference in ruling.differences]
    passed = all(guard.passed for guard in ruling.guards)
    assert (ruling.decision == "promote") == (n >= 30 and passed and min(lows) > 0)
    if ruling.decision == "inconclusive" and n < 30:
        assert ruling.collect == 10
    assert ruling.reason.endswith(".")
    assert not re.search(r"-0\.00\b|nan|None", ruling.reason)
    assert len(ruling.reason) < 600


def test_a_candidate_that_is_no_better_seldom_goes_live_however_often_it_is_tried() -> None:
    """Ten candidates as good as the base, judged on one held-out set, all of them together."""
    random = np.random.default_rng(1)
    live = 0
    for _ in range(40):
        easy = np.where(random.random(N) < 0.5, 0.9, 0.2)
        base = rival(random.random(N) < easy)
        live += any(
            decide(
                {"candidate": rival(random.random(N) < easy), "base": base}, confidence=confidence_for(look)
            ).decision
            == "promote"
            for look in range(1, 11)
        )
    assert live <= 4


def test_what_cannot_be_compared_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="candidate"):
        rule(base=right(0.5))
    with pytest.raises(InvalidInput, match="prompt-only"):
        rule(candidate=right(0.5), serving=right(0.5))
    with pytest.raises(InvalidInput, match="twice"):
        decide({"candidate": rival(right(0.5)), "base": rival(right(0.5)) + rival([1.0])})
