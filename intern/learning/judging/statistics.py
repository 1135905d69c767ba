"""Error bars: what scores on a sample of examples say about all the requests that will come.

In: scores between 0 and 1 with the group of each example, or counts. Out: `Interval` and `Difference`. Does not know
what was measured, nor by whom.

Standard errors follow Miller, "Adding Error Bars to Evals" (arXiv 2411.00640): clustered by group, and paired where two
rivals answered the same examples. The cluster-robust variance is the jackknife over groups (CR3 in MacKinnon, Nielsen
and Webb, 2023): the same as Miller's up to G/(G-1) where groups are of one size, and not too small where one of them
dominates. Where nearly all scores are the same, their variance says little about what was not seen yet; the intervals
are then Wilson's (a mean) and Bonett and Price's (a paired difference) instead of Student's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, ndtri, stdtrit

from intern.errors import InvalidInput
from intern.learning.judging.outcomes import Difference, Interval

Doubles = npt.NDArray[np.float64]

POWER = 0.8
MOST_NEEDED = 10_000  # more examples than anybody will label: `needed` says no higher number
_FEW = 10  # groups that differ from the rest, below which Student's t is not trusted
_NEARLY = 0.02  # scores no further apart count as the same there
_TIE = 1e-9


def clustered_mean(values: Sequence[float], groups: Sequence[str], confidence: float = 0.95) -> Interval:
    """The mean of scores between 0 and 1 with a clustered interval, clipped to [0, 1].

    Student's t; its degrees of freedom are G - 1 for groups of one size, fewer where a few groups hold most examples
    (Kish's effective number of groups). Bounds are None with fewer than two groups. Raises InvalidInput for no scores,
    or scores out of range.
    """
    sample = _Sample.of(values, groups, least=0.0)
    if sample.groups < 2:
        low, high = None, None
    elif sample.unlike_the_rest < _FEW:
        # No score between 0 and 1 varies more around its mean than one that is 0 or 1 does.
        low, high = _wilson(sample.mean, sample.effective, confidence)
    else:
        reach = _t(sample.effective - 1, confidence) * sample.error
        low, high = max(0.0, sample.mean - reach), min(1.0, sample.mean + reach)
    return _interval(sample, low, high, confidence)


def paired_difference(
    candidate: Mapping[str, float],
    rival: Mapping[str, float],
    groups: Mapping[str, str],
    *,
    name: str = "rival",
    confidence: float = 0.95,
) -> Difference:
    """Candidate minus rival by example, on the examples that both have. An example without a group is its own.

    `p` is McNemar's exact test; like every exact test of its kind it takes examples as independent, so that with
    groups the interval is what to go by. `needed` is Miller's power analysis, two-sided at 1 - `confidence`, with the
    variance of the paired difference as it was seen, clusters included; MOST_NEEDED at most. Raises InvalidInput when
    no example is in both.
    """
    common = [example for example in candidate if example in rival]
    if not common:
        raise InvalidInput(f"Candidate and {name} have no example in common; score both on the same ones.")
    mine, other = np.asarray([candidate[e] for e in common]), np.asarray([rival[e] for e in common])
    away = mine - other
    wins, losses = int((away > _TIE).sum()), int((away < -_TIE).sum())
    sample = _Sample.of(away, [groups.get(e, e) for e in common], least=-1.0)
    low, high, error = _difference_bounds(sample, confidence)
    binary = bool(np.isin(mine, (0.0, 1.0)).all() and np.isin(other, (0.0, 1.0)).all())
    return Difference(
        rival=name,
        interval=_interval(sample, low, high, confidence),
        p=mcnemar(wins, losses) if binary else None,
        wins=wins,
        losses=losses,
        ties=len(common) - wins - losses,
        needed=None if low is None or high is None or not low <= 0 <= high else _needed(sample, error, confidence),
    )


def mcnemar(wins: int, losses: int) -> float:
    """Two-sided p of McNemar's exact test: the discordant pairs against a fair coin."""
    return float(min(1.0, 2.0 * bdtr(min(wins, losses), wins + losses, 0.5)))


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """A share with Wilson's score interval (1927). Raises InvalidInput unless 0 <= successes <= n and n > 0."""
    _check_share(successes, n)
    low, high = _wilson(successes / n, n, confidence)
    return Interval(mean=successes / n, low=low, high=high, n=n, groups=n, confidence=confidence)


def confidence_for(look: int, alpha: float = 0.05) -> float:
    """The confidence with which to judge the `look`-th candidate (from 1) on the same held-out examples.

    Each look is a new chance to be lucky, and nobody knows how many will come: the k-th spends alpha * 6 / (pi k)^2,
    and all of them together never more than alpha (a union bound over an endless sequence). Half of it is spent on the
    side that promotes. Where looks are counted anew once the examples have grown by a quarter, as `Judging` does, alpha
    holds for all candidates judged between n and 1.25 n held-out examples, whatever n is, and not for the skill's whole
    life: that may spend it once for each time that they grow so. Raises InvalidInput for a look below 1.
    """
    if look < 1:
        raise InvalidInput(f"Look {look} does not exist; the first candidate is look 1.", param="look")
    return 1.0 - alpha * 6.0 / (math.pi * look) ** 2


@dataclass(frozen=True)
class _Sample:
    """`error` is the clustered standard error; `effective` what the groups are worth if they were of one size."""

    mean: float
    square: float  # mean square of the groups' means, weighted by size
    n: int
    groups: int
    effective: float
    error: float
    unlike_the_rest: int  # groups whose mean is not (nearly) the median group's

    @classmethod
    def of(cls, values: Sequence[float] | Doubles, groups: Sequence[str], *, least: float) -> _Sample:
        scores = np.asarray(values, dtype=np.float64)
        if not len(scores) or len(scores) != len(groups):
            raise InvalidInput(f"{len(scores)} scores in {len(groups)} groups; give one group for each of the scores.")
        if not ((scores >= least - _TIE) & (scores <= 1 + _TIE)).all():
            raise InvalidInput(f"Scores lie between {least:g} and 1.")
        numbers: dict[str, int] = {}
        index = np.asarray([numbers.setdefault(group, len(numbers)) for group in groups])
        sizes, totals = np.bincount(index), np.bincount(index, scores)
        n, count = len(scores), len(sizes)
        mean, means = float(scores.mean()), totals / sizes
        if count > 1:
            without = (totals.sum() - totals) / (n - sizes)
            error = math.sqrt((count - 1) / count * float(((without - mean) ** 2).sum()))
        else:
            error = math.inf
        return cls(
            mean=min(max(mean, least), 1.0),
            square=float((sizes * means**2).sum() / n),
            n=n,
            groups=count,
            effective=n**2 / float((sizes**2).sum()),
            error=error,
            unlike_the_rest=int((np.abs(means - np.median(means)) > _NEARLY).sum()),
        )


def _difference_bounds(sample: _Sample, confidence: float) -> tuple[float | None, float | None, float]:
    """(low, high, standard error) of a paired difference."""
    if sample.groups < 2:
        return None, None, math.inf
    if sample.unlike_the_rest >= _FEW:
        centre, error = sample.mean, sample.error
        freedom = sample.effective - 1
    else:
        # Bonett and Price (2012): one more win and one more loss than were seen.
        more = sample.effective + 2
        centre = sample.mean * sample.effective / more
        error = math.sqrt(((sample.square * sample.effective + 2) / more - centre**2) / more)
        freedom = more - 1
    reach = _t(freedom, confidence) * error
    return max(-1.0, min(centre - reach, sample.mean)), min(1.0, max(centre + reach, sample.mean)), error


def _needed(sample: _Sample, error: float, confidence: float) -> int | None:
    if abs(sample.mean) <= _TIE:
        return None
    variance = sample.n * error**2  # of one example's difference, design effect included
    quantiles = float(ndtri((1 + confidence) / 2) + ndtri(POWER))
    return min(MOST_NEEDED, max(sample.n + 1, math.ceil(quantiles**2 * variance / sample.mean**2)))


def _check_share(successes: int, n: int) -> None:
    if n < 1 or not 0 <= successes <= n:
        raise InvalidInput(f"{successes} of {n} is no share; give 0 <= successes <= n, n at least 1.", param="n")


def _wilson(share: float, n: float, confidence: float) -> tuple[float, float]:
    z2 = float(ndtri((1 + confidence) / 2)) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    reach = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    # At the ends the formula gives 0 and 1 but for rounding.
    return (0.0 if share <= 0 else max(0.0, centre - reach)), (1.0 if share >= 1 else min(1.0, centre + reach))


def _t(freedom: float, confidence: float) -> float:
    return float(stdtrit(max(freedom, 1.0), (1 + confidence) / 2))


def _interval(sample: _Sample, low: float | None, high: float | None, confidence: float) -> Interval:
    # Rounding must not put the mean outside its own interval.
    low = None if low is None else min(low, sample.mean)
    high = None if high is None else max(high, sample.mean)
    return Interval(mean=sample.mean, low=low, high=high, n=sample.n, groups=sample.groups, confidence=confidence)
