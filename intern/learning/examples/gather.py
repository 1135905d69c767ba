"""Everything that a skill's next adapter can learn from, with where it came from.

In: a skill (its folder's examples), what the store collected. Out: `Gathered` examples for `dataset.build`, and pairs
of a right and a corrected answer for preferences.
"""

from __future__ import annotations

from collections.abc import Sequence

from intern.learning.examples.items import Gathered, Redacts
from intern.skill import Skill
from intern.store.learning import Collected
from intern.types import Example, Json


def gather(skill: Skill, collected: Sequence[Collected], *, augmented: bool = False) -> list[Gathered]:
    """The folder's examples first, then what was collected, oldest first. `augmented`: with synthetic ones too."""
    folder = [Gathered(example=example, person=example.person) for example in skill.examples]
    outside = [
        Gathered(example=row.example, person=row.person)
        for row in collected
        if augmented or row.example.provenance != "synthesis"
    ]
    return [*folder, *outside]


def corrected(collected: Sequence[Collected], kept: Sequence[Example], redact: Redacts) -> list[tuple[Example, Json]]:
    """(example as the dataset holds it, the answer that was wrong), for those of `kept` that came from a correction.

    The wrong answer is freed of personal data beside its own input, so that both have the same placeholders; where that
    cannot be done, there is no pair.
    """
    wrong = {row.example.id: row for row in collected if row.wrong is not None}
    pairs = []
    for example in kept:
        if (row := wrong.get(example.id)) is None:
            continue
        freed, problem = redact(row.example.model_copy(update={"output": row.wrong}))
        if problem is None and freed.input == example.input:
            pairs.append((example, freed.output))
    return pairs
