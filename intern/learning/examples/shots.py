"""Examples in the prompt (few-shot): which ones are shown with a request, and as which turns.

In: a skill, examples, a way to embed texts, an engine (for its tokenizer). Out: worked examples as turns of the
conversation, the nearest one last. An evaluation's rivals and requests in service show the same ones. In service they
come from the skill's newest dataset: frozen, free of personal data, and gone from it when somebody's data is deleted.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from sqlalchemy.engine import Engine as Database

from intern import prompt as prompts
from intern.engines.base import Engine
from intern.learning.examples.dataset import canonical, enumerated
from intern.learning.examples.rows import conversation_of, written
from intern.models.embedder import Vectors
from intern.skill import Skill
from intern.store import learning as store
from intern.types import Dataset, Example, Message

FIXED = 17
NEAREST = 5
TOKENS = 1500  # of all examples in a prompt together: reading them takes a small model on a CPU seconds
MOST = 5_000  # examples that are looked through for a request in service

Mode = Literal["none", "fixed", "nearest"]
Turns = tuple[Message, ...]
Embeds = Callable[[Sequence[str]], Vectors]


class Shots:
    """The examples of one skill that may be shown. Their texts are embedded at the first use, all at once."""

    def __init__(self, skill: Skill, examples: Sequence[Example], embed: Embeds) -> None:
        self._skill = skill
        self._examples = examples
        self._embed = embed
        self._fixed: list[Turns] | None = None
        self._vectors: Vectors | None = None
        self._once = asyncio.Lock()

    async def shown(self, mode: Mode, request: str | Vectors, engine: Engine) -> list[Turns]:
        """Those to show with a request, given as its text or as its vector."""
        if mode == "none" or not self._examples:
            return []
        async with self._once:
            if mode == "fixed":
                if self._fixed is None:
                    self._fixed = await self._fitting(varied(self._skill, self._examples)[:FIXED], engine)
                return self._fixed
            if self._vectors is None:
                self._vectors = await asyncio.to_thread(self._embed, [e.text for e in self._examples])
        vector = (await asyncio.to_thread(self._embed, [request]))[0] if isinstance(request, str) else request
        nearest = np.argsort(-(self._vectors @ vector), kind="stable")[:NEAREST]
        return (await self._fitting([self._examples[place] for place in nearest], engine))[::-1]

    async def _fitting(self, examples: Sequence[Example], engine: Engine) -> list[Turns]:
        fitting: list[Turns] = []
        used = 0
        for example in examples:
            turns = as_turns(self._skill, example)
            used += await prompts.measure(engine, turns, 0)
            if used > TOKENS:
                break
            fitting.append(turns)
        return fitting


class ServedShots:
    """What requests in service are shown, where a skill asks for it. Follows the skill's newest dataset."""

    def __init__(self, database: Database, embed: Embeds, engine: Engine) -> None:
        self._database = database
        self._embed = embed
        self._engine = engine
        self._known: dict[tuple[str, str], tuple[tuple[str, int, str], Shots]] = {}

    async def shown(self, team: str, skill: Skill, request: str | Vectors) -> list[Turns]:
        """Worked examples for a request; none before the skill has a dataset. Raises StoreFailure."""
        mode = skill.spec.prompting.examples
        dataset = await asyncio.to_thread(self._newest, team, skill.name)
        if mode == "none" or dataset is None:
            return []
        key = (dataset.id, dataset.erased, skill.digest)
        known = self._known.get((team, skill.name))
        if known is None or known[0] != key:
            examples = await asyncio.to_thread(self._examples, dataset)
            known = self._known[team, skill.name] = (key, Shots(skill, examples, self._embed))
        return await known[1].shown(mode, request, self._engine)

    def _newest(self, team: str, skill: str) -> Dataset | None:
        with self._database.connect() as connection:
            return next(iter(store.list_datasets(connection, team, skill=skill, limit=1)), None)

    def _examples(self, dataset: Dataset) -> list[Example]:
        with self._database.connect() as connection:
            return store.dataset_examples(connection, dataset.team, dataset.id, "train")[:MOST]


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
