"""Nearest examples: the index finds what an exhaustive comparison finds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from intern.models.embedder import Vectors
from intern.routing.index import ExampleIndex, exact_neighbours, neighbours_of

DIMENSION = 24


def units(random: np.random.Generator, count: int) -> Vectors:
    rows = random.standard_normal((count, DIMENSION)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 300), skills=st.integers(1, 6))
def test_a_small_index_is_exact(seed: int, count: int, skills: int) -> None:
    random = np.random.default_rng(seed)
    vectors, query = units(random, count), units(random, 1)
    owners = np.r_[np.arange(skills), random.integers(skills, size=count)][:count].astype(np.int32)
    skills = int(owners.max()) + 1
    index = ExampleIndex(vectors, owners, owners, skills)
    found, expected = index.search(query[0]), exact_neighbours(query, vectors, owners, skills)
    for name in ("nearest", "close", "dense"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-5)
    assert [index.order[row] for row in found.row[0]] == list(expected.row[0])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 60))
def test_more_neighbours_never_mean_more_similarity(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    vectors, owners = units(random, count), random.integers(3, size=count).astype(np.int32)
    found = exact_neighbours(units(random, 5), vectors, owners, 3)
    assert (found.nearest >= found.close - 1e-6).all()
    assert (found.close >= found.dense - 1e-6).all()


def clustered(random: np.random.Generator, rows: int) -> tuple[Vectors, npt.NDArray[np.int32], Vectors]:
    """Rows around 300 centres, each centre a cell of one of 30 skills; and requests near some rows."""
    cells = random.integers(300, size=rows).astype(np.int32)
    vectors = units(random, 300)[cells] + 0.15 * random.standard_normal((rows, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[::97] + 0.1 * random.standard_normal((len(vectors[::97]), DIMENSION)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    return vectors.astype(np.float32), cells, queries.astype(np.float32)


def test_a_large_index_finds_the_nearest_text_although_it_looks_at_a_part() -> None:
    vectors, cells, queries = clustered(np.random.default_rng(7), 20_000)
    owners = (cells // 10).astype(np.int32)
    index = ExampleIndex(vectors, owners, cells, 30)
    expected = exact_neighbours(queries, vectors, owners, 30).nearest.max(axis=1)
    found = np.asarray([index.search(query).nearest.max() for query in queries])
    assert (found > expected - 1e-5).mean() > 0.98


def test_extra_rows_are_always_compared() -> None:
    random = np.random.default_rng(3)
    vectors, cells, _ = clustered(random, 6_000)
    index = ExampleIndex(vectors, (cells // 10).astype(np.int32), cells, 30)
    extra = units(random, 1)
    found = index.search(extra[0], extra, np.asarray([4], dtype=np.int32))
    assert int(found.nearest[0].argmax()) == 4
    assert found.row[0, 4] == len(index)


def test_a_quarter_of_a_small_skills_texts_speak_for_it() -> None:
    assert list(neighbours_of(np.asarray([0, 1, 4, 5, 20, 1000]), 10)) == [1, 1, 1, 2, 5, 10]
