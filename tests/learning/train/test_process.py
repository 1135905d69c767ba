"""Training in a process of its own, on a tiny model: it tells what happens, can be ended, killed and taken up again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from intern.errors import StoreFailure, TrainingFailed
from intern.learning.train import job as jobs
from intern.learning.train import process as training
from intern.learning.train.job import Event, Job, Pair, Row
from intern.learning.train.recipe import Recipe
from intern.types import Message

pytestmark = pytest.mark.trains

SYSTEM = "You sort messages of customers. Answer with one word: order, refund, or other."


def rows(count: int, *, start: int = 0) -> list[Row]:
    words = ["order", "refund", "other"]
    return [
        Row(
            id=f"r{n}",
            messages=(
                Message(role="system", content=SYSTEM),
                Message(role="user", content=f"Message {n} is about {words[n % 3]}."),
            ),
            completion=words[n % 3],
        )
        for n in range(start, start + count)
    ]


def pairs(count: int, *, start: int = 0) -> list[Pair]:
    made = rows(count, start=start)
    return [Pair(id=row.id, messages=row.messages, chosen=row.completion, rejected="something else") for row in made]


def job(base: Path, **changes: Any) -> Job:
    numbers = {"epochs": 2, "batch": 4, "learning_rate": 5e-3, **changes}
    name = str(numbers.pop("name", "lora"))
    seconds = float(str(numbers.pop("checkpoint_seconds", 60)))
    context = int(str(numbers.pop("context", 256)))
    return Job(
        base=str(base),
        recipe=Recipe.model_validate({"name": name, **numbers}),
        context=context,
        threads=1,
        checkpoint_seconds=seconds,
    )


async def carried_out(folder: Path) -> list[Event]:
    return [event async for event in training.train(folder)]


def processes(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"intern.learning.train" in line and str(folder).encode() in line:
                found.append(int(entry.name))
    return found


def test_both_precisions_learn_alike_and_leave_weights_in_float32(tiny_base: Path, tmp_path: Path) -> None:
    ended = {}
    for precision, bfloat16 in (("float32", False), ("bfloat16", True)):
        folder = tmp_path / precision
        training.prepare(folder, job(tiny_base, precision=precision), rows(24), heldout=rows(6, start=100))
        events = asyncio.run(carried_out(folder))
        (device,) = [e for e in events if e.kind == "device"]
        assert device.numbers == {"bfloat16": bfloat16}
        assert device.text.endswith(f"{precision}, as asked for")
        losses = [e.loss for e in events if e.kind == "heldout" and e.loss is not None]
        assert losses[-1] < 0.97 * losses[0]
        ended[precision] = losses[-1]
        for name, weight in load_file(folder / jobs.ADAPTER / "adapter_model.safetensors").items():
            assert weight.dtype == np.float32, name
            assert np.isfinite(weight).all(), name
    assert ended["bfloat16"] == pytest.approx(ended["float32"], rel=0.01)
    assert ended["bfloat16"] != ended["float32"]


def test_a_training_tells_its_curves_and_leaves_an_adapter_without_pickles(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    training.prepare(folder, job(tiny_base), rows(24), heldout=rows(6, start=100))
    events = asyncio.run(carried_out(folder))
    steps = [e for e in events if e.kind == "step"]
    assert [e.step for e in steps] == list(range(1, 13))
    assert all(e.steps == 12 and e.stage == "examples" for e in steps)
    heldout = [e.loss for e in events if e.kind == "heldout"]
    assert heldout[0] is not None
    assert heldout[-1] is not None
    assert heldout[-1] < heldout[0]
    assert events[-1].kind == "done"
    assert events[-1].numbers["rows"] == 24
    assert events[-1].numbers["peak_bytes"] > 50_000_000
    files = {path.name for path in (folder / jobs.ADAPTER).iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors"}
    assert str(tmp_path) not in (folder / jobs.ADAPTER / "adapter_config.json").read_text()


RECIPES: dict[str, dict[str, object]] = {
    "examples": {},
    "preferences": {"name": "dpo", "epochs": 1, "preference_learning_rate": 1e-2, "preference_epochs": 3},
}


@pytest.mark.parametrize("stage", RECIPES)
def test_a_killed_training_goes_on_from_its_checkpoint_to_the_same_adapter(
    tiny_base: Path, tmp_path: Path, stage: str
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        made = job(tiny_base, checkpoint_seconds=0.001, **RECIPES[stage])
        training.prepare(folder, made, rows(24), pairs=pairs(16))
    asyncio.run(carried_out(whole))

    async def with_a_kill() -> list[Event]:
        events = []
        shot = False
        async for event in training.train(killed):
            events.append(event)
            if event.kind == "saved" and event.stage == stage and (event.step or 0) >= 5 and not shot:
                shot = True
                for process in processes(killed):
                    os.kill(process, signal.SIGKILL)
        return events

    events = asyncio.run(with_a_kill())
    warning = next(e for e in events if e.kind == "warning")
    assert "SIGKILL" in warning.text
    (again,) = [e for e in events[events.index(warning) :] if e.kind == "phase"]
    assert again.stage == stage, "what was finished before is not trained again"
    assert (again.step or 0) >= 5
    one, other = (load_file(f / jobs.ADAPTER / "adapter_model.safetensors") for f in (whole, killed))
    for name, values in one.items():
        np.testing.assert_allclose(values, other[name], atol=1e-5, err_msg=name)


def test_a_closed_stream_ends_the_process(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    training.prepare(folder, job(tiny_base, epochs=100), rows(24))

    async def until_the_first_step() -> None:
        events = training.train(folder)
        async for event in events:
            if event.kind == "step":
                assert processes(folder)
                break
        await events.aclose()

    asyncio.run(until_the_first_step())
    assert not processes(folder)


def test_a_training_whose_parent_is_gone_ends_itself(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    training.prepare(folder, job(tiny_base, epochs=100), rows(24))
    process = subprocess.Popen(
        [sys.executable, "-m", "intern.learning.train", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdout.readline()
        process.stdin.close()
        assert process.wait(timeout=60) == 3


def test_rows_longer_than_the_context_are_counted_and_left_out(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    long = rows(1, start=50)[0].model_copy(update={"completion": "very " * 300})
    training.prepare(folder, job(tiny_base, epochs=1), [*rows(8), long])
    events = asyncio.run(carried_out(folder))
    warning = next(e for e in events if e.kind == "warning")
    assert warning.numbers["too_long"] == ["r50"]
    assert events[-1].numbers["rows"] == 8


def test_no_row_that_fits_is_an_error_that_says_what_to_do(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    training.prepare(folder, job(tiny_base, context=64), [rows(1)[0].model_copy(update={"completion": "very " * 300})])
    with pytest.raises(TrainingFailed, match="INTERN_CONTEXT") as caught:
        asyncio.run(carried_out(folder))
    assert caught.value.final, "it would fail in the same way again"


def test_a_disk_that_refuses_fails_the_training_with_the_reason(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    training.prepare(folder, job(tiny_base, epochs=1), rows(8))
    program = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
        f"sys.argv = ['train', {str(folder)!r}]; runpy.run_module('intern.learning.train', run_name='__main__')"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
        assert process.wait(timeout=120) == 2
    last = Event.model_validate_json(lines[-1])
    assert last.kind == "failed"
    assert "disk refused" in last.text
    assert not last.numbers.get("final"), "there may be room later"
    assert not (folder / jobs.ADAPTER).exists()


def test_a_nearly_full_disk_is_told_before_the_training(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "FREE_BYTES", 10**18)
    with pytest.raises(StoreFailure, match="of disk are free"):
        training.prepare(tmp_path / "run", job(tiny_base), rows(3))


@pytest.mark.parametrize(("name", "bits"), [("qlora-4bit", 4), ("lora-8bit", 8)])
def test_a_quantised_base_trains_without_cuda_too_and_warns_that_it_is_slow(
    tiny_base: Path, tmp_path: Path, name: str, bits: int
) -> None:
    folder = tmp_path / "run"
    made = job(tiny_base, name=name).model_copy(update={"cache": str(tmp_path / "cache")})
    training.prepare(folder, made, rows(24), heldout=rows(6, start=100))
    events = asyncio.run(carried_out(folder))
    (warning,) = [e for e in events if e.kind == "warning"]
    assert warning.text.startswith(f"Training on {bits}-bit weights without CUDA is several times slower")
    losses = [e.loss for e in events if e.kind == "heldout" and e.loss is not None]
    assert losses[-1] < 0.97 * losses[0]
    for weight_name, weight in load_file(folder / jobs.ADAPTER / "adapter_model.safetensors").items():
        assert weight.dtype == np.float32, weight_name
        assert np.isfinite(weight).all(), weight_name


def test_documents_first_then_examples_in_one_run(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    texts = [f"Handbook {n}\n" + "Orders are shipped on Monday. " * 30 for n in range(6)]
    made = job(tiny_base, name="completion-then-sft", chunk_tokens=64, epochs=1)
    training.prepare(folder, made, rows(8), texts=texts)
    events = asyncio.run(carried_out(folder))
    assert [e.stage for e in events if e.kind == "phase"] == ["completion", "examples"]
    losses = [e.loss for e in events if e.kind == "step" and e.stage == "completion"]
    assert len(losses) >= 6
    assert losses[-1] is not None
    assert losses[0] is not None
    assert losses[-1] < losses[0]


def test_preferences_move_the_adapter_towards_the_corrected_answers(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    long = pairs(1, start=50)[0].model_copy(update={"rejected": "very " * 300})
    made = job(tiny_base, **RECIPES["preferences"])
    training.prepare(folder, made, rows(8), pairs=[*pairs(16), long], heldout_pairs=pairs(5, start=100))
    events = asyncio.run(carried_out(folder))
    (warning,) = [e for e in events if e.kind == "warning"]
    assert warning.numbers == {"too_long": ["r50"]}
    losses = {
        kind: [e.loss for e in events if e.kind == kind and e.stage == "preferences" and e.loss is not None]
        for kind in ("step", "heldout")
    }
    for kind, told in losses.items():
        assert told[0] == pytest.approx(0.693, abs=0.01), kind  # log 2: the policy is its reference
        assert told[-1] < 0.6, kind
    assert len(losses["heldout"]) == 1 + 6, "before the first step, then at each of few"
    names = load_file(folder / jobs.ADAPTER / "adapter_model.safetensors")
    assert not any("ref" in name for name in names)


def test_preferences_without_corrections_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    long = pairs(1, start=50)[0].model_copy(update={"rejected": "very " * 300})
    training.prepare(folder, job(tiny_base, name="dpo", epochs=1), rows(8), pairs=[*pairs(9), long])
    told: list[Event] = []

    async def listen() -> None:
        async for event in training.train(folder):
            told.append(event)  # noqa: PERF401 - what was told stays when it raises

    with pytest.raises(TrainingFailed, match="at least 10 corrected answers, and there are 9"):
        asyncio.run(listen())
    assert not any(event.kind == "phase" for event in told), "before anything is trained that would be lost"
