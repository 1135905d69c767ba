"""Bias and identity: how often outputs say what, against how often they should, and whether a persona keeps its facts.

In: outputs, declared attributes or facts. Out: shares with intervals, the distance between two distributions, an exact
test. Does not know which attributes matter: they are declared (`intern/measures.py`). Each output counts as independent
of the others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from intern.errors import InvalidInput
from intern.learning.outcomes import Interval
from intern.learning.repetition import texts
from intern.learning.statistics import newcombe, wilson
from intern.measures import MIXED, NONE, Attribute, Question, hits, label
from intern.types import Json, Model

_DRAWS = 9_999

Floats = npt.NDArray[np.float64]


class Share(Model):
    """One value's share of the outputs, its share in the reference, and their difference.

    `difference` has Newcombe's interval against a sample; against declared shares it is None, and `share` tells.
    """

    value: str
    share: Interval
    reference: float
    difference: Interval | None = None


class Distribution(Model):
    """An attribute over outputs against a reference.

    `distance` is the total variation distance, 0 to 1: the share of outputs that would have to change; its interval is
    a bootstrap's. Samples are never quite alike: 95 of 100 samples of the reference itself would stay below `chance`.
    `p` is how often they reach this chi-square (by simulation, so that small counts are no trouble).
    """

    name: str
    n: int
    shares: tuple[Share, ...]
    distance: Interval
    chance: float
    p: float


class Missed(Model):
    """A question answered wrong: the facts that the answer lacks, and what it says that it must not."""

    question: str
    lacks: tuple[str, ...] = ()
    says: tuple[str, ...] = ()


class Identity(Model):
    """How many questions about itself a persona answered right. Names declared phrases only, and quotes no answer."""

    share: Interval
    missed: tuple[Missed, ...] = ()


def value_of(attribute: Attribute, output: Json) -> str:
    """The attribute's value in one output: a label in small letters, NONE where there is none."""
    found = output
    for key in attribute.field.split(".") if attribute.field else ():
        found = found.get(key) if isinstance(found, Mapping) else None
    if not attribute.patterns:
        return label(found)
    searched = list(texts(found))
    counts = {
        name: sum(hits(pattern, text) for pattern in patterns for text in searched)
        for name, patterns in attribute.patterns.items()
    }
    most = max(counts.values())
    best = [name for name, count in counts.items() if count == most]
    return NONE if most == 0 else label(best[0]) if len(best) == 1 else MIXED


