"""Cuts a parsed document into chunks along headings, then paragraphs, lists and tables, then sentences.

In: a `ParsedDocument` and a function that counts tokens as the embedder does. Out: chunks in order, as exact offsets
into the text; together they hold everything but whitespace. Deterministic. It knows no embedder, index or skill.

Within a section the cuts are those of least total cost, found by dynamic programming: a chunk costs more the further
its size is from the target, a cut costs more the more it tears (after a paragraph nothing, inside a sentence most). How
the target was chosen: benchmarks/chunking.py.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from intern.knowledge.document import ParsedDocument
from intern.types import Model

Count = Callable[[str], int]

TARGET = 160
LIMIT = 254  # all-MiniLM-L6-v2 reads 256 tokens, two of them its own
# Changes whenever the same text would be cut or embedded differently, so that documents are ingested again.
RECIPE = f"chunk1-{TARGET}-{LIMIT}"

SEPARATOR = " > "
_MAX_TITLE = 80  # characters of one title in a heading path
_MAX_PATH = 200
_SMALL = 0.25  # sections below this share of the target are put together with a neighbour
_CHARACTERS_A_TOKEN = 8  # a text counts as at least this dense: word-piece tokenizers count a long unbroken run as one
_SHORT = 24  # characters; shorter pieces stay with what follows them
_LOOK = 300  # characters of a line that are looked at
_WRAP = 140  # characters; a longer line is no line of a wrapped paragraph, but a paragraph

# What a cut costs, beside a chunk that is off its target by all of it (1.0).
_PARAGRAPH, _ROW, _SENTENCE, _ITEM, _LINE, _COLON, _WORD, _HEADING = 0.0, 0.05, 0.1, 0.15, 0.3, 0.5, 0.8, 9.0

_ROWS = ("text/csv", "text/tab-separated-values", "application/jsonl")

_BREAK = re.compile(r"\n\s*")
_STOP = re.compile(r"([.!?…]+)[\"'”’»)\]]*\s+(?=([\"'“‘«(\[]*)(.))|[。！？｡]+[」』”’）】]*\s*")
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


class Chunk(Model):
    """`document.text[start:end]` is its text. `heading` is the path of titles above it, outermost first.

    `id` is a content hash: it stays the same while other parts of the document change.
    """

    id: str
    ordinal: int
    heading: str
    start: int
    end: int


def chunk(document: ParsedDocument, *, count: Count, target: int = TARGET, limit: int = LIMIT) -> list[Chunk]:
    """Chunks of about `target` tokens. No chunk counts more than `limit`, by `count`.

    Neither does its `embedding_text` with the document's title, as long as `limit` leaves room for title and heading.
    """
    text = document.text
    chunks: list[Chunk] = []
    seen: Counter[tuple[str, str]] = Counter()
    for group in _groups(document, count, target):
        prefix = count(embedding_text(document.title or "", group.heading, ""))
        room = max(limit - prefix, (limit + 1) // 2)
        for start, end in _cut(text, group, count, min(target, room), room, rows=document.media_type in _ROWS):
            key = (group.heading, text[start:end])
            identity = f"{key[0]}\0{key[1]}\0{seen[key]}"
            seen[key] += 1
            digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()
            chunks.append(Chunk(id=digest, ordinal=len(chunks), heading=group.heading, start=start, end=end))
    return chunks


def embedding_text(title: str, heading: str, text: str) -> str:
    """What is embedded for a chunk: the document's title and the heading path above it, then its text."""
    title = _clip(title, _MAX_TITLE)
    above = (
        heading
        if not title or heading.split(SEPARATOR)[0] == title
        else f"{title}{SEPARATOR}{heading}".removesuffix(SEPARATOR)
    )
    first, _, rest = text.partition("\n")
    if rest and first.strip("# ") == heading.rsplit(SEPARATOR, 1)[-1]:
        text = rest.lstrip("\n")  # the path says it already
    return f"{above}\n{text}" if above else text


# --- sections ---------------------------------------------------------------------------------------------------


@dataclass
class _Section:
    """From a heading to the next one. `bare` has no text below its heading."""

    start: int
    end: int
    path: tuple[str, ...]
    bare: bool
    size: int


