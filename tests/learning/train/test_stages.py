"""What a stage tells while it trains, and when it gives up."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from intern.errors import TrainingFailed
from intern.learning.train import stages
from intern.learning.train.job import Event
from intern.learning.train.stages import Curves

STATE = SimpleNamespace(global_step=3, max_steps=9, epoch=1.0)
ARGS = SimpleNamespace(learning_rate=0.01)


def curves(told: list[Event]) -> Curves:
    return Curves("examples", told.append, 60.0, 0, None)


def test_each_step_tells_its_loss() -> None:
    told: list[Event] = []
    curves(told).on_log(ARGS, STATE, None, logs={"loss": 0.5, "learning_rate": 0.002})
    (event,) = told
    assert (event.kind, event.step, event.steps, event.loss, event.learning_rate) == ("step", 3, 9, 0.5, 0.002)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_no_number_ends_the_training_and_says_what_to_try(loss: float) -> None:
    told: list[Event] = []
    with pytest.raises(TrainingFailed, match=r"after step 3 of 9: .* Try a fifth of 0\.01\.") as caught:
        curves(told).on_log(ARGS, STATE, None, logs={"loss": loss})
    assert told == []
    assert caught.value.message


def test_memory_is_given_back_after_every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[bool] = []
    monkeypatch.setattr(stages, "give_back", lambda: given.append(True))
    stage, control = curves([]), SimpleNamespace(should_save=False)
    stage.on_substep_end(ARGS, STATE, control)
    stage.on_step_end(ARGS, STATE, control)
    assert given == [True, True]
