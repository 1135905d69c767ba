"""Claim: 698 documents are parsed, cut, embedded and stored in under 90 s on two cores, and again at no cost.

Documents: the bank knowledge base (bank-kb), as Markdown files. Real parser, embedder, SQLite, Chroma. The stages
overlap (a file is parsed while others are embedded), so their times add up to more than the whole.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import DATA, table, write
from intern.knowledge import Knowledge, Upload, VectorIndex, open_index
from intern.knowledge.document import ParsedDocument
from intern.knowledge.index import Space
from intern.knowledge.parse import Parser
from intern.models.embedder import Embedder, Vectors
from intern.models.loading import open_embedder
from intern.settings import Settings
from intern.store.engine import open_database

CORPUS = DATA / "bank-kb"
CACHE = Path(tempfile.gettempdir()) / "llama-intern-benchmarks"  # keeps the embedder's export between runs
GOAL_SECONDS = 90.0
CLAIM = "698 documents are ingested in under 90 s on two cores; an unchanged folder costs nothing"


class Clock:
    """Seconds by stage, summed over threads."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def call(self, stage: str, function: Any, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            with self._lock:
                self.seconds[stage] += time.perf_counter() - start


class TimedParser:
    def __init__(self, parser: Parser, clock: Clock) -> None:
        self._parser, self._clock = parser, clock

    def parse(self, name: str, data: bytes) -> ParsedDocument:
        parsed: ParsedDocument = self._clock.call("parse", self._parser.parse, name, data)
        return parsed

    def close(self) -> None:
        self._parser.close()


class TimedEmbedder:
    def __init__(self, embedder: Embedder, clock: Clock) -> None:
        self._embedder, self._clock = embedder, clock
        self.id, self.dimension, self.max_tokens = embedder.id, embedder.dimension, embedder.max_tokens
        self.texts = 0

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.texts += len(texts)
        vectors: Vectors = self._clock.call("embed", self._embedder.embed, texts)
        return vectors

    def count_tokens(self, text: str) -> int:
        tokens: int = self._clock.call("count tokens", self._embedder.count_tokens, text)
        return tokens


class TimedIndex:
    """Times what ingestion calls; hands everything else through."""

    def __init__(self, index: VectorIndex, clock: Clock) -> None:
        self._index, self._clock = index, clock

    def put(self, space: Space, ids: Sequence[str], vectors: Vectors) -> None:
        self._clock.call("index", self._index.put, space, ids, vectors)

    def delete(self, space: Space, ids: Collection[str]) -> None:
        self._clock.call("index", self._index.delete, space, ids)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)


def bank_documents() -> list[Upload]:
    """Each document as a Markdown file named after its id."""
    documents = json.loads((CORPUS / "documents.json").read_text(encoding="utf-8"))
    return [Upload(f"{d['id']}.md", f"# {d['title']}\n\n{d['content']}".encode()) for d in documents]


def default_embedder() -> Embedder:
    return open_embedder(Settings.model_fields["embedder"].default, CACHE, 2)


def default_parser() -> Parser:
    fields = Settings.model_fields
    return Parser(
        seconds=fields["parse_seconds"].default,
        memory_bytes=fields["parse_bytes"].default,
        pages=fields["upload_pages"].default,
        file_bytes=fields["upload_bytes"].default,
        inflated_bytes=fields["inflated_bytes"].default,
    )


def main() -> int:
    if not CORPUS.exists():
        print(f"skipped: {CORPUS} is not there", file=sys.stderr)
        return 0
    files = bank_documents()
    embedder = default_embedder()
    clock = Clock()
    timed = TimedEmbedder(embedder, clock)
    changed = [Upload(files[0].name, files[0].data + b"\n\nOne more sentence at the end.\n")]
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(f"sqlite:///{folder}/intern.db")
        index: Any = TimedIndex(open_index(Path(folder) / "index"), clock)
        knowledge = Knowledge(database, timed, TimedParser(default_parser(), clock), index)

        def run(what: str, step: Any) -> tuple[float, int, Any]:
            before = timed.texts
            start = time.perf_counter()
            outcome = step()
            seconds = time.perf_counter() - start
            print(f"{what}: {seconds:.2f} s", file=sys.stderr)
            return seconds, timed.texts - before, outcome

        first, embedded, results = run("first", lambda: knowledge.ingest("bench", "bank", files, source="docs"))
        stages = dict(clock.seconds)
        again = run("unchanged", lambda: knowledge.ingest("bench", "bank", files, source="docs"))
        edit = run("one changed", lambda: knowledge.ingest("bench", "bank", changed, source="docs"))
        keep = {upload.name for upload in files[1:]}
        gone = run("one deleted", lambda: knowledge.prune("bench", "bank", "docs", keep))
        rebuilt = run("rebuilt", knowledge.rebuild)
        knowledge.close()
        database.dispose()
    passages = sum(result.passages for result in results)
    statuses = {status: sum(r.status == status for r in results) for status in ("added", "refused")}
    assert statuses == {"added": len(files), "refused": 0}, statuses
    assert {r.status for r in again[2]} == {"unchanged"}
    assert [r.status for r in edit[2]] == ["replaced"]
    assert gone[2] == [files[0].name]
    rows = [
        ("first run", first, embedded),
        ("nothing changed", again[0], again[1]),
        ("one document changed", edit[0], edit[1]),
        ("one document deleted", gone[0], gone[1]),
        ("index rebuilt from SQL", rebuilt[0], rebuilt[1]),
    ]
    table(f"Ingestion: {len(files)} documents, {passages} passages", ("", "seconds", "texts embedded"), rows)
    table("Stages of the first run (overlapping)", ("stage", "seconds"), sorted(stages.items()))
    write(
        "ingestion",
        CLAIM,
        {
            "documents": len(files),
            "passages": passages,
            "goal_seconds": GOAL_SECONDS,
            "met": first < GOAL_SECONDS,
            "seconds": {name: seconds for name, seconds, _ in rows},
            "texts_embedded": {name: texts for name, _, texts in rows},
            "stage_seconds": stages,
        },
    )
    return 0 if first < GOAL_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
