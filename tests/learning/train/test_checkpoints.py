"""What a training finds of a former one, and what is said when nothing can go on: without a training process."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from intern.errors import StoreFailure, TrainingFailed
from intern.learning.train import disk
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


def checkpoint(place: Path) -> Path:
    """A checkpoint with the kinds of files that a trainer writes, those of a second adapter among them."""
    for folder in (place, place / "ref"):
        folder.mkdir(parents=True)
        save_file(
            {"a": np.zeros((4, 3), np.float32), "b": np.ones(5, np.float32)}, folder / "adapter_model.safetensors"
        )
    torch.save({"step": 3}, place / "optimizer.pt")
    torch.save(torch.zeros(3), place / "rng_state.pth")
    (place / "README.md").write_text("")
    (place / "trainer_state.json").write_text('{"global_step": 3}')
    return place


@pytest.mark.parametrize("left", [0, 0.3, 0.99])
@pytest.mark.parametrize(
    "file", ["adapter_model.safetensors", "ref/adapter_model.safetensors", "optimizer.pt", "rng_state.pth"]
)
def test_a_checkpoint_whose_files_a_power_cut_left_empty_or_short_is_none(
    tmp_path: Path, file: str, left: float
) -> None:
    place = checkpoint(tmp_path / jobs.STAGES / "examples" / "checkpoint-3")
    assert list(training.checkpoints(tmp_path)) == [(place, True)]
    whole = (place / file).read_bytes()
    (place / file).write_bytes(whole[: int(len(whole) * left)])
    assert list(training.checkpoints(tmp_path)) == [(place, False)]
    (place / file).write_bytes(bytes(len(whole)))  # as long as it was, and nothing in it
    assert list(training.checkpoints(tmp_path)) == [(place, False)]
    training.mend(tmp_path)
    assert list(training.checkpoints(tmp_path)) == []


def test_the_checkpoint_before_goes_when_the_next_one_has_reached_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (checkpoint(tmp_path / f"checkpoint-{number}") for number in (3, 12))
    (tmp_path / "finished").mkdir()
    synced: list[int] = []

    def sync(handle: int) -> None:
        assert first.exists(), "until the next one is safe"
        synced.append(os.fstat(handle).st_ino)

    monkeypatch.setattr(os, "fsync", sync)
    disk.keep_only(second)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-12", "finished"}
    written = [second, *second.rglob("*"), tmp_path]
    assert {path.stat().st_ino for path in written} == set(synced)


def test_a_base_model_that_was_being_unpacked_goes_unless_somebody_unpacks_one(tmp_path: Path) -> None:
    left, whole = tmp_path / ".base-abc", tmp_path / "base-def"
    for folder in (left, whole):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"x")
    with disk.unpacking(tmp_path):
        disk.sweep_unpacked(tmp_path)
        assert left.exists()
    disk.sweep_unpacked(tmp_path)
    assert (left.exists(), whole.exists()) == (False, True)
    disk.sweep_unpacked(tmp_path / "never made")


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
    job = Job(base="base", recipe=Recipe().fitted(8, 64), context=256, threads=1)
    with pytest.raises(StoreFailure, match=r"`intern runs list --state failed` .* `intern runs cancel RUN`"):
        training.prepare(tmp_path / "run", job, [])


def test_a_job_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: Path, target: Path) -> None:
        assert Job.model_validate_json(Path(source).read_text(encoding="utf-8")).context == 256
        raise OSError(errno.ENOSPC, "No space left on device")

    job = Job(base="base", recipe=Recipe().fitted(8, 64), context=256, threads=1)
    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(StoreFailure, match="No space left on device"):
        training.prepare(tmp_path, job, [])
    assert not (tmp_path / jobs.JOB).exists()
    monkeypatch.undo()
    training.prepare(tmp_path, job, [])
    assert jobs.read_job(tmp_path) == job
