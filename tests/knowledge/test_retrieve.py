"""The right passages come back, whole and citable, from this team's skill alone, follow-up questions included."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.engine import Engine

from intern.knowledge import Knowledge, Upload, catalogue, open_index
from intern.knowledge.retrieve import reciprocal_rank_fusion
from intern.types import Message

Files = Callable[..., list[Upload]]

HANDBOOK = {
    "leave": "Annual leave\n\nFull-time staff have 28 days of annual leave a year.",
    "part": "Annual leave of part-time staff\n\nPart-time staff have annual leave in proportion to their hours.",
    "hours": "Part-time staff\n\nPart-time staff agree their hours with their manager.",
    "travel": "Travel\n\nPart-time and full-time staff book trains through the portal.",
    "pay": "Pay\n\nPart-time staff are paid monthly, on the 25th.",
}


@pytest.fixture
def handbook(knowledge: Knowledge, files: Files) -> Knowledge:
    knowledge.ingest("t", "s", files(**HANDBOOK), source="docs")
    return knowledge


def said(*turns: str) -> list[Message]:
    """Turns of user and assistant, the user first."""
    return [Message(role="assistant" if n % 2 else "user", content=turn) for n, turn in enumerate(turns)]


def test_a_passage_is_exactly_the_text_between_its_offsets(knowledge: Knowledge, files: Files) -> None:
    text = "Überschrift 𝟙\n\n" + "\n\n".join(f"Absatz {n}: " + "größe 😀 naïve " * 40 for n in range(6))
    knowledge.ingest("t", "s", files(a=text), source="docs")
    passages = knowledge.retrieve("t", "s", "größe absatz", limit=20)
    assert len(passages) > 2
    for passage in passages:
        assert passage.text == text[passage.start : passage.end]
        assert passage.document == "a.txt"


@pytest.mark.parametrize("mode", ["fused", "dense", "lexical"])
def test_the_document_that_answers_comes_first(handbook: Knowledge, mode: Any) -> None:
    passages = handbook.retrieve("t", "s", "When is the pay of staff, monthly?", limit=2, mode=mode)
    assert passages[0].document == "pay.txt"
    assert len(passages) == 2


def test_scores_fall_and_lie_between_0_and_1(handbook: Knowledge) -> None:
    scores = [p.score for p in handbook.retrieve("t", "s", "annual leave of part-time staff", limit=5)]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 for score in scores)


def test_a_follow_up_question_is_read_with_what_was_asked_before(handbook: Knowledge) -> None:
    alone = handbook.retrieve("t", "s", "And for part-time staff?", limit=1)
    turns = said("Who has annual leave?", "All staff.", "And for part-time staff?")
    followed = handbook.retrieve("t", "s", turns, limit=1)
    assert alone[0].document != "part.txt"
    assert followed[0].document == "part.txt"


def test_a_new_question_is_not_mixed_with_the_old_one(handbook: Knowledge) -> None:
    turns = said("How many days of annual leave are there a year?", "28 days.", "Which portal books trains for travel?")
    question = "Which portal books trains for travel?"
    assert handbook.retrieve("t", "s", turns, limit=3) == handbook.retrieve("t", "s", question, limit=3)


def test_what_the_assistant_said_does_not_choose_the_passages(handbook: Knowledge) -> None:
    told = said("Annual leave?", "Trains are booked through the travel portal.", "and that?")
    silent = [turn for turn in told if turn.role == "user"]
    assert handbook.retrieve("t", "s", told, limit=3) == handbook.retrieve("t", "s", silent, limit=3)


def test_no_question_and_no_documents_give_no_passages(handbook: Knowledge) -> None:
    assert handbook.retrieve("t", "s", "   ", limit=4) == []
    assert handbook.retrieve("t", "s", [Message(role="system", content="annual leave")], limit=4) == []
    assert handbook.retrieve("t", "s", "annual leave", limit=0) == []
    assert handbook.retrieve("t", "other", "annual leave", limit=4) == []


def test_a_question_of_stop_words_or_of_unknown_words_is_no_error(handbook: Knowledge) -> None:
    assert handbook.retrieve("t", "s", "what is it of the", limit=2, mode="lexical") == []
    assert len(handbook.retrieve("t", "s", "zzyzx", limit=2)) == 2


def test_a_given_vector_spares_embedding_the_question(handbook: Knowledge, embedder: Any) -> None:
    question = "When is the pay of staff?"
    expected = handbook.retrieve("t", "s", question, limit=3)
    vector = embedder.embed([question])
    for shaped in (vector, vector[0]):
        embedder.asked.clear()
        assert handbook.retrieve("t", "s", question, limit=3, vector=shaped) == expected
        assert embedder.asked == []


def test_the_vector_of_a_long_question_is_not_used_for_its_pieces(handbook: Knowledge, embedder: Any) -> None:
    question = " ".join(["Pay of part-time staff, monthly."] * 30 + ["Nothing else matters here at all."] * 30)
    expected = handbook.retrieve("t", "s", question, limit=1, mode="dense")
    assert expected[0].document == "pay.txt"
    wrong = embedder.embed(["Travel: book trains through the portal."])
    assert handbook.retrieve("t", "s", question, limit=1, mode="dense", vector=wrong) == expected


def test_copies_of_a_text_take_one_place(knowledge: Knowledge, files: Files) -> None:
    same = "Annual leave is 28 days a year."
    knowledge.ingest(
        "t", "s", files(a=same, b=same, c=same, d="Annual leave must be asked for in time."), source="docs"
    )
    texts = [p.text for p in knowledge.retrieve("t", "s", "annual leave", limit=4)]
    assert sorted(texts) == sorted(set(texts))
    assert len(texts) == 2


def test_more_passages_can_be_asked_for_than_a_ranking_is_deep(knowledge: Knowledge) -> None:
    many = [Upload(f"{n}.txt", f"leave rule number {n}".encode()) for n in range(150)]
    knowledge.ingest("t", "s", many, source="docs")
    assert len(knowledge.retrieve("t", "s", "leave rule", limit=150)) == 150


def test_neither_team_nor_skill_is_ever_crossed(knowledge: Knowledge) -> None:
    owners = [("red", "hr"), ("red", "it"), ("blue", "hr"), ("re", "dhr")]
    for team, skill in owners:
        upload = Upload("a.txt", f"The secret of leave in {team} {skill}".encode())
        knowledge.ingest(team, skill, [upload], source="docs")
    for team, skill in owners:
        for mode in ("fused", "dense", "lexical"):
            found = knowledge.retrieve(team, skill, "the secret of leave in red blue hr it", limit=9, mode=mode)
            assert [p.text for p in found] == [f"The secret of leave in {team} {skill}"]
        assert knowledge.text(team, skill, "a.txt").endswith(f"{team} {skill}")
    knowledge.forget("red", "hr")
    assert knowledge.remove("red", "it", ["a.txt"]) == 1
    assert len(knowledge.documents("blue", "hr")) == 1
    assert len(knowledge.retrieve("blue", "hr", "secret", limit=9)) == 1


def test_not_even_a_known_id_opens_another_teams_passage(knowledge: Knowledge, files: Files, database: Engine) -> None:
    knowledge.ingest("red", "hr", files(a="The secret of leave"), source="docs")
    [passage] = knowledge.retrieve("red", "hr", "secret", limit=1)
    with database.connect() as connection:
        assert list(catalogue.passages(connection, "red", "hr", [passage.id])) == [passage.id]
        for team, skill in (("blue", "hr"), ("red", "it")):
            assert catalogue.passages(connection, team, skill, [passage.id]) == {}
            assert catalogue.vectors(connection, team, skill, [passage.id]) == {}
            assert catalogue.text(connection, team, skill, "a.txt") is None


def test_questions_are_answered_while_documents_come_in(
    lite: Engine, embedder: Any, parser: Any, tmp_path: Any, files: Files
) -> None:
    knowledge = Knowledge(lite, embedder, parser, open_index(tmp_path / "index"))
    knowledge.ingest("t", "s", files(**HANDBOOK), source="docs")
    failures: list[BaseException] = []
    answered = 0
    done = threading.Event()

    def ask() -> None:
        nonlocal answered
        try:
            while not done.is_set() or answered == 0:
                passages = knowledge.retrieve("t", "s", "annual leave of part-time staff", limit=2)
                assert "part.txt" in {p.document for p in passages}
                answered += 1
        except BaseException as error:
            failures.append(error)

    def give(name: str) -> None:
        try:
            for n in range(5):
                more = [Upload(f"{name}{k}.txt", f"{name} version {n} of file {k}".encode()) for k in range(20)]
                knowledge.ingest("t", "s", more, source=name)
        except BaseException as error:
            failures.append(error)

    askers = [threading.Thread(target=ask) for _ in range(2)]
    givers = [threading.Thread(target=give, args=(name,)) for name in ("red", "blue")]
    for thread in askers + givers:
        thread.start()
    for thread in givers:
        thread.join()
    done.set()
    for thread in askers:
        thread.join()
    held = len(knowledge.retrieve("t", "s", "version", limit=100, mode="dense"))
    knowledge.close()
    assert failures == []
    assert held == 45


def test_fusion_adds_reciprocal_ranks() -> None:
    fused = reciprocal_rank_fusion([["a", "b", "c"], ["b", "a"], ["b"]], k=60)
    assert [id for id, _ in fused] == ["b", "a", "c"]
    assert fused[0][1] == pytest.approx((1 / 62 + 1 / 61 + 1 / 61) / (3 / 61))
    assert reciprocal_rank_fusion([["x", "y"], ["x"]])[0] == pytest.approx(("x", 1.0))
    assert [id for id, _ in reciprocal_rank_fusion([["x", "y"], ["y", "x"]], [1, 3])] == ["y", "x"]
    assert reciprocal_rank_fusion([]) == []