@dataclass
class _Group:
    """One section, or small neighbours under the same parent; where their headings stand, and the text below them."""

    start: int
    end: int
    heading: str
    heads: tuple[int, ...]
    bodies: tuple[int, ...]


def _sections(document: ParsedDocument, count: Count) -> Iterator[_Section]:
    text = document.text
    starts = [heading.offset for heading in document.headings]
    if not starts or text[: starts[0]].strip():
        end = starts[0] if starts else len(text)
        yield _Section(0, end, (), False, count(text[:end]) if starts else 0)
    stack: list[tuple[int, str]] = []
    for heading, end in zip(document.headings, [*starts[1:], len(text)], strict=False):
        while stack and stack[-1][0] >= heading.level:
            stack.pop()
        stack.append((heading.level, _clip(heading.title, _MAX_TITLE)))
        body = _body(text, heading.offset, end)
        size = count(text[heading.offset : end])
        yield _Section(heading.offset, end, tuple(title for _, title in stack), body == end, size)


def _body(text: str, start: int, end: int) -> int:
    """Where the text below a heading begins: behind its line, and the line that underlines it in Markdown."""
    newline = text.find("\n", start, end)
    if newline < 0:
        return end
    body = newline + 1
    underline = text.find("\n", body, end)
    if text[body : end if underline < 0 else underline].strip() and not text[
        body : end if underline < 0 else underline
    ].strip("=- "):
        body = end if underline < 0 else underline + 1
    return body + len(text[body:end]) - len(text[body:end].lstrip())


def _groups(document: ParsedDocument, count: Count, target: int) -> list[_Group]:
    groups: list[list[_Section]] = []
    small = target * _SMALL
    for section in _sections(document, count):
        if groups and _belongs(groups[-1], section, target, small):
            groups[-1].append(section)
        else:
            groups.append([section])
    if len(groups) > 1 and all(section.bare for section in groups[-1]):
        groups[-2].extend(groups.pop())
    return [
        _Group(
            members[0].start,
            members[-1].end,
            _label([member for member in members if not member.bare] or members),
            tuple(member.start for member in members),
            tuple(_body(document.text, member.start, member.end) for member in members if member.path),
        )
        for members in groups
    ]


def _belongs(members: list[_Section], section: _Section, target: int, small: float) -> bool:
    last = members[-1]
    if all(member.bare for member in members):
        return True
    size = sum(member.size for member in members)
    siblings = bool(last.path) and last.path[:-1] == section.path[:-1]
    related = siblings or last.path == section.path[:-1]
    return related and size + section.size <= target and (size < small or section.size < small)


