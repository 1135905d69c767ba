"""What a training finds of a former one, and what is said when nothing can go on: without a training process."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from intern.errors import StoreFailure, TrainingFailed
from intern.learning.train import job as jobs
from intern.learning.train import process as training
from intern.learning.train.job import Event, Job
from intern.learning.train.recipe import Recipe


def test_what_was_being_written_when_a_process_ended_is_removed_and_the_checkpoint_before_stays(tmp_path: Path) -> None:
    for number, state in ((3, "{}"), (6, "{}"), (9, '{"global_step": 9, "log_hi'), (12, None)):
        place = tmp_path / jobs.STAGES / "examples" / f"checkpoint-{number}"
        place.mkdir(parents=True)
        if state is not None:
            (place / "trainer_state.json").write_text(state)
    training.mend(tmp_path)
    assert sorted(place.name for place in tmp_path.rglob("checkpoint-*")) == ["checkpoint-3", "checkpoint-6"]


@pytest.mark.anyio
@pytest.mark.parametrize("numbers", [{}, {"final": False}, {"final": True}])
async def test_a_failure_is_final_where_the_process_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: Any
) -> None:
    async def process(*_: Any) -> AsyncGenerator[Event, None]:
        yield Event(kind="failed", text="No.", numbers=numbers)

    monkeypatch.setattr(training, "_process", process)
    with pytest.raises(TrainingFailed, match="No") as caught:
        async for _ in training.train(tmp_path):
            pass
    assert caught.value.final is bool(numbers.get("final"))


def test_a_disk_that_is_nearly_full_is_said_with_what_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "FREE_BYTES", 10**18)
    job = Job(base="base", recipe=Recipe(), context=256, threads=1)
    with pytest.raises(StoreFailure, match=r"`intern runs list --state failed` .* `intern runs cancel RUN`"):
        training.prepare(tmp_path / "run", job, [])


def test_a_job_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: Path, target: Path) -> None:
        assert Job.model_validate_json(Path(source).read_text(encoding="utf-8")).context == 256
        raise OSError(errno.ENOSPC, "No space left on device")

    job = Job(base="base", recipe=Recipe(), context=256, threads=1)
    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(StoreFailure, match="No space left on device"):
        training.prepare(tmp_path, job, [])
    assert not (tmp_path / jobs.JOB).exists()
    monkeypatch.undo()
    training.prepare(tmp_path, job, [])
    assert jobs.read_job(tmp_path) == job
