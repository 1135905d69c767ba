"""What a run keeps on disk: when there is something to go on with, and what of it is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from intern.errors import Conflict
from intern.learning.loop.folder import RunFolder


def put(folder: Path, *names: str, text: str = "{}") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def checkpoint(number: int) -> str:
    return f"stages/examples/checkpoint-{number}/trainer_state.json"


@pytest.mark.parametrize("made", ["adapter/weights", "stages/completion/finished/weights", checkpoint(9)])
def test_there_is_something_to_go_on_with_once_something_was_trained(tmp_path: Path, made: str) -> None:
    folder = RunFolder(tmp_path)
    assert not folder.resumable
    put(tmp_path, "job.json", "rows.jsonl")
    assert not folder.resumable, "beginning anew costs no more"
    put(tmp_path, made)
    assert folder.resumable
    (tmp_path / "rows.jsonl").unlink()
    assert not folder.resumable


def test_a_checkpoint_that_breaks_off_is_none(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    put(tmp_path, "job.json", "rows.jsonl", "stages/examples/checkpoint-3/weights")
    assert not folder.resumable
    put(tmp_path, checkpoint(3), text='{"global_step": 3, "log_hi')
    assert not folder.resumable


def test_what_was_being_written_when_the_disk_was_full_is_removed_and_the_one_before_stays(tmp_path: Path) -> None:
    put(tmp_path, checkpoint(3), checkpoint(6), f"part-20/{checkpoint(4)}")
    put(tmp_path, checkpoint(9), f"part-20/{checkpoint(8)}", text='{"global_step": 9, "log_hi')
    put(tmp_path, "stages/examples/checkpoint-12/weights")
    RunFolder(tmp_path).mend()
    left = sorted(place.relative_to(tmp_path).as_posix() for place in tmp_path.rglob("checkpoint-*"))
    assert left == [*(f"{at}stages/examples/checkpoint-{n}" for at, n in (("part-20/", 4), ("", 3), ("", 6)))]


def test_a_run_stays_on_the_base_model_that_it_began_on(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run_1")
    folder.check_base("a" * 64)  # nothing is noted yet
    assert folder.began_on is None
    folder.stay_on("a" * 64)
    folder.stay_on("a" * 64)
    for other in ("b" * 64, None):
        with pytest.raises(Conflict, match="another one than the run began on"):
            folder.check_base(other)
    with pytest.raises(Conflict):
        folder.stay_on("b" * 64)
    assert folder.began_on == "a" * 64
    folder.clear()
    assert not folder.path.exists()
