"""The learning curve: scores at a few sizes of the training set in, what more examples would bring out.

A power law with a ceiling, score = ceiling - drop * size^-rate, which never falls with more examples and never passes 1
(Hestness et al. 2017; Viering and Loog, "The Shape of Learning Curves", 2022). Few points cannot tell a slow curve from
a fast one: the rate is drawn towards 0.5, and the intervals come from a parametric bootstrap. They cover the noise of
the points, not a curve of another shape: far beyond the largest size they are too narrow. Knows no models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

from intern.errors import InvalidInput
from intern.types import Model

Doubles = npt.NDArray[np.float64]

LEAST_SIZES = 3
_RATES = np.geomspace(0.05, 2.0, 60)
_USUAL_RATE = 0.5
_RATE_SPREAD = 0.8  # standard deviation of the rate's logarithm
_LEAST_NOISE = 0.01  # of a score; three points can lie on a curve by luck
_DRAWS = 400


class Forecast(Model):
    """A score, or a gain in score, that the curve foretells, with the bootstrap's interval."""

    mean: float
    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class LearningCurve:
    """A fitted curve. `draws`, shape (400, 3), holds ceiling, drop and rate of each bootstrap sample.

    Sizes are in units of `unit`, the smallest size that was measured: `drop` is what is missing there.
    """

    ceiling: float
    drop: float
    rate: float
    unit: int
    draws: Doubles

    def at(self, size: int, confidence: float = 0.95) -> Forecast:
        """The score with `size` training examples. Raises InvalidInput for a size below 1."""
        return self._forecast(self._point(size), self._scores(size), confidence)

    def gain(self, size: int, more: int, confidence: float = 0.95) -> Forecast:
        """What `more` examples beyond `size` would add to the score; never less than nothing."""
        point = self._point(size + more) - self._point(size)
        return self._forecast(point, self._scores(size + more) - self._scores(size), confidence)

    def _point(self, size: int) -> float:
        if size < 1:
            raise InvalidInput(f"{size} examples are none; ask for a size of 1 or more.", param="size")
        return float(np.clip(self.ceiling - self.drop * (size / self.unit) ** -self.rate, 0.0, 1.0))

    def _scores(self, size: int) -> Doubles:
        ceiling, drop, rate = self.draws.T
        return np.asarray(np.clip(ceiling - drop * (size / self.unit) ** -rate, 0.0, 1.0), dtype=np.float64)

    @staticmethod
    def _forecast(point: float, draws: Doubles, confidence: float) -> Forecast:
        low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
        return Forecast(mean=point, low=min(float(low), point), high=max(float(high), point), confidence=confidence)


def fit_learning_curve(
    sizes: Sequence[int], scores: Sequence[float], errors: Sequence[float] | None = None, *, seed: int = 0
) -> LearningCurve:
    """Fit scores (0 to 1) at training-set sizes (1 or more); a size may stand several times.

    `errors` are the scores' standard errors. Without them the noise is what the points scatter around the curve, which
    few points hardly tell: the intervals are then wide. Raises InvalidInput for fewer than three different sizes.
    """
    if len(set(sizes)) < LEAST_SIZES:
        raise InvalidInput(
            f"A learning curve needs scores at {LEAST_SIZES} or more sizes of the training set; "
            f"there are {len(set(sizes))}.",
            param="sizes",
        )
    if len(scores) != len(sizes) or (errors is not None and len(errors) != len(sizes)):
        raise InvalidInput("Give one score, and one error if any, for each of the sizes.", param="scores")
    if min(sizes) < 1 or not all(0 <= score <= 1 for score in scores):
        raise InvalidInput("Sizes are 1 or more, scores between 0 and 1.", param="sizes")
    unit = min(sizes)
    powers = (np.asarray(sizes, dtype=np.float64) / unit) ** -_RATES[:, None]
    values = np.asarray(scores, dtype=np.float64)
    if errors is not None:
        noise = np.maximum(np.asarray(errors, dtype=np.float64), _LEAST_NOISE / 2)
    else:
        noise = np.full(len(values), _LEAST_NOISE)
        away = values - _values(_fit(values[None], powers, noise)[0], powers)
        freedom = max(1, len(values) - 2)
        scatter = max(_LEAST_NOISE, float(np.sqrt((away**2).sum() / freedom)))
        # A scatter of few points is itself uncertain: as much wider as Student's t is than the normal.
        noise = np.full(len(values), scatter * float(stdtrit(freedom, 0.975) / ndtri(0.975)))
    best = _fit(values[None], powers, noise)[0]
    random = np.random.default_rng(seed)
    drawn = np.clip(_values(best, powers) + noise * random.standard_normal((_DRAWS, len(values))), 0.0, 1.0)
    draws = _fit(drawn, powers, noise)
    return LearningCurve(float(best[0]), float(best[1]), float(_RATES[int(best[2])]), unit, _with_rates(draws))


def _fit(values: Doubles, powers: Doubles, noise: Doubles) -> Doubles:
    """(samples, points) scores and (rates, points) powers of the sizes to (samples, 3) ceiling, drop, number of rate.

    For a given rate the law is linear: weighted least squares with ceiling <= 1 and drop >= 0, in closed form.
    """
    weights = 1.0 / noise**2
    middle = powers @ weights / weights.sum()
    mean = values @ weights / weights.sum()
    centred = (powers - middle[:, None]) * weights
    drop = np.maximum(0.0, -(values @ centred.T) / (centred * powers).sum(axis=1))
    ceiling = mean[:, None] + drop * middle
    at_most = ((1.0 - values) * weights) @ powers.T / ((powers**2) @ weights)
    drop, ceiling = np.where(ceiling > 1.0, at_most, drop), np.minimum(ceiling, 1.0)
    away = values[:, None, :] - ceiling[:, :, None] + drop[:, :, None] * powers
    unusual = ((np.log(_RATES) - np.log(_USUAL_RATE)) / _RATE_SPREAD) ** 2
    best = ((away**2) @ weights + unusual).argmin(axis=1)
    rows = np.arange(len(values))
    return np.stack([ceiling[rows, best], drop[rows, best], best.astype(np.float64)], axis=1)


def _values(curve: Doubles, powers: Doubles) -> Doubles:
    return np.asarray(curve[0] - curve[1] * powers[int(curve[2])], dtype=np.float64)


def _with_rates(fitted: Doubles) -> Doubles:
    return np.stack([fitted[:, 0], fitted[:, 1], _RATES[fitted[:, 2].astype(np.int64)]], axis=1)
