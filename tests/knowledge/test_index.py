"""Chroma finds what exact search finds, keeps spaces apart, survives a restart, and fails with the platform's error."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromadb.errors import InternalError

from intern.errors import StoreFailure
from intern.knowledge import ExactIndex, VectorIndex, open_index
from intern.knowledge.index import Space
from intern.models.embedder import Vectors

SPACE = Space("team", "skill", "embedder")


def vectors(count: int, seed: int = 0, dimension: int = 64) -> Vectors:
    """Unit vectors in clusters, as texts make them."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(20, dimension))
    made = centres[random.integers(0, 20, count)] + 0.6 * random.normal(size=(count, dimension))
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made.astype(np.float32)


@pytest.fixture(scope="module")
def chroma_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Chroma server on loopback."""
    home = tmp_path_factory.mktemp("chroma")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("chroma")
    command = [str(program), "run", "--path", str(home / "data"), "--host", "127.0.0.1", "--port", str(port)]
    with (home / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=home) as server:
        until = time.monotonic() + 60
        while server.poll() is None and time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        else:
            server.kill()
            pytest.fail(f"the Chroma server did not start: {(home / 'log').read_text()[-500:]}")
        yield f"http://127.0.0.1:{port}"
        server.terminate()


@pytest.fixture(params=["chroma", "chroma server", "exact"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorIndex]:
    if request.param == "exact":
        opened: VectorIndex = ExactIndex()
    else:
        url = request.getfixturevalue("chroma_server") if request.param == "chroma server" else None
        opened = open_index(tmp_path / "index", url)
    yield opened
    for space in opened.spaces():
        opened.drop(space)
    opened.close()


def test_the_nearest_come_first_with_their_cosine(index: VectorIndex) -> None:
    held = vectors(30)
    index.put(SPACE, [f"p{n}" for n in range(30)], held)
    [hits] = index.search(SPACE, held[7:8], 5)
    assert hits[0].id == "p7"
    expected = np.sort(held @ held[7])[::-1][:5]
    assert [hit.score for hit in hits] == pytest.approx(expected.tolist(), abs=1e-5)


def test_approximate_search_finds_99_in_100_of_what_exact_search_finds(tmp_path: Path) -> None:
    held, asked = vectors(2000), vectors(50, seed=1)
    ids = [f"p{n}" for n in range(len(held))]
    chroma, exact = open_index(tmp_path / "index"), ExactIndex()
    for index in (chroma, exact):
        index.put(SPACE, ids, held)
    pairs = zip(chroma.search(SPACE, asked, 100), exact.search(SPACE, asked, 100), strict=True)
    recall = np.mean([len({h.id for h in a} & {h.id for h in b}) / 100 for a, b in pairs])
    chroma.close()
    assert recall >= 0.99


def test_putting_again_replaces_and_deleting_deletes(index: VectorIndex) -> None:
    held = vectors(4)
    index.put(SPACE, ["a", "b", "c"], held[:3])
    index.put(SPACE, ["c"], held[3:])
    index.delete(SPACE, {"a", "never"})
    assert index.ids(SPACE) == {"b", "c"}
    [hits] = index.search(SPACE, held[3:], 5)
    assert hits[0].id == "c"
    assert hits[0].score == pytest.approx(1.0, abs=1e-5)


def test_spaces_are_apart_even_when_their_names_run_together(index: VectorIndex) -> None:
    spaces = [Space("a", "bc", "e"), Space("ab", "c", "e"), Space("a", "bc", "f"), Space("Ü/..", "\n", "e" * 300)]
    for number, space in enumerate(spaces):
        index.put(space, [f"in{number}"], vectors(1))
    assert [index.ids(space) for space in spaces] == [{f"in{number}"} for number in range(4)]
    assert set(index.spaces()) == set(spaces)
    index.drop(spaces[0])
    assert [len(index.ids(space)) for space in spaces] == [0, 1, 1, 1]


def test_what_does_not_exist_is_empty(index: VectorIndex) -> None:
    assert index.ids(SPACE) == set()
    assert index.search(SPACE, vectors(2), 3) == [[], []]
    index.delete(SPACE, ["a"])
    index.drop(SPACE)
    index.put(SPACE, [], vectors(0))
    assert index.spaces() == []


def test_an_emptied_space_and_a_dropped_one_can_be_filled_again(index: VectorIndex) -> None:
    held = vectors(3)
    index.put(SPACE, ["a"], held[:1])
    index.delete(SPACE, ["a"])
    assert index.search(SPACE, held[:1], 3) == [[]]
    index.put(SPACE, ["b"], held[1:2])
    index.drop(SPACE)
    index.put(SPACE, ["c"], held[2:])
    assert index.ids(SPACE) == {"c"}
    assert [hit.id for hit in index.search(SPACE, held[:1], 3)[0]] == ["c"]


def test_chroma_keeps_what_it_holds_over_a_restart(tmp_path: Path) -> None:
    first = open_index(tmp_path / "index")
    first.put(SPACE, ["a", "b"], vectors(2))
    first.close()
    second = open_index(tmp_path / "index")
    held, spaces = second.ids(SPACE), second.spaces()
    second.close()
    assert held == {"a", "b"}
    assert spaces == [SPACE]


def test_a_collection_dropped_and_remade_by_another_client_is_found_again(tmp_path: Path) -> None:
    one, two = open_index(tmp_path / "index"), open_index(tmp_path / "index")
    held = vectors(2)
    one.put(SPACE, ["a"], held[:1])
    assert two.ids(SPACE) == {"a"}
    one.drop(SPACE)
    assert two.search(SPACE, held[:1], 3) == [[]]
    one.put(SPACE, ["b"], held[1:])
    assert two.ids(SPACE) == {"b"}
    two.put(SPACE, ["a"], held[:1])
    assert [hit.id for hit in two.search(SPACE, held[:1], 3)[0]] == ["a", "b"]
    one.close()
    two.close()


@pytest.mark.parametrize("operation", ["ids", "put", "delete", "search"])
def test_no_operation_keeps_the_handle_of_a_collection_that_another_client_made_anew(
    tmp_path: Path, operation: str
) -> None:
    one, two = open_index(tmp_path / "index"), open_index(tmp_path / "index")
    held = vectors(2)
    one.put(SPACE, ["a"], held[:1])
    assert two.ids(SPACE) == {"a"}
    one.drop(SPACE)
    one.put(SPACE, ["b"], held[1:])
    if operation == "ids":
        assert two.ids(SPACE) == {"b"}
    elif operation == "put":
        two.put(SPACE, ["c"], held[:1])
        assert one.ids(SPACE) == {"b", "c"}
    elif operation == "delete":
        two.delete(SPACE, ["b"])
        assert one.ids(SPACE) == set()
    else:
        assert [hit.id for hit in two.search(SPACE, held[:1], 3)[0]] == ["b"]
    one.close()
    two.close()


def test_a_search_that_met_a_deletion_on_its_way_is_made_again(tmp_path: Path) -> None:
    index = open_index(tmp_path / "index")
    held = vectors(1)
    index.put(SPACE, ["a"], held)
    collection = index._collections[SPACE]  # type: ignore[attr-defined]
    calls = []

    class Deleting:
        def query(self, **asked: Any) -> Any:
            calls.append(asked)
            if len(calls) < 3:
                raise InternalError("Error executing plan: Internal error: Error finding id")
            return collection.query(**asked)

    index._collections[SPACE] = Deleting()  # type: ignore[attr-defined]
    assert [hit.id for hit in index.search(SPACE, held, 1)[0]] == ["a"]
    assert len(calls) == 3
    index.close()


def test_vectors_of_the_wrong_length_and_an_unreachable_server_raise_the_platforms_error(tmp_path: Path) -> None:
    index = open_index(tmp_path / "index")
    index.put(SPACE, ["a"], vectors(1))
    with pytest.raises(StoreFailure, match="vector index failed"):
        index.search(SPACE, vectors(1, dimension=8), 1)
    index.close()
    with pytest.raises(StoreFailure, match="vector index failed"):
        open_index(tmp_path / "none", "http://127.0.0.1:9")
