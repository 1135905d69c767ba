"""The recognising process: a line of JSON with texts in, a line with their spans out, until input ends.

The first line says which spaCy model to load, if any; its answer is `{"ready": true}`, or `{"failed": ...}`. Once it is
loaded, the process opens no network connection, starts nothing and writes no file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from intern.apart import forbid
from intern.learning.privacy.recognisers import COVER, Span, addresses, disjoint, names, numbers
from intern.learning.privacy.recognisers.presidio import Presidio, load


def find(text: str, presidio: Presidio) -> list[Span]:
    """The spans of one text, in order and without overlap; none touches a COVER."""
    found = (*numbers.find(text), *names.find(text), *addresses.find(text), *presidio.find(text))
    return disjoint(part for span in found for part in _beside_covers(text, span))


def _beside_covers(text: str, span: Span) -> Iterator[Span]:
    """What of the span is not dealt with already, without the spaces around it."""
    for piece in re.finditer(rf"[^\s{COVER}](?:[^{COVER}]*[^\s{COVER}])?", text[span.start : span.end]):
        yield span._replace(start=span.start + piece.start(), end=span.start + piece.end())


def main() -> None:
    received, sent = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # whatever a library prints must not end up between the answers

    def tell(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=sent)

    settings = received.readline()
    if not settings:
        return
    try:
        presidio = load(json.loads(settings)["model"])
    except Exception as error:  # whatever a foreign package may raise while it is loaded
        tell({"failed": f"{type(error).__name__}: {error}"[:500]})
        return
    sys.addaudithook(forbid)
    tell({"ready": True})
    for line in received:
        with contextlib.suppress(BrokenPipeError):  # the parent is gone
            tell({"found": [find(text, presidio) for text in json.loads(line)["texts"]]})


if __name__ == "__main__":
    main()
