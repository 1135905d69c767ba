"""The parsing process's program: one document's bytes in, normalised text with headings and pages out.

It runs apart (`python -m intern.parsers`), in a process with limits, because files come from strangers and the
libraries that read them are written in C. So it imports nothing else of the platform, opens no file, and knows a
document's name only as data. `intern/knowledge/parse.py` is the other end of its pipes.
"""

from __future__ import annotations

from intern.parsers.limits import Limits, Refused
from intern.parsers.text import Parsed, normalise

__all__ = ["Limits", "Parsed", "Refused", "normalise", "read"]


def read(name: str, data: bytes, limits: Limits) -> Parsed:
    """Parse one document. Raises Refused when it is empty, hostile, damaged, or of a kind without text."""
    # Each parser is imported when a document first needs it: the small plain kinds should not wait for PDF's library.
    from intern.parsers.kind import binary_kind

    if not data.strip():
        raise Refused("is empty")
    kind = binary_kind(name, data)
    if kind == "pdf":
        from intern.parsers import pdf

        parsed = pdf.read(data, limits)
    elif kind == "docx":
        from intern.parsers import docx

        parsed = docx.read(data, limits)
    elif kind == "mail":
        from intern.parsers import mail

        parsed = mail.read(data, limits)
    else:
        parsed = _read_text(name, data, limits)
    if not parsed.text.strip():
        raise Refused("is empty: it holds no text")
    return parsed


def _read_text(name: str, data: bytes, limits: Limits) -> Parsed:
    from intern.parsers.decode import declared_charset, decode
    from intern.parsers.kind import text_kind

    text = decode(data, declared_charset(data))
    kind = text_kind(name, text)
    if kind == "html":
        from intern.parsers import html

        return html.read(text, limits)
    if kind == "markdown":
        from intern.parsers import markdown

        return markdown.read(text)
    if kind in ("csv", "tsv"):
        from intern.parsers import table

        return table.read(text, limits, tabs=kind == "tsv")
    media_type = {"json": "application/json", "jsonl": "application/jsonl"}.get(kind, "text/plain")
    return Parsed(normalise(text), media_type)
