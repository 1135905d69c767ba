"""From a conversation to the texts that are searched for: follow-ups, and questions longer than the embedder reads.

In: a text or messages, and the embedder's token counter. Out: weighted `Query`s. It knows no index and embeds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from intern.knowledge.lexical import words
from intern.types import Message

# One vector of a long text blurs its topics, and what the model cannot read is lost. On the benchmark's scenarios (270
# to 1,770 tokens), one vector finds 0.40 of the needed documents among 20, the best of several pieces 0.55.
PIECE_TOKENS = 120
MAX_PIECES = 16  # bounds the time of a huge message: the embedder takes some 10 ms a piece
_CHARACTERS = 12_000  # of a longer text only beginning and end are searched for: where people say what they want
_TURNS = 3  # user turns that a follow-up question is read together with, itself included

# What a turn that cannot be searched for alone begins with, or points back with, as long as it is short.
_GOES_ON = re.compile(r"\W*(and|or|but|so|also|then|what about|how about|what if)\b", re.IGNORECASE)
_GOES_ON_WORDS = 7
_POINTS_BACK = re.compile(
    r"\b(it|its|that|this|these|those|they|them|their|he|she|his|her|same|instead|else)\b", re.IGNORECASE
)
_POINTS_BACK_WORDS = 20
_LEAST_WORDS = 3
# What the conversation's ranking weighs against the follow-up's own. Tried once on twelve follow-ups over the starter
# handbook, written for the purpose: the right section is among the first four for 7 by the follow-up alone, 11 at equal
# weights, 12 from 3 to 8. The follow-up keeps a say for the case that it began a new subject after all.
_CONVERSATION = 4.0
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True)
class Query:
    """One text to search for. `pieces` is what to embed: the text itself, or its parts when it is long."""

    text: str
    pieces: tuple[str, ...]
    weight: float = 1.0


def queries(asked: str | Sequence[Message], count: Callable[[str], int]) -> list[Query]:
    """The last user turn, and, when it does not stand alone, the recent user turns as one text as well.

    `count` gives the tokens of a text. No query at all when nothing was asked. The assistant's turns are left out: what
    a model made up must not choose the documents that check it.
    """
    turns = [asked] if isinstance(asked, str) else [m.content for m in asked if m.role == "user"]
    turns = [turn for turn in turns if turn.strip()]
    if not turns:
        return []
    last = _ends(turns[-1])
    found = [Query(last, pieces(last, count))]
    if len(turns) > 1 and not stands_alone(last):
        together = _ends("\n".join(turns[-_TURNS:]))
        found.append(Query(together, pieces(together, count), _CONVERSATION))
    return found


def stands_alone(text: str) -> bool:
    """Whether a turn can be searched for without what was said before it."""
    length = len(text.split())
    if length < _LEAST_WORDS or len(words(text)) < 2:
        return False
    if length < _GOES_ON_WORDS and _GOES_ON.match(text):
        return False
    return length >= _POINTS_BACK_WORDS or not _POINTS_BACK.search(text)


def pieces(text: str, count: Callable[[str], int]) -> tuple[str, ...]:
    """`text` cut between sentences into pieces of PIECE_TOKENS at most (a longer sentence: between words).

    Of a text with more than MAX_PIECES, the first and the last ones.
    """
    if len(text) <= PIECE_TOKENS or count(text) <= PIECE_TOKENS:  # a token has a character at least
        return (text,)
    found: list[str] = []
    current: list[str] = []
    tokens = 0
    for part in _parts(text, count):
        size = count(part)
        if current and tokens + size > PIECE_TOKENS:
            found.append(" ".join(current))
            current, tokens = [], 0
        current.append(part)
        tokens += size
    if current:
        found.append(" ".join(current))
    if len(found) > MAX_PIECES:
        found = found[: MAX_PIECES // 2] + found[-MAX_PIECES // 2 :]
    return tuple(found)


def _ends(text: str) -> str:
    if len(text) <= _CHARACTERS:
        return text
    return f"{text[: _CHARACTERS // 2]}\n{text[-_CHARACTERS // 2 :]}"


def _parts(text: str, count: Callable[[str], int]) -> list[str]:
    """Sentences; those longer than a piece, their words."""
    parts: list[str] = []
    for sentence in _SENTENCE.split(text):
        if sentence.strip():
            parts.extend(sentence.split() if count(sentence) > PIECE_TOKENS else [sentence.strip()])
    return parts
