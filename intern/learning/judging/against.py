"""Every rival against one of them: paired differences on the examples that both answered.

In: the outcomes of rivals. Out: an `Against`. Decides nothing: the gate judges candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from intern.learning.judging.outcomes import Against, Outcome, incumbent
from intern.learning.judging.statistics import paired_difference


def against(
    outcomes: Mapping[str, Sequence[Outcome]], *, field: str | None = None, examples: str = "none"
) -> Against | None:
    """All others against what serves: the adapter in service, or the base model with the `examples` in its prompt.

    A rival without an outcome on a common example is left out; an outside system need not have answered everything, and
    what the engine failed to answer is left out on both sides.
    None where there is nobody to compare with, or nothing. `field` is the output field to compare; None is the mean.
    Intervals have 95% confidence, and each stands for itself: of twenty that are looked at, one may well mislead.
    """
    reference = incumbent({name for name, rows in outcomes.items() if rows}, examples)
    if reference is None:
        return None
    theirs = _scores(outcomes[reference], field)
    groups = {outcome.example: outcome.group for outcome in outcomes[reference]}
    found = {}
    for name, rows in outcomes.items():
        mine = _scores(rows, field)
        if name != reference and mine.keys() & theirs.keys():
            found[name] = paired_difference(mine, theirs, groups, name=reference)
    return Against(rival=reference, differences=found, field=field) if found else None


def _scores(outcomes: Sequence[Outcome], field: str | None) -> dict[str, float]:
    answered = [outcome for outcome in outcomes if not outcome.failed]
    if field is None:
        return {outcome.example: outcome.score for outcome in answered}
    return {outcome.example: outcome.fields[field] for outcome in answered if field in outcome.fields}
