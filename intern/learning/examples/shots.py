"""Examples in the prompt (few-shot): which ones are shown with a request, and as which turns.

In: a skill, examples, a way to embed texts, an engine (for its tokenizer). Out: worked examples as turns of the
conversation, the nearest one last. An evaluation's rivals and requests in service show the same ones. In service they
come from the skill's newest dataset: frozen, and freed of recognised personal data. What the skill has no longer is not
shown: what was deleted by hand or with somebody's data, whose review was taken back, what was changed in the skill's
folder since, and what does not keep the schema of today. So nothing is left of a deleted skill when another one
gets its name.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

import numpy as np
from sqlalchemy.engine import Engine as Database

from intern import prompt as prompts
from intern.engines.base import Engine
from intern.learning.examples.items import canonical, key_of, origin_of
from intern.learning.examples.readiness import enumerated
from intern.learning.examples.rows import conversation_of, written
from intern.models.embedder import Vectors
from intern.skill import Skill
from intern.store import learning as store
from intern.types import Example, Message

FIXED = 17
NEAREST = 5
MOST = 5_000  # examples that are looked through for a request in service
LOOKED_UP = 50  # of which it is asked at a time whether they are still there

Mode = Literal["none", "fixed", "nearest"]
Turns = tuple[Message, ...]
Embeds = Callable[[Sequence[str]], Vectors]
There = Callable[[Sequence[Example]], Awaitable[set[str]]]


class Shots:
    """The examples of one skill that may be shown. Their texts are embedded at the first use, all at once, and for all
    who wait: whoever leaves meanwhile stops nothing."""

    def __init__(self, skill: Skill, examples: Sequence[Example], embed: Embeds) -> None:
        self._skill = skill
        self._examples = examples
        self._embed = embed
        self._embedding: asyncio.Task[Vectors] | None = None
        self._vectors: Vectors | None = None
        self._varied: list[Example] | None = None
        self._tokens: dict[str, int] = {}  # of examples that were measured

    async def shown(
        self, mode: Mode, request: str | Vectors, engine: Engine, *, room: int, there: There | None = None
    ) -> list[Turns]:
        """Those to show with a request, given as its text or as its vector: as many as fit into `room` tokens. `there`
        says which may still be shown."""
        if mode == "none" or not self._examples:
            return []
        if mode == "nearest":
            nearest = await _first(await self._nearest(request), NEAREST, there)
            return (await self._fitting(nearest, engine, room))[::-1]
        if self._varied is None:
            self._varied = varied(self._skill, self._examples)
        return await self._fitting(await _first(self._varied, FIXED, there), engine, room)

    async def _nearest(self, request: str | Vectors) -> list[Example]:
        if (vectors := self._vectors) is None:
            if self._embedding is None or self._embedding.done():
                self._embedding = asyncio.create_task(self._embedded())
            vectors = await asyncio.shield(self._embedding)
        vector = (await asyncio.to_thread(self._embed, [request]))[0] if isinstance(request, str) else request
        return [self._examples[place] for place in np.argsort(-(vectors @ vector), kind="stable")]

    async def _embedded(self) -> Vectors:
        self._vectors = await asyncio.to_thread(self._embed, [example.text for example in self._examples])
        return self._vectors

    async def _fitting(self, examples: Sequence[Example], engine: Engine, room: int) -> list[Turns]:
        """In their order; one that is too long for what is left makes way for the next."""
        fitting: list[Turns] = []
        for example in examples:
            turns = as_turns(self._skill, example)
            if example.id not in self._tokens:
                self._tokens[example.id] = await prompts.measure(engine, turns, 0)
            if self._tokens[example.id] <= room:
                room -= self._tokens[example.id]
                fitting.append(turns)
        return fitting


async def _first(order: Sequence[Example], most: int, there: There | None) -> list[Example]:
    """The first `most` of those that may be shown."""
    if there is None:
        return list(order[:most])
    found: list[Example] = []
    for start in range(0, len(order), LOOKED_UP):
        some = order[start : start + LOOKED_UP]
        known = await there(some)
        found += [example for example in some if example.id in known]
        if len(found) >= most:
            break
    return found[:most]


class ServedShots:
    """What requests in service are shown, where a skill asks for it. Follows the skill's newest dataset."""

    def __init__(self, database: Database, embed: Embeds, engine: Engine) -> None:
        self._database = database
        self._embed = embed
        self._engine = engine
        self._known: dict[tuple[str, str], _Served] = {}

    async def shown(self, team: str, skill: Skill, request: str | Vectors, *, room: int) -> list[Turns]:
        """Worked examples for a request, as many as fit into `room` tokens; none before the skill has a dataset. Raises
        StoreFailure."""
        mode = skill.spec.prompting.examples
        if mode == "none":
            return []
        dataset = await asyncio.to_thread(self._newest, team, skill.name)
        if dataset is None:
            self._known.pop((team, skill.name), None)
            return []
        key = (*dataset, skill.digest)
        known = self._known.get((team, skill.name))
        if known is None or known.key != key:
            items = await asyncio.to_thread(self._items, team, dataset[0], skill)
            known = self._known.get((team, skill.name))  # another request may have been faster
            if known is None or known.key != key:
                known = self._known[team, skill.name] = _Served(key, skill, items, self._embed)
        in_folder = await known.in_folder(skill)

        async def there(examples: Sequence[Example]) -> set[str]:
            collected = [example.id for example in examples if example.provenance != "folder"]
            found = await asyncio.to_thread(self._still_there, team, skill.name, collected) if collected else set()
            return found | {example.id for example in examples if example.provenance == "folder"} & in_folder

        return await known.shots.shown(mode, request, self._engine, room=room, there=there)

    def _newest(self, team: str, skill: str) -> tuple[str, int] | None:
        with self._database.connect() as connection:
            return store.newest_dataset(connection, team, skill)

    def _items(self, team: str, dataset: str, skill: Skill) -> list[store.Item]:
        with self._database.connect() as connection:
            items = store.dataset_items(connection, team, dataset, "train", limit=MOST)
        return [item for item in items if _fits(skill, item.example)]

    def _still_there(self, team: str, skill: str, examples: Sequence[str]) -> set[str]:
        with self._database.connect() as connection:
            return store.still_there(connection, team, skill, examples)


