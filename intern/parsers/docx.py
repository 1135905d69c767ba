"""DOCX read straight from its XML: headings by style, lists, tables as rows, notes at the end.

In: bytes. Out: Parsed. A DOCX is a ZIP: sizes are checked before anything is inflated and counted while inflating, only
the parts with text are opened, and entities are never expanded. Deleted text, comments and field codes are left out.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO

from lxml import etree

from intern.parsers.limits import Limits, Refused
from intern.parsers.text import Parsed, TextBuilder, one_line

_MAX_ENTRIES = 10_000
_MAX_RATIO = 300  # a part of a document compresses 5 to 50 times, a bomb about 1,000
_RATIO_FLOOR = 1_000_000
_BLOCK = 65_536
_LEVEL_OF_NAME = re.compile(r"heading ?([1-9])", re.I)


class _Package:
    """The ZIP, with everything that is inflated counted against one budget."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        try:
            self._archive = zipfile.ZipFile(BytesIO(data))
        except Exception:  # a hostile central directory raises nearly anything
            raise Refused("is a damaged DOCX file") from None
        self._limit = self._left = limits.inflated
        entries = self._archive.infolist()
        if len(entries) > _MAX_ENTRIES:
            raise Refused(f"holds {len(entries):,} files inside; at most {_MAX_ENTRIES:,} are accepted")
        total = sum(entry.file_size for entry in entries)
        if total > self._limit:
            raise Refused(f"would inflate to {total:,} bytes; at most {self._limit:,} are accepted")
        for entry in entries:
            if entry.file_size > _RATIO_FLOOR and entry.file_size > _MAX_RATIO * max(1, entry.compress_size):
                raise Refused(f"is compressed more than {_MAX_RATIO} times, as only a ZIP bomb is")
        self._names = {entry.filename.lstrip("/"): entry for entry in entries}

    def part(self, name: str) -> etree._Element | None:
        """The root of an XML part, or None when there is no such part."""
        entry = self._names.get(name)
        if entry is None:
            return None
        if entry.flag_bits & 1:
            raise Refused("is encrypted: save it without a password")
        parser = etree.XMLParser(
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
            remove_comments=True,
            remove_pis=True,
        )
        try:
            root = etree.fromstring(self._inflate(entry), parser)
        except etree.XMLSyntaxError as error:
            if "depth" in str(error):
                raise Refused("is nested too deeply") from None
            raise Refused(f"is a damaged DOCX file: {name} is not well-formed XML") from None
        if root.getroottree().docinfo.internalDTD is not None:
            raise Refused(f"is no honest DOCX file: {name} declares entities")
        return root

    def _inflate(self, entry: zipfile.ZipInfo) -> bytes:
        pieces = []
        try:
            with self._archive.open(entry) as stream:
                while piece := stream.read(_BLOCK):
                    self._left -= len(piece)
                    if self._left < 0:
                        raise Refused(f"inflates to more than {self._limit:,} bytes")
                    pieces.append(piece)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, OSError, zipfile.zlib.error):  # type: ignore[attr-defined]
            raise Refused(f"is a damaged DOCX file: {one_line(entry.filename)[:80]} cannot be unpacked") from None
        return b"".join(pieces)

    def document(self) -> str:
        """Name of the main part, as the package's relationships give it."""
        for relation in _all(self.part("_rels/.rels"), "Relationship"):
            if relation.get("Type", "").endswith("/officeDocument"):
                return posixpath.normpath(str(relation.get("Target", "")).lstrip("/"))
        return "word/document.xml"


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
    package = _Package(data, limits)
    name = package.document()
    root = package.part(name)
    body = None if root is None else _first(root, "body")
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
        for note in _all(package.part(f"{folder}/{part}.xml"), part[:-1]):
            if _attribute(note, "type") is None and (text := one_line(_text(note))):
                reader.builder.paragraph(f"[{_attribute(note, 'id') or '?'}] {text}")
    core = package.part("docProps/core.xml")
    named = next((element.text for element in _all(core, "title") if element.text and element.text.strip()), None)
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
            tag = _local(element)
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
        properties = _first(element, "pPr")
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
        named = None if properties is None else _first(properties, "pStyle")
        name = None if named is None else _attribute(named, "val")
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
        tag = _local(element)
        if tag == "tr":
            yield element
        elif tag in ("sdt", "sdtContent", "customXml", "ins"):
            yield from _rows(element)


