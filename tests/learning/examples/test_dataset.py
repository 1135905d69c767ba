"""A dataset: what is kept, what is left out and why, and that nothing leaks from one side to the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from intern.learning.examples.dataset import Built, Gathered, build, key_of, readiness
from intern.learning.judging.evaluate import score
from intern.schema import OutputSchema, check_schema
from intern.skill import Skill, SkillSpec
from intern.types import Example, Message

SCHEMA = check_schema(
    {
        "type": "object",
        "required": ["topic"],
        "additionalProperties": False,
        "properties": {"topic": {"enum": ["order", "refund", "other"]}, "urgent": {"type": "boolean"}},
    }
)
SKILL = Skill("sorting", SkillSpec(title="S", description="d", instructions="Sort."), SCHEMA, (), (), Path())

NOUNS = ["invoice", "parcel", "ticket", "chair", "window", "engine", "garden", "planet", "river", "teacher", "violin"]
VERBS = ["arrived", "vanished", "broke", "melted", "doubled", "froze", "sang", "moved", "burned", "floated"]


def text(number: int) -> str:
    """A sentence that shares few words with any other one."""
    return f"{NOUNS[number % 11]} {number} {VERBS[number // 11 % 10]} near {NOUNS[(number * 7 + 3) % 11]}{number}"


def example(number: int, topic: str = "order", **more: Any) -> Example:
    return Example(**{"id": f"e{number}", "input": text(number), "output": {"topic": topic}, **more})


def no_redaction(example: Example) -> tuple[Example, str | None]:
    return example, None


def made(rows: list[Gathered | Example], schema: OutputSchema | None = SCHEMA, **options: Any) -> Built:
    gathered = [row if isinstance(row, Gathered) else Gathered(example=row) for row in rows]
    return build("skill", gathered, schema=schema, redact=no_redaction, **{"secret": "lot", **options})


def ids(rows: Any) -> list[str]:
    return [row.example.id for row in rows]


def reasons(built: Built) -> dict[str, str]:
    return {row.example: row.reason for row in built.dropped}


def test_the_folders_own_split_is_kept() -> None:
    built = made([example(n, split="heldout" if n < 5 else None) for n in range(20)])
    assert ids(built.heldout) == ["e0", "e1", "e2", "e3", "e4"]
    assert ids(built.train) == [f"e{n}" for n in range(5, 20)]


def test_without_a_declared_split_about_a_fifth_is_held_out_and_always_the_same() -> None:
    rows = [example(n) for n in range(400)]
    built = made(rows)  # type: ignore[arg-type]
    assert 50 <= len(built.heldout) <= 110
    again = made(rows[::-1])  # type: ignore[arg-type]
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
    heldout = made(rows).heldout  # type: ignore[arg-type]
    trained = {row.key for row in heldout[:5]}
    again = made(rows, trained=trained)  # type: ignore[arg-type]
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
    built = made(rows, frozen=frozen, trained=trained)  # type: ignore[arg-type]
    assert {"e0", "e1", "e4", "e5"} <= set(ids(built.heldout)), "new ones of the thread join the held-out ones"
    assert reasons(built) == {"e2": "trained_group", "e3": "trained_group"}
    assert built.dropped[0].detail == "was trained on before, and belongs to held-out e0"
    assert not {"e2", "e3"} & {*ids(built.train), *ids(built.heldout)}


def test_an_input_that_was_trained_on_and_held_out_is_on_neither_side() -> None:
    rows = [example(n, split="heldout" if n < 4 else "train") for n in range(20)]
    both = {key_of(rows[0])}
    built = made(rows, frozen=both | {key_of(rows[1])}, trained=both | {key_of(rows[9])})  # type: ignore[arg-type]
    assert reasons(built) == {"e0": "trained_group"}
    assert built.dropped[0].detail == "was trained on before, and is held out as well"
    assert "e0" not in {*ids(built.train), *ids(built.heldout)}


def test_a_group_is_never_torn_apart() -> None:
    rows = [example(n, group=f"thread {n // 4}") for n in range(200)]
    built = made(rows)  # type: ignore[arg-type]
    thread = {row.id: row.group for row in rows}
    sides = [{thread[row.example.id] for row in side} for side in (built.train, built.heldout)]
    assert all(sides)
    assert not sides[0] & sides[1]


def test_an_authors_examples_stay_together_also_across_threads() -> None:
    rows = [Gathered(example=example(n, group=f"thread {n // 2}"), person=f"author {n // 6}") for n in range(240)]
    built = made(rows)  # type: ignore[arg-type]
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


def lot(rows: list[Example], secret: str) -> set[str]:
    return set(ids(made(rows, secret=secret).heldout))  # type: ignore[arg-type]


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


def test_a_users_copy_takes_no_example_of_the_owners_away() -> None:
    words = "the monthly invoice from the northern office shows a wrong amount for item"
    near = [example(1, "refund", id=f"near{n}", input=f"{words} n{n}", provenance="api") for n in range(3)]
    for provenance in ("folder", "import"):
        owners = example(1, id="owners", input=f"{words} seven", split="train", provenance=provenance)
        user = example(2, id="user", input=f"{words} eight", provenance="api")
        rest = [example(n, split="train" if n < 20 else "heldout") for n in range(10, 30)]
        built = made([owners, *near, user, *rest], frozen={key_of(row) for row in near}, trained={key_of(user)})
        assert "owners" in ids(built.train)
        assert reasons(built)["near0"] == "near_duplicate"
        assert not {row.example.provenance for row in built.heldout} & {"api"}


def test_near_copies_count_once_unless_their_outputs_differ() -> None:
    words = "the monthly invoice from the northern office shows a wrong amount for item"
    rows = [
        example(1, id="one", input=f"{words} seven", split="train"),
        example(1, id="two", input=f"{words} eight", split="train"),
        example(1, "refund", id="other", input=f"{words} nine", split="train"),
    ]
    built = made(rows)  # type: ignore[arg-type]
    assert ids(built.train) == ["one", "other"]
    assert reasons(built) == {"two": "near_duplicate"}


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


def test_personal_data_that_cannot_be_taken_out_drops_the_example() -> None:
    def redact(example: Example) -> tuple[Example, str | None]:
        if example.id == "e1":
            return example, "the output needs the name that was taken out"
        return example.model_copy(update={"input": "<EMAIL_1>"}) if example.id == "e2" else example, None

    rows = [Gathered(example=example(n, split="train")) for n in range(4)]
    built = build("skill", rows, schema=SCHEMA, redact=redact, secret="lot")
    assert reasons(built) == {"e1": "personal_data"}
    assert next(row for row in built.train if row.example.id == "e2").example.input == "<EMAIL_1>"


def test_the_digest_is_that_of_what_the_dataset_holds() -> None:
    rows = [example(n) for n in range(60)]
    one, same = made(rows), made([*rows, example(1, id="again")])  # type: ignore[arg-type]
    assert one.digest == same.digest
    assert made(rows[1:]).digest != one.digest  # type: ignore[arg-type]
    changed = [example(0, "refund"), *rows[1:]]
    assert made(changed).digest != one.digest  # type: ignore[arg-type]


def test_conversations_are_told_apart_by_all_their_turns() -> None:
    def talk(first: str) -> tuple[Message, ...]:
        return (
            Message(role="user", content=first),
            Message(role="assistant", content="And?"),
            Message(role="user", content="Please go on."),
        )

    rows = [example(n, input=talk(text(n)), split="train") for n in range(2)]
    assert len(made(rows).train) == 2  # type: ignore[arg-type]


def test_readiness_names_what_is_missing() -> None:
    built = made([example(n, split="train" if n < 31 else "heldout") for n in range(41)])
    found = readiness(built, SCHEMA, min_examples=50)
    assert not found.ready
    assert found.missing == (
        "31 examples to train on, 50 needed.",
        "Every example has the same output: there is nothing to learn from them.",
    )
    assert "10 held-out examples; under 30 no adapter can be proved better." in found.notes
    assert "`topic` never has the values `refund`, `other`." in found.notes
    assert "`urgent` never has the values `true`, `false`." in found.notes


def test_enough_varied_examples_are_ready() -> None:
    topics = ["order", "refund", "other"]
    built = made([example(n, topics[n % 3]) for n in range(300)])
    found = readiness(built, SCHEMA, min_examples=50)
    assert found.ready
    assert found.missing == ()


@pytest.mark.parametrize("empty", ["", "   "])
def test_an_empty_text_is_left_out(empty: str) -> None:
    built = made([example(1, id="in", input=f"{empty} "), Example(id="out", input="x y", output=empty)], None)
    assert set(reasons(built).values()) <= {"empty"}
    assert "out" in reasons(built)
