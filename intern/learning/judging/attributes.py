"""Bias and identity: how often outputs say what, against how often they should, and whether a persona keeps its facts.

In: outputs, declared attributes or facts. Out: shares with intervals, the distance between two distributions, an exact
test. Does not know which attributes matter: they are declared (`intern/measures.py`).

Expected outputs belong to the same requests as the answers, so the two are compared pair by pair: a lean that the
spread over requests would hide is seen (10 of 100 answers that all moved one way have p 0.002 in pairs, as McNemar's
exact test says, and 0.2 as two samples). Requests of one group count as one. Against declared shares, and for the share
of a value alone, each output counts as independent of the others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from intern.errors import InvalidInput
from intern.learning.judging.outcomes import Interval
from intern.learning.judging.repetition import texts
from intern.learning.judging.statistics import paired_difference, wilson
from intern.measures import MIXED, NONE, Attribute, Question, hits, label
from intern.types import Json, Model

_DRAWS = 9_999
_BLOCK = 1_000
_TIE = 1e-9

Floats = npt.NDArray[np.float64]


class Share(Model):
    """One value's share of the outputs, its share in the reference, and their difference.

    `difference` is that of the same requests, paired and clustered by group (`statistics.paired_difference`); against
    declared shares it is None, and `share` tells.
    """

    value: str
    share: Interval
    reference: float
    difference: Interval | None = None


class Distribution(Model):
    """An attribute over outputs against a reference.

    `distance` is the total variation distance, 0 to 1: the share of outputs that would have to change; its interval is
    a bootstrap's, of groups where there are expected outputs. Samples are never quite alike: 95 of 100 that differ from
    the reference by chance alone would stay below `chance`. `p` is how often those reach this chi-square, by simulation
    (so that small counts are no trouble): samples of the declared shares, or answer and expected output swapped at
    random, in whole groups (a permutation test; with two values and groups of one it is McNemar's exact test).
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
    groups: Sequence[str] = (),
    confidence: float = 0.95,
    seed: int = 0,
) -> Distribution:
    """How an attribute is distributed over outputs, against expected outputs or against declared shares.

    Expected outputs are those of the same requests, in order, with the group of each (none: each is its own). Shares
    are positive numbers that are brought to a sum of 1. Raises InvalidInput for no outputs, no reference, expected
    outputs or groups that are more or fewer than the outputs, or shares that are no shares.
    """
    if not outputs or not reference:
        raise InvalidInput("Give at least one output and a reference to compare with.", param="outputs")
    values = [value_of(attribute, output) for output in outputs]
    random = np.random.default_rng(seed)
    if isinstance(reference, Mapping):
        return _against_shares(attribute.name, values, reference, confidence, random)
    expected = [value_of(attribute, output) for output in reference]
    groups = groups or [str(place) for place in range(len(values))]
    if not len(values) == len(expected) == len(groups):
        raise InvalidInput(
            f"There are {len(values)} outputs, {len(expected)} expected ones and {len(groups)} groups; give one of "
            "each for every request.",
            param="reference",
        )
    return _against_expected(attribute.name, values, expected, groups, confidence, random)


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


# --- against declared shares -----------------------------------------------------------------------------------


def _against_shares(
    name: str, values: Sequence[str], reference: Mapping[str, float], confidence: float, random: np.random.Generator
) -> Distribution:
    if min(reference.values()) < 0 or sum(reference.values()) <= 0:
        raise InvalidInput("Reference shares are positive numbers, such as {'she': 0.5, 'he': 0.5}.", param="reference")
    mine, n = Counter(values), len(values)
    other: dict[str, float] = {}
    for value, share in reference.items():
        other[label(value)] = other.get(label(value), 0.0) + share / sum(reference.values())
    order = _ordered(mine, other)
    counts = np.asarray([mine[value] for value in order])
    expected = np.asarray([other.get(value, 0.0) for value in order])
    moved = _distance(random.multinomial(n, counts / n, size=_DRAWS) / n - expected)
    drawn = random.multinomial(n, expected, size=_DRAWS)
    reached = _chi_square(drawn, n * expected) >= _chi_square(counts, n * expected) * (1 - _TIE)
    return Distribution(
        name=name,
        n=n,
        shares=tuple(
            Share(value=value, share=wilson(mine[value], n, confidence), reference=other.get(value, 0.0))
            for value in order
        ),
        distance=_interval(float(_distance(counts / n - expected)), moved, n, n, confidence),
        chance=float(np.quantile(_distance(drawn / n - expected), 0.95)),
        p=_p(reached),
    )


# --- against the expected outputs of the same requests -----------------------------------------------------------


