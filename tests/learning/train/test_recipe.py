"""A recipe fits itself to few examples, and does what it was told where it was told."""

from __future__ import annotations

import pytest

from intern.errors import InvalidInput
from intern.learning.train.recipe import EPOCHS, MOST_EPOCHS, STEPS, Recipe, recipe


@pytest.mark.parametrize("rows", [64, 100, 200, 266])
def test_few_examples_get_their_steps(rows: int) -> None:
    fitted = Recipe().fitted(rows)
    assert fitted.epochs is not None
    assert EPOCHS <= fitted.epochs <= MOST_EPOCHS
    a_pass = -(-rows // fitted.batch)
    assert a_pass * fitted.epochs >= STEPS
    assert a_pass * (fitted.epochs - 1) < STEPS, "and no epoch more than they need"


@pytest.mark.parametrize("rows", [300, 400, 100_000])
def test_many_examples_get_three_epochs(rows: int) -> None:
    assert Recipe().fitted(rows).epochs == EPOCHS


@pytest.mark.parametrize("rows", [0, 1, 8, 40])
def test_a_handful_is_not_gone_through_for_ever(rows: int) -> None:
    assert Recipe().fitted(rows).epochs == MOST_EPOCHS


def test_a_number_of_epochs_that_was_given_stays() -> None:
    assert recipe("lora", epochs=2).fitted(10).epochs == 2
    fitted = Recipe().fitted(64)
    assert fitted.fitted(1_000) == fitted


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(InvalidInput, match="lora, qlora-4bit"):
        recipe("magic")
