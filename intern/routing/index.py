"""Nearest examples: unit vectors of every skill's texts in, similarities to a request out, skill by skill.

Exact up to a few thousand rows; beyond that an inverted file over the clusters that the head was trained on (Sivic and
Zisserman, 2003; FAISS's IVF): only the cells nearest to the request are scanned. Immutable; knows no skill names and
no probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from intern.models.embedder import Vectors

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

CLOSE = 3  # neighbours that speak for a skill
DENSE = 10  # neighbours that say how well covered the place is
_EXACT_ROWS = 4096
_SCANNED_ROWS = 2048  # at least so many rows of the nearest cells are compared
_KEPT = 512  # best rows that enter the statistics


@dataclass(frozen=True)
class Neighbours:
    """Similarities of n requests to S skills, each of shape (n, S): to the nearest text, to the mean of the CLOSE
    and of the DENSE nearest. `row` is the nearest text's row, or -1 where no text of that skill was looked at."""

    nearest: Floats
    close: Floats
    dense: Floats
    row: Ints


class ExampleIndex:
    """Rows of unit vectors, each with the number of its skill and of its cell (cells do not mix skills)."""

    def __init__(self, vectors: Vectors, owners: Ints, cells: Ints, skills: int) -> None:
        order = np.argsort(cells, kind="stable")
        self.order = order  # row in the index -> row as given
        self.vectors = np.ascontiguousarray(vectors[order])
        self._owners = owners[order].astype(np.int32)
        self._skills = skills
        sorted_cells = cells[order]
        self._starts = np.flatnonzero(np.r_[True, np.diff(sorted_cells) != 0]) if len(order) else np.zeros(0, np.int64)
        self._ends = np.r_[self._starts[1:], len(order)] if len(order) else self._starts
        self._exact = len(order) <= _EXACT_ROWS
        if not self._exact:
            sums = np.add.reduceat(self.vectors, self._starts, axis=0)
            self._centres = np.ascontiguousarray(sums / (self._ends - self._starts)[:, None], dtype=np.float32)
        self._sizes = np.bincount(self._owners, minlength=skills) if skills else np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._owners)

    def search(self, vector: Vectors, extra: Vectors | None = None, extra_owners: Ints | None = None) -> Neighbours:
        """Neighbours of one request of shape (dimension,). `extra` rows are always compared; their rows count on from
        the index's own."""
        if self._exact:
            rows = np.arange(len(self._owners))
            similar = self.vectors @ vector
        else:
            rows, similar = self._scan(vector)
        owners = self._owners[rows]
        sizes = self._sizes
        if extra is not None and extra_owners is not None and len(extra):
            similar = np.concatenate([similar, extra @ vector])
            rows = np.concatenate([rows, np.arange(len(self._owners), len(self._owners) + len(extra))])
            owners = np.concatenate([owners, extra_owners])
            sizes = sizes + np.bincount(extra_owners, minlength=self._skills)
        if len(similar) > _KEPT:
            best = np.argpartition(-similar, _KEPT)[:_KEPT]
            similar, rows, owners = similar[best], rows[best], owners[best]
        return self._statistics(similar, rows, owners, sizes)

    def _scan(self, vector: Vectors) -> tuple[npt.NDArray[np.int64], Floats]:
        ranked = np.argsort(-(self._centres @ vector))
        needed = int(np.searchsorted(np.cumsum((self._ends - self._starts)[ranked]), _SCANNED_ROWS)) + 1
        spans = [(int(self._starts[c]), int(self._ends[c])) for c in ranked[:needed]]
        rows = np.concatenate([np.arange(start, end) for start, end in spans])
        return rows, np.concatenate([self.vectors[start:end] @ vector for start, end in spans])

    def _statistics(
        self, similar: Floats, rows: npt.NDArray[np.int64], owners: Ints, sizes: npt.NDArray[np.int64]
    ) -> Neighbours:
        count = self._skills
        floor = float(similar.min()) if len(similar) else 0.0
        order = np.lexsort((-similar, owners))
        similar, rows, owners = similar[order], rows[order], owners[order]
        first = np.searchsorted(owners, np.arange(count))
        rank = np.arange(len(owners)) - first[owners] if len(owners) else np.zeros(0, np.int64)
        nearest = np.full(count, floor, dtype=np.float32)
        row = np.full(count, -1, dtype=np.int32)
        top = rank == 0
        nearest[owners[top]] = similar[top]
        row[owners[top]] = rows[top]
        means = []
        for most in (CLOSE, DENSE):
            wanted = neighbours_of(sizes, most)
            used = rank < wanted[owners]
            found = np.bincount(owners[used], minlength=count)
            total = np.bincount(owners[used], weights=similar[used], minlength=count)
            means.append(((total + (wanted - found) * floor) / wanted).astype(np.float32))
        return Neighbours(nearest[None], means[0][None], means[1][None], row[None])


def neighbours_of(sizes: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """How many neighbours speak for a skill of that many texts: a quarter of them, at least 1, at most `most`."""
    return np.clip(-(-sizes // 4), 1, most)


def exact_neighbours(queries: Vectors, vectors: Vectors, owners: Ints, skills: int) -> Neighbours:
    """The same statistics for many requests at once, against every row; shape (len(queries), skills)."""
    shape = (len(queries), skills)
    nearest, close, dense = (np.full(shape, -1.0, dtype=np.float32) for _ in range(3))
    row = np.full(shape, -1, dtype=np.int32)
    members: Sequence[npt.NDArray[np.int64]] = [np.flatnonzero(owners == skill) for skill in range(skills)]
    for skill, rows in enumerate(members):
        if not len(rows):
            continue
        few = int(neighbours_of(np.asarray([len(rows)]), CLOSE)[0])
        many = int(neighbours_of(np.asarray([len(rows)]), DENSE)[0])
        texts = vectors[rows]
        for start in range(0, len(queries), 2048):
            block = slice(start, start + 2048)
            similar = queries[block] @ texts.T
            best = -np.sort(np.partition(-similar, many - 1, axis=1)[:, :many], axis=1)
            nearest[block, skill] = best[:, 0]
            close[block, skill] = best[:, :few].mean(axis=1)
            dense[block, skill] = best.mean(axis=1)
            row[block, skill] = rows[similar.argmax(axis=1)]
    return Neighbours(nearest, close, dense, row)
