"""Two candidates side by side: what one dataset variant, recipe or number brings against another.

In: the outcomes of two runs' candidates on held-out examples. Out: a `SideBySide` over the examples that both answered,
whole and by field, paired. Decides nothing: the gate compares a candidate with what serves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from intern.errors import InvalidInput
from intern.learning.judging.outcomes import Difference, Interval, Outcome
from intern.learning.judging.statistics import clustered_mean, paired_difference
from intern.types import Model


class SideBySide(Model):
    """`score` and `other_score` are mean scores on `n` common examples; differences are the first minus the other.

    Left out of them are `corrected` examples, whose request or right answer was another one in the other run, and
    `failed` ones, which the engine failed to answer in either.
    """

    n: int
    corrected: int
    failed: int
    score: Interval
    other_score: Interval
    difference: Difference
    fields: Mapping[str, Difference]


def side_by_side(mine: Sequence[Outcome], others: Sequence[Outcome], *, name: str = "the other run") -> SideBySide:
    """Compare two candidates. Raises InvalidInput when no example, or no field, is common to both."""
    first = {outcome.example: outcome for outcome in mine}
    both = [outcome for outcome in others if outcome.example in first]
    alike = [outcome for outcome in both if outcome.as_asked(first[outcome.example])]
    second = {o.example: o for o in alike if not (o.failed or first[o.example].failed)}
    if not second:
        why = f": {len(both)} were asked or to be answered otherwise, or failed" if both else ""
        raise InvalidInput(f"The run and {name} have no held-out example in common{why}.")
    groups = {example: first[example].group for example in second}
    fields = [field for field in next(iter(second.values())).fields if all(field in first[e].fields for e in second)]
    if not fields:
        raise InvalidInput(f"The run and {name} have no field in common: the skill's schema has changed.")

    def difference(pick: str | None) -> Difference:
        values = [{e: _score(rows[e], pick) for e in second} for rows in (first, second)]
        return paired_difference(values[0], values[1], groups, name=name)

    def mean(rows: Mapping[str, Outcome]) -> Interval:
        return clustered_mean([rows[example].score for example in second], list(groups.values()))

    return SideBySide(
        n=len(second),
        corrected=len(both) - len(alike),
        failed=len(alike) - len(second),
        score=mean(first),
        other_score=mean(second),
        difference=difference(None),
        fields={field: difference(field) for field in fields},
    )


def _score(outcome: Outcome, field: str | None) -> float:
    return outcome.score if field is None else outcome.fields[field]
