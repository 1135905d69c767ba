"""One decision from one state: judgements stand above whatever was calibrated."""

from __future__ import annotations

import numpy as np

from intern.models.embedder import Vectors
from intern.routing.calibrate import Calibration
from intern.routing.index import ExampleIndex
from intern.routing.state import Learned, State

# Two skills on two axes, and strangers on a third. This calibration is never sure of anything.
DOUBTFUL = Calibration(np.asarray([0.0, 0.0, 0.0, 0.0, -2.0]), np.zeros(0))
CALM = Calibration(np.asarray([1.0, 1.0, 0.0, 0.0, 1.0]), np.zeros(0))
OWNERS = np.asarray([0, 1], dtype=np.int32)


def at(*values: float) -> Vectors:
    vector = np.asarray([*values, 0.0, 0.0, 0.0][:4], dtype=np.float32)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def state(calibration: Calibration, *learned: Learned) -> State:
    return State(
        key="",
        skills=("first", "second"),
        texts=("one", "two"),
        index=ExampleIndex(np.stack([at(1), at(0, 1)]), OWNERS, OWNERS, 2),
        outside=np.stack([at(0, 0, 1)] * 3),
        calibration=calibration,
        learned=learned,
    )


def test_a_judged_text_is_served_however_doubtful_the_calibration() -> None:
    request = at(0.7, 0, 0.7)
    before = state(DOUBTFUL).route("new", request, refuse_rate=0.04, among=None)
    assert before.skill is None
    after = state(DOUBTFUL, Learned("new", request, "second")).route("new", request, refuse_rate=0.04, among=None)
    assert after.skill == "second"
    assert after.confidence >= 0.95
    assert after.nearest == "new"


def test_a_barred_skill_has_no_score() -> None:
    request = at(0.9, 0.1, 0.3)
    assert state(CALM).route("new", request, refuse_rate=0.04, among=None).skill == "first"
    barred = state(CALM, Learned("new", at(0.9, 0.1, 0.31), None, "first"))
    route = barred.route("new", request, refuse_rate=0.0, among=None)
    assert route.candidates[0].skill == "second"
    assert {candidate.skill: candidate.score for candidate in route.candidates}["first"] == 0.0


def test_a_skills_own_nearer_text_outweighs_a_judgement_on_another() -> None:
    learned = Learned("other", at(1, 0, 0.3), None, "first"), Learned("third", at(1, 0.3), None)
    route = state(CALM, *learned).route("one", at(1), refuse_rate=0.04, among=None)
    assert route.skill == "first"


def test_the_same_words_are_the_same_request_however_written() -> None:
    learned = Learned("Sing a song!", at(0.6, 0, 0.8), None)
    near_first = at(1, 0, 0.4)
    assert state(CALM, learned).route("sing a dance", near_first, refuse_rate=0.04, among=None).skill == "first"
    assert state(CALM, learned).route("sing, a SONG", near_first, refuse_rate=0.04, among=None).skill is None


def test_judgements_on_a_skill_that_is_gone_do_nothing() -> None:
    learned = Learned("x", at(1), "gone"), Learned("y", at(1), None, "gone")
    assert state(CALM, *learned).route("one", at(1), refuse_rate=0.04, among=None).skill == "first"
