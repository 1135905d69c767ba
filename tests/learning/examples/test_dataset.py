"""A dataset: what is kept, what is left out and why."""

from __future__ import annotations

from typing import Any

import pytest
from made_examples import SCHEMA, example, ids, made, reasons, text

from intern.learning.examples.dataset import build
from intern.learning.examples.items import Gathered, key_of, origin_of
from intern.types import Example, Message


def test_the_same_example_twice_counts_once_and_the_held_out_one_stays() -> None:
    built = made([example(1), example(1, id="twice", split="heldout"), *(example(n) for n in range(2, 9))])
    assert ids(built.heldout) == ["twice"]
    assert reasons(built) == {"e1": "duplicate"}


def test_a_contradiction_is_settled_by_the_number_of_contributors() -> None:
    def said(who: str, topic: str) -> Example:
        return example(1, topic, id=who, contributor=who, provenance="review", split="train")

    built = made([said("ann", "order"), said("ben", "refund"), said("cat", "order"), example(2, split="heldout")])
    assert ids(built.train) == ["ann"]
    assert reasons(built) == {"ben": "contradiction", "cat": "duplicate"}


def test_a_tie_settles_nothing() -> None:
    said = [
        example(1, topic, id=who, contributor=who, provenance="review")
        for who, topic in (("ann", "order"), ("ben", "refund"))
    ]
    built = made([*said, example(2)])
    assert reasons(built) == {"ann": "contradiction", "ben": "contradiction"}


@pytest.mark.parametrize("split", ["train", "heldout", None])
def test_nobody_outvotes_the_skills_folder(split: Any) -> None:
    folder = example(1, split=split)
    loud = [
        example(1, "refund", id=f"x{n}", contributor=f"key {n}", provenance=provenance)
        for n, provenance in enumerate(("api", "review", "import"))
    ]
    agrees = example(1, id="agrees", contributor="key 9", provenance="api")
    built = made([*loud, folder, agrees, example(2, split="train"), example(3, split="heldout")])
    (kept,) = [row.example for row in (*built.train, *built.heldout) if row.key == key_of(folder)]
    assert (kept.id, kept.output) == ("e1", {"topic": "order"})
    assert reasons(built) == {**{f"x{n}": "contradiction" for n in range(3)}, "agrees": "duplicate"}
    assert "the skill's folder says otherwise: e1" in {row.detail for row in built.dropped}


def test_two_keys_do_not_outvote_an_administrators_import() -> None:
    imported = example(1, id="imported", contributor="key admin", provenance="import")
    loud = [example(1, "refund", id=f"x{n}", contributor=f"key {n}", provenance="api") for n in range(2)]
    built = made([*loud, imported, example(2, split="train"), example(3, split="heldout")])
    (kept,) = [row.example for row in (*built.train, *built.heldout) if row.key == key_of(imported)]
    assert (kept.id, kept.output) == ("imported", {"topic": "order"})
    assert [(row.example, row.reason, row.detail) for row in built.dropped] == [
        (f"x{n}", "contradiction", "an administrator's import says otherwise: imported") for n in range(2)
    ]


def test_one_key_does_not_silence_an_administrators_import() -> None:
    imported = example(1, id="imported", contributor="key admin", provenance="import", split="train")
    dissent = example(1, "refund", id="dissent", contributor="key", provenance="api")
    built = made([dissent, imported, example(3, split="heldout")])
    assert (ids(built.train), reasons(built)) == (["imported"], {"dissent": "contradiction"})


def test_where_the_folder_contradicts_itself_nobody_else_decides() -> None:
    folder = [example(1), example(1, "refund", id="other")]
    votes = [example(1, id=f"x{n}", contributor=f"key {n}", provenance="api") for n in range(3)]
    assert set(reasons(made([*folder, *votes, example(2)])).values()) == {"contradiction"}


def test_one_contributor_who_says_it_ten_times_outvotes_nobody() -> None:
    loud = [example(1, "refund", id=f"x{n}", contributor="loud", provenance="review") for n in range(10)]
    others = [example(1, id=who, contributor=who, provenance="review", split="train") for who in ("ann", "ben")]
    assert ids(made([*loud, *others, example(2, split="heldout")]).train) == ["ann"]


def test_a_contributor_is_capped_by_number_with_the_newest_kept_and_the_folder_is_not() -> None:
    reviews = [example(n, contributor="key", provenance="review", split="train") for n in range(30)]
    folder = [example(n, split="train") for n in range(30, 60)]
    built = made([*reviews, *folder], contributor_cap=10)
    assert ids(built.train) == [f"e{n}" for n in range(20, 60)]
    assert set(reasons(built).values()) == {"contributor_cap"}


def test_an_output_that_breaks_the_schema_is_left_out_with_the_reason() -> None:
    built = made([example(1, "weather"), example(2), example(3)])
    assert reasons(built) == {"e1": "breaks_schema"}
    # Where, and not what: it stays when the example is deleted.
    assert built.dropped[0].detail == "the output breaks the schema at topic"


