"""Reading files for ingestion: bytes to text, chunks and passage ids, several files ahead of who stores them.

In: uploads and a parser. Out: for each upload, in order, what is to be stored, or the reason why not. It knows no
database and no index, and embeds nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

from intern.errors import DocumentRefused
from intern.knowledge.chunk import LIMIT, TARGET, chunk, embedding_text
from intern.knowledge.chunk import RECIPE as CHUNKS
from intern.knowledge.document import ParsedDocument
from intern.knowledge.parse import RECIPE as PARSER
from intern.models.embedder import Embedder
from intern.types import Model

_AHEAD = 8  # files being read while others are embedded; bounds the memory too
_READERS = 2
_SPECIAL_TOKENS = 2  # the embedder's own, before and after a text
_NAME = 500
_HEADING = 1000
_TITLE = 500


@dataclass(frozen=True)
class Upload:
    """A file to ingest; `name` is its path below the folder that was given, with forward slashes."""

    name: str
    data: bytes


class Ingested(Model):
    """What became of one file. `passages` counts those that are stored now; `problem` says why it was refused."""

    name: str
    status: Literal["added", "replaced", "unchanged", "refused"]
    passages: int
    problem: str | None = None


class Parses(Protocol):
    """The part of `Parser` that ingestion uses. Thread-safe. Raises DocumentRefused."""

    def parse(self, name: str, data: bytes) -> ParsedDocument: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Part:
    """A chunk with its passage id. `embed` is the text that its vector is made from."""

    id: str
    ordinal: int
    heading: str
    start: int
    end: int
    embed: str


@dataclass(frozen=True)
class Read:
    """A file, parsed and chunked."""

    upload: Upload
    sha256: str
    media_type: str
    title: str
    text: str
    parts: tuple[Part, ...]


def recipe(embedder: Embedder) -> str:
    """Changes whenever the same bytes would be stored differently: by parser, chunker, or embedder."""
    return f"{PARSER}.{CHUNKS}.{hashlib.sha256(embedder.id.encode()).hexdigest()[:16]}"


def read_ahead(
    files: Iterable[Upload], work: Callable[[Upload], Read | None]
) -> Iterator[tuple[Upload, Read | DocumentRefused | None]]:
    """`work` on every file in a few threads, results in the order of the files, DocumentRefused as a result."""
    waiting: deque[tuple[Upload, Future[Read | None]]] = deque()

    def result() -> tuple[Upload, Read | DocumentRefused | None]:
        upload, future = waiting.popleft()
        try:
            return upload, future.result()
        except DocumentRefused as refused:
            return upload, refused

    with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as readers:
        try:
            for upload in files:
                waiting.append((upload, readers.submit(work, upload)))
                if len(waiting) >= _AHEAD:
                    yield result()
            while waiting:
                yield result()
        finally:
            for _, future in waiting:
                future.cancel()


def read(team: str, skill: str, upload: Upload, sha256: str, parser: Parses, embedder: Embedder) -> Read:
    """Parse and chunk one file. Raises DocumentRefused."""
    check_name(upload.name)
    document = parser.parse(upload.name, upload.data)
    title = (document.title or "")[:_TITLE]
    seen: Counter[str] = Counter()
    parts: list[Part] = []
    limit = max(1, min(LIMIT, embedder.max_tokens - _SPECIAL_TOKENS))
    for piece in chunk(document, count=embedder.count_tokens, target=min(TARGET, limit), limit=limit):
        text = document.text[piece.start : piece.end]
        if not text.strip():
            continue
        heading = piece.heading[:_HEADING]
        embed = embedding_text(title, heading, text)
        id = passage_id(team, skill, upload.name, embed, seen[embed])
        seen[embed] += 1
        parts.append(Part(id, len(parts), heading, piece.start, piece.end, embed))
    if not parts:
        raise DocumentRefused("holds no text", document=upload.name)
    return Read(upload, sha256, document.media_type, title, document.text, tuple(parts))


def passage_id(team: str, skill: str, name: str, embed: str, nth: int) -> str:
    """An id made of what the vector depends on: a passage that an edit left alone keeps its id, and its vector.

    So an index agrees with SQL when it holds the same ids. `nth` tells equal passages of one document apart.
    """
    identity = json.dumps([team, skill, name, embed, nth], ensure_ascii=True)
    return "passage_" + hashlib.sha256(identity.encode()).hexdigest()[:32]


def check_name(name: str) -> None:
    """Raises DocumentRefused for a name that cannot be stored and shown."""
    if not name.strip() or len(name) > _NAME or not name.isprintable():
        raise DocumentRefused(
            f"the name must have 1 to {_NAME} printable characters", document=ascii(name[:80]) if name else "(no name)"
        )
