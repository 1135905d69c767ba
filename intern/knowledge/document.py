"""A parsed document: its normalised text, and where headings and pages begin in it.

Offsets are character offsets into `text`. What normalised means is written in intern/parsers/text.py.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from intern.types import Model


class Heading(Model):
    """A heading that starts at `offset`; `level` 1 is the highest. `title` is without markup."""

    offset: int = Field(ge=0)
    level: int = Field(ge=1, le=9)
    title: str


class ParsedDocument(Model):
    """`pages` are the offsets where pages start, empty where a format has none; `notes` are for the reader."""

    text: str
    media_type: str
    headings: tuple[Heading, ...] = ()
    pages: tuple[int, ...] = ()
    title: str | None = None
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _offsets_point_into_the_text(self) -> ParsedDocument:
        offsets = [heading.offset for heading in self.headings]
        if offsets != sorted(set(offsets)) or (offsets and offsets[-1] >= len(self.text)):
            raise ValueError("headings are not in order, or lie outside of the text")
        if list(self.pages) != sorted(self.pages) or any(not 0 <= page <= len(self.text) for page in self.pages):
            raise ValueError("pages are not in order, or lie outside of the text")
        return self