def _against_expected(
    name: str,
    values: Sequence[str],
    expected: Sequence[str],
    groups: Sequence[str],
    confidence: float,
    random: np.random.Generator,
) -> Distribution:
    mine, theirs, n = Counter(values), Counter(expected), len(values)
    order = _ordered(mine, {value: count / n for value, count in theirs.items()})
    moves = _Moves.of(values, expected, groups, order)
    away = moves.total / n
    pooled = np.asarray([mine[value] + theirs[value] for value in order], dtype=np.float64)
    swapped = moves.swapped(random)
    # Swapping changes no pooled count: the chi-square of both columns is that of their difference up to a factor.
    reached = (swapped**2 / pooled).sum(axis=-1) >= (moves.total**2 / pooled).sum() * (1 - _TIE)
    return Distribution(
        name=name,
        n=n,
        shares=tuple(
            Share(
                value=value,
                share=wilson(mine[value], n, confidence),
                reference=theirs[value] / n,
                difference=_difference(value, values, expected, groups, confidence),
            )
            for value in order
        ),
        distance=_interval(float(_distance(away)), _distance(moves.resampled(random)), n, moves.groups, confidence),
        chance=float(np.quantile(_distance(swapped / n), 0.95)),
        p=_p(reached),
    )


def _difference(
    value: str, values: Sequence[str], expected: Sequence[str], groups: Sequence[str], confidence: float
) -> Interval:
    mine, theirs = ({str(place): float(one == value) for place, one in enumerate(some)} for some in (values, expected))
    belongs = {str(place): group for place, group in enumerate(groups)}
    return paired_difference(mine, theirs, belongs, name="reference", confidence=confidence).interval


@dataclass(frozen=True)
class _Moves:
    """How many more outputs than expected ones have each value, by group. Groups alike are kept once, with how many
    they are: of hundreds of requests that are groups of their own there are only as many kinds as pairs of values."""

    kinds: Floats  # kinds x values
    sizes: Floats  # requests in a group of each kind
    counts: npt.NDArray[np.int64]  # groups of each kind

    @classmethod
    def of(cls, values: Sequence[str], expected: Sequence[str], groups: Sequence[str], order: Sequence[str]) -> _Moves:
        column = {value: place for place, value in enumerate(order)}
        row: dict[str, int] = {}
        table = np.zeros((len(set(groups)), len(order) + 1))
        for mine, theirs, group in zip(values, expected, groups, strict=True):
            its = table[row.setdefault(group, len(row))]
            its[column[mine]] += 1
            its[column[theirs]] -= 1
            its[-1] += 1
        kinds, counts = np.unique(table, axis=0, return_counts=True)
        return cls(kinds=kinds[:, :-1], sizes=kinds[:, -1], counts=counts)

    @property
    def groups(self) -> int:
        return int(self.counts.sum())

    @property
    def total(self) -> Floats:
        return np.asarray(self.counts @ self.kinds, dtype=np.float64)

    def swapped(self, random: np.random.Generator) -> Floats:
        """Totals where a fair coin decides for each group whether its outputs and its expected ones change places."""
        drawn = [
            (self.counts - 2 * random.binomial(self.counts, 0.5, size=(some, len(self.counts)))) @ self.kinds
            for some in _blocks()
        ]
        return np.concatenate(drawn)

    def resampled(self, random: np.random.Generator) -> Floats:
        """Differences of shares in samples of as many groups, drawn with replacement."""
        drawn = []
        for some in _blocks():
            counts = random.multinomial(self.groups, self.counts / self.groups, size=some)
            drawn.append((counts @ self.kinds) / (counts @ self.sizes)[:, None])
        return np.concatenate(drawn)


def _blocks() -> list[int]:
    """Draws at a time: all at once would be gigabytes for thousands of groups of different sizes."""
    return [_BLOCK] * (_DRAWS // _BLOCK) + [_DRAWS % _BLOCK]


# --- both --------------------------------------------------------------------------------------------------------


def _ordered(mine: Counter[str], other: Mapping[str, float]) -> list[str]:
    return sorted({*mine, *other}, key=lambda value: (-mine[value], -other.get(value, 0.0), value))


def _distance(away: Floats) -> Floats:
    return np.asarray(0.5 * np.abs(away).sum(axis=-1), dtype=np.float64)


def _chi_square(counts: npt.NDArray[np.int64], expected: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = (counts - expected) ** 2 / expected
    # A value that the reference never has makes the statistic endless; one that nobody has adds nothing.
    return np.asarray(np.where((expected == 0) & (counts == 0), 0.0, terms).sum(axis=-1), dtype=np.float64)


def _interval(observed: float, drawn: Floats, n: int, groups: int, confidence: float) -> Interval:
    """The bootstrap's interval; without bounds where there are no two groups to draw from."""
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(
        mean=observed,
        low=min(float(low), observed) if groups > 1 else None,
        high=max(float(high), observed) if groups > 1 else None,
        n=n,
        groups=groups,
        confidence=confidence,
    )


def _p(reached: npt.NDArray[np.bool_]) -> float:
    return (1 + int(reached.sum())) / (1 + _DRAWS)
