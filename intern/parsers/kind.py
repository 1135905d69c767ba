"""Which kind of document this is, from its content first and its name second.

In: the name (data, never used as a path) and the bytes, or the decoded text. Out: a kind that a parser exists for.
Raises Refused, saying what the content really is, for kinds that cannot be read as text.
"""

from __future__ import annotations

import re
import zipfile
from io import BytesIO
from typing import Literal

from intern.parsers.limits import Refused

Kind = Literal["pdf", "docx", "mail", "html", "markdown", "csv", "tsv", "json", "jsonl", "text"]

_BY_EXTENSION: dict[str, Kind] = {
    "htm": "html", "html": "html", "xhtml": "html",
    "md": "markdown", "markdown": "markdown", "mdown": "markdown", "mkd": "markdown",
    "csv": "csv", "tsv": "tsv", "tab": "tsv", "json": "json", "jsonl": "jsonl", "ndjson": "jsonl",
}  # fmt: skip
_IMAGE = "{}; a picture has no text: run OCR first"
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", _IMAGE.format("a PNG image")),
    (b"\xff\xd8\xff", _IMAGE.format("a JPEG image")),
    (b"GIF87a", _IMAGE.format("a GIF image")),
    (b"GIF89a", _IMAGE.format("a GIF image")),
    (b"II*\x00", _IMAGE.format("a TIFF image")),
    (b"MM\x00*", _IMAGE.format("a TIFF image")),
    (b"{\\rtf", "an RTF document; save it as DOCX or PDF"),
    (b"%!PS", "a PostScript file; save it as PDF"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive; unpack it first"),
    (b"\x7fELF", "a program"),
    (b"\xca\xfe\xba\xbe", "a program"),
    (b"\xcf\xfa\xed\xfe", "a program"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"PAR1", "a Parquet file; save it as CSV"),
    (b"OggS\x00", "an audio file"),
    (b"ID3\x03", "an audio file"),
    (b"ID3\x04", "an audio file"),
    (b"fLaC\x00", "an audio file"),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_MAIL_HEADER = re.compile(rb"([A-Za-z][A-Za-z0-9-]{1,60}):[ \t\r\n]")
_MAIL_SURE = {b"received", b"mime-version", b"message-id", b"return-path", b"delivered-to", b"dkim-signature"}
_MAIL_USUAL = {b"from", b"to", b"subject", b"date"}
_HTML_START = re.compile(
    r"\s*(<\?xml[^>]*>\s*)?(<!--(?:(?!-->).){0,2000}+-->\s*)*+<(!doctype\s+html|html|head|body)\b", re.I | re.S
)
_ATX = re.compile(r"#{1,6} +\S")


def extension(name: str) -> str:
    tail = re.split(r"[/\\]", name)[-1]
    return tail.rpartition(".")[2].lower() if "." in tail else ""


def binary_kind(name: str, data: bytes) -> Kind | None:
    """pdf, docx or mail, or None: decode it as text and ask `text_kind`."""
    ending = extension(name)
    head = data[:1024]
    if head.lstrip().startswith(b"%PDF-") or (ending == "pdf" and b"%PDF-" in head):
        return "pdf"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return _zip_kind(name, data)
    if head.startswith(_OLE):
        raise Refused(_is("an old or password-protected Office file; save it as DOCX without a password", ending))
    for signature, what in _SIGNATURES:
        if head.startswith(signature):
            raise Refused(_is(what, ending))
    if head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b"WAVE", b"AVI "):
        raise Refused(_is("an image, audio or video file", ending))
    if head[4:8] == b"ftyp":
        raise Refused(_is("a video or HEIC image", ending))
    if head[:2] == b"MZ" and b"\x00" in head:
        raise Refused(_is("a Windows program", ending))
    if ending in ("pdf", "docx"):
        raise Refused(
            f"is not a {ending.upper()} file although its name ends in .{ending}; it begins with "
            f"{head[:16]!r}. If it is text, give it the right ending"
        )
    return "mail" if _is_mail(head, ending) else None


def text_kind(name: str, text: str) -> Kind:
    """The kind of a decoded text."""
    kind = _BY_EXTENSION.get(extension(name), "text")
    if kind == "html" or _HTML_START.match(text[:10_000]):
        return "html"
    return "markdown" if kind == "text" and _has_markdown_headings(text) else kind


def _is(what: str, ending: str) -> str:
    return f"is {what}" + (f" (its name ends in .{ending})" if ending else "")


def _is_mail(head: bytes, ending: str) -> bool:
    if head.startswith(b"From ") and b"\n" in head:
        head = head.split(b"\n", 1)[1]
    if not _MAIL_HEADER.match(head):
        return False
    block = re.split(rb"\r?\n\r?\n", head, maxsplit=1)[0]
    names = {match[1].lower() for line in block.split(b"\n") if (match := _MAIL_HEADER.match(line + b"\n"))}
    if ending == "eml":
        return bool(names & (_MAIL_SURE | _MAIL_USUAL))
    return (
        ending in ("", "txt", "msg", "mail")
        and bool(names & _MAIL_SURE)
        and bool(names & _MAIL_USUAL or len(names & _MAIL_SURE) > 1)
    )


def _zip_kind(name: str, data: bytes) -> Kind:
    ending = extension(name)
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            names = set(archive.namelist()[:20_000])
    except Exception:  # a hostile central directory raises nearly anything
        raise Refused("is a damaged ZIP or Office file") from None
    if any(entry.startswith("word/") for entry in names):
        return "docx"
    if any(entry.startswith("xl/") for entry in names):
        raise Refused(_is("an Excel workbook; save its sheets as CSV", ending))
    if any(entry.startswith("ppt/") for entry in names):
        raise Refused(_is("a PowerPoint file; save it as PDF", ending))
    if "mimetype" in names:
        raise Refused(_is("an OpenDocument or EPUB file; save it as DOCX, PDF or HTML", ending))
    raise Refused(_is("a ZIP archive; unpack it first", ending))


def _has_markdown_headings(text: str) -> bool:
    """Two headings or more, and each after an empty line: comments in scripts stand in runs."""
    count, before = 0, ""
    for line in text.splitlines():
        if _ATX.match(line):
            if before.strip():
                return False
            count += 1
        before = line
    return count >= 2
