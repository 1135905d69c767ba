"""What a training may hold in memory: the rows of one pass, and the heap that freed tensors leave behind.

In: tokenised rows, the kind of device. Out: how many rows go through the model at once.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, pstdev

from intern.learning.train.prefix import IGNORED, common_prefix

# What one forward pass keeps: its tokens, the prefix counted once, and for each completion token logits over the whole
# vocabulary. With the default base model on a CPU 1,000 tokens are about 1.2 GB.
PACKED = {"cpu": 1200, "cuda": 4096}
PREDICTED = {"cpu": 500, "cuda": 2048}
RESIDENT = 4_000_000_000  # bytes of this process above which freed memory goes back to the system


def micro_batch(rows: Sequence[dict[str, list[int]]], batch: int, device: str, *, shared: int | None = None) -> int:
    """Rows of one forward pass: the largest divisor of `batch` whose passes mostly stay within PACKED and PREDICTED.

    `shared`: tokens that all rows begin with and that go through the model once; None: all that they have in common.
    """
    if shared is None:
        shared = common_prefix(rows)
    packed, predicted = PACKED.get(device, PACKED["cpu"]), PREDICTED.get(device, PREDICTED["cpu"])
    behind = [len(row["input_ids"]) - shared for row in rows]
    completions = [sum(label != IGNORED for label in row["labels"]) for row in rows]

    def fits(size: int) -> bool:
        return shared + _usual(behind, size) <= packed and _usual(completions, size) <= predicted

    return max((size for size in range(1, batch + 1) if batch % size == 0 and fits(size)), default=1)


def _usual(lengths: Sequence[int], rows: int) -> float:
    """The sum of so many lengths that nine of ten draws stay below, as if sums were normally distributed."""
    return rows * fmean(lengths) + 1.28 * math.sqrt(rows) * pstdev(lengths)


def give_back(above: int = RESIDENT) -> bool:
    """Let the C library give freed memory back, where this process holds more than `above` bytes; whether it did.

    It keeps what is freed (`process.ENVIRONMENT`), which short passes gain from; but passes of many lengths leave holes
    that the next one does not fit into, and the heap would grow as long as a training runs. Not after each pass: to be
    given all that memory again takes a third of a pass of long rows. Without glibc: nothing.
    """
    if sys.platform != "linux":
        return False
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and pages * os.sysconf("SC_PAGE_SIZE") > above and bool(trim(0))