def _label(members: list[_Section]) -> str:
    path = members[-1].path
    if not path:
        return ""
    parent = path[:-1]
    titles = [member.path[-1] for member in members if member.path[:-1] == parent and member.path]
    last = _clip("; ".join(titles), max(_MAX_TITLE, _MAX_PATH // 2))
    while parent and len(SEPARATOR.join((*parent, last))) > _MAX_PATH:
        parent = parent[1:]  # the inner titles say more
    return SEPARATOR.join((*parent, last))


def _clip(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


# --- cuts inside a section --------------------------------------------------------------------------------------


@dataclass
class _Piece:
    """What is never torn, with the whitespace behind it. `cost` is that of a cut right before it."""

    start: int
    end: int
    cost: float
    size: int = 0


def _cut(text: str, group: _Group, count: Count, target: int, limit: int, *, rows: bool) -> Iterator[tuple[int, int]]:
    pieces: list[_Piece] = []
    for piece in _pieces(text, group, rows=rows):
        pieces.extend(_sized(text, piece, count, limit))
    for first, last in _cheapest(pieces, target, limit):
        yield from _fitting(text, pieces[first].start, pieces[last - 1].end, count, limit)


def _cheapest(pieces: list[_Piece], target: int, limit: int) -> list[tuple[int, int]]:
    """Runs of pieces (first, last exclusive) of least total cost; shortest path over the places to cut."""
    best = [0.0] + [float("inf")] * len(pieces)
    came = [0] * (len(pieces) + 1)
    for last in range(1, len(pieces) + 1):
        size = 0
        for first in range(last - 1, -1, -1):
            size += pieces[first].size
            if size > limit and first < last - 1:
                break
            off = (size - target) / target
            cost = best[first] + off * off + (pieces[first].cost if first else 0.0)
            if cost < best[last]:
                best[last], came[last] = cost, first
    runs = []
    last = len(pieces)
    while last:
        runs.append((came[last], last))
        last = came[last]
    return runs[::-1]


def _fitting(text: str, start: int, end: int, count: Count, limit: int) -> Iterator[tuple[int, int]]:
    """The span without outer whitespace; halved where a tokenizer counts the whole higher than its parts."""
    start += len(text[start:end]) - len(text[start:end].lstrip())
    end = start + len(text[start:end].rstrip())
    if start >= end:
        return
    if _size(text[start:end], count) <= limit or end - start == 1:
        yield start, end
        return
    middle = _between(text, start, end, start + (end - start) // 2)
    yield from _fitting(text, start, middle, count, limit)
    yield from _fitting(text, middle, end, count, limit)


def _size(text: str, count: Count) -> int:
    return max(count(text), len(text) // _CHARACTERS_A_TOKEN)


def _pieces(text: str, group: _Group, *, rows: bool) -> Iterator[_Piece]:
    """Sentences, list items, table rows and lines, each with the cost of a cut before it."""
    heads, bodies = set(group.heads), set(group.bodies)
    short: _Piece | None = None
    cost = _PARAGRAPH
    for start, end, following in _lines(text, group.start, group.end):
        if start in bodies:
            cost = _HEADING
        for stop in _sentences(text, start, end, following):
            piece = _Piece(start, stop, cost)
            if short is not None and start not in heads:
                piece.start, piece.cost = short.start, short.cost
            elif short is not None:
                yield short
            short = piece if stop - piece.start < _SHORT else None
            if short is None:
                yield piece
            start, cost = stop, _SENTENCE
        cost = _line_cost(text, end, following, rows=rows)
    if short is not None:
        yield short


def _lines(text: str, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, start of the next) of the lines that are not empty; indentation counts to the line before."""
    for match in _BREAK.finditer(text, start, end):
        if match.start() > start:
            yield start, match.start(), match.end()
        start = match.end()
    if start < end:
        yield start, end, end


def _line_cost(text: str, end: int, following: int, *, rows: bool) -> float:
    """Cost of a cut between the line that ends at `end` and the one that starts at `following`."""
    before = text[max(0, end - _LOOK) : end].rpartition("\n")[2].rstrip()
    after = text[following : following + _LOOK].partition("\n")[0]
    if rows:
        return _ROW
    if before.endswith((":", "：")):
        return _COLON
    if _ITEM_START.match(after):
        return _ITEM
    if "|" in before and "|" in after:
        return _COLON if _RULE.fullmatch(before) or _RULE.fullmatch(after) else _ITEM
    if text.count("\n", end, following) > 1:
        return _PARAGRAPH
    if before.endswith((".", "!", "?", "。", "！", "？", ";")):
        return _PARAGRAPH if len(before) > _WRAP else _SENTENCE
    return _LINE


def _sentences(text: str, start: int, end: int, following: int) -> Iterator[int]:
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


def _sized(text: str, piece: _Piece, count: Count, limit: int) -> Iterator[_Piece]:
    """The piece with its size, or parts of it at clauses and words, or inside an unbroken run."""
    size = _size(text[piece.start : piece.end], count)
    if size <= limit or piece.end - piece.start == 1:
        yield _Piece(piece.start, piece.end, piece.cost, size)
        return
    step = max(1, limit // 2)  # characters, so that most parts fit and the best of several cuts can be chosen
    start, cost = piece.start, piece.cost
    while start < piece.end:
        end = piece.end
        if end - start > step:
            end = _between(text, start, end, start + step)
        elif start == piece.start:  # a short text that counts high
            end = _between(text, start, end, start + (end - start) // 2)
        yield from _sized(text, _Piece(start, end, cost), count, limit)
        start, cost = end, _WORD


def _between(text: str, start: int, end: int, aim: int) -> int:
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
