"""DOCX read straight from its XML: headings by style, lists, tables as rows, notes at the end.

In: bytes. Out: Parsed. Deleted text, comments and field codes are left out; pictures and embedded files are not opened.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from lxml import etree

from intern.parsers.limits import Limits, Refused
from intern.parsers.package import Package, attribute, every, first_child, local
from intern.parsers.text import Parsed, TextBuilder, one_line

_LEVEL_OF_NAME = re.compile(r"heading ?([1-9])", re.I)


@dataclass
class _Style:
    level: int | None = None
    title: bool = False
    based_on: str | None = None
    numbering: tuple[str, int] | None = None


@dataclass
class _Numbering:
    """Which lists count and which have bullets, and how far each has come."""

    bullets: dict[tuple[str, int], bool] = field(default_factory=dict)
    counters: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))

    def marker(self, number: str, level: int) -> str:
        indent = "  " * min(level, 5)
        if self.bullets.get((number, level), True):
            return indent + "- "
        self.counters[number, level] += 1
        for deeper in [key for key in self.counters if key[0] == number and key[1] > level]:
            del self.counters[deeper]
        return f"{indent}{self.counters[number, level]}. "


def read(data: bytes, limits: Limits) -> Parsed:
    package = Package(data, limits)
    name = package.document()
    root = package.part(name)
    body = None if root is None else first_child(root, "body")
    if body is None:
        raise Refused(f"is a damaged DOCX file: it has no {name}")
    folder = posixpath.dirname(name)
    reader = _Reader(
        TextBuilder(limits),
        _styles(package.part(f"{folder}/styles.xml")),
        _numbering(package.part(f"{folder}/numbering.xml")),
    )
    reader.blocks(body)
    for part in ("footnotes", "endnotes"):
        for note in every(package.part(f"{folder}/{part}.xml"), part[:-1]):
            if attribute(note, "type") is None and (text := one_line(_text(note))):
                reader.builder.paragraph(f"[{attribute(note, 'id') or '?'}] {text}")
    core = package.part("docProps/core.xml")
    named = next((element.text for element in every(core, "title") if element.text and element.text.strip()), None)
    headings = reader.builder.headings
    return reader.builder.finish(
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        reader.title or named or (headings[0][2] if headings else None),
    )


class _Reader:
    def __init__(self, builder: TextBuilder, styles: dict[str, _Style], numbering: _Numbering) -> None:
        self.builder = builder
        self.title: str | None = None
        self._styles = styles
        self._numbering = numbering
        self._in_list = False

    def blocks(self, parent: etree._Element) -> None:
        for element in parent:
            tag = local(element)
            if tag == "p":
                self._paragraph(element)
            elif tag == "tbl":
                self._table(element)
            elif tag in ("sdt", "sdtContent", "customXml", "ins", "smartTag"):
                self.blocks(element)

    def _paragraph(self, element: etree._Element) -> None:
        text = _text(element)
        if not text.strip():
            return
        properties = first_child(element, "pPr")
        style = self._style(properties)
        level = _outline(properties) or style.level
        if style.title or level:
            if style.title and self.title is None:
                self.title = one_line(text)
            self.builder.heading(level or 1, text)
            self._in_list = False
            return
        numbering = _list_place(properties) or style.numbering
        if numbering and numbering[0] != "0":
            marked = self._numbering.marker(*numbering) + text.strip()
            if self._in_list:
                self.builder.line(marked)
            else:
                self.builder.paragraph(marked)
            self._in_list = True
            return
        self._in_list = False
        self.builder.paragraph(text)

    def _style(self, properties: etree._Element | None) -> _Style:
        """The paragraph's style with what it inherits."""
        named = None if properties is None else first_child(properties, "pStyle")
        name = None if named is None else attribute(named, "val")
        merged = _Style()
        for _ in range(20):  # styles may be based on each other in a circle
            style = self._styles.get(name or "")
            if style is None:
                break
            merged.level = merged.level or style.level
            merged.title = merged.title or style.title
            merged.numbering = merged.numbering or style.numbering
            name = style.based_on
        return merged

    def _table(self, table: etree._Element) -> None:
        self._in_list = False
        first = True
        for row in _rows(table):
            cells = [one_line(" ".join(_paragraphs(cell))) for cell in _cells(row)]
            if any(cells):
                line = " | ".join(cells)
                if first:
                    self.builder.paragraph(line)
                else:
                    self.builder.line(line)
                first = False


