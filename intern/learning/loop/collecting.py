"""The first stage of a run: a skill's examples, gathered, cleaned, split and frozen into a dataset."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.engine import Connection

from intern.errors import Conflict, InvalidInput
from intern.learning.examples.dataset import build
from intern.learning.examples.gather import gather
from intern.learning.examples.items import Built
from intern.learning.examples.readiness import Readiness, readiness
from intern.learning.loop.contracts import Parts, Work
from intern.learning.loop.folder import RunFolder
from intern.learning.settled import stored
from intern.learning.train.job import Event
from intern.skill import Skill
from intern.store import learning as store
from intern.types import Dataset, Example, Model, Run, RunKind, Variant, new_id, now

_LOOKED_UP = 1_000  # examples at a time
COMMANDS: Mapping[RunKind, str] = {  # that begin a run of the kind
    "learn": "intern learn",
    "evaluate": "intern eval",
    "synthesize": "intern examples write",
}


class NotReady(InvalidInput):
    """The dataset is not worth training on; `readiness` says what is missing."""

    def __init__(self, found: Readiness) -> None:
        super().__init__(" ".join(found.missing))
        self.readiness = found


class Collection(Model):
    """A frozen dataset with its examples."""

    dataset: Dataset
    train: tuple[Example, ...]
    heldout: tuple[Example, ...]


def gathered(parts: Parts, team: str, skill: Skill, variant: Variant) -> tuple[Built, Readiness]:
    """The dataset as it would be now, and what it lacks; stores none of it, blocks for seconds."""
    with parts.database.begin() as connection:
        secret = store.split_secret(connection, team, skill.name)
        collected = store.collected(connection, team, skill.name)
        frozen = store.heldout_keys(connection, team, skill.name)
        trained = store.trained_keys(connection, team, skill.name)
    built = build(
        skill.name,
        gather(skill, collected, augmented=variant == "augmented"),
        schema=skill.schema,
        redact=parts.redacts(team, skill),
        secret=secret,
        frozen=frozen,
        trained=trained,
        contributor_cap=parts.contributor_cap,
    )
    return built, readiness(built, skill.schema, min_examples=skill.spec.learning.min_examples)


def check_frozen(connection: Connection, run: Run) -> None:
    """Raises Conflict when examples of a run's dataset were deleted from the skill since. A later review of the same
    record deletes none. Of those of its folder, the store knows nothing."""
    if run.dataset is None:
        return
    frozen = {
        example.id: example.record
        for split in ("train", "heldout")
        for example in store.dataset_examples(connection, run.team, run.dataset, split)
        if example.provenance != "folder"
    }
    ids, records = list(frozen), sorted({record for record in frozen.values() if record})
    there: set[str] = set()
    for start in range(0, len(ids), _LOOKED_UP):
        there |= store.still_there(connection, run.team, run.skill, ids[start : start + _LOOKED_UP])
    judged: set[str] = set()
    for start in range(0, len(records), _LOOKED_UP):
        judged |= store.judged_still(connection, run.team, run.skill, records[start : start + _LOOKED_UP])
    if deleted := sum(example not in there and record not in judged for example, record in frozen.items()):
        raise Conflict(f"It began with examples that were deleted since ({deleted}). {anew(run)}")


def anew(run: Run) -> str:
    """What to do where a run cannot go on."""
    return f"Begin anew: {COMMANDS[run.kind]} {run.skill}."


class Collecting:
    """The examples of one run."""

    def __init__(self, work: Work) -> None:
        self._work = work

    async def collect(self, *, force: bool = False) -> Collection:
        """Gather, clean, split and freeze; what an interrupted run had frozen is taken up.

        Raises NotReady; with `force` only InvalidInput, when there is nothing to train on or to judge by; Conflict when
        examples of what is taken up were deleted since, and then the run can go on no more.
        """
        work = self._work
        if work.run.dataset:
            return await stored(self._taken_up, work.run.dataset)
        await work.stage("gather", "collecting the examples")
        built, ready = await stored(gathered, work.parts, work.run.team, work.skill, work.run.variant)
        for note in ready.notes:
            await self._work.tell(Event(kind="note", stage="gather", text=note))
        if not ready.ready and not force:
            raise NotReady(ready)
        if not built.train or not built.heldout:
            raise InvalidInput("There must be examples to train on and held-out ones to judge by.", param="skill")
        dataset = await stored(self._freeze, built)
        text = f"{dataset.train} examples to train on, {dataset.heldout} held out, {len(dataset.dropped)} left out"
        numbers = {"dataset": dataset.id, "dropped": dict(ready.dropped)}
        await self._work.tell(Event(kind="dataset", stage="gather", text=text, numbers=numbers))
        train, heldout = (tuple(row.example for row in rows) for rows in (built.train, built.heldout))
        return Collection(dataset=dataset, train=train, heldout=heldout)

    def _taken_up(self, dataset: str) -> Collection:
        team = self._work.run.team
        with self._work.parts.database.connect() as connection:
            try:
                check_frozen(connection, self._work.run)
            except Conflict:  # nor do deleted examples come back
                RunFolder(self._work.folder).give_up()
                raise
            train, heldout = (tuple(store.dataset_examples(connection, team, dataset, s)) for s in ("train", "heldout"))
            return Collection(dataset=store.get_dataset(connection, team, dataset), train=train, heldout=heldout)

    def _freeze(self, built: Built) -> Dataset:
        dataset = Dataset(
            id=new_id("ds"),
            team=self._work.run.team,
            skill=self._work.skill.name,
            digest=built.digest,
            variant=self._work.run.variant,
            created=now(),
            train=len(built.train),
            heldout=len(built.heldout),
            dropped=built.dropped,
        )
        items = [
            store.Item(example=row.example, key=row.key, split=split, person=row.person, origin=row.origin)
            for split, rows in (("train", built.train), ("heldout", built.heldout))
            for row in rows
        ]
        with self._work.parts.database.begin() as connection:
            store.hold_out(connection, dataset.team, dataset.skill, (row.key for row in built.heldout))
            return store.add_dataset(connection, dataset, items)
