"""Finds personal data in texts by form, checksum and context: a text in, spans with their kind out.

`numbers` knows what is written in digits and fixed forms, `names` and `addresses` go by the words around, `presidio`
brings Microsoft Presidio's recognisers and, if one is named, a spaCy model. `__main__` is the process in which they
run: Presidio takes 100 MB and seconds to load, and texts may be hostile. Nothing here knows examples or placeholders,
writes files, or uses the network.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

KINDS = (
    *("PERSON", "ADDRESS", "DATE_OF_BIRTH", "EMAIL", "PHONE", "PROFILE", "CREDENTIALS"),
    *("CREDIT_CARD", "IBAN", "BANK_ACCOUNT", "CRYPTO_WALLET", "NATIONAL_ID", "PASSPORT", "DRIVING_LICENCE"),
    *("IP_ADDRESS", "MAC_ADDRESS", "PLACE"),
)
# Stands for what is dealt with already, such as a placeholder. No recogniser takes it for part of anything.
COVER = "\ufffc"

PROVEN, PLAIN, LIKELY = 3, 2, 1  # by checksum or label; by an unmistakable form; by form and the words around it


class Span(NamedTuple):
    """Characters `start` to `end` (exclusive) of a text. Where two overlap, the one of more `weight` stands."""

    kind: str
    start: int
    end: int
    weight: int


def spanning(kind: str, match: Any, weight: int, group: str | int = 0) -> Span:
    """The span of a regular expression's match, or of one group of it."""
    return Span(kind, match.start(group), match.end(group), weight)


def disjoint(spans: Iterable[Span]) -> list[Span]:
    """Spans without overlap, in order of the text: heavier ones first, then longer ones, then earlier ones."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: (-s.weight, s.start - s.end, s.start, s.kind)):
        if span.end > span.start and all(span.end <= other.start or span.start >= other.end for other in kept):
            kept.append(span)
    return sorted(kept, key=lambda s: s.start)
