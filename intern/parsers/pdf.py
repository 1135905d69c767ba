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

_EDGE = 2  # lines at the top and at the bottom of a page that may be running ones
_MIN_REPEATS = 4  # pages on which a line must stand before it counts as a running header or footer
_HEADING_SIZE = 1.15  # times the body's size of type
_MAX_HEADING = 120
_LEVELS = 4
_HYPHEN = re.compile("[\x02\ufffe]\\s*")  # pdfium's mark for a hyphen at the end of a line
_NO_TITLE = re.compile(r"^(microsoft word|untitled|document\d*$)|\.(docx?|pdf|indd|rtf|txt|odt|tex)$", re.I)
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
    """Without the outer lines that return on half of the pages, alike or counting the pages."""
    edges: Counter[str] = Counter()
    for number, lines in enumerate(pages):
        edges.update({key for line in (*lines[:_EDGE], *lines[-_EDGE:]) for key in _running_keys(line.text, number)})
    often = max(_MIN_REPEATS, len(pages) / 2)

    def runs(line: _Line, number: int) -> bool:
        return any(edges[key] >= often for key in _running_keys(line.text, number))

    kept = []
    for number, lines in enumerate(pages):
        first, last = 0, len(lines)
        while first < min(_EDGE, last) and runs(lines[first], number):
            first += 1
        while last > max(first, len(lines) - _EDGE) and runs(lines[last - 1], number):
            last -= 1
        kept.append(lines[first:last])
    return kept if any(kept) else pages


def _running_keys(text: str, page: int) -> list[str]:
    """The line as it is, and with each of its numbers as its distance to the page's.

    So a line that counts pages is equal on all of them, and rows of a table that happen to start pages are not.
    """
    numbers = [match for match in list(_DIGITS.finditer(text))[:3] if len(match[0]) < 6]
    return [text] + [f"{text[: m.start()]}\0{int(m[0]) - page}{text[m.end() :]}" for m in numbers]


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
    title = one_line(title or "")
    return builder.finish("application/pdf", first if not title or _NO_TITLE.search(title) else title)


def _looks_like_heading(text: str) -> bool:
    return len(text) <= _MAX_HEADING and any(character.isalpha() for character in text) and text[-1] not in ".,;"
