"""One trainer works at a time on a machine, and the others wait."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import pytest

from intern.learning.train.__main__ import turn, wait_for_turn
from intern.learning.train.job import Event


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other trainers of this machine have nothing to do with these tests."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_second_trainer_says_that_it_waits_and_begins_when_the_first_is_gone() -> None:
    first = turn("0")
    with first:
        told: list[Event] = []
        waits = threading.Event()

        def tell(event: Event) -> None:
            told.append(event)
            waits.set()

        second = turn("0")
        waited: list[float] = []
        waiting = threading.Thread(target=lambda: waited.append(wait_for_turn(tell, second)), daemon=True)
        waiting.start()
        assert waits.wait(10)
        assert not second.is_locked
    waiting.join(10)
    assert not waiting.is_alive()
    assert waited[0] > 0
    assert [event.text for event in told] == ["another training goes on on this machine; this one waits for its end"]


def waits(event: Event) -> None:
    pytest.fail(event.text)


def test_trainers_on_different_devices_do_not_wait_for_each_other() -> None:
    other = turn("1")
    with turn("0"):
        assert wait_for_turn(waits, other) == 0
        other.release()


def test_where_there_can_be_no_lock_a_trainer_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    assert wait_for_turn(waits, turn("0")) == 0
