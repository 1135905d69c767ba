"""An Office file as what it is, a ZIP of XML parts: opened with suspicion.

In: bytes. Out: the roots of the XML parts that a parser asks for. Sizes are checked before anything is inflated and
counted while inflating; entities are never expanded; parts that nobody asks for are never opened.
"""

from __future__ import annotations

import posixpath
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO

from lxml import etree

from intern.parsers.limits import Limits, Refused
from intern.parsers.text import one_line

_MAX_ENTRIES = 10_000
_MAX_RATIO = 300  # a part of a document compresses 5 to 50 times, a bomb about 1,000
_RATIO_FLOOR = 1_000_000
_BLOCK = 65_536


class Package:
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
        except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, OSError, zlib.error):
            raise Refused(f"is a damaged DOCX file: {one_line(entry.filename)[:80]} cannot be unpacked") from None
        return b"".join(pieces)

    def document(self) -> str:
        """Name of the main part, as the package's relationships give it."""
        for relation in every(self.part("_rels/.rels"), "Relationship"):
            if relation.get("Type", "").endswith("/officeDocument"):
                return posixpath.normpath(str(relation.get("Target", "")).lstrip("/"))
        return "word/document.xml"


# Names are compared without their namespace, since the strict and the transitional form of the standard differ in it.
def local(element: etree._Element | None) -> str:
    tag = "" if element is None else element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def first_child(parent: etree._Element, name: str) -> etree._Element | None:
    return next((child for child in parent if local(child) == name), None)


def every(root: etree._Element | None, name: str) -> Iterator[etree._Element]:
    return iter(()) if root is None else root.iter(f"{{*}}{name}")


def attribute(element: etree._Element, name: str) -> str | None:
    return next((str(value) for key, value in element.attrib.items() if str(key).rpartition("}")[2] == name), None)
