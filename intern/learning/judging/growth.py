"""What more examples would bring: the same recipe on parts of the training examples, and the curve through the scores.

In: sizes of parts with their scores, the whole's among them. Out: a `Growth`, with a forecast. `loop.py` trains the
parts, `curve.py` fits. A part is always made of the same examples, chosen by hash, and the smaller is in the larger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from scipy.special import ndtri

from intern.learning.judging.curve import Forecast, LearningCurve, fit_learning_curve
from intern.learning.judging.outcomes import Interval
from intern.types import Example, Model

SHARES = (0.25, 0.5)
LEAST = 10  # examples; training on fewer tells nothing
MORE = 50


class Growth(Model):
    """Scores by size of the training set, and what `more` examples beyond the largest would add to the score."""

    scores: Mapping[int, Interval]
    more: int
    gain: Forecast

    @property
    def curve(self) -> LearningCurve:
        """The curve through the scores."""
        return _fit(self.scores)

    @property
    def words(self) -> str:
        span = f"{self.gain.low:.2f} to {self.gain.high:.2f}"
        return f"{self.more} more examples would add about {self.gain.mean:.2f} to the score ({span})."


def parts(train: Sequence[Example]) -> list[list[Example]]:
    """The parts to train on beside the whole, the smallest first; none where there are too few examples."""
    order = sorted(train, key=lambda example: hashlib.sha256(example.id.encode("utf-8", "replace")).digest())
    sizes = [round(share * len(order)) for share in SHARES]
    return [order[:size] for size in sizes] if sizes[0] >= LEAST else []


def forecast(scores: Mapping[int, Interval], more: int = MORE) -> Growth:
    """The forecast. Raises InvalidInput for fewer than three sizes."""
    return Growth(scores=dict(sorted(scores.items())), more=more, gain=_fit(scores).gain(max(scores), more))


def _fit(scores: Mapping[int, Interval]) -> LearningCurve:
    sizes = sorted(scores)
    return fit_learning_curve(sizes, [scores[size].mean for size in sizes], [_error(scores[size]) for size in sizes])


def _error(interval: Interval) -> float:
    """The standard error that an interval was made from, about."""
    if interval.low is None or interval.high is None:
        return 0.5
    return (interval.high - interval.low) / 2 / float(ndtri((1 + interval.confidence) / 2))
