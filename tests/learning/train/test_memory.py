"""Passes that memory holds, and a heap that does not grow for ever."""

from __future__ import annotations

import subprocess
import sys

import pytest

from intern.learning.train.memory import PACKED, PREDICTED, micro_batch
from intern.learning.train.prefix import IGNORED
from intern.learning.train.process import ENVIRONMENT


def row(prefix: int, text: int, completion: int) -> dict[str, list[int]]:
    """A row behind `prefix` tokens that all rows share; its own begin with a token that no other has."""
    own = next(NUMBERS)
    prompt = [1] * prefix + [own] * text
    return {"input_ids": prompt + [2] * completion, "labels": [IGNORED] * len(prompt) + [2] * completion}


NUMBERS = iter(range(3, 10_000))


@pytest.mark.parametrize(
    ("text", "completion", "rows"),
    [(20, 10, 8), (130, 40, 4), (130, 130, 2), (250, 150, 2), (700, 300, 1), (3000, 300, 1)],
)
def test_a_pass_has_the_rows_whose_tokens_and_logits_memory_holds(text: int, completion: int, rows: int) -> None:
    many = [row(100, text, completion) for _ in range(40)]
    assert micro_batch(many, 8, "cpu") == rows
    within = 100 + rows * (text + completion) <= PACKED["cpu"] and rows * completion <= PREDICTED["cpu"]
    assert within or rows == 1
    assert micro_batch(many, 8, "cuda") >= rows


def test_a_pass_is_a_divisor_of_the_batch_and_a_few_long_rows_count() -> None:
    short = [row(100, 60, 10) for _ in range(40)]
    assert [micro_batch(short, batch, "cpu") for batch in (1, 7, 12, 64)] == [1, 7, 12, 8]
    mixed = [*short, *(row(100, 900, 10) for _ in range(10))]
    assert micro_batch(mixed, 8, "cpu") < 8
    assert micro_batch(short, 8, "a device that nobody knows") == 8


HOLES = """
import os, sys
from intern.learning.train.memory import give_back

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

# Blocks with something small after each that stays: freed, they are holes below the heap's top.
blocks = [bytearray(b"x") * 1_000_000 for _ in range(300)]
kept = []
for place in range(300):
    kept.append(os.urandom(2000))
    blocks[place] = bytearray(b"x") * 1_000_100
before = resident()
blocks.clear()
untouched = resident()
assert not give_back(above=10 * before)
assert resident() > 0.9 * untouched
assert give_back(above=50_000_000)
print(before, untouched, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_freed_memory_goes_back_above_the_limit_and_only_there() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLES], env=ENVIRONMENT | {"PATH": ""}, capture_output=True, text=True, check=True
    )
    before, untouched, after = map(int, done.stdout.split())
    assert before > 300_000_000
    assert untouched > 0.9 * before, "the C library gave it back by itself: the test shows nothing"
    assert after < untouched - 200_000_000
