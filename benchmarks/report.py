"""What every benchmark shares: the hardware it ran on, its JSON file, its table, its latencies.

In: measured numbers. Out: `benchmarks/results/<name>.json` and a table on standard output. It knows no benchmark, and
writes no dates, so that a repeated run changes only what was measured.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
BESIDE = Path(__file__).parents[2] / "shared" / "data"
DATA = Path(os.environ.get("BENCHMARK_DATA", BESIDE))  # public corpora, which are no part of the project: README.md


def hardware() -> dict[str, Any]:
    """Processor model, usable cores, memory in GiB, operating system and Python, without host names or dates."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1),
        "memory_gib": _memory_gib(),
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def write(name: str, claim: str, results: dict[str, Any], *, path: Path | None = None) -> Path:
    """Write `results` with the claim and the hardware as JSON; to `path`, or benchmarks/results/<name>.json."""
    target = path or RESULTS / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    body = {"name": name, "claim": claim, "hardware": hardware(), "results": _plain(results)}
    target.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return target


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print one table: coloured on a terminal, plain text elsewhere."""
    drawn = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        drawn.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row))
    console = Console()
    # A pipe has no width of its own: do not fold tables there to the 80 columns that rich assumes.
    (console if console.is_terminal else Console(width=160)).print(drawn)


def median_p99(samples: Sequence[float]) -> tuple[float, float]:
    """Median and 99th percentile (linear interpolation) of `samples`, in their own unit."""
    values = np.asarray(samples, dtype=np.float64)
    return float(np.median(values)), float(np.percentile(values, 99))


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def _plain(value: Any) -> Any:
    """Numbers from numpy as Python's, floats to six significant digits: JSON that is stable to read and compare."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}")
    return value


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return 0.0
