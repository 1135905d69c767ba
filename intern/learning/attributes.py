"""Bias and identity: how often outputs say what, against how often they should, and whether a persona keeps its facts.

In: outputs, declared attributes or facts. Out: shares with intervals, the distance between two distributions, an exact
test. Does not know which attributes matter: they are declared. Each output counts as independent of the others.

A declared pattern is a phrase of whole words; capitals and spacing make no difference, and a `*` in a word stands for
any letters ("engineer*"). It is no regular expression: what people declare can be neither slow nor hostile.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from pydantic import Field

from intern.errors import InvalidInput
from intern.learning.outcomes import Interval
from intern.learning.repetition import texts
from intern.learning.statistics import clustered_mean, newcombe, wilson
from intern.types import Json, Model

NONE = "none"
MIXED = "mixed"
_DRAWS = 9_999

Floats = npt.NDArray[np.float64]


class Attribute(Model):
    """One attribute of an output: the value of a field, or the class whose patterns its texts have most of.

    `field` is a key, or keys joined by points. With `patterns`, class name to phrases, the texts under `field` (or the
    whole output) are searched; no hit is NONE, a tie is MIXED.
    """

    name: str
    field: str | None = None
    patterns: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)


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


class Identity(Model):
    """How many questions about itself a persona answered right; `wrong` has (question, answer), '' for none."""

    share: Interval
    wrong: tuple[tuple[str, str], ...] = ()


def value_of(attribute: Attribute, output: Json) -> str:
    """The attribute's value in one output: a label in small letters, NONE where there is none."""
    found = output
    for key in attribute.field.split(".") if attribute.field else ():
        found = found.get(key) if isinstance(found, Mapping) else None
    if not attribute.patterns:
        return _label(found)
    searched = list(texts(found))
    hits = {
        name: sum(_hits(pattern, text) for pattern in patterns for text in searched)
        for name, patterns in attribute.patterns.items()
    }
    most = max(hits.values())
    best = [name for name, count in hits.items() if count == most]
    return NONE if most == 0 else best[0] if len(best) == 1 else MIXED


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
            other[_label(value)] = other.get(_label(value), 0.0) + share / sum(reference.values())
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


def identity(
    facts: Mapping[str, Sequence[str]], answers: Mapping[str, str | Sequence[str]], confidence: float = 0.95
) -> Identity:
    """The share of answers that have one of their question's accepted patterns, clustered by question.

    `facts` is question to patterns, `answers` question to one answer or several samples; a question without an answer
    counts as wrong. Raises InvalidInput when no facts are declared.
    """
    if not facts:
        raise InvalidInput("Declare at least one question with its accepted answers.", param="facts")
    right: list[float] = []
    groups: list[str] = []
    wrong: list[tuple[str, str]] = []
    for question, patterns in facts.items():
        given = answers.get(question, "")
        for answer in [given] if isinstance(given, str) else given or [""]:
            ok = any(_hits(pattern, answer) for pattern in patterns)
            right.append(float(ok))
            groups.append(question)
            if not ok:
                wrong.append((question, answer))
    return Identity(share=clustered_mean(right, groups, confidence), wrong=tuple(wrong))


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


# --- patterns --------------------------------------------------------------------------------------------------


def _hits(pattern: str, text: str) -> int:
    return len(_compiled(pattern).findall(_collapsed(text)))


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = _collapsed(pattern).split()
    if not parts or any(part.count("*") > 1 or part == "*" for part in parts):
        raise InvalidInput(
            f"The pattern '{pattern[:100]}' is no phrase: use words, each with one '*' at most beside its letters.",
            param="patterns",
        )
    # One star a word: with more, a long word could be cut in very many ways.
    phrase = " ".join(re.escape(part).replace(r"\*", r"\w*") for part in parts)
    return re.compile(rf"(?<!\w){phrase}(?!\w)")


def _collapsed(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split()).casefold()


def _label(value: Json) -> str:
    if isinstance(value, str):
        return _collapsed(value)
    return NONE if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)
