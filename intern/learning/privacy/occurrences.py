"""Where known values stand in a text, in words of their own.

In: values, and a text. Out: the places of those values, the longest where several begin at one. `Anna` stands in
`Anna's`, not in `Annabel` or `Anna-Lena`; a number ends where its digits do. The time grows with the length of the
text, not with the number of values, and no single step is long: other threads of the process go on.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

MAX_LENGTH = 200  # of a value that is looked for: no name, number or address is longer

_PIECE = re.compile(r"\d+|[^\W\d]+|\W")


class Occurrences:
    """Looks for `values`; those of more than MAX_LENGTH characters are not looked for."""

    def __init__(self, values: Iterable[str]) -> None:
        self._values = {value for value in values if 0 < len(value) <= MAX_LENGTH}
        lengths: dict[str, set[int]] = defaultdict(set)
        for value in self._values:
            lengths[_first_piece(value)].add(len(value))
        self._lengths = {piece: sorted(its, reverse=True) for piece, its in lengths.items()}

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """(start, end) of each, in order; no two overlap."""
        done = 0
        for piece in _PIECE.finditer(text):  # a value that stands alone begins where a piece does
            start = piece.start()
            if start < done:
                continue
            for length in self._lengths.get(piece.group(), ()):
                end = start + length
                if end <= len(text) and text[start:end] in self._values and _is_alone(text, start, end):
                    yield start, end
                    done = end
                    break


def _first_piece(value: str) -> str:
    found = _PIECE.match(value)
    assert found is not None  # every character is a digit, another sign of a word, or neither
    return found.group()


def _is_alone(text: str, start: int, end: int) -> bool:
    """Whether no word or number goes on beside text[start:end]."""
    return not (_goes_on(text[start], text[start - 1 : start]) or _goes_on(text[end - 1], text[end : end + 1]))


def _goes_on(last: str, beside: str) -> bool:
    return beside.isdecimal() if last.isdecimal() else beside.isalnum() or beside in ("_", "-")
