"""What one document may cost inside the parsing process, and the refusal that every parser raises.

In: numbers from the parent. Out: `Limits` and `Refused`. Time and memory are not here: the parent and the operating
system watch those.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """`pages` is the most pages of a document; `inflated` the most bytes it may unpack to, or characters of text."""

    pages: int
    inflated: int


class Refused(Exception):
    """A document that is not ingested. The message completes a sentence that begins with the document's name."""
