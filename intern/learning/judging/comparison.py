"""Where a candidate answers better or worse than somebody else: two rivals' outcomes in, cases for people to read out.

A case is one held-out example with both answers, written out, and marked where they differ from the expected output.
Texts are cut to what a person reads; nothing is escaped here. Knows no statistics and no pages.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Literal

from intern.learning.judging.outcomes import Outcome
from intern.types import Json, Model

MOST_CASES = 10
MOST_CHARACTERS = 1_200  # of a request or an answer; comparing takes the square of it
_LEAST_CHANGE = 1e-9

# A character of a script without spaces, a number, a word, or a sign; with the whitespace before it.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_TOKEN = re.compile(rf"\s*(?:[{_CJK}]|\d+(?:[.,]\d+)*|(?:(?![{_CJK}])\w)+|\W)")


class Piece(Model):
    """A part of an answer: as expected, other than expected, or expected and missing (its text is the expected)."""

    kind: Literal["same", "other", "missing"]
    text: str


class Case(Model):
    """One example, answered by the candidate (`after`) and by whom it is compared with (`before`); scores 0 to 1."""

    example: str
    request: str
    expected: str
    before: tuple[Piece, ...]
    after: tuple[Piece, ...]
    before_score: float
    after_score: float
    before_valid: bool
    after_valid: bool


def cases(
    candidate: Sequence[Outcome], other: Sequence[Outcome], *, most: int = MOST_CASES
) -> tuple[list[Case], list[Case]]:
    """(worst regressions, best gains) on the examples that both answered, the largest change of score first."""
    before = {outcome.example: outcome for outcome in other}
    pairs = [(before[after.example], after) for after in candidate if after.example in before]
    changed = sorted(
        (pair for pair in pairs if abs(_change(*pair)) > _LEAST_CHANGE),
        key=lambda pair: (_change(*pair), pair[1].example),
    )
    worse = [pair for pair in changed if _change(*pair) < 0][:most]
    better = [pair for pair in reversed(changed) if _change(*pair) > 0][:most]
    return [_case(*pair) for pair in worse], [_case(*pair) for pair in better]


def written(value: Json, like: Json = None) -> str:
    """A JSON value as people read it: a text as it is, anything else indented, with its keys in the order of `like`."""
    return value if isinstance(value, str) else json.dumps(_ordered(value, like), indent=2, ensure_ascii=False)


def shortened(text: str, most: int = MOST_CHARACTERS) -> str:
    """The text, or its beginning and how many characters follow."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def marked(expected: str, answer: str) -> tuple[Piece, ...]:
    """The answer in pieces, word by word against the expected text; capitals and whitespace make no difference."""
    wanted, given = _TOKEN.findall(expected), _TOKEN.findall(answer)
    one, two = ([token.strip().casefold() for token in tokens] for tokens in (wanted, given))
    found: list[Piece] = []
    for kind, start, end, low, high in SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        text = "".join(given[low:high])
        other = "" if kind == "equal" else text.lstrip()
        found.append(Piece(kind="same", text=text[: len(text) - len(other)]))
        found.append(Piece(kind="other", text=other))
        if kind == "delete" and any(one[start:end]):
            found.append(Piece(kind="missing", text="".join(wanted[start:end])))
    runs = itertools.groupby((piece for piece in found if piece.text), key=lambda piece: piece.kind)
    return tuple(Piece(kind=kind, text="".join(piece.text for piece in run)) for kind, run in runs)


def _case(before: Outcome, after: Outcome) -> Case:
    expected = shortened(written(after.expected))
    return Case(
        example=after.example,
        request=shortened(after.request),
        expected=expected,
        before=marked(expected, shortened(written(before.output, after.expected))),
        after=marked(expected, shortened(written(after.output, after.expected))),
        before_score=before.score,
        after_score=after.score,
        before_valid=before.valid,
        after_valid=after.valid,
    )


def _change(before: Outcome, after: Outcome) -> float:
    return after.score - before.score


def _ordered(value: Json, like: Json) -> Json:
    if not isinstance(value, Mapping) or not isinstance(like, Mapping):
        return value
    names = [*(name for name in like if name in value), *(name for name in value if name not in like)]
    return {name: _ordered(value[name], like.get(name)) for name in names}
