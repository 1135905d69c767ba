"""JSON as the standard has it, where Python itself reads more: no NaN, finite numbers, each key of an object once.

Raises ValueError and RecursionError as `json` does.
"""

from __future__ import annotations

import json
import math
from collections import Counter

from intern.types import Json


def decoder(*, repeated_keys: bool = False) -> json.JSONDecoder:
    """A strict decoder; with `repeated_keys` the last value of a key counts, as most readers have it."""
    hook = None if repeated_keys else _each_once
    return json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=hook)


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is out of range")
    return number


def _each_once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key '{twice[:80]}' stands twice in one object")
    return value
