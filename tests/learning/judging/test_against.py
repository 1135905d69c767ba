"""Everybody is compared with what serves, example by example."""

from __future__ import annotations

import pytest

from intern.learning.judging.against import against
from intern.learning.judging.outcomes import Outcome
from intern.learning.judging.statistics import mcnemar


def rival(scores: dict[int, float], **fields: float) -> list[Outcome]:
    return [
        Outcome(
            example=str(n), group=str(n), valid=True, fields={"intent": score, **fields}, score=score,
            expected={}, output={}, request="?",
        )
        for n, score in scores.items()
    ]  # fmt: skip


def share(right: int, of: int = 60) -> dict[int, float]:
    return {n: float(n < right) for n in range(of)}


def test_everybody_is_compared_with_the_adapter_in_service() -> None:
    found = against({"base": rival(share(10)), "few-shot": rival(share(31)), "serving": rival(share(30))})
    assert found is not None
    assert found.rival == "serving"
    assert list(found.differences) == ["base", "few-shot"]
    worse, open_ = found.differences.values()
    assert worse.interval.mean == pytest.approx(-20 / 60)
    assert (worse.interval.high or 0) < 0
    assert (worse.wins, worse.losses, worse.p) == (0, 20, mcnemar(0, 20))
    assert (open_.interval.low or 0) < 0 < (open_.interval.high or 0)


def test_without_one_the_base_model_is_what_serves() -> None:
    found = against({"base": rival(share(10)), "retrieval": rival(share(40))})
    assert found is not None
    assert (found.rival, list(found.differences)) == ("base", ["retrieval"])


def test_the_prompt_that_serves_is_what_everybody_is_compared_with() -> None:
    served = against({"base": rival(share(10)), "retrieval": rival(share(40))}, examples="nearest")
    assert served is not None
    assert (served.rival, list(served.differences)) == ("retrieval", ["base"])


def test_an_outside_system_is_compared_on_what_it_answered() -> None:
    """It answered the 20 examples on which the base model is right, and got 15: worse, for all its higher mean."""
    outside = {n: float(n < 15) for n in range(20)}
    found = against({"base": rival(share(20)), "other": rival(outside)})
    assert found is not None
    difference = found.differences["other"]
    assert (difference.interval.n, difference.interval.mean) == pytest.approx((20, -0.25))
    assert 15 / 20 > 20 / 60


def test_what_the_engine_did_not_answer_is_nobody_s_loss() -> None:
    lost = [outcome.model_copy(update={"failed": int(outcome.example) < 5}) for outcome in rival(share(0))]
    found = against({"base": rival(share(5)), "few-shot": lost})
    assert found is not None
    assert (found.differences["few-shot"].interval.n, found.differences["few-shot"].interval.mean) == (55, 0.0)


def test_one_field_may_be_compared() -> None:
    found = against({"base": rival(share(20), size=1.0), "few-shot": rival(share(40), size=0.0)}, field="size")
    assert found is not None
    assert (found.field, found.differences["few-shot"].interval.mean) == ("size", -1.0)


def test_scores_between_have_no_exact_test() -> None:
    found = against({"base": rival(share(20)), "few-shot": rival(dict.fromkeys(range(60), 0.5))})
    assert found is not None
    assert found.differences["few-shot"].p is None


def test_nobody_to_compare_with_is_no_comparison() -> None:
    assert against({}) is None
    assert against({"base": rival(share(3))}) is None
    assert against({"base": rival(share(3)), "other": []}) is None
    assert against({"base": rival({1: 1.0}), "other": rival({2: 1.0})}) is None
