"""Where the values of fields lie among the tokens of a JSON answer."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate


def field_spans(text: str, pieces: Sequence[bytes], fields: Collection[str]) -> list[tuple[int, int]]:
    """For each of `fields` that the answer has, the tokens (first, behind the last) that its value touches.

    `pieces` are the tokens' bytes, which together are `text`. The whole answer is the one span where `text` is no
    object in canonical form (`intern.schema.canonical`), or where the pieces make another text.
    """
    values = dict(_values(text, fields))
    ends = list(accumulate(map(len, pieces), initial=0))
    if not values or b"".join(pieces) != text.encode():
        return [(0, len(pieces))]
    found = []
    for low, high in values.values():
        touched = [place for place in range(len(pieces)) if ends[place] < high and ends[place + 1] > low]
        found.append((touched[0], touched[-1] + 1))
    return found


def _values(text: str, fields: Collection[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Each field with the bytes of its value."""
    try:
        value = json.loads(text)
    except ValueError:
        return
    if not isinstance(value, dict) or _written(value) != text.encode():
        return
    at = 1
    for name, item in value.items():
        at += len(_written(name)) + 2
        end = at + len(_written(item))
        if name in fields:
            yield name, (at, end)
        at = end + 2


def _written(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
