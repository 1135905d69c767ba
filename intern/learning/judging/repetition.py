"""Sameness in answers: variety, worn-out phrases, loops, and whether one request gets one answer.

In: outputs (JSON or text). Out: shares between 0 and 1, and phrases with their counts. Does not know whose outputs they
are. Words are those of `metrics.words`; a word sequence never runs over the end of one string value, so that labels
and names alone make no bigrams.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

from intern.learning.judging.metrics import exact_match, mean_score, score_fields, words
from intern.types import Json, Metric, Model

LOOP = 0.5  # an answer loops when more than this share of its four-word sequences was there before
_SHORTEST, _LONGEST = 3, 6  # words of a phrase
_PRIOR_ANSWERS = 10.0  # what the pooled shares weigh, in answers
_SIGNIFICANT = 2.58  # two-sided 0.01: very many phrases are looked at
_LEAST_ANSWERS = 3


class Phrase(Model):
    """A phrase that answers overuse: in how many answers of how many, against the training outputs.

    `z` is the log odds ratio over its standard error.
    """

    text: str
    outputs: int
    of_outputs: int
    training: int
    of_training: int
    z: float


def texts(value: Json) -> Iterator[str]:
    """Every string in a JSON value, in its order; keys are none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for child in value.values():
            yield from texts(child)
    elif isinstance(value, Sequence):
        for child in value:
            yield from texts(child)


def distinct_n(outputs: Iterable[Json], n: int = 2) -> float | None:
    """Distinct word n-grams over all n-grams of the outputs' texts (Li et al. 2016). None without any.

    More text gives a lower number: compare only outputs for the same requests.
    """
    grams = Counter(gram for output in outputs for text in texts(output) for gram in _grams(words(text), n))
    return len(grams) / grams.total() if grams else None


def self_repetition(output: Json, n: int = 4) -> float:
    """Share of one answer's n-grams that stood in it before; 0 when it is shorter than n words.

    The whole answer counts as one sequence here: a loop may well run through the items of an array.
    """
    grams = list(_grams([word for text in texts(output) for word in words(text)], n))
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def loops(output: Json) -> bool:
    """Whether an answer repeats itself over and over."""
    return self_repetition(output) > LOOP


def overused(outputs: Sequence[Json], training: Sequence[Json], *, most: int = 10) -> list[Phrase]:
    """Phrases of three to six words that stand in significantly more answers than training outputs, worst first.

    Log odds ratios with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008), over answers that have the
    phrase rather than over words, so that one looping answer counts once. Of phrases that share three words in a row,
    the worst stands for all.
    """
    ours = {gram: count for gram, count in _answers_with(outputs).items() if count >= _LEAST_ANSWERS}
    theirs = _answers_with(training, only=ours.keys())  # of thousands of outputs, not every phrase
    scored = [(_log_odds_z(count, len(outputs), theirs[gram], len(training)), gram) for gram, count in ours.items()]
    scored.sort(key=lambda item: (-item[0], -len(item[1]), item[1]))
    kept: list[Phrase] = []
    covered: set[tuple[str, ...]] = set()
    for z, gram in scored:
        if z <= _SIGNIFICANT or len(kept) == most:
            break
        threes = set(_grams(gram, 3))
        if not threes & covered:
            covered |= threes
            kept.append(
                Phrase(
                    text=" ".join(gram),
                    outputs=ours[gram],
                    of_outputs=len(outputs),
                    training=theirs[gram],
                    of_training=len(training),
                    z=z,
                )
            )
    return kept


def consistency(samples: Sequence[Json], metrics: Mapping[str, Metric]) -> float | None:
    """Mean agreement between the answers to one request, each pair scored both ways; None for fewer than two."""
    pairs = list(itertools.permutations(samples, 2))
    if not pairs:
        return None
    return sum(_agreement(one, other, metrics) for one, other in pairs) / len(pairs)


def _agreement(one: Json, other: Json, metrics: Mapping[str, Metric]) -> float:
    if len(metrics) > 1 and not isinstance(one, Mapping):  # a broken answer
        return float(exact_match(one, other))
    return mean_score(score_fields(one, other, metrics))


def _log_odds_z(have: int, of: int, other: int, other_of: int) -> float:
    prior = _PRIOR_ANSWERS * (have + other) / (of + other_of)
    ratio = variance = 0.0
    for sign, count, answers in ((1, have, of), (-1, other, other_of)):
        having = count + prior
        # Half an answer keeps the odds of a phrase that is in all of them finite.
        lacking = max(0.5, answers - count + _PRIOR_ANSWERS - prior)
        ratio += sign * math.log(having / lacking)
        variance += 1 / having + 1 / lacking
    return ratio / math.sqrt(variance)


def _answers_with(outputs: Iterable[Json], only: Set[tuple[str, ...]] | None = None) -> Counter[tuple[str, ...]]:
    """In how many outputs each phrase stands; with `only`, of these phrases."""
    counts: Counter[tuple[str, ...]] = Counter()
    for output in outputs:
        there: set[tuple[str, ...]] = set()
        for text in texts(output):
            sequence = words(text)
            for n in range(_SHORTEST, _LONGEST + 1):
                there.update(_grams(sequence, n))
        counts.update(there if only is None else there & only)
    return counts


def _grams(sequence: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    return (tuple(sequence[i : i + n]) for i in range(len(sequence) - n + 1))
