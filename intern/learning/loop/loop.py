"""One run of the learning loop, from examples to a verdict: gather, train, convert, evaluate, decide.

In: a skill and the parts of a workspace that it needs. Out: events as they come, and a `Finished` with the adapter and
what the gate decided. Knows nothing of HTTP, of queues, or of how an adapter goes live: `learner.py` does the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from intern.errors import InvalidInput
from intern.learning.adapters.shapes import read_shape
from intern.learning.examples.gather import gather
from intern.learning.judging.growth import Growth
from intern.learning.judging.outcomes import Ruling
from intern.learning.loop.collecting import Collecting, Collection
from intern.learning.loop.contracts import Parts, Tell, Work
from intern.learning.loop.folder import RunFolder
from intern.learning.loop.growing import Growing
from intern.learning.loop.judging import Judging, Verdict
from intern.learning.loop.making import Making
from intern.learning.settled import settled, stored
from intern.learning.synthesis import Synthesis, Synthesized
from intern.learning.train import process as training
from intern.learning.train.job import Event
from intern.learning.train.recipe import Recipe
from intern.skill import Skill
from intern.store import learning as store
from intern.types import Adapter, Dataset, Example, Json, Model, Run

WRITTEN = "written.jsonl"  # what a synthesis read, in the run's folder


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
        self._found: Collection | None = None

    async def learn(self, *, serving: Adapter | None, force: bool = False) -> Finished:
        """From the examples to a verdict. `serving` is the adapter in service, if any.

        Raises NotReady, Conflict when it was begun with another base model or schema, ModelUnavailable,
        TrainingUnavailable, TrainingFailed, AdapterRefused, EngineFailure, StoreFailure.
        """
        work = self._work
        training.check_installed(("bitsandbytes",) if work.recipe.bits else ())
        base = work.base
        await asyncio.to_thread(read_shape, Path(base.path))  # an architecture without adapters is refused at once
        await settled(RunFolder(work.folder).stay_on, base.sha256, work.skill.schema)
        found = self._found = await self._collecting.collect(force=force)
        adapter, seconds = await self._making.make(base, found.dataset, found.train, found.heldout)
        verdict = await self._judging.judge(base, adapter, serving, found.train, found.heldout)
        assert verdict.ruling is not None
        return Finished(
            dataset=found.dataset,
            adapter=adapter,
            verdict=verdict,
            ruling=verdict.ruling,
            train_seconds=seconds,
            approve=self._work.skill.spec.learning.approve,
        )

    async def grow(self, verdict: Verdict, *, parts: bool) -> Growth | None:
        """What more examples would bring, for a run whose verdict is kept; None where that cannot be known.

        `parts`: train on parts of the examples, which takes once or twice as long again. Otherwise, and where there are
        too few examples for that, earlier versions tell, if enough of them answered the same held-out examples.
        Raises as `learn` does.
        """
        growing = Growing(self._work, self._making, self._judging)
        if parts:
            folder = RunFolder(self._work.folder)
            await asyncio.to_thread(folder.check, self._work.base.sha256, self._work.skill.schema)
            found = self._found or await self._collecting.collect(force=True)
            if (grown := await growing.over_parts(self._work.base, found, verdict)) is not None:
                return grown
        return await growing.over_versions()

    async def collect(self, *, force: bool = False) -> Collection:
        """The first stage only: what would be trained on, frozen. Raises as `Collecting.collect` does."""
        return await self._collecting.collect(force=force)

    async def compare(
        self,
        *,
        serving: Adapter | None,
        other: Adapter | None = None,
        examples: Sequence[Example] = (),
        outside: Mapping[str, Mapping[str, Json]] | None = None,
    ) -> Verdict:
        """No training: see `Judging.compare`."""
        return await self._judging.compare(serving=serving, other=other, examples=examples, outside=outside)

    async def synthesize(self, count: int) -> Synthesized:
        """Examples from the skill's documents, at most `count` (0: as many as they give); what an interrupted run had
        read is taken up. Adds nothing to the skill.

        Raises InvalidInput for a skill without documents, the teacher's error when it does not answer, StoreFailure.
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
            retrieve, file = self._work.parts.retriever(team), self._work.folder / WRITTEN
            synthesis = Synthesis(self._work.skill, teacher, retrieve, existing=existing, file=file)
            return await synthesis.write(passages, most=count, tell=tell)
        finally:
            await teacher.close()

    def _existing(self) -> list[Example]:
        with self._work.parts.database.connect() as connection:
            collected = store.collected(connection, self._work.run.team, self._work.skill.name)
        return [row.example for row in gather(self._work.skill, collected, augmented=True)]
