"""How much of what a question asks for comes back, by size of chunk: span recall and precision at five passages.

Two public corpora with 220 questions whose answers are marked as exact spans (Smith and Troynikov, "Evaluating
Chunking Strategies for Retrieval", 2024). All chunks of both lie in one index, searched exactly by cosine. Recall is
the share of the marked characters that the five nearest chunks hold, precision the share of the retrieved characters
that are marked, IoU their intersection over union; recall in 1,200 tokens takes as many chunks as fit that budget,
which is fair between sizes. The documents are taken as they are, since the marks point into the raw text. The target
was chosen on these very questions, among sizes that hardly differ: its own row flatters it a little.

    python -m benchmarks.chunking [--threads N]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import report
from intern.knowledge.chunk import LIMIT, TARGET, chunk
from intern.knowledge.document import ParsedDocument
from intern.models.embedder import Embedder, Vectors
from intern.models.loading import open_embedder
from intern.settings import Settings

FOLDER = report.DATA / "chunking"
RETRIEVED = 5
BUDGET = 1_200  # tokens; the default of Settings.passage_tokens
TARGETS = (64, 80, 96, 112, 128, 160, 200)

Span = tuple[str, int, int]  # corpus, start, end
Floats = npt.NDArray[np.float64]


def ours(texts: dict[str, str], embedder: Embedder, target: int) -> list[Span]:
    spans = []
    for name, text in texts.items():
        document = ParsedDocument(text=text, media_type="text/plain")
        pieces = chunk(document, count=embedder.count_tokens, target=target)
        spans += [(name, piece.start, piece.end) for piece in pieces]
    return spans


def windows(texts: dict[str, str], characters: int) -> list[Span]:
    """Fixed windows, blind to what they cut."""
    return [
        (name, start, min(len(text), start + characters))
        for name, text in texts.items()
        for start in range(0, len(text), characters)
    ]


def semchunk(texts: dict[str, str], embedder: Embedder, size: int) -> list[Span]:
    """The semchunk package's chunks of at most `size` tokens."""
    from semchunk.semchunk import chunkerify

    chunker = chunkerify(embedder.count_tokens, size)
    return [(name, a, b) for name, text in texts.items() for a, b in _offsets(chunker, text)]


def _offsets(chunker: Any, text: str) -> list[tuple[int, int]]:
    offsets: list[tuple[int, int]] = chunker(text, offsets=True)[1]
    return offsets


def covered(spans: Sequence[tuple[int, int]], marks: Sequence[tuple[int, int]]) -> int:
    """Marked characters that `spans` hold; neither overlaps with itself."""
    return sum(max(0, min(b, d) - max(a, c)) for a, b in spans for c, d in marks)


def disjoint(marks: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    points = sorted({point for mark in marks for point in mark})
    return [(a, b) for a, b in pairwise(points) if any(c <= a and b <= d for c, d in marks)]


def measure(
    spans: list[Span], texts: dict[str, str], questions: list[dict[str, Any]], vectors: Vectors, embedder: Embedder
) -> dict[str, Floats]:
    """Each metric with one entry a question, and under 'tokens' the size of each chunk."""
    pieces = [texts[name][a:b] for name, a, b in spans]
    similarity = vectors @ embedder.embed(pieces).T
    tokens = np.array([embedder.count_tokens(piece) for piece in pieces], dtype=np.float64)
    rows = []
    for question, scores in zip(questions, similarity, strict=True):
        order = np.argsort(-scores, kind="stable")
        marks = disjoint([(r["start_index"], r["end_index"]) for r in question["references"]])
        marked = sum(b - a for a, b in marks)

        def held(chosen: Any, marks: list[tuple[int, int]] = marks, corpus: str = question["corpus"]) -> int:
            return covered([spans[i][1:] for i in chosen if spans[i][0] == corpus], marks)

        hit = held(order[:RETRIEVED])
        retrieved = sum(spans[i][2] - spans[i][1] for i in order[:RETRIEVED])
        within = held(order[np.cumsum(tokens[order]) <= BUDGET])
        rows.append((hit / marked, hit / retrieved, hit / (retrieved + marked - hit), within / marked))
    columns = np.array(rows, dtype=np.float64).T
    names = ("recall", "precision", "iou", "recall_in_budget")
    return {**dict(zip(names, columns, strict=True)), "tokens": tokens}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--threads", type=int, default=2, help="CPU threads of the embedder")
    threads = arguments.parse_args().threads
    if not FOLDER.is_dir():
        sys.exit(f"{FOLDER} is not there: this benchmark needs its corpora")
    questions = [json.loads(line) for line in (FOLDER / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = {name: (FOLDER / f"{name}.md").read_text(encoding="utf-8") for name in {q["corpus"] for q in questions}}
    texts = dict(sorted(texts.items()))
    with tempfile.TemporaryDirectory(prefix="intern-chunking-") as cache:
        embedder = open_embedder(Settings.model_fields["embedder"].default, Path(cache), threads)
        vectors = embedder.embed([question["question"] for question in questions])
        kinds: dict[str, Callable[[], list[Span]]] = {
            f"target {target}": partial(ours, texts, embedder, target) for target in TARGETS
        }
        kinds["windows of 600 characters"] = partial(windows, texts, 600)
        if importlib.util.find_spec("semchunk"):
            for size in (128, 200):
                kinds[f"semchunk, at most {size}"] = partial(semchunk, texts, embedder, size)
        results: dict[str, Any] = {}
        measured: dict[str, dict[str, Floats]] = {}
        for name, make in kinds.items():
            began = time.perf_counter()
            spans = make()
            seconds = time.perf_counter() - began
            measured[name] = measure(spans, texts, questions, vectors, embedder)
            results[name] = {"seconds_to_cut": seconds, **summary(measured[name])}
        chosen = measured[f"target {TARGET}"]
        for name, values in measured.items():
            results[name]["recall_in_budget_minus_chosen"] = paired(
                values["recall_in_budget"] - chosen["recall_in_budget"]
            )
    columns = ["", "chunks", "mean", "max", "recall@5", "precision@5", "IoU@5", "recall in 1,200", "minus chosen (95%)"]
    rows = [
        [name + (" (chosen)" if name == f"target {TARGET}" else ""), r["chunks"], f"{r['mean_tokens']:.0f}",
         f"{r['max_tokens']:.0f}", *(f"{r[k]:.3f}" for k in ("recall", "precision", "iou", "recall_in_budget")),
         "{mean:+.3f} ({low:+.3f} to {high:+.3f})".format(**r["recall_in_budget_minus_chosen"])]
        for name, r in results.items()
    ]  # fmt: skip
    report.table(f"Span recall, {len(questions)} questions, exact dense retrieval", columns, rows)
    claim = f"Chunks of about {TARGET} tokens (at most {LIMIT}) bring back what questions ask for"
    report.write("chunking", claim, {"questions": len(questions), "chosen_target": TARGET, "chunkers": results})


def summary(values: dict[str, Floats]) -> dict[str, Any]:
    tokens = values["tokens"]
    means = {name: float(np.mean(column)) for name, column in values.items() if name != "tokens"}
    return {"chunks": len(tokens), "mean_tokens": float(tokens.mean()), "max_tokens": float(tokens.max()), **means}


def paired(differences: Floats) -> dict[str, float]:
    """Mean of the paired differences with a normal 95% interval."""
    mean = float(differences.mean())
    half = 1.96 * float(differences.std(ddof=1)) / len(differences) ** 0.5
    return {"mean": mean, "low": mean - half, "high": mean + half}


if __name__ == "__main__":
    main()
