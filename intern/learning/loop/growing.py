"""The last stage of a run, when its verdict is kept: what would more examples bring?

In: the run's examples and verdict, or what earlier versions of the skill answered. Out: a `Growth`, told and returned.
Decides nothing. `judging/growth.py` says what it is made of.
"""

from __future__ import annotations

import asyncio

from intern.errors import NotFound
from intern.learning.judging.evaluate import Rival
from intern.learning.judging.growth import Growth, common, forecast, parts
from intern.learning.judging.outcomes import CANDIDATE, Interval, Outcome, Summary
from intern.learning.judging.summary import summarise
from intern.learning.loop.collecting import Collection
from intern.learning.loop.contracts import BaseModel, Work
from intern.learning.loop.judging import Judging, Verdict, judged_by
from intern.learning.loop.making import Making
from intern.learning.settled import stored
from intern.learning.train import job as jobs
from intern.learning.train.job import Event
from intern.learning.train.recipe import Recipe
from intern.store import learning as store
from intern.types import Run

GROWTH = "growth"  # the stage: a run that is in it has its verdict


class Growing:
    """The forecast of one run."""

    def __init__(self, work: Work, making: Making, judging: Judging) -> None:
        self._work = work
        self._making = making
        self._judging = judging

    async def over_parts(self, base: BaseModel, found: Collection, verdict: Verdict) -> Growth | None:
        """Train on parts of the examples and score them on the held-out ones. None where there are too few."""
        train, files = found.train, dict[int, str]()
        for part in parts(train):
            await self._work.stage(GROWTH, f"training on {len(part)} of {len(train)} examples")
            files[len(part)] = str(await self._making.train_part(base, part))
        if not files:
            text = f"{len(train)} examples are too few to train on parts of them"
            await self._work.tell(Event(kind="note", stage=GROWTH, text=text))
            return None
        engine = self._work.parts.open_engine({f"part-{size}": file for size, file in files.items()})
        await engine.start()
        scores = {len(train): self._deciding(verdict.rivals[CANDIDATE])}
        try:
            evaluation = self._judging.evaluation(engine, train, judged_by(found.heldout), None)
            for size in files:
                outcomes = await evaluation.answer(Rival(name=CANDIDATE, adapter=f"part-{size}"))
                scores[size] = self._deciding(summarise(outcomes))
        finally:
            await engine.close()
        return await self._told(forecast(scores))

    async def over_versions(self) -> Growth | None:
        """From what this version and earlier ones answered. None where too few of them did to the same examples."""
        outcomes = common(await stored(self._outcomes))
        if not outcomes:
            return None
        scores = {size: self._deciding(summarise(rows)) for size, rows in outcomes.items()}
        return await self._told(await asyncio.to_thread(forecast, scores, of="versions"))

    async def _told(self, growth: Growth) -> Growth:
        numbers = growth.model_dump(mode="json")
        await self._work.tell(Event(kind="growth", stage=GROWTH, text=growth.words, numbers=numbers))
        return growth

    def _deciding(self, summary: Summary) -> Interval:
        """The score that the gate goes by."""
        primary = self._work.skill.spec.learning.primary
        return summary.score if primary is None else summary.metrics[primary]

    def _outcomes(self) -> dict[int, list[Outcome]]:
        """What this version and the earlier ones answered, by size of their training set, the newest first; only of the
        same base, recipe and variant. Blocking."""
        work, found = self._work, dict[int, list[Outcome]]()
        with work.parts.database.connect() as connection:
            for adapter in store.list_adapters(connection, work.run.team, skill=work.skill.name):
                own = adapter.run == work.run.id
                if adapter.run is None or adapter.dataset is None or adapter.base != work.base.sha256:
                    continue
                if not own and not (found and adapter.decision):  # later than this one, or never judged
                    continue
                try:
                    run = store.get_run(connection, work.run.team, adapter.run)
                    size = store.get_dataset(connection, work.run.team, adapter.dataset).train
                except NotFound:
                    continue
                if size in found or not _alike(run, work.run):
                    continue
                file = work.parts.runs_folder / run.id / f"outcomes-{CANDIDATE}.jsonl"
                if outcomes := list(jobs.read_lines(file, Outcome)):
                    found[size] = outcomes
        return found


def _alike(run: Run, other: Run) -> bool:
    """Whether two runs differ in their examples alone."""
    numbers = [{name: each.recipe.get(name) for name in Recipe.model_fields} for each in (run, other)]
    return numbers[0] == numbers[1] and run.variant == other.variant
