"""What is held out and what is trained on: nothing leaks from side to side, and no key chooses what judges adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_examples import SCHEMA, example, ids, made, reasons, text

from intern.learning.examples.items import Built, Gathered, Kept, key_of, openings_of
from intern.learning.examples.splitting import Splitting
from intern.learning.judging.evaluate import score
from intern.skill import Skill, SkillSpec
from intern.types import Example, Message

SKILL = Skill("sorting", SkillSpec(title="S", description="d", instructions="Sort."), SCHEMA, (), (), Path())


def test_the_folders_own_split_is_kept() -> None:
    built = made([example(n, split="heldout" if n < 5 else None) for n in range(20)])
    assert ids(built.heldout) == ["e0", "e1", "e2", "e3", "e4"]
    assert ids(built.train) == [f"e{n}" for n in range(5, 20)]


def test_without_a_declared_split_about_a_fifth_is_held_out_and_always_the_same() -> None:
    rows = [example(n) for n in range(400)]
    built = made(rows)
    assert 50 <= len(built.heldout) <= 110
    again = made(rows[::-1])
    assert set(ids(again.heldout)) == set(ids(built.heldout))
    more = made([*rows, *(example(n) for n in range(400, 600))])
    assert set(ids(built.heldout)) <= set(ids(more.heldout))


def test_few_examples_hold_out_a_larger_share() -> None:
    assert len(made([example(n) for n in range(100)]).heldout) >= 28


def test_what_was_held_out_once_is_never_trained_on() -> None:
    frozen = {key_of(example(3))}
    built = made([example(n, split="train") for n in range(10)], frozen=frozen)
    assert ids(built.heldout) == ["e3"]
    disguised = example(3, id="new", input=f"  {text(3).upper()} ")
    assert "new" not in ids(made([*(example(n) for n in range(40)), disguised], frozen=frozen).train)


def test_what_was_trained_on_once_is_never_held_out() -> None:
    rows = [example(n) for n in range(100)]
    heldout = made(rows).heldout
    trained = {row.key for row in heldout[:5]}
    again = made(rows, trained=trained)
    assert not trained & {row.key for row in again.heldout}
    assert trained <= {row.key for row in again.train}


def test_an_author_who_no_longer_wrote_a_third_of_everything_changes_no_side() -> None:
    def by(author: str, numbers: range) -> list[Gathered]:
        return [Gathered(example=example(n, group=f"t{n}", provenance="review"), person=author) for n in numbers]

    pat, others = by("pat", range(14)), [row for n in range(14, 30) for row in by(f"author {n}", range(n, n + 1))]
    first = made([*pat, *others])
    frozen, trained = {row.key for row in first.heldout}, {row.key for row in first.train}
    assert {row.person for row in first.heldout} & {row.person for row in first.train} == {"pat"}, "split by thread"
    later = [row for n in range(30, 70) for row in by(f"author {n}", range(n, n + 1))]
    again = made([*pat, *others, *later], frozen=frozen, trained=trained)
    heldout, train = ({row.key for row in side} for side in (again.heldout, again.train))
    assert not heldout & trained, "no adapter is judged on what it was trained on"
    assert (frozen - heldout, trained - train) == (set(), set())
    assert "14 examples are split by thread, not by author" in again.notes[0]


def test_a_thread_that_has_both_keeps_the_held_out_ones_and_leaves_out_those_trained_on() -> None:
    rows = [example(n, group="thread" if n < 6 else None) for n in range(40)]
    frozen, trained = {key_of(rows[n]) for n in (0, 1)}, {key_of(rows[n]) for n in (2, 3)}
    built = made(rows, frozen=frozen, trained=trained)
    assert {"e0", "e1", "e4", "e5"} <= set(ids(built.heldout)), "new ones of the thread join the held-out ones"
    assert reasons(built) == {"e2": "trained_group", "e3": "trained_group"}
    assert built.dropped[0].detail == "was trained on before, and belongs to held-out e0"
    assert not {"e2", "e3"} & {*ids(built.train), *ids(built.heldout)}


def test_an_input_that_was_trained_on_and_held_out_is_on_neither_side() -> None:
    rows = [example(n, split="heldout" if n < 4 else "train") for n in range(20)]
    both = {key_of(rows[0])}
    built = made(rows, frozen=both | {key_of(rows[1])}, trained=both | {key_of(rows[9])})
    assert reasons(built) == {"e0": "trained_group"}
    assert built.dropped[0].detail == "was trained on before, and is held out as well"
    assert "e0" not in {*ids(built.train), *ids(built.heldout)}


def test_a_group_is_never_torn_apart() -> None:
    rows = [example(n, group=f"thread {n // 4}") for n in range(200)]
    built = made(rows)
    thread = {row.id: row.group for row in rows}
    sides = [{thread[row.example.id] for row in side} for side in (built.train, built.heldout)]
    assert all(sides)
    assert not sides[0] & sides[1]


def test_an_authors_examples_stay_together_also_across_threads() -> None:
    rows = [Gathered(example=example(n, group=f"thread {n // 2}"), person=f"author {n // 6}") for n in range(240)]
    built = made(rows)
    sides = [{row.person for row in side} for side in (built.train, built.heldout)]
    assert all(sides)
    assert not sides[0] & sides[1]


def clusters(built: Built) -> list[list[str]]:
    """What intervals are clustered by: ids of held-out examples that count as one observation."""
    found: dict[str, list[str]] = {}
    for row in built.heldout:
        answer = json.dumps(row.example.output)
        found.setdefault(score(SKILL, row.example, answer).group, []).append(row.example.id)
    return list(found.values())


def test_what_one_author_wrote_is_judged_as_dependent_and_nothing_names_the_author() -> None:
    rows = [
        Gathered(example=example(n, group=f"record {n}", split="heldout"), person=f"pat {n % 6}") for n in range(60)
    ]
    built = made([*rows, *(example(n, split="train") for n in range(60, 90))])
    assert sorted(clusters(built)) == sorted([f"e{n}" for n in range(author, 60, 6)] for author in range(6))
    assert not any("pat" in row.example.model_dump_json() for row in built.heldout)


def test_too_few_authors_to_prove_anything_by_are_said() -> None:
    def notes(authors: int, heldout: int = 60) -> tuple[str, ...]:
        rows = [Gathered(example=example(n, split="heldout"), person=f"pat {n % authors}") for n in range(heldout)]
        return made([*rows, *(example(n, split="train") for n in range(60, 90))]).notes

    (note,) = notes(29)
    assert note.startswith("The held-out examples are of 60 threads, but 29 authors or groups of them")
    assert notes(30) == ()
    assert notes(10, heldout=29) == (), "authors are not the reason"


def test_threads_join_authors_in_what_is_judged_as_dependent() -> None:
    asked = {0: ("ann", "a"), 1: ("ann", "b"), 2: ("ben", "b"), 3: (None, "c"), 4: (None, "c"), 5: (None, None)}
    rows = [Gathered(example=example(n, group=g, split="heldout"), person=who) for n, (who, g) in asked.items()]
    assert clusters(made([*rows, example(9, split="train")])) == [["e0", "e1", "e2"], ["e3", "e4"], ["e5"]]


def test_who_wrote_more_than_a_third_is_judged_by_thread() -> None:
    rows = [Gathered(example=example(n, group=f"t{n // 2}", split="heldout"), person="only") for n in range(40)]
    assert len(clusters(made([*rows, example(50, split="train")]))) == 20


def test_one_author_of_everything_is_split_by_thread_and_said_so() -> None:
    built = made([Gathered(example=example(n, group=f"t{n}"), person="only") for n in range(100)])
    assert built.train
    assert built.heldout
    assert "by thread" in built.notes[0]


def lot(rows: list[Example], secret: str) -> set[str]:
    return set(ids(made(rows, secret=secret).heldout))


def test_which_of_users_inputs_are_held_out_hangs_on_a_secret_and_which_of_the_owners_does_not() -> None:
    users = [example(n, provenance="api", contributor="key") for n in range(100)]
    assert lot(users, "one") == lot(users, "one")
    assert lot(users, "one") != lot(users, "two")
    for owners in ([example(n) for n in range(100)], [example(n, provenance="import") for n in range(100)]):
        assert lot(owners, "one") == lot(owners, "two")


def test_no_text_that_one_key_writes_is_held_out_by_the_writers_choice() -> None:
    folder = [example(n) for n in range(300)]
    guessed = [row for n in range(1000, 2000) for row in lot([example(n, provenance="api")], "a guess")]
    chosen = [example(int(name[1:]), "refund", provenance="api", contributor="eve") for name in guessed[:200]]
    assert len(chosen) == 200
    held = made([*folder, *chosen]).heldout
    assert 0 < sum(row.example.contributor == "eve" for row in held) < 60


def test_users_inputs_are_at_most_half_of_what_is_held_out() -> None:
    folder = [example(n, split="heldout" if n < 40 else "train") for n in range(100)]
    flood = [example(n, provenance="api", contributor=f"key {n % 9}") for n in range(100, 900)]
    built = made([*folder, *flood])
    assert (len(built.heldout), sum(row.example.provenance == "api" for row in built.heldout)) == (80, 40)
    assert len(built.train) == 820, "the rest is for training"


def test_where_the_owners_examples_are_too_few_to_judge_users_are_held_out_beside_them() -> None:
    folder = [example(n, split="heldout" if n < 5 else "train") for n in range(10)]
    reviews = [example(n, provenance="review", contributor=f"key {n % 9}") for n in range(100, 300)]
    assert sum(row.example.provenance == "review" for row in made([*folder, *reviews]).heldout) > 30


def test_what_was_held_out_stays_so_and_no_user_adds_to_it_through_its_group() -> None:
    folder = [example(n, split="heldout" if n < 30 else "train") for n in range(60)]
    mine = [example(n, provenance="api", contributor="eve", group="eve:g") for n in range(100, 180)]
    frozen = {key_of(row) for row in mine[:35]}
    built = made([*folder, *mine], frozen=frozen)
    assert frozen <= {row.key for row in built.heldout}
    assert (len(built.heldout), set(reasons(built).values())) == (65, {"heldout_share"})
    assert len(built.train) == 30, "nor is what belongs to held-out ones trained on"


def test_synthetic_examples_are_never_held_out() -> None:
    built = made([example(n, provenance="synthesis") for n in range(100)])
    assert not built.heldout


def test_synthetic_examples_of_a_held_out_document_are_left_out() -> None:
    asked = [example(n, group=f"doc {n % 5}", split="train" if n % 5 else "heldout") for n in range(50)]
    written = [example(n, group=f"doc {n % 5}", provenance="synthesis") for n in range(50, 100)]
    built = made([*asked, *written])
    assert {row.example.provenance for row in built.heldout} == {"folder"}
    assert reasons(built) == {f"e{n}": "synthetic_group" for n in range(50, 100, 5)}
    assert len(built.train) == 80


def test_of_a_question_that_both_asked_what_a_person_wrote_is_held_out() -> None:
    rows = [example(1, id="written", provenance="synthesis"), example(1, id="asked", provenance="review")]
    built = made([*rows, example(2, split="train")], frozen={key_of(rows[0])})
    assert (ids(built.heldout), reasons(built)) == (["asked"], {"written": "duplicate"})


# --- turns of one conversation -------------------------------------------------------------------------------------


def turns(*said: str, **more: Any) -> Example:
    """A reviewed turn of a conversation: the user's, the answer, the user's, ..."""
    messages = tuple(Message(role="assistant" if n % 2 else "user", content=text) for n, text in enumerate(said))
    ident = " / ".join(said)
    reviewed = {"group": ident, "record": ident, "provenance": "review", "contributor": "key"}
    asked: Any = said[0] if len(said) == 1 else messages
    return Example(id=ident, input=asked, output={"topic": "order"}, **{**reviewed, **more})


def sides(built: Built) -> dict[str, str]:
    both = (("train", built.train), ("heldout", built.heldout))
    return {row.example.id: side for side, rows in both for row in rows}


def test_the_turns_of_one_conversation_stand_on_one_side_and_are_judged_as_one() -> None:
    pairs = [(turns(text(n)), turns(text(n), "I see", text(n + 700))) for n in range(200)]
    built = made([row for pair in pairs for row in pair], contributor_cap=1_000)
    side = sides(built)
    assert len(side) == 400
    assert [first.id for first, second in pairs if side[first.id] != side[second.id]] == []
    held = [{first.id, second.id} for first, second in pairs if side[first.id] == "heldout"]
    assert 20 <= len(held) <= 60
    assert sorted(map(sorted, held)) == sorted(map(sorted, clusters(built)))


@pytest.mark.parametrize("greeting", ["Hello", "hi, I have a question about an order that I made in your shop"])
def test_a_greeting_joins_no_strangers_and_what_follows_it_joins_each_with_itself(greeting: str) -> None:
    hello = (greeting, "Hello, what can I do for you?")
    pairs = [(turns(*hello, text(n)), turns(*hello, text(n), "Which one?", text(n + 700))) for n in range(200)]
    built = made([turns(greeting), *(row for pair in pairs for row in pair)], contributor_cap=1_000)
    side = sides(built)
    assert [first.id for first, second in pairs if side[first.id] != side[second.id]] == []
    assert 40 <= sum(value == "heldout" for value in side.values()) <= 120
    assert max(map(len, clusters(built))) == 2


def test_a_long_conversation_is_one_whatever_the_system_says_each_day() -> None:
    said = [f"{text(n)} in conversation {n % 2}" for n in range(60)]
    long = [turns(*said[: n + 1]) for n in range(0, 60, 2)]
    dated = [
        row.model_copy(update={"input": (Message(role="system", content=f"It is day {n}."), *row.input)})
        for n, row in enumerate(long)
        if not isinstance(row.input, str)
    ]
    rows = [long[0], *dated, *(example(n, provenance="review") for n in range(100, 300))]
    kept = [Kept(example=row, key=key_of(row), origin="", openings=openings_of(row)) for row in rows]

    def drop(row: Kept, reason: str, detail: str) -> None:
        pytest.fail(f"{row.example.id}: {reason}, {detail}")

    for secret in ("one", "two", "three"):
        train, heldout = Splitting("skill", secret, drop).split(kept, frozenset(), frozenset())
        assert (len(train) > 100, len(heldout) > 20) == (True, True)
        assert {len({*ids(side)} & {row.id for row in long}) for side in (train, heldout)} == {0, 30}


def test_two_authors_who_ask_the_same_are_two() -> None:
    same = [
        Gathered(example=turns("Where is it?", "Where is what?", f"{what} {who}"), person=f"author {who}")
        for who in range(2)
        for what in ("the parcel", "the invoice")
    ]
    rows = [row.model_copy(update={"example": row.example.model_copy(update={"split": "heldout"})}) for row in same]
    assert [len(part) for part in clusters(made([*rows, example(1, split="train")]))] == [2, 2]


def test_nobody_joins_what_is_held_out_by_beginning_as_it_does() -> None:
    folder = [example(n, split="heldout" if n < 40 else "train") for n in range(100)]
    mine = [turns(text(n), "fine", f"and {text(n + 500)}", provenance="api", contributor="eve") for n in range(40)]
    built = made([*folder, *mine])
    side = sides(built)
    assert 1 < sum(side[row.id] == "heldout" for row in mine) < 39, "by lot, each on its own"
    other = sides(made([*folder, *mine], secret="other"))
    assert [row.id for row in mine if other[row.id] != side[row.id]]


# --- authors whom both users and owners know -----------------------------------------------------------------------


def test_who_names_the_author_of_what_is_held_out_adds_nothing_to_it() -> None:
    imported = [Gathered(example=example(n, provenance="import"), person=f"customer {n % 60}") for n in range(300)]
    alone = made([*imported])
    known = sorted({str(row.person) for row in alone.heldout})
    assert 6 <= len(known) <= 20
    reviews = [
        Gathered(example=example(n, provenance="review", contributor=f"key {n % 9}"), person=known[n % len(known)])
        for n in range(400, 700)
    ]
    built = made([*imported, *reviews])
    assert ids(built.heldout) == ids(alone.heldout), "nor do they take it away"
    assert reasons(built) == {row.example.id: "heldout_author" for row in reviews}


def test_what_users_write_under_a_name_that_is_trained_on_is_trained_on() -> None:
    imported = [Gathered(example=example(n, provenance="import"), person=f"customer {n % 60}") for n in range(300)]
    known = sorted({str(row.person) for row in made([*imported]).train})
    reviews = [
        Gathered(example=example(n, provenance="review", contributor="eve"), person=known[n % len(known)])
        for n in range(400, 430)
    ]
    assert {row.example.id for row in reviews} <= set(ids(made([*imported, *reviews]).train))
