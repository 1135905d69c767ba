"""What serves is what was trained: a real training, a real conversion, the real engine; and no broken one gets past.

On a tiny base whose answers wander over many words, so that whatever an adapter lacks shows in them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_base import TEMPLATE, metadata, write_tiny_base

from intern.engines.llamacpp import LlamaCppEngine
from intern.learning.adapters import gguf_lora
from intern.learning.adapters.gguf_lora import GGUF, convert
from intern.learning.adapters.lora import Lora, Pair, read_lora
from intern.learning.adapters.shapes import BaseShape, read_shape
from intern.learning.judging.parity import Parity
from intern.learning.loop.contracts import Work
from intern.learning.loop.judging import Judging
from intern.learning.train import job as jobs
from intern.learning.train import process as training
from intern.learning.train.job import Event, Job, Row
from intern.learning.train.recipe import Recipe
from intern.skill import Skill, write_skill
from intern.types import Adapter, Json, Message, Run, now

pytestmark = pytest.mark.trains

COLOURS = ["red", "green", "blue", "white"]
SCHEMA: dict[str, Json] = {
    "type": "object",
    "required": ["first", "second", "third"],
    "properties": {name: {"enum": COLOURS} for name in ("first", "second", "third")},
}


def rows(count: int) -> list[Row]:
    chance = random.Random(0)

    def words(among: list[str], number: int) -> str:
        return " ".join(chance.choice(among) for _ in range(number))

    def odd_words(number: int) -> str:
        return " ".join("".join(chance.choice("bcdfg") + chance.choice("aeiou") for _ in "12") for _ in range(number))

    return [
        Row(
            id=f"r{n}",
            messages=(
                Message(role="system", content="Sort."),
                Message(role="user", content=odd_words(3)),
            ),
            completion=words([*COLOURS, "house", "river"], 8),
        )
        for n in range(count)
    ]


class House:
    """A base, and an adapter that was trained on it."""

    def __init__(self, like: Path, root: Path) -> None:
        self.root = root
        self.base = write_tiny_base(like, root / "tiny.gguf", spread=0.3)
        self.shape = read_shape(self.base)
        self.runs_folder = root / "runs"
        self.folder = self.runs_folder / "run_1"
        about = {"title": "T", "description": "D", "instructions": "I", "generation": {"max_tokens": 40}}
        self.skills = {
            "text": write_skill(root / "skills", "text", about),
            "form": write_skill(root / "skills", "form", about, schema=SCHEMA),
        }
        job = Job(
            base=str(self.base),
            recipe=Recipe(name="lora", epochs=6, learning_rate=1e-2, batch=4, precision="float32"),
            context=256,
            threads=2,
            cache=str(root / "cache"),
        )
        training.prepare(self.folder, job, rows(24), heldout=rows(24))
        asyncio.run(self._train())
        self.lora = read_lora(self.folder / jobs.ADAPTER, self.shape)
        convert(self.lora, self.shape, self.folder / jobs.ADAPTER / GGUF, dtype="f16")

    async def _train(self) -> None:
        async for _ in training.train(self.folder):
            pass

    def compared(self, adapter: Path, *, skill: str = "text", base: Path | None = None) -> tuple[Parity, list[Event]]:
        """Trainer and engine, with the adapter of a file."""
        return asyncio.run(self._compared(adapter, self.skills[skill], base or self.base))

    async def _compared(self, adapter: Path, skill: Skill, base: Path) -> tuple[Parity, list[Event]]:
        told: list[Event] = []

        async def tell(event: Event) -> None:
            told.append(event)

        parts: Any = self
        run = Run(id="run_1", team="default", skill=skill.name, state="running", created=now())
        made = Adapter(team="default", skill=skill.name, version=1, digest="d", base="b", created=now())
        engine = LlamaCppEngine(base, model="tiny", context=512, slots=2, adapters={made.name: str(adapter)})
        await engine.start()
        try:
            return await Judging(Work(parts, skill, run, Recipe(), tell))._parity(engine, made), told
        finally:
            await engine.close()


@pytest.fixture(scope="module")
def house(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(model_path, tmp_path_factory.mktemp("parity"))


def test_a_trained_adapter_is_what_the_engine_serves(house: House) -> None:
    found, told = house.compared(house.folder / jobs.ADAPTER / GGUF)
    assert found.problem is None, found
    assert (found.prompts, found.same_prompts, found.answers) == (24, 24, 24)
    assert found.moved > 1, "the adapter must say something of its own"
    assert [event.kind for event in told] == ["parity"]


def test_so_it_is_where_the_answer_has_a_form(house: House) -> None:
    found, _ = house.compared(house.folder / jobs.ADAPTER / GGUF, skill="form")
    assert found.problem is None, found
    assert found.fields is not None
    assert found.answers == 20


def half_as_strong(lora: Lora, shape: BaseShape, target: Path) -> None:
    halved = {module: scale / 2 for module, scale in lora.scales.items()}
    convert(dataclasses.replace(lora, scales=halved), shape, target, dtype="f16")


def queries_and_keys_as_they_were(lora: Lora, shape: BaseShape, target: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf_lora, "_PERMUTED", set())
        convert(lora, shape, target, dtype="f16")


class WithoutFirstLayer(Lora):
    def pairs(self) -> Iterator[tuple[str, Pair]]:
        for module, pair in super().pairs():
            first = module.startswith("model.layers.0.")
            yield module, dataclasses.replace(pair, b=np.zeros_like(pair.b)) if first else pair


def without_the_first_layer(lora: Lora, shape: BaseShape, target: Path) -> None:
    without = WithoutFirstLayer(lora.folder, lora.config, lora.modules, lora.ranks, lora.scales)
    convert(without, shape, target, dtype="f16")


@pytest.mark.parametrize("broken", [half_as_strong, queries_and_keys_as_they_were, without_the_first_layer])
def test_a_conversion_that_loses_something_is_refused(
    house: House, tmp_path: Path, broken: Callable[[Lora, BaseShape, Path], None]
) -> None:
    broken(house.lora, house.shape, tmp_path / GGUF)
    found, _ = house.compared(tmp_path / GGUF)
    assert found.same_prompts == found.prompts
    assert "the adapter was not converted faithfully" in str(found.problem)


def test_another_chat_template_is_refused(house: House, model_path: Path, tmp_path: Path) -> None:
    (template,) = (str(value) for key, value, *_ in metadata(model_path) if key == TEMPLATE)
    changed = template.replace("<|im_end|>", "<|im_end|> ")
    assert changed != template
    base = write_tiny_base(model_path, tmp_path / "other.gguf", spread=0.3, template=changed)
    found, _ = house.compared(house.folder / jobs.ADAPTER / GGUF, base=base)
    assert found.same_prompts == 0
    assert "24 of 24 prompts have other ids" in str(found.problem)
