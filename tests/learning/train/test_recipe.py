"""A recipe fits itself to few examples, and does what it was told where it was told."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from intern.learning.train.job import Job
from intern.learning.train.recipe import EPOCHS, MOST_EPOCHS, STEPS, Recipe

WIDTH = 576


@pytest.mark.parametrize("rows", [64, 100, 200, 266])
def test_few_examples_get_their_steps(rows: int) -> None:
    fitted = Recipe().fitted(rows, WIDTH)
    assert fitted.epochs is not None
    assert EPOCHS <= fitted.epochs <= MOST_EPOCHS
    a_pass = -(-rows // fitted.batch)
    assert a_pass * fitted.epochs >= STEPS
    assert a_pass * (fitted.epochs - 1) < STEPS, "and no epoch more than they need"


@pytest.mark.parametrize("rows", [300, 400, 100_000])
def test_many_examples_get_three_epochs(rows: int) -> None:
    assert Recipe().fitted(rows, WIDTH).epochs == EPOCHS


@pytest.mark.parametrize("rows", [0, 1, 8, 40])
def test_a_handful_is_not_gone_through_for_ever(rows: int) -> None:
    assert Recipe().fitted(rows, WIDTH).epochs == MOST_EPOCHS


@pytest.mark.parametrize(("width", "rate"), [(2000, 7.5e-4), (576, 2e-3), (4096, 4.3e-4), (1, 0.1)])
def test_the_wider_the_base_model_the_smaller_the_learning_rate(width: int, rate: float) -> None:
    assert Recipe().fitted(64, width).learning_rate == rate


def test_numbers_that_were_given_stay() -> None:
    asked = Recipe(epochs=2, learning_rate=1e-4)
    assert asked.fitted(10, WIDTH) == asked
    fitted = Recipe().fitted(64, WIDTH)
    assert fitted.fitted(1_000, 4096) == fitted


def test_a_job_leaves_no_choice() -> None:
    with pytest.raises(ValidationError, match="not fitted"):
        Job(base="b", recipe=Recipe(epochs=2), context=512, threads=1)
