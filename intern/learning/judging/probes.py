"""What is measured beside the score, where a skill declares it: attributes, identity, consistency.

In: a skill, outcomes by rival, a way to ask further questions. Out: a `Probed` for the candidate and for what would be
served without it. Attributes are counted over answers that are there already; questions about itself and repeated
answers are generated. What comes out names only what skill.yaml and the schema declare, and quotes no answer: it stays
when examples are erased. Decides nothing; `guards.py` judges identity.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import comb

from intern.learning.judging import repetition
from intern.learning.judging.attributes import Distribution, Identity, distribution, identity
from intern.learning.judging.evaluate import Evaluation, Rival, parsed
from intern.learning.judging.metrics import exact_match
from intern.learning.judging.outcomes import CANDIDATE, Interval, Outcome, incumbent
from intern.learning.judging.statistics import clustered_mean, wilson
from intern.skill import Skill
from intern.types import Example, Json, Metric, Model

MOST_REPEATED = 20  # held-out examples that are answered several times

Asks = Callable[[Sequence[Example]], Evaluation]
Tell = Callable[[str, int, int], Awaitable[None]]  # what is asked, how many answers are there, of how many


class Consistency(Model):
    """How much sampled answers to one request agree, 0 to 1: by field as the skill compares them, pair by pair.

    `same` is the share of requests whose answers are all the same. A broken answer agrees with none.
    """

    agreement: Interval
    same: Interval
    repeats: int
    temperature: float


class Probed(Model):
    """One rival beside its score; what the skill does not declare is left out."""

    attributes: tuple[Distribution, ...] = ()
    identity: Identity | None = None
    consistency: Consistency | None = None


async def probe(
    skill: Skill,
    rivals: Sequence[Rival],
    outcomes: Mapping[str, Sequence[Outcome]],
    heldout: Sequence[Example],
    ask: Asks,
    tell: Tell,
) -> dict[str, Probed]:
    """What the skill declares, for the candidate and its reference, by rival's name; empty where it declares nothing.

    `ask` makes an evaluation of other examples. Raises the engine's errors.
    """
    declared = skill.spec.evaluation
    if not (declared.attributes or declared.identity or declared.repeats):
        return {}
    found = {}
    for rival in _judged(rivals, outcomes, skill.spec.prompting.examples):
        found[rival.name] = Probed(
            attributes=await asyncio.to_thread(_attributes, skill, outcomes[rival.name]),
            identity=await _identity(skill, rival, ask, tell) if declared.identity else None,
            consistency=await _repeated(skill, rival, heldout[:MOST_REPEATED], ask, tell) if declared.repeats else None,
        )
    return found


def _judged(rivals: Sequence[Rival], outcomes: Mapping[str, Sequence[Outcome]], examples: str) -> list[Rival]:
    """The candidate and what would be served without it; without a candidate, what serves and the base model."""
    there = {rival.name: rival for rival in rivals if outcomes.get(rival.name)}
    serves = incumbent(there, examples)
    names = [CANDIDATE, serves] if CANDIDATE in there else [serves, "base"]
    return [there[name] for name in dict.fromkeys(names) if name in there]


def _attributes(skill: Skill, outcomes: Sequence[Outcome]) -> tuple[Distribution, ...]:
    expected = [outcome.expected for outcome in outcomes]
    # What breaks the schema has no values: it could be any text.
    given = [outcome.output if outcome.valid else None for outcome in outcomes]
    groups = [outcome.group for outcome in outcomes]
    return tuple(
        distribution(attribute, given, expected, groups=groups)
        if attribute.reference == "heldout"
        else distribution(attribute, given, attribute.reference)
        for attribute in skill.spec.evaluation.attributes
    )


async def _identity(skill: Skill, rival: Rival, ask: Asks, tell: Tell) -> Identity:
    questions = skill.spec.evaluation.identity
    asked = [
        Example(id=f"identity-{place}", input=question.question, output=None)
        for place, question in enumerate(questions)
    ]

    async def count(done: int) -> None:
        await tell(f"{rival.name}: about itself", done, len(asked))

    replies = await ask(asked).replies(rival, tell=count)
    return identity(questions, [parsed(skill, reply.generated.text)[0] for reply in replies])


async def _repeated(skill: Skill, rival: Rival, examples: Sequence[Example], ask: Asks, tell: Tell) -> Consistency:
    declared = skill.spec.evaluation
    evaluation = ask(examples)
    samples: list[list[tuple[Json, bool]]] = [[] for _ in examples]
    for seed in range(1, declared.repeats + 1):

        async def count(done: int, before: int = (seed - 1) * len(examples)) -> None:
            await tell(f"{rival.name}: again", before + done, declared.repeats * len(examples))

        replies = await evaluation.replies(rival, temperature=declared.temperature, seed=seed, tell=count)
        for answers, reply in zip(samples, replies, strict=True):
            answers.append(parsed(skill, reply.generated.text))
    groups = [example.group or example.id for example in examples]
    return consistency(samples, groups, skill.metrics, temperature=declared.temperature)


def consistency(
    samples: Sequence[Sequence[tuple[Json, bool]]],
    groups: Sequence[str],
    metrics: Mapping[str, Metric],
    *,
    temperature: float,
) -> Consistency:
    """`samples` are, for each request, its answers as (output, whether it keeps the schema), at least two of them."""
    agreements, same = [], 0
    for answers in samples:
        kept = [output for output, valid in answers if valid]
        share = comb(len(kept), 2) / comb(len(answers), 2)  # of the pairs
        agreements.append(share * (repetition.consistency(kept, metrics) or 0.0))
        same += len(kept) == len(answers) and all(exact_match(kept[0], other) for other in kept[1:])
    return Consistency(
        agreement=clustered_mean(agreements, groups),
        same=wilson(same, len(samples)),
        repeats=len(samples[0]),
        temperature=temperature,
    )
