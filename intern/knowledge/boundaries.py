"""Where a text may be cut, and what a cut there costs: lines, sentences, clauses, words.

In: a text and a span of it. Out: offsets, and costs relative to a chunk that is off its target by all of it (1.0). It
knows no tokens, no headings and no chunks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

# What a cut costs, as the module's contract says.
PARAGRAPH, ROW, SENTENCE, ITEM, LINE, COLON, WORD, HEADING = 0.0, 0.2, 1.0, 1.0, 1.2, 1.5, 2.0, 9.0

_LOOK = 300  # characters of a line that are looked at
_WRAP = 140  # characters; a longer line is no line of a wrapped paragraph, but a paragraph

_BREAK = re.compile(r"\n\s*")
# Possessive, and only at the start of a run: a megabyte of dots takes linear time.
_STOP = re.compile(
    r"((?<![.!?…])[.!?…]++)[\"'”’»)\]]*+\s++(?=([\"'“‘«(\[]*+)(.))|(?<![。！？｡])[。！？｡]++[」』”’）】]*+\s*"
)
_LAST_WORD = re.compile(r"(?:^|[\s(\[\"'“‘])([^\s(\[\"'“‘]*)$")
_ABBREVIATIONS = frozenset(
    re.findall(
        r"\S+",
        "mr mrs ms dr prof st no nos vs e.g i.e cf fig figs vol pp approx inc ltd co corp jr sr al z.b bzw ca nr art"
        " abs sec para u.s u.k d.h usw jan feb mar apr jun jul aug sep sept oct nov dec",
    )
)
_ITEM_START = re.compile(r"[ \t]*(?:[-*+•–▪◦]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])[ \t]+\S")
_RULE = re.compile(r"[|:\-+= \t]+")
_CLAUSE = re.compile(r"[,;:—–]\s+|[、，；：]")
_SPACE = re.compile(r"\s+")
_JOINS = frozenset("\u200d\ufe0e\ufe0f\u20e3\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")


def lines(text: str, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, start of the next) of the lines that are not empty; indentation counts to the line before."""
    for match in _BREAK.finditer(text, start, end):
        if match.start() > start:
            yield start, match.start(), match.end()
        start = match.end()
    if start < end:
        yield start, end, end


def line_cost(text: str, end: int, following: int, *, rows: bool) -> float:
    """Cost of a cut between the line that ends at `end` and the one that starts at `following`."""
    before = text[max(0, end - _LOOK) : end].rpartition("\n")[2].rstrip()
    after = text[following : following + _LOOK].partition("\n")[0]
    if rows:
        return ROW
    if before.endswith((":", "：")):
        return COLON
    if _ITEM_START.match(after):
        return ITEM
    if "|" in before and "|" in after:
        return COLON if _RULE.fullmatch(before) or _RULE.fullmatch(after) else ITEM
    if text.count("\n", end, following) > 1:
        return PARAGRAPH
    if before.endswith((".", "!", "?", "。", "！", "？", ";")):
        return PARAGRAPH if len(before) > _WRAP else SENTENCE
    return LINE


def sentences(text: str, start: int, end: int, following: int) -> Iterator[int]:
    """Where each sentence of a line ends, with the whitespace behind it; the last one ends at `following`."""
    for match in _STOP.finditer(text, start, end):
        if match[1] is None:  # full-width punctuation
            stop = True
        elif match[3].islower():
            stop = False
        elif match[1] == ".":
            word = _LAST_WORD.search(text, max(start, match.start() - 24), match.start())
            last = word[1] if word else ""
            number = last.isdigit() and match.start() - len(last) == start
            stop = not (number or last.lower() in _ABBREVIATIONS or (len(last) == 1 and last.isupper() and last != "I"))
        else:
            stop = True
        if stop and match.end() < end:
            yield match.end()
    yield following


def near(text: str, start: int, end: int, aim: int) -> int:
    """Where to cut near `aim`, and not behind it: after a clause, else after a word, else inside a run."""
    window = text[start + (aim - start) // 2 : aim]
    for pattern in (_CLAUSE, _SPACE):
        cuts = [match.end() for match in pattern.finditer(window)]
        if cuts:
            return aim - len(window) + cuts[-1]
    cut = aim
    # Marks belong to the character before them; no script has more than a few.
    while cut > max(start + 1, aim - 8) and (
        unicodedata.combining(text[cut]) or text[cut] in _JOINS or text[cut - 1] == "\u200d"
    ):
        cut -= 1
    return cut if start < cut < end else aim