class _Served:
    """What of one dataset may be shown, for one state (`key`) of dataset and skill."""

    def __init__(self, key: tuple[str, int, str], skill: Skill, items: Sequence[store.Item], embed: Embeds) -> None:
        self.key = key
        self.shots = Shots(skill, [item.example for item in items], embed)
        self._from_folder = [item for item in items if item.example.provenance == "folder"]
        self._looked_at: tuple[Sequence[Example], frozenset[str]] = ((), frozenset())

    async def in_folder(self, skill: Skill) -> frozenset[str]:
        """The ids of those that stand in the skill's folder as they did when the dataset was made."""
        examples, found = self._looked_at
        if examples is not skill.examples:  # the folder was read anew
            found = await asyncio.to_thread(self._unchanged, skill.examples)
            self._looked_at = skill.examples, found
        return found

    def _unchanged(self, examples: Sequence[Example]) -> frozenset[str]:
        by_id = {example.id: example for example in examples}
        return frozenset(
            item.example.id
            for item in self._from_folder
            if (now := by_id.get(item.example.id)) is not None and _made_from(item, now)
        )


def _made_from(item: store.Item, example: Example) -> bool:
    if item.origin is None:  # a dataset from before origins were kept: its output may have lost personal data
        return item.key == key_of(example) and canonical(item.example.output) == canonical(example.output)
    return item.origin == origin_of(example)


def _fits(skill: Skill, example: Example) -> bool:
    """Whether the output keeps the schema of today."""
    return isinstance(example.output, str) if skill.schema is None else not skill.schema.problems(example.output)


def as_turns(skill: Skill, example: Example) -> Turns:
    """An example as turns: what was asked, and the right answer as the model writes it."""
    asked = (turn for turn in conversation_of(example) if turn.role != "system")
    return (*asked, Message(role="assistant", content=written(skill, example.output)))


def varied(skill: Skill, examples: Sequence[Example]) -> list[Example]:
    """Examples in a fixed order in which the values of the first enumerated field take turns."""
    field = next(iter(enumerated(skill.schema)), None)
    by_value: dict[str, list[Example]] = {}
    for example in sorted(examples, key=lambda e: hashlib.sha256(e.id.encode("utf-8", "replace")).digest()):
        value = example.output
        for name in field or ():
            value = value.get(name) if isinstance(value, dict) else None
        by_value.setdefault(canonical(value) if field else "", []).append(example)
    queues = [by_value[value] for value in sorted(by_value)]
    return [queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue)]
