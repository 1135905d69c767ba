"""The second stage of a run: rows rendered as serving would, training in a process of its own, the adapter stored."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

from intern.errors import InvalidInput
from intern.learning.adapters.adapter import store_adapter
from intern.learning.adapters.gguf_lora import GGUF, convert
from intern.learning.adapters.lora import read_lora
from intern.learning.adapters.manifest import Base, Provenance
from intern.learning.adapters.shapes import read_shape
from intern.learning.examples.gather import corrected
from intern.learning.examples.rows import make_pairs, make_rows
from intern.learning.loop.contracts import BaseModel, Work
from intern.learning.settled import settled, stored
from intern.learning.train import job as jobs
from intern.learning.train import process as training
from intern.learning.train.job import Event, Job
from intern.store import learning as store
from intern.types import Adapter, Dataset, Example, Json, now

WATCHED = 40  # held-out examples whose loss is measured during training

Curves = Mapping[str, tuple[float, ...]]


class Making:
    """The adapter of one run, and those of parts of its examples."""

    def __init__(self, work: Work) -> None:
        self._work = work

    async def make(
        self, base: BaseModel, dataset: Dataset, train: Sequence[Example], heldout: Sequence[Example]
    ) -> tuple[Adapter, float]:
        """The stored adapter and the seconds of training; what an interrupted run had stored is taken up.

        Raises InvalidInput when no example makes a row, TrainingFailed, AdapterRefused, StoreFailure.
        """
        if self._work.run.adapter is not None:
            return await stored(self._kept), self._work.run.train_seconds or 0.0
        seconds, curves = await self._train(base, train, heldout)
        return await self._keep(base, dataset, curves), seconds

    async def _train(
        self, base: BaseModel, train: Sequence[Example], heldout: Sequence[Example]
    ) -> tuple[float, Curves]:
        """Train in a process of its own; returns its seconds, with those of processes that were killed on the way, in
        earlier servers too, and its curves."""
        await self._work.stage("train", "rendering the examples as serving would")
        if not (self._work.folder / jobs.JOB).exists():
            await self._write_job(self._work.folder, base, train, heldout)
        seconds = 0.0
        clock = training.Clock(self._work.run.spent_seconds)
        curves: dict[str, list[float]] = {}
        async with aclosing(training.train(self._work.folder)) as events:
            async for event in events:
                clock.see(event)
                if (
                    event.kind in ("step", "heldout")
                    and event.step is not None
                    and event.loss is not None
                    and math.isfinite(event.loss)
                ):
                    curves.setdefault(f"{event.kind}_at", []).append(event.step)
                    curves.setdefault(f"{event.kind}_loss", []).append(round(event.loss, 5))
                if event.kind == "done":
                    seconds = round(clock.before + float(event.numbers.get("train_seconds", 0.0)), 2)
                    event = event.model_copy(update={"numbers": {**event.numbers, "train_seconds": seconds}})
                await self._work.tell(event.model_copy(update={"stage": event.stage or "train"}))
        return seconds, {name: tuple(values) for name, values in curves.items()}

    async def _keep(self, base: BaseModel, dataset: Dataset, curves: Curves) -> Adapter:
        await self._work.stage("convert", "checking the adapter and converting it for llama.cpp")
        await settled(_convert, Path(base.path), self._work.folder / jobs.ADAPTER)
        adapter = await stored(self._store, base, dataset, curves)
        numbers = {"adapter": adapter.name, "digest": adapter.digest}
        await self._work.tell(Event(kind="adapter", stage="convert", text=f"{adapter.name} is stored", numbers=numbers))
        return adapter

    def _store(self, base: BaseModel, dataset: Dataset, curves: Curves) -> Adapter:
        """The adapter's files and its row, in one transaction: no row without files, whatever happens in between.

        What this run had stored before it was interrupted is taken up.
        """
        work = self._work
        with work.parts.database.begin() as connection:
            for known in store.list_adapters(connection, work.run.team, skill=work.skill.name):
                if known.run == work.run.id and known.digest:
                    return known
            adapter = store.add_adapter(
                connection,
                Adapter(
                    team=work.run.team,
                    skill=work.skill.name,
                    version=0,
                    digest="",
                    base=base.sha256,
                    dataset=dataset.id,
                    run=work.run.id,
                    recipe=work.recipe.name,
                    created=now(),
                ),
            )
            provenance = Provenance(
                team=adapter.team,
                skill=adapter.skill,
                name=adapter.name,
                base=Base(name=base.name, sha256=base.sha256, dtype="float32, dequantised"),
                dataset=dataset.digest,
                run=work.run.id,
                recipe=jobs.read_job(work.folder).recipe.model_dump(mode="json"),
                created=adapter.created,
                curves=curves,
            )
            files = store_adapter(work.parts.adapters_folder, work.folder / jobs.ADAPTER, provenance)
            kept = adapter.model_copy(update={"digest": files.digest})
            store.update_adapter(connection, kept)
        return kept

    def _kept(self) -> Adapter:
        """What an interrupted run had stored."""
        version = int(str(self._work.run.adapter).rpartition("@v")[2])
        with self._work.parts.database.connect() as connection:
            return store.get_adapter(connection, self._work.run.team, self._work.skill.name, version)

    async def train_part(self, base: BaseModel, part: Sequence[Example]) -> Path:
        """The adapter of a part, converted; made once, also when the run is interrupted in between."""
        folder = self._work.folder / f"part-{len(part)}"
        target = folder / jobs.ADAPTER / GGUF
        if not (folder / jobs.JOB).exists():
            await self._write_job(folder, base, part, ())
        if not target.exists():
            async with aclosing(training.train(folder)) as events:
                text = f"training on {len(part)}"
                async for event in events:
                    done = event.model_copy(update={"step": event.step or 0, "steps": event.steps or 0, "numbers": {}})
                    await self._work.tell(done.model_copy(update={"kind": "answers", "stage": "growth", "text": text}))
            await settled(_convert, Path(base.path), folder / jobs.ADAPTER)
        return target

    async def _write_job(
        self, folder: Path, base: BaseModel, train: Sequence[Example], heldout: Sequence[Example]
    ) -> None:
        engine = self._work.parts.open_engine({})
        await engine.start()
        try:
            retrieve = self._work.parts.retriever(self._work.run.team)
            budget = self._work.parts.passage_tokens
            rows, left_out = await make_rows(self._work.skill, train, retrieve, engine, passage_tokens=budget)
            if left_out:
                reasons = ", ".join(sorted({row.detail for row in left_out}))
                text = f"{len(left_out)} examples make no training row: {reasons}"
                await self._work.tell(Event(kind="warning", stage="train", text=text))
            watched, _ = await make_rows(self._work.skill, heldout[:WATCHED], retrieve, engine, passage_tokens=budget)
            pairs = []
            texts: list[str] = []
            if self._work.recipe.name == "dpo":
                wrong = await stored(self._corrected, train)
                pairs = await make_pairs(self._work.skill, wrong, retrieve, engine, passage_tokens=budget)
            if self._work.recipe.name == "completion-then-sft":
                texts = await asyncio.to_thread(self._work.parts.texts, self._work.run.team, self._work.skill.name)
        finally:
            await engine.close()
        if not rows:
            raise InvalidInput("No example makes a training row.", param="skill")
        job = Job(
            base=base.path,
            recipe=self._work.recipe.fitted(len(rows)),
            context=self._work.parts.context,
            threads=self._work.parts.threads,
            cache=str(self._work.parts.cache),
        )
        await settled(training.prepare, folder, job, rows, heldout=watched, texts=texts, pairs=pairs)

    def _corrected(self, train: Sequence[Example]) -> list[tuple[Example, Json]]:
        """The trained examples that correct an answer, with the answer that was wrong."""
        run = self._work.run
        with self._work.parts.database.connect() as connection:
            collected = store.collected(connection, run.team, run.skill)
        return corrected(collected, train, self._work.parts.redacts(run.team, self._work.skill))


def _convert(base: Path, adapter: Path) -> None:
    """Write the adapter in `adapter` for llama.cpp beside it; whole or not at all."""
    shape = read_shape(base)
    convert(read_lora(adapter, shape), shape, adapter / GGUF, dtype="f16")
