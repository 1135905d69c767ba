"""Cuts a parsed document into chunks along headings, then paragraphs, lists and tables, then sentences.

In: a `ParsedDocument` and a function that counts tokens as the embedder does. Out: chunks in order, as exact offsets
into the text; together they hold everything but whitespace. Deterministic. It knows no embedder, index or skill.

Within a section the cuts are those of least total cost, found by dynamic programming: a chunk costs more the further
its size is from the target, a cut costs more the more it tears (after a paragraph nothing, inside a sentence most). How
the target was chosen: benchmarks/chunking.py.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from intern.knowledge.boundaries import HEADING, PARAGRAPH, SENTENCE, WORD, line_cost, lines, near, sentences
from intern.knowledge.document import ParsedDocument
from intern.types import Model

Count = Callable[[str], int]

TARGET = 112
LIMIT = 254  # all-MiniLM-L6-v2 reads 256 tokens, two of them its own
# Changes whenever the same text would be cut or embedded differently, so that documents are ingested again.
RECIPE = f"chunk1-{TARGET}-{LIMIT}"

SEPARATOR = " > "
_MAX_TITLE = 80  # characters of one title in a heading path
_MAX_PATH = 200
_SMALL = 0.5  # sections below this share of the target are put together with a neighbour
_CHARACTERS_A_TOKEN = 8  # a text counts as at least this dense: word-piece tokenizers count a long unbroken run as one
_SHORT = 24  # characters; shorter pieces stay with what follows them
_ROWS = ("text/csv", "text/tab-separated-values", "application/jsonl")


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
        heading, prefix = _affordable(document.title or "", _label(group), count, limit // 2)
        room = max(limit - prefix, (limit + 1) // 2)
        for start, end in _cut(text, group, count, min(target, room), room, rows=document.media_type in _ROWS):
            key = (heading, text[start:end])
            identity = f"{key[0]}\0{key[1]}\0{seen[key]}"
            seen[key] += 1
            digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()
            chunks.append(Chunk(id=digest, ordinal=len(chunks), heading=heading, start=start, end=end))
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
    """From a heading to the next one; `body` is where the text below the heading begins, `end` if there is none."""

    start: int
    end: int
    body: int
    path: tuple[str, ...]
    size: int

    @property
    def bare(self) -> bool:
        return self.body == self.end


@dataclass
class _Group:
    """One section, or small neighbours under the same parent."""

    sections: list[_Section]
    size: int
    bare: bool

    def add(self, section: _Section) -> None:
        self.sections.append(section)
        self.size += section.size
        self.bare = self.bare and section.bare


def _groups(document: ParsedDocument, count: Count, target: int) -> list[_Group]:
    groups: list[_Group] = []
    small = target * _SMALL
    for section in _sections(document, count):
        group = groups[-1] if groups else None
        if group is not None and (group.bare or _related(group.sections[-1], section)):
            fits = group.size + section.size <= target and min(group.size, section.size) < small
            if group.bare or fits:
                group.add(section)
                continue
        groups.append(_Group([section], section.size, section.bare))
    if len(groups) > 1 and groups[-1].bare:
        for section in groups.pop().sections:
            groups[-1].add(section)
    return groups


def _related(before: _Section, after: _Section) -> bool:
    """Whether they are siblings, or parent and child."""
    return (bool(before.path) and before.path[:-1] == after.path[:-1]) or before.path == after.path[:-1]


def _sections(document: ParsedDocument, count: Count) -> Iterator[_Section]:
    text = document.text
    starts = [heading.offset for heading in document.headings]
    if not starts or text[: starts[0]].strip():
        end = starts[0] if starts else len(text)
        yield _Section(0, end, 0, (), count(text[:end]) if starts else 0)
    stack: list[tuple[int, str]] = []
    for heading, end in zip(document.headings, [*starts[1:], len(text)], strict=False):
        while stack and stack[-1][0] >= heading.level:
            stack.pop()
        stack.append((heading.level, _clip(heading.title, _MAX_TITLE)))
        path = tuple(title for _, title in stack)
        body = _body(text, heading.offset, end)
        yield _Section(heading.offset, end, body, path, count(text[heading.offset : end]))


def _body(text: str, start: int, end: int) -> int:
    """Where the text below a heading begins: behind its line, and the line that underlines it in Markdown."""
    _, _, below = text[start:end].partition("\n")
    underline, _, rest = below.partition("\n")
    if underline.strip() and not underline.strip("=- "):
        below = rest
    return end - len(below.lstrip())


def _label(group: _Group) -> str:
    """The path of the group's last section with text, naming its siblings too."""
    members = [section for section in group.sections if not section.bare] or group.sections[-1:]
    path = members[-1].path
    if not path:
        return ""
    parent = path[:-1]
    titles = [member.path[-1] for member in members if member.path and member.path[:-1] == parent]
    last = _clip("; ".join(titles), max(_MAX_TITLE, _MAX_PATH // 2))
    while parent and len(SEPARATOR.join((*parent, last))) > _MAX_PATH:
        parent = parent[1:]  # the inner titles say more
    return SEPARATOR.join((*parent, last))


def _affordable(title: str, heading: str, count: Count, most: int) -> tuple[str, int]:
    """The heading path, shortened until it costs at most `most` tokens with the title, and what it costs."""
    while (cost := count(embedding_text(title, heading, ""))) > most and heading:
        outer, _, inner = heading.partition(SEPARATOR)
        heading = inner or (_clip(outer, len(outer) // 2) if len(outer) > 3 else "")
    return heading, cost


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
    middle = near(text, start, end, start + (end - start) // 2)
    yield from _fitting(text, start, middle, count, limit)
    yield from _fitting(text, middle, end, count, limit)


def _size(text: str, count: Count) -> int:
    return max(count(text), len(text) // _CHARACTERS_A_TOKEN)


def _pieces(text: str, group: _Group, *, rows: bool) -> Iterator[_Piece]:
    """Sentences, list items, table rows and lines, each with the cost of a cut before it."""
    heads = {section.start for section in group.sections}
    bodies = {section.body for section in group.sections if section.path}
    short: _Piece | None = None
    cost = PARAGRAPH
    for start, end, following in lines(text, group.sections[0].start, group.sections[-1].end):
        if start in bodies:
            cost = HEADING
        for stop in (following,) if rows else sentences(text, start, end, following):
            piece = _Piece(start, stop, cost)
            if short is not None and start not in heads:
                piece.start, piece.cost = short.start, short.cost
            elif short is not None:
                yield short
            short = piece if stop - piece.start < _SHORT else None
            if short is None:
                yield piece
            start, cost = stop, SENTENCE
        cost = line_cost(text, end, following, rows=rows)
    if short is not None:
        yield short


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
            end = near(text, start, end, start + step)
        elif start == piece.start:  # a short text that counts high
            end = near(text, start, end, start + (end - start) // 2)
        yield from _sized(text, _Piece(start, end, cost), count, limit)
        start, cost = end, WORD
