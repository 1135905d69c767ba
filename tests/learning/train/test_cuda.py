"""On CUDA every recipe trains too: in bfloat16, on quantised weights without a warning, to what a CPU comes to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from intern.learning.train import job as jobs
from intern.learning.train import process as training
from intern.learning.train.job import Event

from .test_process import carried_out, job, pairs, rows

pytestmark = pytest.mark.needs_gpu


def heldout(events: list[Event], stage: str = "examples") -> list[float]:
    return [e.loss for e in events if e.kind == "heldout" and e.stage == stage and e.loss is not None]


@pytest.mark.parametrize("name", ["lora", "qlora-4bit", "lora-8bit"])
def test_a_recipe_trains_on_cuda(tiny_base: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run"
    training.prepare(folder, job(tiny_base, name=name), rows(24), heldout=rows(6, start=100))
    events = asyncio.run(carried_out(folder))
    (device,) = [e for e in events if e.kind == "device"]
    assert device.text.startswith("CUDA: ")
    assert device.numbers == {"bfloat16": True}
    assert [e for e in events if e.kind == "warning"] == []
    losses = heldout(events)
    assert losses[-1] < 0.97 * losses[0]
    for weight_name, weight in load_file(folder / jobs.ADAPTER / "adapter_model.safetensors").items():
        assert weight.dtype == np.float32, weight_name
        assert np.isfinite(weight).all(), weight_name


def test_cuda_and_a_cpu_learn_alike_in_float32(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = {}
    for device, visible in (("CUDA", "0"), ("CPU", "")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        folder = tmp_path / device
        training.prepare(folder, job(tiny_base, precision="float32"), rows(24), heldout=rows(6, start=100))
        events = asyncio.run(carried_out(folder))
        assert next(e for e in events if e.kind == "device").text.startswith(device)
        ended[device] = heldout(events)[-1]
    assert ended["CUDA"] == pytest.approx(ended["CPU"], rel=0.01)


def test_preferences_are_learned_on_cuda(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    made = job(tiny_base, name="dpo", epochs=1, preference_learning_rate=1e-2, preference_epochs=3)
    training.prepare(folder, made, rows(8), pairs=pairs(16), heldout_pairs=pairs(5, start=100))
    losses = heldout(asyncio.run(carried_out(folder)), "preferences")
    assert losses[0] == pytest.approx(0.693, abs=0.02)
    assert losses[-1] < 0.6
