"""Files come in, change, go away; what did not change costs nothing; what is refused harms nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from intern.errors import NotFound
from intern.knowledge import Knowledge, Upload

Files = Callable[..., list[Upload]]

LEAVE = "Annual leave\n\nEvery member of staff has 28 days of annual leave."
PAY = "Pay day\n\nSalaries are paid on the 25th of each month."
LONG = "Rules\n\n" + "\n\n".join(
    " ".join(f"{topic}{number}" for number in range(120)) for topic in ("alpha", "beta", "gamma", "delta", "epsilon")
)


def names(knowledge: Knowledge, team: str = "t", skill: str = "s") -> list[str]:
    return [document.name for document in knowledge.documents(team, skill)]


def test_each_file_gets_a_result_in_its_order(knowledge: Knowledge, files: Files) -> None:
    given = [*files(leave=LEAVE), Upload("broken.txt", b"\xff\xfe\xff"), *files(pay=PAY)]
    results = knowledge.ingest("t", "s", given, source="docs")
    assert [(r.name, r.status) for r in results] == [
        ("leave.txt", "added"),
        ("broken.txt", "refused"),
        ("pay.txt", "added"),
    ]
    assert results[1].problem == "broken.txt: is not text"
    assert [r.passages for r in results] == [1, 0, 1]
    assert names(knowledge) == ["leave.txt", "pay.txt"]


def test_an_unchanged_file_is_neither_parsed_nor_embedded(
    knowledge: Knowledge, files: Files, parser: Any, embedder: Any
) -> None:
    knowledge.ingest("t", "s", files(leave=LEAVE), source="docs")
    parser.parsed.clear()
    embedder.asked.clear()
    results = knowledge.ingest("t", "s", files(leave=LEAVE), source="docs")
    assert [(r.status, r.passages) for r in results] == [("unchanged", 1)]
    assert parser.parsed == []
    assert embedder.asked == []


def test_a_changed_file_replaces_its_passages_and_its_old_words_are_found_no_more(
    knowledge: Knowledge, files: Files
) -> None:
    knowledge.ingest("t", "s", files(leave=LEAVE, pay=PAY), source="docs")
    changed = LEAVE.replace("28 days", "thirty working-days")
    results = knowledge.ingest("t", "s", files(leave=changed), source="docs")
    assert [r.status for r in results] == ["replaced"]
    assert knowledge.text("t", "s", "leave.txt") == changed
    texts = [p.text for p in knowledge.retrieve("t", "s", "how many days of annual leave", limit=10)]
    assert any("thirty" in text for text in texts)
    assert not any("28" in text for text in texts)


def test_an_edit_keeps_the_ids_and_vectors_of_the_passages_it_left_alone(
    knowledge: Knowledge, files: Files, embedder: Any
) -> None:
    knowledge.ingest("t", "s", files(rules=LONG), source="docs")
    before = {p.id for p in knowledge.retrieve("t", "s", "rules", limit=50, mode="dense")}
    assert len(before) > 3
    embedder.asked.clear()
    knowledge.ingest("t", "s", files(rules=LONG.replace("epsilon119", "changed")), source="docs")
    after = {
        p.id for p in knowledge.retrieve("t", "s", "rules", limit=50, mode="dense", vector=embedder.embed(["rules"]))
    }
    assert len(before & after) == len(before) - 1
    assert len([text for text in embedder.asked if text != "rules"]) == 1


def test_a_refused_new_version_leaves_the_old_one_and_says_so(knowledge: Knowledge, files: Files) -> None:
    knowledge.ingest("t", "s", files(leave=LEAVE), source="docs")
    [result] = knowledge.ingest("t", "s", [Upload("leave.txt", b"\xff\xff")], source="docs")
    assert result.status == "refused"
    assert "stays in use" in (result.problem or "")
    assert knowledge.text("t", "s", "leave.txt") == LEAVE


def test_a_file_without_words_and_a_name_that_cannot_be_shown_are_refused(knowledge: Knowledge) -> None:
    given = [
        Upload("empty.txt", b"  \n \n"),
        Upload("a\x00b.txt", b"words"),
        Upload("x" * 501, b"words"),
        Upload("", b"w"),
    ]
    results = knowledge.ingest("t", "s", given, source="docs")
    assert {r.status for r in results} == {"refused"}
    assert names(knowledge) == []


def test_a_name_given_twice_ends_as_the_later_one(knowledge: Knowledge) -> None:
    given = [Upload("a.txt", b"first words"), Upload("a.txt", b"second words")]
    results = knowledge.ingest("t", "s", given, source="docs")
    assert [r.status for r in results] == ["added", "replaced"]
    assert knowledge.text("t", "s", "a.txt") == "second words"
    assert [p.text for p in knowledge.retrieve("t", "s", "words", limit=9)] == ["second words"]


def test_pruning_deletes_what_left_its_folder_and_nothing_of_another_source(knowledge: Knowledge, files: Files) -> None:
    knowledge.ingest("t", "s", files(leave=LEAVE, pay=PAY), source="docs")
    knowledge.ingest("t", "s", files(uploaded="Uploaded by hand"), source="upload")
    assert knowledge.prune("t", "s", "docs", {"pay.txt"}) == ["leave.txt"]
    assert names(knowledge) == ["pay.txt", "uploaded.txt"]
    assert knowledge.prune("t", "s", "docs", {"pay.txt"}) == []


def test_a_file_belongs_to_the_source_that_gave_it_last(knowledge: Knowledge, files: Files) -> None:
    knowledge.ingest("t", "s", files(leave=LEAVE), source="upload")
    knowledge.ingest("t", "s", files(leave=LEAVE), source="docs")
    assert [d.source for d in knowledge.documents("t", "s")] == ["docs"]


def test_removed_documents_are_gone_from_every_retriever(knowledge: Knowledge, files: Files) -> None:
    knowledge.ingest("t", "s", files(leave=LEAVE, pay=PAY), source="docs")
    assert knowledge.remove("t", "s", ["leave.txt", "never.txt"]) == 1
    for mode in ("fused", "dense", "lexical"):
        assert {p.document for p in knowledge.retrieve("t", "s", "annual leave pay", limit=9, mode=mode)} == {"pay.txt"}
    with pytest.raises(NotFound, match=r"leave\.txt"):
        knowledge.text("t", "s", "leave.txt")


def test_a_forgotten_skill_has_nothing_left_and_can_begin_anew(knowledge: Knowledge, files: Files) -> None:
    knowledge.ingest("t", "s", files(leave=LEAVE, pay=PAY), source="docs")
    assert knowledge.forget("t", "s") == 2
    assert names(knowledge) == []
    assert knowledge.retrieve("t", "s", "annual leave", limit=9) == []
    knowledge.ingest("t", "s", files(pay=PAY), source="docs")
    assert [p.document for p in knowledge.retrieve("t", "s", "pay", limit=9)] == ["pay.txt"]


def test_a_document_says_what_it_is(knowledge: Knowledge, files: Files) -> None:
    knowledge.ingest("t", "s", files(leave=LEAVE), source="docs", contributor="ann")
    [document] = knowledge.documents("t", "s")
    assert (document.team, document.skill, document.source) == ("t", "s", "docs")
    assert (document.media_type, document.characters, document.passages) == ("text/plain", len(LEAVE), 1)


def test_files_are_read_a_few_at_a_time_not_all_before_the_first_is_stored(knowledge: Knowledge) -> None:
    stored_when_last_was_read: list[int] = []

    def many() -> Iterator[Upload]:
        for number in range(300):
            if number == 299:
                stored_when_last_was_read.append(len(knowledge.documents("t", "s")))
            yield Upload(f"{number}.txt", f"file number {number}".encode())

    knowledge.ingest("t", "s", many(), source="docs")
    assert stored_when_last_was_read[0] > 100
    assert len(names(knowledge)) == 300
