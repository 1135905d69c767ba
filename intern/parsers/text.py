"""Normalised text, and the builder that parsers append to while they keep heading and page offsets exact.

In: text in any shape that a file can hold. Out: NFC, `\\n` newlines, no control or invisible formatting characters,
no spaces at line ends, at most one empty line in a row. Knows no file format.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

from intern.parsers.limits import Limits, Refused

MAX_TITLE = 300  # characters; a longer "heading" is a paragraph in disguise

_NEWLINE = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_SPACE = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
# Controls, soft hyphens, zero-width and bidirectional marks, tag characters and ideographic variation selectors: a
# reader cannot see them, a search stumbles over them, and instructions to a model have been smuggled in them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ufffe\uffff\U000e0000-\U000e007f\U000e0100-\U000e01ef]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_EMPTY_LINES = re.compile("\n{3,}")
_BLANK = re.compile(r"\s+")


def normalise(text: str) -> str:
    """`text` as the platform stores it (see the module's contract). Idempotent."""
    text = _NEWLINE.sub("\n", text)
    if not text.isascii():
        text = _SURROGATE.sub("\ufffd", _SPACE.sub(" ", text))
        text = unicodedata.normalize("NFC", _UNSEEN.sub("", text))
    elif not text.isprintable():
        text = _UNSEEN.sub("", text)
    text = "\n".join([line.rstrip() for line in text.split("\n")])
    return _EMPTY_LINES.sub("\n\n", text).strip("\n")


def one_line(text: str) -> str:
    """`text` normalised, with every run of whitespace as one space."""
    return _BLANK.sub(" ", normalise(text)).strip()


@dataclass
class Parsed:
    """What a parser gives: the fields of `ParsedDocument`, with headings as (offset, level, title)."""

    text: str
    media_type: str
    headings: list[tuple[int, int, str]] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    title: str | None = None
    notes: list[str] = field(default_factory=list)


class TextBuilder:
    """Appends blocks of text. Every block is normalised on its own, so offsets taken on the way stay exact."""

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.inflated
        self._pieces: list[str] = []
        self._length = 0
        self.headings: list[tuple[int, int, str]] = []
        self.pages: list[int] = []

    @property
    def length(self) -> int:
        """Characters so far."""
        return self._length

    def _append(self, separator: str, text: str) -> int:
        if self._length:
            self._pieces.append(separator)
            self._length += len(separator)
        start = self._length
        self._length += len(text)
        if self._length > self._limit:
            raise Refused(f"gives more than {self._limit:,} characters of text")
        self._pieces.append(text)
        return start

    def paragraph(self, text: str) -> int | None:
        """Append `text` after an empty line; the offset where it starts, or None when nothing of it is left."""
        text = normalise(text)
        return self._append("\n\n", text) if text else None

    def line(self, text: str) -> None:
        """Append `text` on the next line: rows, list items."""
        text = normalise(text)
        if text:
            self._append("\n", text)

    def heading(self, level: int, title: str) -> None:
        """Append a heading; one that is too long to be a heading becomes a paragraph."""
        title = one_line(title)
        if not title:
            return
        start = self._append("\n\n", title)
        if len(title) <= MAX_TITLE:
            self.headings.append((start, level, title))

    def page(self) -> None:
        """The next block starts a page."""
        self.pages.append(self._length + 2 if self._length else 0)

    def finish(self, media_type: str, title: str | None = None) -> Parsed:
        text = "".join(self._pieces)
        pages = [min(offset, len(text)) for offset in self.pages]
        return Parsed(text, media_type, self.headings, pages, (one_line(title or "")[:MAX_TITLE]).strip() or None)
