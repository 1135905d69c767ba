"""One rival on all held-out examples: its outcomes in, a `Summary` and confusion counts out. Knows no other rival."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median

from intern.errors import InvalidInput
from intern.learning.judging.metrics import null_precision_recall
from intern.learning.judging.outcomes import Outcome, Summary, TextScores
from intern.learning.judging.repetition import distinct_n
from intern.learning.judging.statistics import clustered_mean
from intern.types import Json

BROKEN = "(no object)"  # in a confusion: the answer had no fields at all


def summarise(outcomes: Sequence[Outcome], confidence: float = 0.95) -> Summary:
    """Means with clustered intervals over all outcomes of one rival. Raises InvalidInput when there are none.

    Nulls are counted over the fields that are scored.
    """
    if not outcomes:
        raise InvalidInput("There are no outcomes to sum up; evaluate at least one example.", param="outcomes")
    names = dict.fromkeys(name for outcome in outcomes for name in outcome.fields)
    pairs = [(outcome.expected, outcome.output) for outcome in outcomes]
    precision, recall = null_precision_recall(pairs, names)
    metrics = {}
    for name in names:
        having = [outcome for outcome in outcomes if name in outcome.fields]
        metrics[name] = clustered_mean([o.fields[name] for o in having], [o.group for o in having], confidence)
    outputs = [outcome.output for outcome in outcomes]
    timed = [outcome.seconds for outcome in outcomes if outcome.seconds > 0]
    return Summary(
        n=len(outcomes),
        valid=fmean(outcome.valid for outcome in outcomes),
        score=clustered_mean([o.score for o in outcomes], [o.group for o in outcomes], confidence),
        metrics=metrics,
        null_precision=precision,
        null_recall=recall,
        support=_mean(outcome.support for outcome in outcomes),
        support_expected=_mean(outcome.support_expected for outcome in outcomes),
        shown=_mean(outcome.examples for outcome in outcomes),
        sources=_mean(outcome.sources for outcome in outcomes),
        texts=_texts(outcomes),
        distinct_1=distinct_n(outputs, 1),
        distinct_2=distinct_n(outputs, 2),
        distinct_3=distinct_n(outputs, 3),
        tokens=fmean(outcome.tokens for outcome in outcomes),
        prompt_tokens=fmean(outcome.prompt_tokens for outcome in outcomes),
        seconds=median(timed) if timed else 0.0,
        failed=sum(outcome.failed for outcome in outcomes),
    )


def confusion(outcomes: Sequence[Outcome], field: str) -> dict[str, dict[str, int]]:
    """How often each expected value of an enumerated field was answered with which value, the most frequent first.

    Values other than strings are written as JSON; an answer that is no object counts under BROKEN.
    """
    counts: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        if isinstance(outcome.expected, Mapping):
            given = _label(outcome.output.get(field)) if isinstance(outcome.output, Mapping) else BROKEN
            counts.setdefault(_label(outcome.expected.get(field)), Counter())[given] += 1
    rows = sorted(counts.items(), key=lambda row: (-row[1].total(), row[0]))
    return {expected: dict(sorted(row.items(), key=lambda cell: (-cell[1], cell[0]))) for expected, row in rows}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _texts(outcomes: Sequence[Outcome]) -> dict[str, TextScores]:
    having: dict[str, list[TextScores]] = {}
    for outcome in outcomes:
        for name, scores in outcome.texts.items():
            having.setdefault(name, []).append(scores)
    return {
        name: TextScores(chrf=fmean(one.chrf for one in some), token_f1=fmean(one.token_f1 for one in some))
        for name, some in having.items()
    }


def _label(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
