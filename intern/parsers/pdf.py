"""PDF through pdfium: the text of each page, headings by size of type, and where the pages start.

In: bytes. Out: Parsed. Refuses what is encrypted, has too many pages, or has no text at all (scans). Lines are joined
where a word was hyphenated; running headers, footers and page numbers are left out.
"""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from dataclasses import dataclass

import pypdfium2
import pypdfium2.raw as pdfium

from intern.parsers.limits import Limits, Refused
from intern.parsers.text import Parsed, TextBuilder, normalise, one_line

_MIN_REPEATS = 4  # pages on which a line must stand before it counts as a running header or footer
_HEADING_SIZE = 1.15  # times the body's size of type
_MAX_HEADING = 120
_LEVELS = 4
_HYPHEN = re.compile("[\x02\ufffe]\\s*")  # pdfium's mark for a hyphen at the end of a line
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class _Line:
    text: str
    size: float  # height of its type in points, 0 if unknown


def read(data: bytes, limits: Limits) -> Parsed:
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower() or "security" in str(error).lower():
            raise Refused("is encrypted: save it without a password") from None
        raise Refused("is a damaged PDF") from None
    count = len(document)
    if count > limits.pages:
        raise Refused(f"has {count:,} pages; at most {limits.pages:,} are read. Split it")
    if not count:
        raise Refused("is a damaged PDF: it has no pages")
    pages: list[list[_Line]] = []
    characters = 0
    for number in range(count):
        try:
            lines = _lines(document[number])
        except pypdfium2.PdfiumError:
            raise Refused(f"is a damaged PDF: page {number + 1} of {count:,} cannot be read") from None
        characters += sum(len(line.text) for line in lines)
        if characters > limits.inflated:
            raise Refused(f"gives more than {limits.inflated:,} characters of text")
        pages.append(lines)
    if not characters:
        of = "its page" if count == 1 else f"any of its {count:,} pages"
        raise Refused(f"has no text on {of}: it is probably a scan, run OCR first")
    parsed = _build(_without_running_lines(pages), limits, document.get_metadata_dict().get("Title"))
    without = sum(not lines for lines in pages)
    if without:
        parsed.notes.append(f"{without} of {count} pages have no text; if they are scans, run OCR first")
    return parsed


def _lines(page: pypdfium2.PdfPage) -> list[_Line]:
    textpage = page.get_textpage()
    try:
        raw = textpage.get_text_range()
        lines, offset = [], 0
        for piece in _HYPHEN.sub(lambda match: "\x02" + " " * (len(match[0]) - 1), raw).split("\n"):
            # Offsets in `raw` are pdfium's character indices, so each line knows where to look up its size.
            text = normalise(_HYPHEN.sub("", piece)).strip()
            if text:
                start = offset + len(piece) - len(piece.lstrip())
                lines.append(_Line(text, _size(textpage, start)))
            offset += len(piece) + 1
        return lines
    finally:
        textpage.close()
        page.close()


def _size(textpage: pypdfium2.PdfTextPage, index: int) -> float:
    """Height of the type at a character, as drawn: the font's own size does not know how a page scales it."""
    rect = pdfium.FS_RECTF()
    if not pdfium.FPDFText_GetLooseCharBox(textpage, index, ctypes.byref(rect)):
        return 0.0
    return round(float(abs(rect.top - rect.bottom)), 1)


def _without_running_lines(pages: list[list[_Line]]) -> list[list[_Line]]:
    """Drop first and last lines that return on half of the pages, up to their digits."""

    def key(line: _Line) -> str:
        return _DIGITS.sub("#", line.text)

    edges = Counter(k for lines in pages for k in {key(line) for line in (*lines[:2], *lines[-2:])})
    running = {k for k, times in edges.items() if times >= max(_MIN_REPEATS, len(pages) / 2)}
    kept = []
    for lines in pages:
        last = len(lines) - 2
        kept.append([line for place, line in enumerate(lines) if 2 <= place < last or key(line) not in running])
    return kept if any(kept) else pages


def _build(pages: list[list[_Line]], limits: Limits, title: str | None) -> Parsed:
    weights: Counter[float] = Counter()
    for lines in pages:
        for line in lines:
            weights[line.size] += len(line.text)
    body = weights.most_common(1)[0][0] if weights else 0.0
    sizes = sorted((size for size in weights if body and size > body * _HEADING_SIZE), reverse=True)
    levels = {size: min(level, _LEVELS) for level, size in enumerate(sizes, 1)}
    builder = TextBuilder(limits)
    for lines in pages:
        builder.page()
        start = True
        place = 0
        while place < len(lines):
            line = lines[place]
            place += 1
            level = levels.get(line.size)
            if level is None or not _looks_like_heading(line.text):
                builder.paragraph(line.text) if start else builder.line(line.text)
                start = False
                continue
            heading = [line.text]
            while place < len(lines) and lines[place].size == line.size and len(heading) < 3:  # it may wrap
                heading.append(lines[place].text)
                place += 1
            builder.heading(level, " ".join(heading))
            start = True
    first = builder.headings[0][2] if builder.headings else None
    return builder.finish("application/pdf", one_line(title or "") or first)


def _looks_like_heading(text: str) -> bool:
    return len(text) <= _MAX_HEADING and any(character.isalpha() for character in text) and text[-1] not in ".,;"
