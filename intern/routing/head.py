"""The linear head: unit vectors with their skills in, probabilities of skills out.

A skill is rarely one direction, so each is split into clusters (spherical k-means), a multinomial logistic regression
separates all clusters and those of general out-of-scope requests (outlier exposure, Hendrycks et al., 2019), and a
skill's probability is the sum over its clusters. Several clusterings are averaged. Knows no names,
no texts and no thresholds. scipy is imported for training only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from intern.models.embedder import Vectors
from intern.routing.index import Floats, Ints

LEAST_TEXTS = 8  # a skill with fewer texts is served by its nearest examples only
# Texts a cluster and most clusters a skill, one pair a clustering. One clustering's luck is worth 0.2 points of
# accuracy on CLINC150; averaging takes it out. Finer clusters of few texts make it overconfident.
_FINENESS = ((50, 20), (80, 12), (50, 20))
_MOST_CLASSES = 400  # clusters of all skills together: bounds the time of training and of a decision
_STRENGTH = 100.0  # inverse L2 penalty, as scikit-learn's C
_OUTSIDE = -1


@dataclass(frozen=True)
class Head:
    """Weights of shape (classes, dimension + 1), the last column the bias; `owners` is each class's skill, or -1
    for out of scope; `parts` numbers the clustering that a class belongs to. `skills` has the skills that take
    part, ascending; `trust`, 0 to 1, is the head's share beside the nearest examples: it grows with its texts."""

    weights: Floats
    owners: Ints
    parts: Ints
    skills: Ints
    trust: float

    def probabilities(self, queries: Vectors, skills: int) -> tuple[Floats, Floats]:
        """(n, skills) probability of each skill given that the request is in scope, and (n,) that it is in scope."""
        logits = queries @ self.weights[:, :-1].T + self.weights[:, -1]
        shares = np.zeros((len(queries), skills + 1), dtype=np.float32)
        parts = int(self.parts[-1]) + 1
        for part in range(parts):
            mine = self.parts == part
            raised = np.exp(logits[:, mine] - logits[:, mine].max(axis=1, keepdims=True))
            raised /= raised.sum(axis=1, keepdims=True)
            columns = np.where(self.owners[mine] < 0, skills, self.owners[mine])
            # Classes of one owner lie together: sums over runs are faster than a scatter.
            starts = np.flatnonzero(np.r_[True, np.diff(columns) != 0])
            shares[:, columns[starts]] += np.add.reduceat(raised, starts, axis=1) / parts
        inside = np.clip(shares[:, :skills].sum(axis=1), 1e-6, 1.0)
        return shares[:, :skills] / inside[:, None], inside

    def without(self, renumbered: dict[int, int]) -> Head | None:
        """This head for other skill numbers: classes of skills that are not in `renumbered` are dropped; None if
        none is left."""
        kept = np.asarray([owner < 0 or int(owner) in renumbered for owner in self.owners])
        owners = np.asarray([renumbered.get(int(o), _OUTSIDE) for o in self.owners[kept]], dtype=np.int32)
        skills = np.asarray(sorted(renumbered[int(s)] for s in self.skills if int(s) in renumbered), dtype=np.int32)
        return Head(self.weights[kept], owners, self.parts[kept], skills, self.trust) if len(skills) else None


