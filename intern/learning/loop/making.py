"""The second stage of a run: rows rendered as serving would, training in a process of its own, the adapter stored."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from pathlib import Path

from sqlalchemy.exc import IntegrityError

from intern.errors import Conflict, InvalidInput
from intern.learning.adapters.adapter import store_adapter, sweep
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
from intern.learning.train.job import Event, Job, Pair, Row, some
from intern.learning.train.recipe import check_pairs, check_texts
from intern.store import learning as store
from intern.types import Adapter, Dataset, Dropped, Example, Json, now

WATCHED = 40  # held-out examples whose loss is measured during training
_POINTS = 1000  # of one curve in a manifest
_TIMES = 5  # that a version may be taken by others while the files are written under it

Curves = Mapping[str, tuple[float, ...]]


class Making:
    """The adapter of one run, and those of parts of its examples."""

    def __init__(self, work: Work) -> None:
        self._work = work

    async def make(
        self, base: BaseModel, dataset: Dataset, train: Sequence[Example], heldout: Sequence[Example]
    ) -> tuple[Adapter, float]:
        """The stored adapter and the seconds of training; what an interrupted run had stored is taken up.

        Raises InvalidInput when no example makes a row, or too few corrections or no documents are there for a recipe
        that needs them; TrainingFailed, AdapterRefused, StoreFailure.
        """
        if self._work.run.adapter is not None:
            return await stored(self._kept), self._work.run.train_seconds or 0.0
        seconds = await self._train(base, train, heldout)
        return await self._keep(base, dataset), seconds

    async def _train(self, base: BaseModel, train: Sequence[Example], heldout: Sequence[Example]) -> float:
        """Train in a process of its own; returns its seconds, with those of processes that were killed on the way, in
        earlier servers too."""
        await self._work.stage("train", "rendering the examples as serving would")
        if not (self._work.folder / jobs.JOB).exists():
            await self._write_job(self._work.folder, base, train, heldout)
        seconds = 0.0
        clock = training.Clock(self._work.run.spent_seconds)
        async with aclosing(training.train(self._work.folder)) as events:
            async for event in events:
                clock.see(event)
                if event.kind == "done":
                    seconds = round(clock.before + float(event.numbers.get("train_seconds", 0.0)), 2)
                    event = event.model_copy(update={"numbers": {**event.numbers, "train_seconds": seconds}})
                await self._work.tell(event.model_copy(update={"stage": event.stage or "train"}))
        return seconds

    async def _keep(self, base: BaseModel, dataset: Dataset) -> Adapter:
        await self._work.stage("convert", "checking the adapter and converting it for llama.cpp")
        await settled(_convert, Path(base.path), self._work.folder / jobs.ADAPTER)
        adapter = await stored(self._store, base, dataset, now())
        numbers = {"adapter": adapter.name, "digest": adapter.digest}
        await self._work.tell(Event(kind="adapter", stage="convert", text=f"{adapter.name} is stored", numbers=numbers))
        return adapter

    def _store(self, base: BaseModel, dataset: Dataset, created: datetime) -> Adapter:
        """The adapter's files, then its row: no row without files, whatever happens in between, and files for which no
        row came are removed. What this run had stored before it was interrupted is taken up.

        The files are written while nobody waits for the database: under the version to be, and anew when another
        process took that one meanwhile. Done again (`stored`) it comes to the same, which is why `created` is given: it
        is part of what the digest is of.
        """
        work = self._work
        for _ in range(_TIMES):
            adapters, last, events = self._known()
            ours = next((a for a in adapters if (a.skill, a.run) == (work.skill.name, work.run.id) and a.digest), None)
            named = {adapter.digest for adapter in adapters}
            if ours is not None:
                sweep(work.parts.adapters_folder, runs={work.run.id: now()}, named=named)
                return ours
            version = 1 + last
            curves, stages = curves_of(events)
            adapter = Adapter(
                team=work.run.team,
                skill=work.skill.name,
                version=version,
                digest="",
                base=base.sha256,
                dataset=dataset.id,
                run=work.run.id,
                recipe=work.recipe.name,
                created=created,
            )
            job = jobs.read_job(work.folder)
            provenance = Provenance(
                team=adapter.team,
                skill=adapter.skill,
                name=adapter.name,
                base=Base(name=base.name, sha256=base.sha256, dtype="float32, dequantised"),
                dataset=dataset.digest,
                run=work.run.id,
                recipe=job.recipe.model_dump(mode="json"),
                created=created,
                stages=stages,
                curves=curves,
                instructions=job.instructions,
            )
            files = store_adapter(work.parts.adapters_folder, work.folder / jobs.ADAPTER, provenance)
            kept = adapter.model_copy(update={"digest": files.digest})
            if self._put(kept):
                sweep(work.parts.adapters_folder, runs={work.run.id: now()}, named={*named, kept.digest})
                return kept
        raise Conflict(f"Other adapters of the skill {work.skill.name} were stored again and again meanwhile.")

    def _known(self) -> tuple[list[Adapter], int, list[Event]]:
        """The team's adapters, the skill's last version, and all that this run told."""
        run = self._work.run
        with self._work.parts.database.connect() as connection:
            events = [Event.model_validate(body) for _, body in store.list_events(connection, run.team, run.id)]
            last = store.last_version(connection, run.team, run.skill)
            return store.list_adapters(connection, run.team), last, events

    def _put(self, adapter: Adapter) -> bool:
        """Keep the row of an adapter whose files are stored; False when its version is taken."""
        try:
            with self._work.parts.database.begin() as connection:
                store.put_adapter(connection, adapter)
        except IntegrityError:
            return False
        return True

    def _kept(self) -> Adapter:
        """What an interrupted run had stored."""
        version = int(str(self._work.run.adapter).rpartition("@v")[2])
        with self._work.parts.database.connect() as connection:
            return store.get_adapter(connection, self._work.run.team, self._work.skill.name, version)

    async def train_part(self, base: BaseModel, part: Sequence[Example]) -> Path:
        """The adapter of a part, converted; made once, also when the run is interrupted in between.

        Raises as `make` does."""
        folder = self._work.folder / f"part-{len(part)}"
        target = folder / jobs.ADAPTER / GGUF
        if not (folder / jobs.JOB).exists():
            try:
                await self._write_job(folder, base, part, ())
            except InvalidInput as error:
                raise InvalidInput(f"{len(part)} of the examples are too few to train on: {error.message}") from error
        if not target.exists():
            async with aclosing(training.train(folder)) as events:
                text = f"training on {len(part)}"
                async for event in events:
                    done = {"step": event.step or 0, "steps": event.steps or 0, "numbers": {}}
                    known = {} if event.kind in jobs.TURNS else {"kind": "answers", "text": text, **done}
                    await self._work.tell(event.model_copy(update={"stage": "growth", **known}))
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
                await self._work.tell(_without_row(left_out))
            watched: list[Row] = []
            for start in range(0, len(heldout), WATCHED):  # those that make no row leave their place to others
                some_more = heldout[start : start + WATCHED]
                found, _ = await make_rows(self._work.skill, some_more, retrieve, engine, passage_tokens=budget)
                watched += found[: WATCHED - len(watched)]
                if len(watched) == WATCHED:
                    break
            pairs: list[Pair] = []
            heldout_pairs: list[Pair] = []
            texts: list[str] = []
            if self._work.recipe.name == "dpo":
                held = {example.id for example in heldout}
                corrections = await stored(self._corrected, [*heldout, *train])
                wrong = [pair for pair in corrections if pair[0].id not in held]
                measured = [pair for pair in corrections if pair[0].id in held][:WATCHED]
                pairs = await make_pairs(self._work.skill, wrong, retrieve, engine, passage_tokens=budget)
                heldout_pairs = await make_pairs(self._work.skill, measured, retrieve, engine, passage_tokens=budget)
            if self._work.recipe.name == "completion-then-sft":
                read = self._work.parts.texts
                texts, refused = await asyncio.to_thread(read, self._work.run.team, self._work.skill)
                if refused:
                    text = f"{refused} documents are not read: they cannot be freed of personal data"
                    await self._work.tell(Event(kind="warning", stage="train", text=text))
        finally:
            await engine.close()
        if not rows:
            raise InvalidInput("No example makes a training row.", param="skill")
        # What the trainer would find out after its first stage: the work of that would be lost.
        if self._work.recipe.name == "dpo":
            check_pairs(len(pairs))
        if self._work.recipe.name == "completion-then-sft":
            check_texts(len(texts))
        width = (await asyncio.to_thread(read_shape, Path(base.path))).width
        job = Job(
            base=base.path,
            recipe=self._work.recipe.fitted(len(rows), width),
            context=self._work.parts.context,
            threads=self._work.parts.threads,
            cache=str(self._work.parts.cache),
            instructions=self._work.skill.spec.instructions.strip(),
        )
        await settled(
            training.prepare, folder, job, rows, heldout=watched, texts=texts, pairs=pairs, heldout_pairs=heldout_pairs
        )

    def _corrected(self, examples: Sequence[Example]) -> list[tuple[Example, Json]]:
        """The examples that correct an answer, with the answer that was wrong."""
        run = self._work.run
        with self._work.parts.database.connect() as connection:
            collected = store.collected(connection, run.team, run.skill)
        return corrected(collected, examples, self._work.parts.redacts(run.team, self._work.skill))


def _convert(base: Path, adapter: Path) -> None:
    """Write the adapter in `adapter` for llama.cpp beside it; whole or not at all."""
    shape = read_shape(base)
    convert(read_lora(adapter, shape), shape, adapter / GGUF, dtype="f16")


def _without_row(left_out: Sequence[Dropped]) -> Event:
    """Says which examples make no training row, and why; all of them in its numbers."""
    reasons: dict[str, list[str]] = {}
    for row in left_out:
        reasons.setdefault(row.detail, []).append(row.example)
    why = "; ".join(f"{detail} ({some(ids)})" for detail, ids in sorted(reasons.items()))
    numbers: dict[str, Json] = {"left_out": [row.model_dump(mode="json") for row in left_out]}
    text = f"{len(left_out)} examples make no training row: {why}"
    return Event(kind="warning", stage="train", text=text, numbers=numbers)


def curves_of(events: Sequence[Event]) -> tuple[Curves, tuple[str, ...]]:
    """The loss curves of a training as `Provenance` has them, and the names of its stages.

    `events` are all that the run told, in order, those of earlier processes included. Of a step that was done twice,
    since a process was killed after it, the last counts.
    """
    losses: dict[str, dict[tuple[str, int], float]] = {"step": {}, "heldout": {}}
    for event in events:
        if event.kind in losses and event.step is not None:
            losses[event.kind][event.stage or "", event.step] = math.nan if event.loss is None else event.loss
    stages = tuple(dict.fromkeys(event.stage or "" for event in events if event.kind in losses))
    curves: dict[str, tuple[float, ...]] = {}
    for kind, known in losses.items():
        points = []
        for place, stage in enumerate(stages):
            steps = sorted((step, loss) for (of, step), loss in known.items() if of == stage and math.isfinite(loss))
            every = -(-len(steps) // _POINTS)
            thin = [point for at, point in enumerate(steps, 1) if at in (1, len(steps)) or at % every == 0]
            points += [(place, step, loss) for step, loss in thin]
        if points:
            curves[f"{kind}_at"] = tuple(float(step) for _, step, _ in points)
            curves[f"{kind}_loss"] = tuple(round(loss, 5) for _, _, loss in points)
            curves[f"{kind}_stage"] = tuple(float(place) for place, _, _ in points)
    return curves, stages