def _rows(table: etree._Element) -> Iterator[etree._Element]:
    for element in table:
        tag = local(element)
        if tag == "tr":
            yield element
        elif tag in ("sdt", "sdtContent", "customXml", "ins"):
            yield from _rows(element)


def _cells(row: etree._Element) -> Iterator[etree._Element]:
    for element in row:
        tag = local(element)
        if tag == "tc":
            yield element
        elif tag in ("sdt", "sdtContent", "customXml"):
            yield from _cells(element)


def _paragraphs(cell: etree._Element) -> Iterator[str]:
    for element in cell:
        tag = local(element)
        if tag == "p":
            yield _text(element)
        elif tag in ("tbl", "tr", "tc", "sdt", "sdtContent", "customXml", "ins"):
            yield from _paragraphs(element)


def _text(element: etree._Element) -> str:
    """Text of a paragraph as a reader sees it; paragraphs inside it (text boxes) on lines of their own."""
    pieces: list[str] = []
    walk = etree.iterwalk(element, events=("start",))
    for _, child in walk:
        tag = local(child)
        if tag == "t":
            pieces.append(child.text or "")
        elif tag == "tab":
            if local(child.getparent()) != "tabs":
                pieces.append("\t")
        elif tag in ("br", "cr"):
            pieces.append("\n")
        elif tag == "noBreakHyphen":
            pieces.append("-")
        elif tag == "p" and child is not element and pieces:
            pieces.append("\n")
        elif tag in ("del", "moveFrom", "Fallback", "instrText", "pPr", "rPr"):
            walk.skip_subtree()
    return "".join(pieces)


def _styles(root: etree._Element | None) -> dict[str, _Style]:
    styles = {}
    for element in every(root, "style"):
        style = _Style()
        name = first_child(element, "name")
        label = "" if name is None else attribute(name, "val") or ""
        if match := _LEVEL_OF_NAME.fullmatch(label.strip()):
            style.level = int(match[1])
        style.title = label.strip().lower() == "title"
        based = first_child(element, "basedOn")
        style.based_on = None if based is None else attribute(based, "val")
        properties = first_child(element, "pPr")
        style.level = style.level or _outline(properties)
        style.numbering = _list_place(properties)
        styles[attribute(element, "styleId") or ""] = style
    return styles


def _numbering(root: etree._Element | None) -> _Numbering:
    numbering = _Numbering()
    formats: dict[str, dict[int, bool]] = {}
    for abstract in every(root, "abstractNum"):
        levels = {}
        for level in every(abstract, "lvl"):
            form = first_child(level, "numFmt")
            levels[_number(attribute(level, "ilvl"))] = form is None or attribute(form, "val") in ("bullet", "none")
        formats[attribute(abstract, "abstractNumId") or ""] = levels
    for concrete in every(root, "num"):
        reference = first_child(concrete, "abstractNumId")
        for ilvl, bullet in formats.get("" if reference is None else attribute(reference, "val") or "", {}).items():
            numbering.bullets[attribute(concrete, "numId") or "", ilvl] = bullet
    return numbering


def _outline(properties: etree._Element | None) -> int | None:
    """Heading level, 1 to 9, from an outline level; None for body text."""
    element = None if properties is None else first_child(properties, "outlineLvl")
    value = None if element is None else attribute(element, "val")
    return int(value) + 1 if value is not None and value.isascii() and value.isdigit() and int(value) < 9 else None


def _list_place(properties: etree._Element | None) -> tuple[str, int] | None:
    element = None if properties is None else first_child(properties, "numPr")
    number = None if element is None else first_child(element, "numId")
    if element is None or number is None:
        return None
    level = first_child(element, "ilvl")
    return attribute(number, "val") or "0", 0 if level is None else _number(attribute(level, "val"))


def _number(value: str | None) -> int:
    return int(value) if value and value.isascii() and value.isdigit() and len(value) < 3 else 0
