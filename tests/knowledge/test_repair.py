"""SQL is the truth: whatever happens to the index, at whatever moment, the answers are SQL's again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy.engine import Engine

from intern.errors import StoreFailure
from intern.knowledge import ExactIndex, Knowledge, Upload, open_index
from intern.knowledge.index import Space
from intern.models.embedder import Vectors

Files = Callable[..., list[Upload]]
OLD = {"leave": "Leave\n\nThere are 28 days of leave.", "pay": "Pay\n\nSalaries are paid on the 25th."}
NEW = {"leave": "Leave\n\nThere are thirty days of leave.", "travel": "Travel\n\nTrains are booked in the portal."}


class DyingIndex(ExactIndex):
    """Dies at the nth of its writes from `countdown` on, as a killed process would: before it happens."""

    countdown: int | None = None

    def _tick(self) -> None:
        if self.countdown is not None:
            self.countdown -= 1
            if self.countdown < 0:
                raise StoreFailure("the process was killed here")

    def put(self, space: Space, ids: Sequence[str], vectors: Vectors) -> None:
        self._tick()
        super().put(space, ids, vectors)

    def delete(self, space: Space, ids: Collection[str]) -> None:
        self._tick()
        super().delete(space, ids)


def answers(knowledge: Knowledge) -> list[tuple[str, str, float]]:
    passages = knowledge.retrieve("t", "s", "leave pay travel days", limit=20, mode="dense")
    return [(p.id, p.text, p.score) for p in passages]


def in_step(knowledge: Knowledge, index: Any, embedder: Any) -> bool:
    held = index.ids(Space("t", "s", embedder.id))
    return bool(held == {id for id, _, _ in answers(knowledge)})


@pytest.mark.parametrize("died_at", range(2))
def test_a_crash_between_the_commit_and_the_index_is_repaired_at_the_next_start(
    database: Engine, embedder: Any, parser: Any, files: Files, died_at: int, caplog: pytest.LogCaptureFixture
) -> None:
    index = DyingIndex()
    first = Knowledge(database, embedder, parser, index)
    first.ingest("t", "s", files(**OLD), source="docs")
    assert len(answers(first)) == 2
    index.countdown = died_at
    with pytest.raises(StoreFailure):
        first.ingest("t", "s", files(**NEW), source="docs")
    index.countdown = None
    with caplog.at_level(logging.WARNING):
        second = Knowledge(database, embedder, parser, index)
        texts = {text for _, text, _ in answers(second)}
    assert texts == {OLD["pay"], NEW["leave"], NEW["travel"]}
    assert in_step(second, index, embedder)
    assert "made anew from the database" in caplog.text


def test_the_process_that_lived_on_repairs_it_too(database: Engine, embedder: Any, parser: Any, files: Files) -> None:
    index = DyingIndex()
    knowledge = Knowledge(database, embedder, parser, index)
    knowledge.ingest("t", "s", files(**OLD), source="docs")
    answers(knowledge)
    index.countdown = 0
    with pytest.raises(StoreFailure):
        knowledge.ingest("t", "s", files(**NEW), source="docs")
    index.countdown = None
    assert {text for _, text, _ in answers(knowledge)} == {OLD["pay"], NEW["leave"], NEW["travel"]}
    assert in_step(knowledge, index, embedder)


def test_a_change_after_an_unrepaired_crash_does_not_hide_it(
    database: Engine, embedder: Any, parser: Any, files: Files
) -> None:
    index = DyingIndex()
    knowledge = Knowledge(database, embedder, parser, index)
    knowledge.ingest("t", "s", files(**OLD), source="docs")
    answers(knowledge)
    index.countdown = 0
    with pytest.raises(StoreFailure):
        knowledge.ingest("t", "s", files(travel=NEW["travel"]), source="docs")
    index.countdown = None
    knowledge.ingest("t", "s", files(late="Late\n\nA later document about leave."), source="docs")
    assert len(answers(knowledge)) == 4
    assert in_step(knowledge, index, embedder)


def test_an_index_of_the_right_size_with_the_wrong_passages_is_noticed(
    database: Engine, embedder: Any, parser: Any, files: Files
) -> None:
    index = ExactIndex()
    Knowledge(database, embedder, parser, index).ingest("t", "s", files(**OLD), source="docs")
    space = Space("t", "s", embedder.id)
    stale = sorted(index.ids(space))[0]
    index.delete(space, [stale])
    index.put(space, ["passage_of_another_time"], embedder.embed(["leave"]))
    knowledge = Knowledge(database, embedder, parser, index)
    assert len(answers(knowledge)) == 2
    assert in_step(knowledge, index, embedder)


def test_a_lost_index_folder_is_made_anew_without_the_embedder(
    lite: Engine, embedder: Any, parser: Any, files: Files, tmp_path: Path
) -> None:
    first = Knowledge(lite, embedder, parser, open_index(tmp_path / "index"))
    first.ingest("t", "s", files(**OLD), source="docs")
    expected = answers(first)
    first.close()
    embedder.asked.clear()
    second = Knowledge(lite, embedder, parser, open_index(tmp_path / "elsewhere"))
    found = answers(second)
    second.close()
    assert found == expected
    assert embedder.asked == ["leave pay travel days"]


def test_rebuilding_gives_the_same_results_and_embeds_nothing(
    lite: Engine, embedder: Any, parser: Any, tmp_path: Path
) -> None:
    knowledge = Knowledge(lite, embedder, parser, open_index(tmp_path / "index"))
    random = Random(7)
    many = [
        Upload(f"{n}.txt", f"Rule {n}\n\n{' '.join(f'kind{random.randrange(60)}' for _ in range(12))}".encode())
        for n in range(200)
    ]
    knowledge.ingest("t", "s", many, source="docs")
    knowledge.ingest("u", "s", many[:5], source="docs")
    questions = [f"kind{a} and kind{a + 11} of rule {a}" for a in range(40)]
    before = [knowledge.retrieve("t", "s", question, limit=20) for question in questions]
    embedder.asked.clear()
    rebuilt = knowledge.rebuild()
    assert embedder.asked == []
    after = [knowledge.retrieve("t", "s", question, limit=20) for question in questions]
    only = knowledge.rebuild("u")
    knowledge.close()
    assert (rebuilt.skills, rebuilt.passages, rebuilt.embedded) == (2, 205, 0)
    assert (only.skills, only.passages) == (1, 5)
    assert after == before


def test_another_embedder_embeds_everything_anew_once_and_leaves_no_old_vectors(
    database: Engine, embedder: Any, other_embedder: Any, parser: Any, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    index = ExactIndex()
    Knowledge(database, embedder, parser, index).ingest("t", "s", files(**OLD), source="docs")
    changed = Knowledge(database, other_embedder, parser, index)
    with caplog.at_level(logging.WARNING):
        assert len(answers(changed)) == 2
    assert "embedder changed" in caplog.text
    assert [space.embedder for space in index.spaces()] == [other_embedder.id]
    other_embedder.asked.clear()
    answers(changed)
    assert other_embedder.asked == ["leave pay travel days"]
    fresh = ExactIndex()
    fresh_answers = answers(Knowledge(database, other_embedder, parser, fresh))
    assert fresh_answers == answers(changed)


def test_ingesting_for_another_embedder_reads_the_file_again(
    database: Engine, embedder: Any, other_embedder: Any, parser: Any, files: Files
) -> None:
    index = ExactIndex()
    Knowledge(database, embedder, parser, index).ingest("t", "s", files(**OLD), source="docs")
    changed = Knowledge(database, other_embedder, parser, index)
    results = changed.ingest("t", "s", files(leave=OLD["leave"]), source="docs")
    assert [r.status for r in results] == ["replaced"]
    assert len(answers(changed)) == 2
    assert in_step(changed, index, other_embedder)
    assert [r.status for r in changed.ingest("t", "s", files(leave=OLD["leave"]), source="docs")] == ["unchanged"]


def test_two_processes_on_one_database_and_index_see_each_others_changes(
    database: Engine, embedder: Any, parser: Any, files: Files
) -> None:
    index = ExactIndex()
    one, two = (Knowledge(database, embedder, parser, index) for _ in range(2))
    one.ingest("t", "s", files(**OLD), source="docs")
    assert {p.document for p in two.retrieve("t", "s", "leave", limit=9, mode="lexical")} == {"leave.txt"}
    two.ingest("t", "s", files(more="More\n\nMore leave."), source="docs")
    assert {p.document for p in one.retrieve("t", "s", "leave", limit=9, mode="lexical")} == {"leave.txt", "more.txt"}
    one.remove("t", "s", ["leave.txt"])
    assert {p.document for p in two.retrieve("t", "s", "leave", limit=9, mode="lexical")} == {"more.txt"}
    assert len(answers(two)) == 2
