"""What an output states, as texts that can be looked for in a passage.

In: an output and the schema that it keeps. Out: its texts and numbers, without what states nothing: null, true and
false, and what the schema enumerates, which is a label. What filters examples (`teaching/grounding.py`) and what judges
answers (`judging/support.py`) look for the same claims. They do not cut them into words the same way, since they take
a number for different things; each says how. Knows no passages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from intern.learning.fields import Place, top
from intern.schema import OutputSchema
from intern.types import Json

_SPACELESS = "\u0e00"  # from Thai on


def claims(output: Json, schema: OutputSchema | None, free: frozenset[str] = frozenset()) -> Iterator[str]:
    """The texts and numbers that state something, in order. Properties named in `free` are passed over.

    A number comes as its digits, without a sign or an exponent.
    """
    return _below(output, top(schema), free)


def is_content(word: str, letters: int) -> bool:
    """Whether a word has so many letters that it tells what a text is about; without spaces each letter is a word."""
    return len(word) >= letters or word >= _SPACELESS


def _below(value: Json, place: Place, free: frozenset[str]) -> Iterator[str]:
    if value is None or isinstance(value, bool) or place.is_closed:
        return
    if isinstance(value, Mapping):
        for name, item in value.items():
            if name not in free:
                yield from _below(item, place.child(name), free)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _below(item, place.item, free)
    elif isinstance(value, float):
        yield np.format_float_positional(abs(value), trim="-")
    else:
        yield value if isinstance(value, str) else str(abs(value))
