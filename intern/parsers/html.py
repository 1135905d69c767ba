"""HTML as text: headings, paragraphs, lists and tables; without scripts, styles, navigation and what is hidden.

In: decoded HTML of any quality. Out: Parsed, or blocks appended to a TextBuilder. Walks the tree without recursion;
follows no link and loads nothing.
"""

from __future__ import annotations

import re

from lxml import etree

from intern.parsers.limits import Limits, Refused
from intern.parsers.text import Parsed, TextBuilder, one_line

_DROPPED = frozenset(
    re.findall(
        r"\w+",
        "script style noscript template nav iframe object embed svg canvas audio video select datalist button head"
        " math",
    )
)
_BLOCKS = frozenset(
    re.findall(
        r"\w+",
        "address article aside blockquote body caption center dd details dialog div dl dt fieldset figcaption figure"
        " footer form header hr legend li main ol p pre section summary table tbody td tfoot th thead tr ul",
    )
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_HIDDEN = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?![.\d]*[1-9])|opacity\s*:\s*0(?![.\d]*[1-9])", re.I
)
_SPACE = re.compile(r"[ \t\n\r\f]+")
_BREAK = re.compile(r" ?\x0b ?")


def read(text: str, limits: Limits) -> Parsed:
    builder = TextBuilder(limits)
    title = read_into(builder, text)
    first = next((heading for _, level, heading in builder.headings if level == 1), None)
    return builder.finish("text/html", title or first)


def read_into(builder: TextBuilder, text: str) -> str | None:
    """Append the document's blocks to `builder`; its title, if it has one."""
    parser = etree.HTMLParser(encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True, huge_tree=False)
    try:
        # Surrogates cannot be encoded; a declared character set inside is overruled by the parser's.
        root = etree.fromstring(text.encode("utf-8", "replace"), parser)
    except etree.XMLSyntaxError:
        root = None
    # The parser repairs what it can, and gives back what it has when it must stop: a cut document must not pass.
    for entry in parser.error_log:
        if entry.type == etree.ErrorTypes.ERR_NO_MEMORY:
            raise MemoryError
        if entry.level == etree.ErrorLevels.FATAL and "depth" in entry.message.lower():
            raise Refused("is nested too deeply")
        if entry.type_name == "ERR_RESOURCE_LIMIT":
            raise Refused("has a text, an attribute or a script of more than 10 MB in one piece")
    if root is None:
        return None
    _Walk(builder).run(root)
    title = root.find("./head/title")
    return None if title is None else one_line("".join(title.itertext())) or None


class _Walk:
    """One pass over the tree in document order, gathering inline text until a block ends."""

    def __init__(self, builder: TextBuilder) -> None:
        self._builder = builder
        self._inline: list[str] = []
        self._heading: etree._Element | None = None
        self._cell: etree._Element | None = None
        self._row: list[str] = []
        self._table: etree._Element | None = None  # the table of the last row, while nothing else came between
        self._lists: list[int | None] = []  # for each open list: the next number, or None for bullets
        self._marker = ""
        self._items = 0
        self._preformatted = 0
        self._layout: set[etree._Element] = set()

    def run(self, root: etree._Element) -> None:
        self._layout = _layout_tables(root)
        walk = etree.iterwalk(root, events=("start", "end"))
        for event, element in walk:
            tag = element.tag
            if event == "start":
                if tag in _DROPPED or _is_hidden(element):
                    walk.skip_subtree()
                    # what is skipped still ends, with the text behind it
                    continue
                self._open(element, str(tag))
                self._inline.append(self._raw(element.text))
            else:
                if tag not in _DROPPED and not _is_hidden(element):
                    self._close(element, str(tag))
                self._inline.append(self._raw(element.tail))
        self._flush()

    def _raw(self, text: str | None) -> str:
        if not text:
            return ""
        return text.replace("\n", "\x0b") if self._preformatted and self._cell is None else text

    def _open(self, element: etree._Element, tag: str) -> None:
        if tag == "br":
            self._inline.append("\x0b" if self._heading is None and self._cell is None else " ")
        elif tag == "img":
            self._inline.append(f" {element.get('alt') or ''} ")
        elif self._heading is not None or self._cell is not None:
            if tag in _BLOCKS or tag in _HEADINGS:
                self._inline.append(" ")
        elif tag in _HEADINGS:
            self._flush()
            self._heading = element
        elif tag in ("td", "th") and self._in_data_table(element):
            self._flush()
            self._cell = element
        elif tag in _BLOCKS:
            self._flush()
            if tag in ("ul", "ol"):
                self._lists.append(1 if tag == "ol" else None)
            elif tag == "li":
                self._items += 1
                self._marker = self._next_marker()
            elif tag == "pre":
                self._preformatted += 1

    def _close(self, element: etree._Element, tag: str) -> None:
        if element is self._heading:
            self._builder.heading(_HEADINGS[tag], self._take())
            self._heading = None
        elif element is self._cell:
            self._row.append(one_line(self._take()))
            self._cell = None
        elif self._heading is None and self._cell is None and tag in _BLOCKS:
            if tag == "tr" and self._row:
                self._inline.clear()
                table = next(element.iterancestors("table"), None)
                if any(self._row):
                    self._emit(" | ".join(self._row), tight=table is not None and table is self._table)
                self._row, self._table = [], table
                return
            self._flush()
            if tag in ("ul", "ol") and self._lists:
                self._lists.pop()
            elif tag == "li":
                self._items -= 1
                self._marker = ""
            elif tag == "pre":
                self._preformatted -= 1
        elif tag in _BLOCKS:
            self._inline.append(" ")

    def _in_data_table(self, cell: etree._Element) -> bool:
        table = next(cell.iterancestors("table"), None)
        return table is not None and table not in self._layout

    def _next_marker(self) -> str:
        indent = "  " * min(len(self._lists) - 1, 5)
        if not self._lists or self._lists[-1] is None:
            return indent + "- "
        self._lists[-1] += 1
        return f"{indent}{self._lists[-1] - 1}. "

    def _take(self) -> str:
        text = _BREAK.sub("\x0b", _SPACE.sub(" ", "".join(self._inline)).strip(" "))
        self._inline.clear()
        return text.strip("\x0b")

    def _flush(self) -> None:
        if self._preformatted:
            text = "".join(self._inline)
            self._inline.clear()
        else:
            text = self._take()
        if not text.strip("\x0b \t"):
            return
        if self._row:  # text that stands in a row but in no cell
            self._row.append(one_line(text))
            return
        marker, self._marker = self._marker, ""
        self._emit(marker + text, tight=self._items > 0 and bool(self._builder.length))

    def _emit(self, text: str, *, tight: bool) -> None:
        self._table = None
        if tight:
            self._builder.line(text)
        else:
            self._builder.paragraph(text)


def _layout_tables(root: etree._Element) -> set[etree._Element]:
    """Tables that hold other tables or headings: they arrange a page, and their cells are no values."""
    layout: set[etree._Element] = set()
    for element in root.iter("table", *_HEADINGS):
        for ancestor in element.iterancestors("table"):
            if ancestor in layout:
                break
            layout.add(ancestor)
    return layout


def _is_hidden(element: etree._Element) -> bool:
    attributes = element.attrib
    if not attributes:
        return False
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or attributes.get("role") == "navigation"
        or ("style" in attributes and _HIDDEN.search(str(attributes["style"])) is not None)
    )
