"""Copies are found whatever their spelling, nothing else is, and forms are compared by what people fill in."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intern.learning.examples.duplicates import SHORT, contaminated, find_copies, words

TEN = "the monthly invoice from northern office shows another wrong amount"


def jaccard(one: str, other: str) -> float:
    first, second = set(words(one)), set(words(other))
    return len(first & second) / len(first | second) if first | second else 1.0


def alike(one: str, other: str, threshold: float) -> bool:
    """The definition, without sketches."""
    if min(len(set(words(one))), len(set(words(other)))) < SHORT:
        return set(words(one)) == set(words(other))
    return jaccard(one, other) >= threshold


def by_comparing_all(texts: Sequence[str], threshold: float) -> dict[int, set[int]]:
    """Each copy with the kept texts that it is alike."""
    kept: list[int] = []
    copies: dict[int, set[int]] = {}
    for place, text in enumerate(texts):
        if its := {other for other in kept if alike(text, texts[other], threshold)}:
            copies[place] = its
        else:
            kept.append(place)
    return copies


@pytest.mark.parametrize(
    ("one", "other", "similarity"),
    [
        (TEN, f"{TEN.upper()}!!!", 1.0),
        (TEN, f"{TEN} today", 10 / 11),
        (TEN, TEN.replace("amount", "sum"), 9 / 11),
        ("ＦＵＬＬ width words are also words", "full width WORDS are also words", 1.0),
        ("reset my password", "my password: reset!", 1.0),
        ("東京から大阪までの列車の時刻を教えてください", "東京から大阪までの列車の時刻を教えて下さい", None),
    ],
)
def test_a_copy_is_known_by_its_words(one: str, other: str, similarity: float | None) -> None:
    [(index, kept, found)] = find_copies([one, other], 0.8)
    assert (index, kept) == (1, 0)
    assert found == pytest.approx(similarity or jaccard(one, other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TEN, TEN.replace("amount", "sum").replace("invoice", "bill")),
        ("reset my password", "reset my password now"),
        ("yes", "no"),
        ("a b c d", "a b c e"),
        ("東京から大阪まで", "東京から京都まで"),
    ],
)
def test_other_texts_are_no_copies(one: str, other: str) -> None:
    assert find_copies([one, other], 0.8) == []


def test_texts_without_words_are_copies_of_each_other_only() -> None:
    assert find_copies(["", "word", "?!", "..."], 0.8) == [(2, 0, 1.0), (3, 0, 1.0)]


def test_a_copy_names_the_nearest_kept_text_and_a_copy_of_a_copy_may_stay() -> None:
    # Each differs from the one before by one word of eleven, so the third is too far from the first.
    chain = [TEN, TEN.replace("amount", "sum"), TEN.replace("amount", "sum").replace("wrong", "odd")]
    (near,) = find_copies(chain, 0.8)
    assert near == pytest.approx((1, 0, 9 / 11))
    (near,) = find_copies([chain[0], chain[2], chain[0] + " today"], 0.8)
    assert near == pytest.approx((2, 0, 10 / 11))


def test_with_labels_only_texts_of_one_label_are_compared() -> None:
    texts = [TEN, f"{TEN} today", f"{TEN} now", f"{TEN} again"]
    assert [(copy, kept) for copy, kept, _ in find_copies(texts, 0.8, labels=["a", "b", "b", "a"])] == [(2, 1), (3, 0)]


VOCABULARY = [f"w{number}" for number in range(14)]
sentences = st.lists(st.sampled_from(VOCABULARY), max_size=12).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(sentences, max_size=19), threshold=st.sampled_from([0.5, 0.8, 0.9, 1.0]))
def test_sketches_find_what_comparing_all_pairs_finds(texts: list[str], threshold: float) -> None:
    expected = by_comparing_all(texts, threshold)
    found = find_copies(texts, threshold)
    assert {copy for copy, _, _ in found} == expected.keys()
    for copy, kept, similarity in found:
        assert kept in expected[copy]
        assert similarity == jaccard(texts[copy], texts[kept])
        assert similarity == max(jaccard(texts[copy], texts[other]) for other in expected[copy])


def made(count: int, length: int, seed: int = 0) -> list[str]:
    random_ = random.Random(seed)
    return [" ".join(f"v{random_.randrange(5000)}" for _ in range(length)) for _ in range(count)]


def test_many_texts_are_compared_and_every_changed_copy_is_found() -> None:
    texts = made(3000, 60)
    for place in range(0, 3000, 10):
        changed = texts[place].split()
        changed[3:5] = ["other", "things"]
        texts.append(" ".join(changed))
    found = find_copies(texts, 0.8)
    assert [(copy, kept) for copy, kept, _ in found] == [(3000 + n, 10 * n) for n in range(300)]
    assert find_copies(texts, 0.8) == found


FORM = (
    "Service request. Please fill in every field and send it to the desk before noon. Department: sales. Building: two."
    " I accept the terms of the house. My request: "
)


def test_forms_are_compared_by_what_people_fill_in() -> None:
    fillings = made(40, 6, seed=1)
    assert find_copies([FORM + filling for filling in fillings], 0.8) == []
    again = [*fillings, fillings[7].upper(), fillings[9] + " v1"]
    assert [(copy, kept) for copy, kept, _ in find_copies([FORM + f for f in again], 0.8)] == [(40, 7), (41, 9)]
    assert contaminated([FORM + f for f in fillings[:30]], [FORM + f for f in fillings[30:]], 0.8) == []


# --- held out ------------------------------------------------------------------------------------------------------


def test_a_near_copy_of_a_held_out_text_is_named_with_it() -> None:
    train = ["something else entirely is written in this one", f"{TEN} today", "reset my password"]
    heldout = ["password: reset my!", TEN]
    assert contaminated(train, heldout, 0.8) == [(1, 1, pytest.approx(10 / 11)), (2, 0, 1.0)]


def test_a_held_out_text_inside_a_longer_one_and_a_piece_of_one_are_found() -> None:
    mail, other, rest = made(3, 40, seed=2)
    train = [
        f"{rest} > {mail.upper()}! {other}",
        " ".join(mail.split()[10:28]),
        other,
        " ".join(mail.split()[:8]) + " " + rest,
    ]
    found = contaminated(train, [mail], 0.8)
    assert [(index, place) for index, place, _ in found] == [(0, 0), (1, 0)]
    assert all(0.8 <= share <= 1 for _, _, share in found)


def test_a_phrase_that_two_texts_share_is_no_contamination() -> None:
    phrase = "please find attached the document that you asked for last week"
    one, other = made(2, 30, seed=3)
    assert contaminated([f"{phrase} {one}", phrase], [f"{phrase} {other}"], 0.8) == []


def test_a_disclaimer_under_every_mail_is_no_contamination() -> None:
    disclaimer = " ".join(made(1, 50, seed=4))
    mails = [f"{text} {disclaimer}" for text in made(60, 12, seed=5)]
    assert contaminated(mails[:50], mails[50:], 0.8) == []
    assert [index for index, _, _ in contaminated([*mails[:50], mails[55]], mails[50:], 0.8)] == [50]


@pytest.mark.parametrize("texts", [[], ["a text"]])
def test_nothing_is_near_to_nothing(texts: list[str]) -> None:
    assert contaminated(texts, [], 0.8) == []
    assert contaminated([], texts, 0.8) == []
    assert find_copies(texts, 0.8) == []
