"""Claim: fusing dense retrieval and BM25 finds no fewer of the needed documents than the better of the two alone.

Corpus: the bank knowledge base (bank-kb), 698 documents; 40 customer scenarios, each with the documents
that its handling needs. Two forms of each question: the *scenario*, the whole text that tells a customer who they are
and what they want (270 to 1,770 tokens), and *own words*, only what it makes the customer say, which is what stands in
double quotes (four words or more), or the scenario where nothing does. Documents are ranked by their best passage.
Intervals are 95%, by bootstrap over scenarios, paired where two methods are compared.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ingestion import CORPUS, bank_documents, default_embedder, default_parser
from benchmarks.report import median_p99, table, write
from intern.knowledge import ExactIndex, Knowledge, Mode, catalogue, open_index
from intern.knowledge.index import Space
from intern.knowledge.mirror import unpack
from intern.knowledge.query import pieces
from intern.knowledge.retrieve import DEPTH
from intern.store.engine import open_database

CLAIM = "fused retrieval is not worse than the better of dense and BM25 by more than 0.02 recall of required documents"
TEAM, SKILL = "bench", "bank"
MODES: tuple[Mode, ...] = ("dense", "lexical", "fused")
DEPTHS = (10, 20)
MARGIN = 0.02
_PASSAGES = 200  # retrieved, so that more than 20 documents are among them
_QUOTED = re.compile(r'["“]([^"”]+)["”]')


def questions() -> dict[str, list[tuple[str, frozenset[str]]]]:
    """By form: (question, names of the documents it needs)."""
    tasks = json.loads((CORPUS / "tasks_dev.json").read_text(encoding="utf-8"))
    forms: dict[str, list[tuple[str, frozenset[str]]]] = {"scenario": [], "own words": []}
    for task in tasks:
        text = task["user_scenario"]["instructions"]
        needed = frozenset(f"{document}.md" for document in task["required_documents"])
        said = [quote for quote in _QUOTED.findall(text) if len(quote.split()) >= 4]
        forms["scenario"].append((text, needed))
        forms["own words"].append(("\n".join(said) or text, needed))
    return forms


def recalls(knowledge: Knowledge, asked: Sequence[tuple[str, frozenset[str]]], mode: Mode) -> dict[int, np.ndarray]:
    """Recall of the needed documents at each of DEPTHS, one value a question."""
    found: dict[int, list[float]] = {depth: [] for depth in DEPTHS}
    for text, needed in asked:
        passages = knowledge.retrieve(TEAM, SKILL, text, limit=_PASSAGES, mode=mode)
        names = list(dict.fromkeys(passage.document for passage in passages))
        for depth in DEPTHS:
            found[depth].append(len(needed & set(names[:depth])) / len(needed))
    return {depth: np.array(values) for depth, values in found.items()}


def interval(values: np.ndarray) -> dict[str, float]:
    """Mean with a 95% percentile bootstrap interval over its values."""
    random = np.random.default_rng(0)
    means = values[random.integers(0, len(values), (10_000, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def latencies(knowledge: Knowledge, embedder: Any, asked: Sequence[str], *, given: bool) -> list[float]:
    """Milliseconds of one retrieval of four passages; `given`: the question's vector is at hand."""
    samples = []
    for text in asked:
        vector = embedder.embed([text]) if given else None
        start = time.perf_counter()
        knowledge.retrieve(TEAM, SKILL, text, limit=4, vector=vector)
        samples.append(1000 * (time.perf_counter() - start))
    return samples


def main() -> int:
    if not CORPUS.exists():
        print(f"skipped: {CORPUS} is not there", file=sys.stderr)
        return 0
    embedder = default_embedder()
    files = bank_documents()
    forms = questions()
    results: dict[str, Any] = {"documents": len(files), "questions": len(forms["scenario"]), "forms": {}}
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(f"sqlite:///{folder}/intern.db")
        index = open_index(Path(folder) / "index")
        knowledge = Knowledge(database, embedder, default_parser(), index)
        ingested = knowledge.ingest(TEAM, SKILL, files, source="docs")
        results["passages"] = sum(result.passages for result in ingested)

        worse = False
        rows: list[tuple[object, ...]] = []
        for form, asked in forms.items():
            by_mode = {mode: recalls(knowledge, asked, mode) for mode in MODES}
            about: dict[str, Any] = {}
            for depth in DEPTHS:
                better = max(MODES[:2], key=lambda mode: float(by_mode[mode][depth].mean()))
                difference = interval(by_mode["fused"][depth] - by_mode[better][depth])
                worse |= difference["mean"] < -MARGIN
                about[f"recall@{depth}"] = {mode: interval(by_mode[mode][depth]) for mode in MODES} | {
                    "better_alone": better,
                    "fused_minus_better": difference,
                }
                cells = [f"{by_mode[mode][depth].mean():.3f}" for mode in MODES]
                gap = f"{difference['mean']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"
                rows.append((f"{form}, recall at {depth}", *cells, f"{gap} vs {better}"))
            results["forms"][form] = about
        table("Required documents found", ("", *MODES, "fused minus the better one"), rows)

        space = Space(TEAM, SKILL, embedder.id)
        exact = ExactIndex()
        parts = [part for text, _ in forms["scenario"] for part in pieces(text, embedder.count_tokens)]
        vectors = embedder.embed(parts)
        held = index.ids(space)
        with database.connect() as connection:
            packed = catalogue.vectors(connection, TEAM, SKILL, held)
        stored = {id: unpack(vector) for id, vector in packed.items()}
        assert held == stored.keys()
        exact.put(space, list(stored), np.stack(list(stored.values())))
        pairs = zip(index.search(space, vectors, DEPTH), exact.search(space, vectors, DEPTH), strict=True)
        overlaps = [len({hit.id for hit in a} & {hit.id for hit in b}) / DEPTH for a, b in pairs]
        recall = float(np.mean(overlaps))
        results["hnsw"] = {"depth": DEPTH, "queries": len(parts), "recall": recall, "worst": min(overlaps)}

        asked_all = [text for text, _ in forms["scenario"]]
        before = [knowledge.retrieve(TEAM, SKILL, text, limit=20) for text in asked_all]
        rebuilt = knowledge.rebuild()
        same = before == [knowledge.retrieve(TEAM, SKILL, text, limit=20) for text in asked_all]
        results["rebuild"] = {"passages": rebuilt.passages, "embedded": rebuilt.embedded, "same_results": same}

        short = [file.data.decode().partition("\n")[0].strip("# ") + "?" for file in files[:300]]
        knowledge.retrieve(TEAM, SKILL, short[0], limit=4)
        measured = {
            "short question, vector given": latencies(knowledge, embedder, short, given=True),
            "short question": latencies(knowledge, embedder, short, given=False),
            "scenario (in pieces)": latencies(knowledge, embedder, asked_all, given=False),
        }
        timings = {name: median_p99(ms) for name, ms in measured.items()}
        results["latency_ms"] = {name: {"median": median, "p99": p99} for name, (median, p99) in timings.items()}
        table(
            f"One retrieval of 4 among {results['passages']} passages, ms",
            ("", "median", "p99"),
            [(name, *timing) for name, timing in timings.items()],
        )
        table(
            "The index",
            ("", ""),
            [
                (f"HNSW recall of the {DEPTH} nearest against exact search", f"{recall:.5f}"),
                ("rebuilt from SQL: same 20 passages, scores and order for every scenario", same),
            ],
        )
        knowledge.close()
        database.dispose()
    met = not worse and same
    write("retrieval", CLAIM, results | {"met": met})
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