def distribution(
    attribute: Attribute,
    outputs: Sequence[Json],
    reference: Sequence[Json] | Mapping[str, float],
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Distribution:
    """How an attribute is distributed over outputs, against reference outputs or against declared shares.

    Reference outputs are a sample (the training outputs, or the expected ones); shares are positive numbers that are
    brought to a sum of 1. Raises InvalidInput for no outputs, no reference, or shares that are no shares.
    """
    if not outputs or not reference:
        raise InvalidInput("Give at least one output and a reference to compare with.", param="outputs")
    mine = Counter(value_of(attribute, output) for output in outputs)
    if isinstance(reference, Mapping):
        if min(reference.values()) < 0 or sum(reference.values()) <= 0:
            raise InvalidInput(
                "Reference shares are positive numbers, such as {'she': 0.5, 'he': 0.5}.", param="reference"
            )
        other: dict[str, float] = {}
        for value, share in reference.items():
            other[label(value)] = other.get(label(value), 0.0) + share / sum(reference.values())
        sample = None
    else:
        sample = Counter(value_of(attribute, output) for output in reference)
        other = {value: count / sample.total() for value, count in sample.items()}
    values = sorted({*mine, *other}, key=lambda value: (-mine[value], -other.get(value, 0.0), value))
    counts = np.asarray([mine[value] for value in values])
    expected = np.asarray([other.get(value, 0.0) for value in values])
    samples = None if sample is None else np.asarray([sample[value] for value in values])
    random = np.random.default_rng(seed)
    distance = _distance_interval(counts, expected, samples, confidence, random)
    p, chance = _by_chance(counts, expected, samples, random)
    return Distribution(
        name=attribute.name,
        n=len(outputs),
        shares=tuple(
            Share(
                value=value,
                share=wilson(mine[value], len(outputs), confidence),
                reference=other.get(value, 0.0),
                difference=newcombe(mine[value], len(outputs), sample[value], sample.total(), confidence)
                if sample is not None
                else None,
            )
            for value in values
        ),
        distance=distance,
        chance=chance,
        p=p,
    )


def identity(questions: Sequence[Question], answers: Sequence[Json], confidence: float = 0.95) -> Identity:
    """The share of questions whose answer says every fact and nothing that it must not; one answer for each question.

    Raises InvalidInput when no question is declared, or the answers are more or fewer.
    """
    if not questions or len(questions) != len(answers):
        raise InvalidInput(
            f"There are {len(questions)} questions and {len(answers)} answers; give one answer to each of them, and at "
            "least one question.",
            param="answers",
        )
    missed: list[Missed] = []
    for asked, answer in zip(questions, answers, strict=True):
        said = [*texts(answer), *_numbers(answer)]

        def found(phrases: Sequence[str], said: Sequence[str] = said) -> bool:
            return any(hits(phrase, text) for phrase in phrases for text in said)

        lacks = tuple(" or ".join(fact) for fact in asked.facts if not found(fact))
        says = tuple(phrase for phrase in asked.never if found((phrase,)))
        if lacks or says:
            missed.append(Missed(question=asked.question, lacks=lacks, says=says))
    right = len(questions) - len(missed)
    return Identity(share=wilson(right, len(questions), confidence), missed=tuple(missed))


def _numbers(value: Json) -> list[str]:
    """Every number in a JSON value, as it is written."""
    if isinstance(value, Mapping):
        return [number for child in value.values() for number in _numbers(child)]
    if isinstance(value, list | tuple):
        return [number for child in value for number in _numbers(child)]
    return [json.dumps(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


# --- distances -------------------------------------------------------------------------------------------------


def _distance(one: Floats, other: Floats) -> Floats:
    return np.asarray(0.5 * np.abs(one - other).sum(axis=-1), dtype=np.float64)


def _distance_interval(
    counts: npt.NDArray[np.int64],
    expected: Floats,
    sample: npt.NDArray[np.int64] | None,
    confidence: float,
    random: np.random.Generator,
) -> Interval:
    n = int(counts.sum())
    observed = float(_distance(counts / n, expected))
    drawn = random.multinomial(n, counts / n, size=_DRAWS) / n
    against: Floats = expected
    if sample is not None:
        against = random.multinomial(int(sample.sum()), expected, size=_DRAWS) / sample.sum()
    low, high = np.quantile(_distance(drawn, against), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(
        mean=observed,
        low=min(float(low), observed),
        high=max(float(high), observed),
        n=n,
        groups=n,
        confidence=confidence,
    )


def _by_chance(
    counts: npt.NDArray[np.int64],
    expected: Floats,
    sample: npt.NDArray[np.int64] | None,
    random: np.random.Generator,
) -> tuple[float, float]:
    """(p of the chi-square by simulation, the distance that chance stays below in 95 of 100 samples).

    Against declared shares, samples of them; against a sample, random splits of both samples together.
    """
    n = int(counts.sum())
    if sample is None:
        drawn = random.multinomial(n, expected, size=_DRAWS)
        middle, against = expected, np.broadcast_to(expected, drawn.shape)
    else:
        pooled = counts + sample
        drawn = random.multivariate_hypergeometric(pooled, n, size=_DRAWS)
        middle, against = pooled / pooled.sum(), (pooled - drawn) / sample.sum()

    def chi_square(some: npt.NDArray[np.int64]) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = (some - n * middle) ** 2 / (n * middle)
        # A value that the reference never has makes the statistic endless; one that nobody has adds nothing.
        return np.asarray(np.where((middle == 0) & (some == 0), 0.0, terms).sum(axis=-1), dtype=np.float64)

    # Against a sample, the other half's terms are the same up to a factor: pooled counts are fixed.
    reached = int((chi_square(drawn) >= chi_square(counts) * (1 - 1e-9)).sum())
    return (1 + reached) / (1 + _DRAWS), float(np.quantile(_distance(drawn / n, against), 0.95))
