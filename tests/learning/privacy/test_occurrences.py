"""Values are found where they stand alone, as one regular expression of them all would, in a fraction of its time."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intern.learning.privacy.occurrences import MAX_LENGTH, Occurrences


def by_expression(values: set[str], text: str) -> list[tuple[int, int]]:
    """The slow way: one alternative for each value, the longest first."""

    def alone(value: str) -> str:
        before = r"(?<!\d)" if value[0].isdecimal() else r"(?<![\w-])"
        after = r"(?!\d)" if value[-1].isdecimal() else r"(?![\w-])"
        return before + re.escape(value) + after

    longest_first = sorted(values, key=lambda value: (-len(value), value))
    return [found.span() for found in re.finditer("|".join(map(alone, longest_first)), text)]


@settings(max_examples=500, deadline=None)
@given(pieces=st.lists(st.text("aB1２_-. @é²\n", min_size=1, max_size=4), min_size=1, max_size=12), data=st.data())
def test_the_same_places_as_a_regular_expression_of_all_values(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    ends = st.integers(0, len(text))
    cut = [sorted(data.draw(st.tuples(ends, ends))) for _ in range(6)]
    values = {text[start:end] for start, end in cut if start < end} | {"a", "1"}
    assert list(Occurrences(values).find(text)) == by_expression(values, text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Anna's, anna, Annabel, Anna-Lena, XAnna, Anna.", ["Anna", "Anna"]),
        ("Anna Nowak and Nowak", ["Anna Nowak", "Nowak"]),
        ("x555-0142, 1555-0142, 555-01423", ["555-0142"]),
        ("", []),
    ],
)
def test_only_whole_words_and_numbers_count(text: str, found: list[str]) -> None:
    values = ["Anna", "Anna Nowak", "Nowak", "555-0142"]
    assert [text[start:end] for start, end in Occurrences(values).find(text)] == found


def test_what_is_longer_than_any_name_is_not_looked_for() -> None:
    longest = "x" * MAX_LENGTH
    assert list(Occurrences([longest, f"{longest}x"]).find(f"{longest} {longest}x")) == [(0, MAX_LENGTH)]


class Counted(dict[str, list[int]]):
    """Counts how often something is looked up."""

    looked = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.looked += 1
        return super().get(key, default)


def test_many_values_take_no_more_steps_than_few() -> None:
    values = [f"user{n}@example.org" for n in range(4_000)]
    text = " ".join(values[:100]) + " a." * 1_000
    looked = []
    for some in (values[:100], values):
        occurrences = Occurrences(some)
        occurrences._lengths = Counted(occurrences._lengths)
        assert len(list(occurrences.find(text))) == 100
        looked.append(occurrences._lengths.looked)
    assert 0 < looked[0] == looked[1] < len(text)