def _cells(row: etree._Element) -> Iterator[etree._Element]:
    for element in row:
        tag = _local(element)
        if tag == "tc":
            yield element
        elif tag in ("sdt", "sdtContent", "customXml"):
            yield from _cells(element)


def _paragraphs(cell: etree._Element) -> Iterator[str]:
    for element in cell:
        tag = _local(element)
        if tag == "p":
            yield _text(element)
        elif tag in ("tbl", "tr", "tc", "sdt", "sdtContent", "customXml", "ins"):
            yield from _paragraphs(element)


def _text(element: etree._Element) -> str:
    """Text of a paragraph as a reader sees it; paragraphs inside it (text boxes) on lines of their own."""
    pieces: list[str] = []
    walk = etree.iterwalk(element, events=("start",))
    for _, child in walk:
        tag = _local(child)
        if tag == "t":
            pieces.append(child.text or "")
        elif tag == "tab":
            if _local(child.getparent()) != "tabs":
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
    for element in _all(root, "style"):
        style = _Style()
        name = _first(element, "name")
        label = "" if name is None else _attribute(name, "val") or ""
        if match := _LEVEL_OF_NAME.fullmatch(label.strip()):
            style.level = int(match[1])
        style.title = label.strip().lower() == "title"
        based = _first(element, "basedOn")
        style.based_on = None if based is None else _attribute(based, "val")
        properties = _first(element, "pPr")
        style.level = style.level or _outline(properties)
        style.numbering = _list_place(properties)
        styles[_attribute(element, "styleId") or ""] = style
    return styles


def _numbering(root: etree._Element | None) -> _Numbering:
    numbering = _Numbering()
    formats: dict[str, dict[int, bool]] = {}
    for abstract in _all(root, "abstractNum"):
        levels = {}
        for level in _all(abstract, "lvl"):
            form = _first(level, "numFmt")
            levels[_number(_attribute(level, "ilvl"))] = form is None or _attribute(form, "val") in ("bullet", "none")
        formats[_attribute(abstract, "abstractNumId") or ""] = levels
    for concrete in _all(root, "num"):
        reference = _first(concrete, "abstractNumId")
        for ilvl, bullet in formats.get("" if reference is None else _attribute(reference, "val") or "", {}).items():
            numbering.bullets[_attribute(concrete, "numId") or "", ilvl] = bullet
    return numbering


def _outline(properties: etree._Element | None) -> int | None:
    """Heading level, 1 to 9, from an outline level; None for body text."""
    element = None if properties is None else _first(properties, "outlineLvl")
    value = None if element is None else _attribute(element, "val")
    return int(value) + 1 if value is not None and value.isascii() and value.isdigit() and int(value) < 9 else None


def _list_place(properties: etree._Element | None) -> tuple[str, int] | None:
    element = None if properties is None else _first(properties, "numPr")
    number = None if element is None else _first(element, "numId")
    if element is None or number is None:
        return None
    level = _first(element, "ilvl")
    return _attribute(number, "val") or "0", 0 if level is None else _number(_attribute(level, "val"))


def _number(value: str | None) -> int:
    return int(value) if value and value.isascii() and value.isdigit() and len(value) < 3 else 0


# Names are compared without their namespace, since the strict and the transitional form of the standard differ in it.
def _local(element: etree._Element | None) -> str:
    tag = "" if element is None else element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _first(parent: etree._Element, name: str) -> etree._Element | None:
    return next((child for child in parent if _local(child) == name), None)


def _all(root: etree._Element | None, name: str) -> Iterator[etree._Element]:
    return iter(()) if root is None else root.iter(f"{{*}}{name}")


def _attribute(element: etree._Element, name: str) -> str | None:
    return next((str(value) for key, value in element.attrib.items() if str(key).rpartition("}")[2] == name), None)