def test_a_near_copy_of_a_held_out_input_is_not_trained_on() -> None:
    words = "the monthly invoice from the northern office shows a wrong amount for item"
    held = example(1, id="held", input=f"{words} seven", split="heldout")
    near = example(1, id="near", input=f"{words} eight", split="train")
    built = made([held, near, *(example(n, split="train") for n in range(10))])
    assert reasons(built) == {"near": "heldout_copy"}
    assert "held" in built.dropped[0].detail


def test_a_users_copy_takes_no_example_of_the_owners_away() -> None:
    words = "the monthly invoice from the northern office shows a wrong amount for item"
    users = [example(1, "refund", id=f"user{n}", input=f"{words} n{n}", provenance="api") for n in range(30)]
    drawn = next(row for row in users if row.id in ids(made([row, *folder(40)]).heldout))
    for provenance in ("folder", "import"):
        owners = example(1, id="owners", input=f"{words} seven", split="train", provenance=provenance)
        trained = example(2, id="trained", input=f"{words} eight", provenance="api")
        built = made([owners, *folder(40), drawn, trained], trained={key_of(trained)})
        assert "owners" in ids(built.train)
        assert reasons(built)[drawn.id] == "near_duplicate"
        assert not {row.example.provenance for row in built.heldout} & {"api"}


def folder(size: int) -> list[Any]:
    return [example(n, split="train" if n % 2 else "heldout") for n in range(1000, 1000 + size)]


@pytest.mark.parametrize("provenance", ["review", "import"])
@pytest.mark.parametrize("new", ["folder", "import"])
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_what_was_held_out_before_stays_and_a_new_copy_of_it_goes(provenance: str, new: str, split: Any) -> None:
    words = "the monthly invoice from the northern office shows a wrong amount for item"
    old = example(1, id="old", input=f"{words} seven", provenance=provenance)
    copy = example(1, id="new", input=f"{words} seven again", split=split, provenance=new)
    built = made([copy, old, *folder(10)], frozen={key_of(old)})
    assert "old" in ids(built.heldout)
    assert reasons(built) == {"new": "heldout_copy"}
    assert "old" in built.dropped[0].detail


def test_what_was_held_out_before_stays_whatever_more_its_contributor_brings() -> None:
    mine = [example(n, provenance="review", contributor="eve") for n in range(30)]
    built = made(mine, contributor_cap=10, frozen={key_of(row) for row in mine[:5]})
    assert {f"e{n}" for n in range(5)} <= set(ids(built.heldout))
    assert reasons(built) == {f"e{n}": "contributor_cap" for n in range(5, 20)}


def test_what_a_teacher_wrote_is_not_capped_as_one_contributors() -> None:
    written = [example(n, provenance="synthesis", contributor="synthesis") for n in range(300)]
    built = made([*folder(10), *written], contributor_cap=200)
    assert len(built.train) == 305
    assert not built.dropped


def test_near_copies_count_once_unless_their_outputs_differ() -> None:
    words = "the monthly invoice from the northern office shows a wrong amount for item"
    rows = [
        example(1, id="one", input=f"{words} seven", split="train"),
        example(1, id="two", input=f"{words} eight", split="train"),
        example(1, "refund", id="other", input=f"{words} nine", split="train"),
    ]
    built = made(rows)
    assert ids(built.train) == ["one", "other"]
    assert reasons(built) == {"two": "near_duplicate"}


def test_personal_data_that_cannot_be_taken_out_drops_the_example() -> None:
    def redact(example: Example) -> tuple[Example, str | None]:
        if example.id == "e1":
            return example, "the output needs the name that was taken out"
        return example.model_copy(update={"input": "<EMAIL_1>"}) if example.id == "e2" else example, None

    rows = [Gathered(example=example(n, split="train")) for n in range(4)]
    built = build("skill", rows, schema=SCHEMA, redact=redact, secret="lot")
    assert reasons(built) == {"e1": "personal_data"}
    (freed,) = [row for row in built.train if row.example.id == "e2"]
    assert freed.example.input == "<EMAIL_1>"
    assert (freed.key, freed.origin) == (key_of(example(2)), origin_of(example(2))), "of what it was"


def test_the_digest_is_that_of_what_the_dataset_holds() -> None:
    rows = [example(n) for n in range(60)]
    one, same = made(rows), made([*rows, example(1, id="again")])
    assert one.digest == same.digest
    assert made(rows[1:]).digest != one.digest
    changed = [example(0, "refund"), *rows[1:]]
    assert made(changed).digest != one.digest


def test_conversations_are_told_apart_by_all_their_turns() -> None:
    def talk(first: str) -> tuple[Message, ...]:
        return (
            Message(role="user", content=first),
            Message(role="assistant", content="And?"),
            Message(role="user", content="Please go on."),
        )

    rows = [example(n, input=talk(text(n)), split="train") for n in range(2)]
    assert len(made(rows).train) == 2


@pytest.mark.parametrize("empty", ["", "   "])
def test_an_empty_text_is_left_out(empty: str) -> None:
    built = made([example(1, id="in", input=f"{empty} "), Example(id="out", input="x y", output=empty)], None)
    assert set(reasons(built).values()) <= {"empty"}
    assert "out" in reasons(built)
