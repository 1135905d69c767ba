"""What more examples would bring: scores at a few sizes of the training set, and the curve through them.

In: sizes with their scores, the present one's among them. They come from trainings of the same recipe on parts of the
examples, which `loop/growing.py` makes, or cost nothing: from what earlier versions of the skill answered to the same
held-out examples. Out: a `Growth`, with a forecast. `curve.py` fits. A part is always made of the same examples, chosen
by hash, and the smaller is in the larger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

from scipy.special import ndtri

from intern.learning.judging.curve import Forecast, LearningCurve, fit_learning_curve
from intern.learning.judging.outcomes import Interval, Outcome
from intern.types import Example, Model

SHARES = (0.25, 0.5)
LEAST = 10  # examples; training on fewer tells nothing
MORE = 50
LEAST_EARLIER = 3  # versions, each with another number of examples
LEAST_COMMON = 30  # held-out examples that all of them answered


class Growth(Model):
    """Scores by size of the training set, and what `more` examples beyond the largest would add to the score."""

    scores: Mapping[int, Interval]
    more: int
    gain: Forecast
    of: Literal["parts", "versions"] = "parts"

    @property
    def curve(self) -> LearningCurve:
        """The curve through the scores."""
        return _fit(self.scores)

    @property
    def words(self) -> str:
        span = f"{self.gain.low:.2f} to {self.gain.high:.2f}"
        return f"{self.more} more examples would add about {self.gain.mean:.2f} to the score ({span})."

    @property
    def how(self) -> str:
        """Where the scores come from."""
        if self.of == "parts":
            return "The same recipe was trained on parts of the examples; the curve goes through their scores."
        asked = self.scores[max(self.scores)].n
        return (
            f"The curve goes through the scores of this version and {len(self.scores) - 1} earlier ones on the {asked} "
            "held-out examples that all of them answered. What else changed between them is in it, too."
        )


def parts(train: Sequence[Example]) -> list[list[Example]]:
    """The parts to train on beside the whole, the smallest first; none where there are too few examples."""
    order = sorted(train, key=lambda example: hashlib.sha256(example.id.encode("utf-8", "replace")).digest())
    sizes = [round(share * len(order)) for share in SHARES]
    return [order[:size] for size in sizes] if sizes[0] >= LEAST else []


def common(outcomes: Mapping[int, Sequence[Outcome]]) -> dict[int, list[Outcome]]:
    """Outcomes of a skill's versions, by size of their training set, on the held-out examples that all answered.

    The first are those of the present version, then the earlier ones, the newest first; one that shares fewer than 30
    examples with those before it is left out. Empty where fewer than three earlier ones are left.
    """
    taken: dict[int, dict[str, Outcome]] = {}
    shared: dict[str, Outcome] = {}
    for size, rows in outcomes.items():
        theirs = {outcome.example: outcome for outcome in rows}
        both = {name: o for name, o in (shared if taken else theirs).items() if _same(o, theirs.get(name))}
        if len(both) >= LEAST_COMMON:
            shared, taken[size] = both, theirs
        elif not taken:
            return {}
    if len(taken) <= LEAST_EARLIER:
        return {}
    return {size: [theirs[name] for name in shared] for size, theirs in taken.items()}


def forecast(scores: Mapping[int, Interval], more: int = MORE, *, of: Literal["parts", "versions"] = "parts") -> Growth:
    """The forecast. Raises InvalidInput for fewer than three sizes."""
    return Growth(scores=dict(sorted(scores.items())), more=more, gain=_fit(scores).gain(max(scores), more), of=of)


def _same(one: Outcome, other: Outcome | None) -> bool:
    """Whether two outcomes are on one example, as it was asked and scored: it may have been corrected in between."""
    return other is not None and one.as_asked(other) and one.fields.keys() == other.fields.keys()


def _fit(scores: Mapping[int, Interval]) -> LearningCurve:
    sizes = sorted(scores)
    return fit_learning_curve(sizes, [scores[size].mean for size in sizes], [_error(scores[size]) for size in sizes])


def _error(interval: Interval) -> float:
    """The standard error that an interval was made from, about."""
    if interval.low is None or interval.high is None:
        return 0.5
    return (interval.high - interval.low) / 2 / float(ndtri((1 + interval.confidence) / 2))