def train(
    vectors: Vectors, owners: Ints, outside: Vectors, *, seed: int = 0, clusterings: int = len(_FINENESS)
) -> tuple[Head | None, Ints]:
    """A head for the skills that have at least LEAST_TEXTS texts, and each row's cell (its finest cluster).

    `outside` are vectors of out-of-scope requests; `clusterings` says how many are
    averaged. None when no skill has enough texts.
    """
    sizes = np.bincount(owners) if len(owners) else np.zeros(0, np.int64)
    skills = np.flatnonzero(sizes >= LEAST_TEXTS).astype(np.int32)
    cells = np.full(len(owners), -1, dtype=np.int32)
    heads: list[tuple[Floats, npt.NDArray[np.int64]]] = []
    # With very many skills a second clustering would be as coarse as the first: it costs time and adds nothing.
    wanted = 1 if len(skills) > _MOST_CLASSES // 4 else clusterings
    for number, (texts_a_cluster, most) in enumerate(_FINENESS[:wanted]):
        counts = np.clip(sizes[skills] // texts_a_cluster, 1, most)
        counts = np.maximum(1, (counts * min(1.0, _MOST_CLASSES / max(1, counts.sum()))).astype(int))
        if number and counts.max(initial=1) == 1:
            break  # one cluster a skill: the same head again
        labels = np.full(len(owners), -1, dtype=np.int64)
        class_owners: list[int] = []
        for skill, count in zip(skills, counts, strict=True):
            rows = np.flatnonzero(owners == skill)
            labels[rows] = clusters(vectors[rows], int(count), seed=seed + number) + len(class_owners)
            class_owners.extend([int(skill)] * int(count))
        if not class_owners:
            break
        if not heads:
            cells = labels.astype(np.int32)
        beyond = clusters(outside, max(1, min(8, len(outside) // 8)), seed=seed + number) + len(class_owners)
        class_owners.extend([_OUTSIDE] * int(beyond.max() - len(class_owners) + 1 if len(beyond) else 0))
        used = labels >= 0
        balance = np.clip(np.sqrt(sizes[skills].mean() / sizes[owners[used]]), 0.5, 4.0)
        # Out-of-scope texts together weigh 7% of the skills' texts, but never vanish nor dominate one by one.
        counter = np.full(len(outside), np.clip(0.07 * used.sum() / max(1, len(outside)), 0.3, 3.0))
        fitted = _softmax_regression(
            np.concatenate([vectors[used], outside]),
            np.concatenate([labels[used], beyond]),
            np.concatenate([balance, counter]),
            len(class_owners),
        )
        heads.append((fitted, np.asarray(class_owners)))
    # Rows of skills outside the head still need a cell each of their own skill.
    loose = cells < 0
    cells[loose] = owners[loose] + (int(cells.max()) + 1 if len(cells) else 0)
    if not heads:
        return None, cells
    weights = np.concatenate([h[0] for h in heads])
    classes = np.concatenate([h[1] for h in heads]).astype(np.int32)
    # Measured on CLINC150 with 45 to 1,500 texts a skill.
    trust = 1.0 - float(np.clip(120.0 / sizes[skills].mean(), 0.2, 0.4))
    parts = np.concatenate([np.full(len(h[1]), i) for i, h in enumerate(heads)]).astype(np.int32)
    return Head(weights, classes, parts, skills, trust), cells


def clusters(vectors: Vectors, count: int, *, seed: int, rounds: int = 25) -> npt.NDArray[np.int64]:
    """Spherical k-means with k-means++ seeding: the cluster of each row, numbered 0 to at most count - 1, none empty
    unless there are fewer distinct rows than clusters."""
    count = min(count, len(vectors))
    if count <= 1:
        return np.zeros(len(vectors), dtype=np.int64)
    random = np.random.default_rng(seed)
    centres = vectors[int(random.integers(len(vectors))), None]
    distance = np.full(len(vectors), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, np.clip(1.0 - vectors @ centres[-1], 0.0, None))
        total = distance.sum()
        pick = int(random.choice(len(vectors), p=distance / total) if total > 0 else random.integers(len(vectors)))
        centres = np.concatenate([centres, vectors[pick, None]])
    labels = np.full(len(vectors), -1, dtype=np.int64)
    for _ in range(rounds):
        similar = vectors @ centres.T
        new = similar.argmax(axis=1)
        if np.array_equal(new, labels):
            break
        labels = new
        sums = np.zeros_like(centres)
        np.add.at(sums, labels, vectors)
        lengths = np.linalg.norm(sums, axis=1)
        alive = lengths > 1e-9
        centres[alive] = sums[alive] / lengths[alive, None]
    return labels


def _softmax_regression(
    rows: Vectors, labels: npt.NDArray[np.int64], weights: npt.NDArray[np.float64], classes: int
) -> Floats:
    """Multinomial logistic regression by L-BFGS: (classes, dimension + 1). The bias is not penalised."""
    from scipy.optimize import minimize

    rows = np.ascontiguousarray(np.c_[rows, np.ones(len(rows), dtype=np.float32)], dtype=np.float32)
    picked = (np.arange(len(rows)), labels)
    total = float(weights.sum())
    share = (weights / total).astype(np.float32)
    penalty = 1.0 / (_STRENGTH * total)

    def loss(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        theta = flat.reshape(classes, -1)
        logits = rows @ theta.T.astype(np.float32)
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[picked]
        np.exp(logits, out=logits)
        sums = logits.sum(axis=1, keepdims=True)
        value = float((share * (np.log(sums[:, 0]) - chosen)).sum(dtype=np.float64))
        logits /= sums
        logits[picked] -= 1.0
        logits *= share[:, None]
        slope = (logits.T @ rows).astype(np.float64)
        plain = theta.copy()
        plain[:, -1] = 0.0
        value += 0.5 * penalty * float((plain**2).sum())
        slope += penalty * plain
        return value, slope.ravel()

    # Starting at the classes' own directions takes a third fewer steps than starting at zero.
    start = np.zeros((classes, rows.shape[1]))
    np.add.at(start[:, :-1], labels, rows[:, :-1])
    start[:, :-1] /= np.maximum(np.linalg.norm(start[:, :-1], axis=1, keepdims=True), 1e-9)
    start[:, :-1] = 20.0 * (start[:, :-1] - rows[:, :-1].mean(axis=0))
    found = minimize(
        loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 120, "gtol": 5e-5, "ftol": 1e-9}
    )
    return np.ascontiguousarray(found.x.reshape(classes, -1), dtype=np.float32)
