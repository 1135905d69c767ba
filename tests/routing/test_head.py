"""The linear head separates skills of several topics, and leaves tiny skills to their neighbours."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from intern.models.embedder import Vectors
from intern.routing.head import LEAST_TEXTS, clusters, train
from intern.routing.index import Ints

DIMENSION = 32


def topics(sizes: list[int], *, seed: int = 0, spread: float = 0.12) -> tuple[Vectors, Ints, Vectors]:
    """Skills of two opposite topics each, so that no single direction is theirs; and texts of no skill."""
    random = np.random.default_rng(seed)
    rows, owners = [], []
    for skill, size in enumerate(sizes):
        centre = random.standard_normal(DIMENSION)
        centre /= np.linalg.norm(centre)
        signs = np.where(np.arange(size) % 2 == 0, 1.0, -1.0)[:, None]
        rows.append(signs * centre + spread * random.standard_normal((size, DIMENSION)))
        owners += [skill] * size
    vectors = np.concatenate([*rows, random.standard_normal((60, DIMENSION))])
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return vectors[:-60], np.asarray(owners, dtype=np.int32), vectors[-60:]


def test_clusters_make_skills_of_opposite_topics_separable() -> None:
    vectors, owners, outside = topics([200, 200, 200])
    head, cells = train(vectors, owners, outside)
    assert head is not None
    shares, inside = head.probabilities(vectors, 3)
    assert (shares.argmax(axis=1) == owners).mean() > 0.99
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-5)
    assert inside.min() > 0
    assert inside.max() <= 1
    assert np.median(inside) > np.median(head.probabilities(outside, 3)[1])
    for cell in np.unique(cells):
        assert len(set(owners[cells == cell])) == 1, "a cell has one skill"


def test_a_tiny_skill_takes_no_part() -> None:
    vectors, owners, outside = topics([LEAST_TEXTS, LEAST_TEXTS - 1, 40])
    head, cells = train(vectors, owners, outside)
    assert head is not None
    assert list(head.skills) == [0, 2]
    assert head.probabilities(vectors, 3)[0][:, 1].max() == 0
    assert len(cells) == len(vectors)
    assert set(cells[owners == 1]).isdisjoint(cells[owners != 1])


def test_nothing_to_train_on_is_no_head() -> None:
    vectors, owners, outside = topics([3, 4])
    assert train(vectors, owners, outside)[0] is None
    assert train(vectors[:0], owners[:0], outside)[0] is None


def test_one_skill_is_told_from_the_rest_of_the_world() -> None:
    vectors, owners, outside = topics([60])
    head, _ = train(vectors, owners, outside)
    assert head is not None
    assert np.quantile(head.probabilities(vectors, 1)[1], 0.1) > np.quantile(head.probabilities(outside, 1)[1], 0.9)


def test_a_skill_that_went_leaves_the_others_in_their_new_numbers() -> None:
    vectors, owners, outside = topics([200, 200, 200])
    head, _ = train(vectors, owners, outside)
    assert head is not None
    rest = head.without({0: 1, 2: 0})
    assert rest is not None
    shares, _ = rest.probabilities(vectors, 2)
    assert (shares[owners == 0].argmax(axis=1) == 1).all()
    assert (shares[owners == 2].argmax(axis=1) == 0).all()
    assert head.without({}) is None


def test_training_twice_gives_the_same_head() -> None:
    vectors, owners, outside = topics([90, 160])
    first, second = train(vectors, owners, outside)[0], train(vectors, owners, outside)[0]
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.weights, second.weights)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(0, 40), count=st.integers(1, 50))
def test_every_row_gets_a_cluster(seed: int, size: int, count: int) -> None:
    rows = np.random.default_rng(seed).standard_normal((size, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = clusters(rows, count, seed=seed)
    assert len(labels) == size
    assert not size or 0 <= labels.min() <= labels.max() < min(count, max(size, 1))


def test_equal_rows_are_no_obstacle() -> None:
    assert set(clusters(np.full((10, 4), 0.5, dtype=np.float32), 3, seed=0)) <= {0, 1, 2}
