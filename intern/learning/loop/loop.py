"""One run of the learning loop, from examples to a verdict: gather, train, convert, evaluate, decide.

In: a skill and the parts of a workspace that it needs. Out: events as they come, and a `Finished` with the adapter and
what the gate decided. Knows nothing of HTTP, of queues, or of how an adapter goes live: `learner.py` does the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from intern.errors import InternError, InvalidInput
from intern.learning.adapters.shapes import read_shape
from intern.learning.examples.gather import gather
from intern.learning.judging.evaluate import Rival
from intern.learning.judging.growth import Growth, forecast, parts
from intern.learning.judging.outcomes import CANDIDATE, Interval, Ruling, Summary
from intern.learning.judging.summary import summarise
from intern.learning.loop.collecting import Collecting, Collection
from intern.learning.loop.contracts import BaseModel, Parts, Tell, Work
from intern.learning.loop.folder import RunFolder
from intern.learning.loop.judging import Judging, Verdict, judged_by
from intern.learning.loop.making import Making
from intern.learning.settled import StoreAway, settled, stored
from intern.learning.synthesis import Synthesis, Synthesized
from intern.learning.train import process as training
from intern.learning.train.job import Event
from intern.learning.train.recipe import Recipe
from intern.skill import Skill
from intern.store import learning as store
from intern.types import Adapter, Dataset, Example, Json, Model, Run


class Finished(Model):
    """The end of a training."""

    dataset: Dataset
    adapter: Adapter
    verdict: Verdict
    ruling: Ruling
    train_seconds: float
    approve: bool = False  # a person has to promote


class Loop:
    """One run."""

    def __init__(self, parts: Parts, skill: Skill, run: Run, recipe: Recipe, tell: Tell) -> None:
        self._work = Work(parts, skill, run, recipe, tell)
        self._collecting = Collecting(self._work)
        self._making = Making(self._work)
        self._judging = Judging(self._work)

    async def learn(self, *, serving: Adapter | None, force: bool = False, growth: bool = False) -> Finished:
        """The whole run. `serving` is the adapter in service, if any. `growth`: also train on parts of the examples, to
        say what more of them would bring.

        Raises NotReady, Conflict when it was begun with another base model or schema, ModelUnavailable,
        TrainingUnavailable, TrainingFailed, AdapterRefused, EngineFailure, StoreFailure.
        """
        work = self._work
        training.check_installed(("bitsandbytes",) if work.recipe.bits else ())
        base = work.base
        await asyncio.to_thread(read_shape, Path(base.path))  # an architecture without adapters is refused at once
        await settled(RunFolder(work.folder).stay_on, base.sha256, work.skill.schema)
        found = await self._collecting.collect(force=force)
        adapter, seconds = await self._making.make(base, found.dataset, found.train, found.heldout)
        verdict = await self._judging.judge(base, adapter, serving, found.train, found.heldout)
        assert verdict.ruling is not None
        if growth:
            try:
                grown = await self._grow(base, found, self._deciding(verdict.rivals[CANDIDATE]))
                verdict = verdict.model_copy(update={"growth": grown})
            except StoreAway:
                raise
            except InternError as error:  # the verdict stands without it
                text = f"what more examples would bring is not known: {error.message}"
                await self._work.tell(Event(kind="warning", stage="growth", text=text))
        return Finished(
            dataset=found.dataset,
            adapter=adapter,
            verdict=verdict,
            ruling=verdict.ruling,
            train_seconds=seconds,
            approve=self._work.skill.spec.learning.approve,
        )

    def _deciding(self, summary: Summary) -> Interval:
        """The score that the gate goes by."""
        primary = self._work.skill.spec.learning.primary
        return summary.score if primary is None else summary.metrics[primary]

    async def _grow(self, base: BaseModel, found: Collection, whole: Interval) -> Growth | None:
        """Train on parts of the examples, score them on the same held-out ones, and say what more would bring."""
        train, files = found.train, dict[int, str]()
        for part in parts(train):
            await self._work.stage("growth", f"training on {len(part)} of {len(train)} examples")
            files[len(part)] = str(await self._making.train_part(base, part))
        if not files:
            text = f"{len(train)} examples are too few to train on parts of them"
            await self._work.tell(Event(kind="note", stage="growth", text=text))
            return None
        engine = self._work.parts.open_engine({f"part-{size}": file for size, file in files.items()})
        await engine.start()
        scores = {len(train): whole}
        try:
            evaluation = self._judging.evaluation(engine, train, judged_by(found.heldout), None)
            for size in files:
                outcomes = await evaluation.answer(Rival(name=CANDIDATE, adapter=f"part-{size}"))
                scores[size] = self._deciding(summarise(outcomes))
        finally:
            await engine.close()
        growth = forecast(scores)
        await self._work.tell(
            Event(kind="growth", stage="growth", text=growth.words, numbers=growth.model_dump(mode="json"))
        )
        return growth

    async def collect(self, *, force: bool = False) -> Collection:
        """The first stage only: what would be trained on, frozen. Raises as `Collecting.collect` does."""
        return await self._collecting.collect(force=force)

    async def compare(
        self,
        *,
        serving: Adapter | None,
        examples: Sequence[Example] = (),
        outside: Mapping[str, Mapping[str, Json]] | None = None,
    ) -> Verdict:
        """No training: see `Judging.compare`."""
        return await self._judging.compare(serving=serving, examples=examples, outside=outside)

    async def synthesize(self, count: int) -> Synthesized:
        """Examples from the skill's documents, at most `count` (0: as many as they give); stores nothing.

        Raises InvalidInput for a skill without documents, EngineFailure when the teacher does not answer.
        """
        team, name = self._work.run.team, self._work.skill.name
        passages = await asyncio.to_thread(self._work.parts.passages, team, name)
        if not passages:
            raise InvalidInput(f"The skill '{name}' has no documents to write examples from.", param="skill")
        await self._work.stage("synthesize", f"reading {len(passages)} passages")
        existing = await stored(self._existing)
        teacher = self._work.parts.open_teacher()
        await teacher.start()

        async def tell(read: int, of: int, found: int) -> None:
            await self._work.tell(
                Event(kind="answers", stage="synthesize", text=f"{found} examples", step=read, steps=of)
            )

        try:
            synthesis = Synthesis(self._work.skill, teacher, self._work.parts.retriever(team), existing=existing)
            return await synthesis.write(passages, most=count, tell=tell)
        finally:
            await teacher.close()

    def _existing(self) -> list[Example]:
        with self._work.parts.database.connect() as connection:
            collected = store.collected(connection, self._work.run.team, self._work.skill.name)
        return [row.example for row in gather(self._work.skill, collected, augmented=True)]
