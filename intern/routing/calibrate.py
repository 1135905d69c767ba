"""Confidence and abstention: the head's and the neighbours' numbers in, one calibrated probability out.

Four measurements of a request (features) enter a logistic model whose coefficients are never negative, so that more
similarity never means less confidence. It is fitted on out-of-fold measurements of the skills' own texts (near-copies
never on both sides), of whole skills left out in turn, and of general out-of-scope requests; drawn towards built-in
coefficients, which serve alone while a team has too few texts. The threshold is where the wanted share of in-scope
texts is refused. Knows no names and no texts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from intern.models.embedder import Vectors
from intern.routing.head import Head, train
from intern.routing.index import Floats, Ints, Neighbours, exact_neighbours

Doubles = npt.NDArray[np.float64]

OUT_OF_SCOPE_SHARE = 0.05  # of the requests that a team gets; what `confidence` is calibrated to
FEATURES = ("margin", "inside", "nearest", "dense")
_SCALE = np.asarray([2.0, 2.0, 0.15, 0.15])
_CENTRE = np.asarray([2.0, 2.0, 0.6, 0.5])
_PRIOR = np.asarray([0.8, 0.9, 0.5, 0.5, 2.2])  # coefficients and intercept for teams with too few texts
_PRIOR_STRENGTH = 3.0  # precision of a Gaussian around them
_RANKING_SHARE = 0.2
_SHARPNESS = 25.0  # similarity to log odds
_LONE_MARGIN = 2.0  # a single skill has no rival: neither for nor against
_LEAST_QUERIES = 30
_FOLD_CLUSTERINGS = 2  # one fewer than the head in service has: a third less time, and hardly other numbers
_MOST_QUERIES = 4000
_COPY = 0.9  # texts at least so similar stand on the same side of a fold
_DEFAULT_THRESHOLD = 0.5
_HIGHEST_THRESHOLD = 0.8


@dataclass(frozen=True)
class Calibration:
    """`coefficients` of FEATURES and the intercept; `inscope` the sorted out-of-fold confidences of in-scope texts."""

    coefficients: Doubles
    inscope: Doubles

    def confidence(self, features: Doubles) -> Doubles:
        """(n, 4) features to (n,) probabilities that the first candidate is right."""
        logits = (features - _CENTRE) / _SCALE @ self.coefficients[:-1] + self.coefficients[-1]
        return np.asarray(1.0 / (1.0 + np.exp(-logits)), dtype=np.float64)

    def threshold(self, refuse_rate: float) -> float:
        """The confidence below which to abstain. With few texts it lies near one half; it is never so high that a
        request would be refused only because it is unlike the others of a very uniform skill."""
        if refuse_rate <= 0:
            return 0.0
        count = len(self.inscope)
        if not count:
            return _DEFAULT_THRESHOLD
        # "At most": aim below the rate by one standard error of a share estimated from that many texts.
        rate = max(0.0, refuse_rate - float(np.sqrt(refuse_rate * (1 - refuse_rate) / count)))
        measured = _logit(np.asarray([np.quantile(self.inscope, rate)]))[0]
        weight = count / (count + 50.0)
        blended = 1.0 / (1.0 + np.exp(-weight * measured))  # the default's logit is zero
        return float(min(blended, _HIGHEST_THRESHOLD))


BUILT_IN = Calibration(_PRIOR, np.zeros(0))


def posterior(
    neighbours: Neighbours, head: Head | None, queries: Vectors, outside_close: Floats
) -> tuple[Floats, Floats]:
    """Probability of each skill given that one fits, (n, skills), and log odds that one fits at all, (n, skills).

    Skills in the head share what the neighbours give to them together; the others get what their neighbours give.
    `outside_close` is each request's similarity to the general out-of-scope requests, (n,).
    """
    close = neighbours.close
    count = close.shape[1]
    near = np.exp(_SHARPNESS * (close - close.max(axis=1, keepdims=True)))
    near /= near.sum(axis=1, keepdims=True)
    fits = np.clip(20.0 * (close - outside_close[:, None]), -8.0, 8.0)
    if head is None:
        return near, fits
    shares, inside = head.probabilities(queries, count)
    members = head.skills
    mass = near[:, members].sum(axis=1, keepdims=True)
    mixed = near.copy()
    mixed[:, members] *= 1.0 - head.trust
    mixed[:, members] += head.trust * mass * shares[:, members]
    fits[:, members] = np.clip(_logit(inside), -8.0, 8.0)[:, None]
    return mixed, fits


def measure(shares: Floats, fits: Floats, neighbours: Neighbours, chosen: npt.NDArray[np.int64]) -> Doubles:
    """The FEATURES of each request for its `chosen` skill: float64 of shape (n, 4)."""
    rows = np.arange(len(chosen))
    if shares.shape[1] == 1:
        margin = np.full(len(chosen), _LONE_MARGIN)
    else:
        margin = np.clip(_logit(shares[rows, chosen]), -6.0, 6.0)
    return np.stack(
        [margin, fits[rows, chosen], neighbours.nearest[rows, chosen], neighbours.dense[rows, chosen]], axis=1
    ).astype(np.float64)


def outside_closeness(queries: Vectors, outside: Vectors) -> Floats:
    """Mean similarity of each request to its three nearest out-of-scope texts; -1 without any."""
    if len(outside) < 3:
        return np.full(len(queries), -1.0, dtype=np.float32)
    similar = queries @ outside.T
    return np.asarray(np.partition(similar, -3, axis=1)[:, -3:].mean(axis=1), dtype=np.float32)


def calibrate(vectors: Vectors, owners: Ints, skills: int, outside: Vectors, *, seed: int = 0) -> Calibration:
    """Fit the logistic model by cross-validation: vectors (n, dimension), owners (n,) with numbers below `skills`."""
    if len(vectors) < _LEAST_QUERIES or not len(outside):
        return BUILT_IN
    features, right, kind = cross_measure(vectors, owners, skills, outside, seed=seed)
    return fit_model(features, right, kind)


def cross_measure(
    vectors: Vectors, owners: Ints, skills: int, outside: Vectors, *, seed: int = 0
) -> tuple[Doubles, npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Out-of-fold FEATURES (n, 4), whether the chosen skill is right, and the kind of each request: 0 in scope, 1 of a
    skill that was left out, 2 general out of scope."""
    random = np.random.default_rng(seed)
    folds = 3 if len(vectors) > 4000 else 5
    groups = _copies(vectors, owners)
    fold = random.integers(folds, size=int(groups.max()) + 1)[groups]
    outside_fold = random.permutation(len(outside)) % folds
    # One skill in ten stays away from each fold: more would leave the others too few rivals, and with fewer than
    # three skills none can be spared.
    away_each = max(1, skills // 10) if skills > 2 else 0
    order = random.permutation(skills)
    measured: list[Doubles] = []
    right: list[npt.NDArray[np.bool_]] = []
    kinds: list[npt.NDArray[np.int64]] = []
    for number in range(folds):
        away = np.isin(owners, order[number * away_each : (number + 1) * away_each])
        kept = (fold != number) & ~away
        if not kept.any():
            continue
        present = np.unique(owners[kept])
        renumbered = np.full(skills, -1)
        renumbered[present] = np.arange(len(present))
        known, known_owners = vectors[kept], renumbered[owners[kept]].astype(np.int32)
        known_outside = outside[outside_fold != number]
        head, _ = train(known, known_owners, known_outside, seed=seed, clusterings=_FOLD_CLUSTERINGS)
        held_out = np.flatnonzero((fold == number) & ~away & (renumbered[owners] >= 0))
        inscope = _some(held_out, _MOST_QUERIES // folds, random)
        leftout = _some(np.flatnonzero(away), _MOST_QUERIES // folds // 4, random)
        general = outside[outside_fold == number]
        queries = np.concatenate([vectors[inscope], vectors[leftout], general])
        neighbours = exact_neighbours(queries, known, known_owners, len(present))
        shares, fits = posterior(neighbours, head, queries, outside_closeness(queries, known_outside))
        chosen = shares.argmax(axis=1)
        measured.append(measure(shares, fits, neighbours, chosen))
        truth = np.r_[renumbered[owners[inscope]], np.full(len(leftout) + len(general), -1)]
        right.append(chosen == truth)
        kinds.append(np.repeat([0, 1, 2], [len(inscope), len(leftout), len(general)]))
    return np.concatenate(measured), np.concatenate(right), np.concatenate(kinds)


def fit_model(features: Doubles, right: npt.NDArray[np.bool_], kind: npt.NDArray[np.int64]) -> Calibration:
    """The logistic model of measured requests: what weighs how much, then Platt scaling of that one score."""
    sizes = np.bincount(kind, minlength=3)
    if sizes[0] < _LEAST_QUERIES:
        return BUILT_IN
    unknown = [which for which in (1, 2) if sizes[which]]

    def weights(share: float) -> Doubles:
        each = np.asarray([(1.0 - share) / sizes[0], 0.0, 0.0])
        each[unknown] = share / len(unknown) / sizes[unknown]
        return np.asarray(each[kind] * sizes[0])

    # Refusing well and being calibrated want different mixtures: many out-of-scope requests show what tells them
    # apart, the expected share says how probable they are.
    rows = (features - _CENTRE) / _SCALE
    ranking = _nonnegative_logistic(rows, right, weights(_RANKING_SHARE), _PRIOR)
    score = (rows @ ranking[:-1])[:, None]
    scale, intercept = _nonnegative_logistic(score, right, weights(OUT_OF_SCOPE_SHARE), np.asarray([1.0, _PRIOR[-1]]))
    fitted = Calibration(np.r_[ranking[:-1] * scale, intercept], np.zeros(0))
    return Calibration(fitted.coefficients, np.sort(fitted.confidence(features[kind == 0])))


def _nonnegative_logistic(rows: Doubles, right: npt.NDArray[np.bool_], weights: Doubles, prior: Doubles) -> Doubles:
    """Weighted logistic regression with coefficients >= 0 and a free intercept (last), drawn towards `prior`."""
    from scipy.optimize import minimize

    rows = np.c_[rows, np.ones(len(rows))]
    signs = np.where(right, 1.0, -1.0)

    def loss(theta: Doubles) -> tuple[float, Doubles]:
        logits = signs * (rows @ theta)
        away = theta - prior
        value = float((weights * np.logaddexp(0.0, -logits)).sum() + 0.5 * _PRIOR_STRENGTH * (away**2).sum())
        slope = -(weights * signs / (1.0 + np.exp(np.clip(logits, -60, 60)))) @ rows + _PRIOR_STRENGTH * away
        return value, slope

    bounds = [(0.0, None)] * (len(prior) - 1) + [(None, None)]
    return np.asarray(minimize(loss, prior, jac=True, method="L-BFGS-B", bounds=bounds).x, dtype=np.float64)


def _copies(vectors: Vectors, owners: Ints) -> npt.NDArray[np.int64]:
    """A group number for each row, the same for near-copies within a skill, and for near-copies of near-copies."""
    first: list[npt.NDArray[np.int64]] = []
    second: list[npt.NDArray[np.int64]] = []
    for skill in np.unique(owners):
        rows = np.flatnonzero(owners == skill)
        for start in range(0, len(rows), 1024):
            block = rows[start : start + 1024]
            one, other = np.nonzero(vectors[block] @ vectors[rows].T >= _COPY)
            first.append(block[one])
            second.append(rows[other])
    pairs = (np.concatenate(first), np.concatenate(second)) if first else (np.zeros(0, np.int64),) * 2
    graph = coo_array((np.ones(len(pairs[0]), dtype=np.int8), pairs), shape=(len(vectors), len(vectors)))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _some(rows: npt.NDArray[np.int64], most: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    return rows if len(rows) <= most else np.sort(random.choice(rows, most, replace=False))


def _logit(share: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    clipped = np.clip(share.astype(np.float64), 1e-4, 1 - 1e-4)
    return np.log(clipped / (1.0 - clipped))
