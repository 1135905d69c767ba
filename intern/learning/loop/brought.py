"""What somebody brings to an evaluation, examples and other systems' answers, beside what the skill has already.

In: examples that were given, training examples, an adapter. Out: who may be shown what, and whose score
says little. Decides nothing: it tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from intern.errors import InvalidInput
from intern.learning.examples.dataset import copies_of
from intern.learning.examples.items import Kept, key_of
from intern.learning.loop.contracts import Work
from intern.learning.settled import stored
from intern.learning.train.job import Event
from intern.store import learning as store
from intern.types import Adapter, Example, Json


async def unlike(work: Work, train: Sequence[Kept], given: Sequence[Example]) -> list[Example]:
    """The training examples that prompts may show: those that give none of the `given` ones away."""
    keys = {key_of(example) for example in given}
    others = [row.example for row in train if row.key not in keys]
    copies = await asyncio.to_thread(copies_of, others, given)
    shown = [example for place, example in enumerate(others) if place not in copies]
    if left_out := len(train) - len(shown):
        text = f"{left_out} training examples are in nobody's prompt: they are the same as those asked, or near to them"
        await work.tell(Event(kind="note", stage="evaluate", text=text))
    return shown


async def trained_on(work: Work, given: Sequence[Example], adapter: Adapter) -> int:
    """How many of the `given` examples, or near copies of them, were trained on for an adapter; warns where there are
    any. An input counts that any training of the skill has seen, since adapters come one after the other. Of
    an adapter that came with the workspace the database has no dataset: it was trained on the skill's folder."""
    keys, trained = await stored(_trained, work, adapter)
    near = await asyncio.to_thread(copies_of, given, trained)
    seen = sum(place in near or key_of(example) in keys for place, example in enumerate(given))
    if seen:
        came = "" if adapter.dataset else ", which came with the workspace and was trained on the skill's folder,"
        text = (
            f"{seen} of the {len(given)} examples, or near copies of them, were trained on: {adapter.name}{came} may "
            "know their answers by heart, and its score says little about requests that are new to it"
        )
        await work.tell(Event(kind="warning", stage="evaluate", text=text))
    return seen


def by_example(
    system: str, answers: Mapping[str, Json], heldout: Sequence[Example], keys: Mapping[str, str]
) -> dict[str, Json]:
    """Another system's answers by example id, from those by the key of the input; `keys` has that of each example.

    Raises InvalidInput where it answered none of the held-out examples.
    """
    found = {example.id: answers[keys[example.id]] for example in heldout if keys[example.id] in answers}
    if not found:
        raise InvalidInput(
            f"'{system}' answered none of the skill's held-out inputs. Give its answers to those, or examples to "
            "compare on.",
            param="outside",
        )
    return found


def _trained(work: Work, adapter: Adapter) -> tuple[set[str], list[Example]]:
    """(keys of all inputs that trainings of the skill have seen, examples that this adapter was trained on)."""
    team = work.run.team
    with work.parts.database.connect() as connection:
        keys = store.trained_keys(connection, team, work.skill.name)
        if adapter.dataset:
            return keys, store.dataset_examples(connection, team, adapter.dataset, "train")
    folder = [example for example in work.skill.examples if example.split != "heldout"]
    return keys | {key_of(example) for example in folder}, folder
