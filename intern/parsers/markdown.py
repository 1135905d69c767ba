"""Markdown: its text stays as it is; headings come from a CommonMark parser, so a # in a code fence is none.

In: decoded text. Out: Parsed. Front matter (`---` lines at the start) gives the title, and is not parsed as Markdown.
"""

from __future__ import annotations

import re
from itertools import accumulate, pairwise

from markdown_it import MarkdownIt

from intern.parsers.text import MAX_TITLE, Parsed, normalise, one_line

_FRONT_MATTER = re.compile(r"---\n(.*?)\n(?:---|\.\.\.)(?:\n|\Z)", re.S)
_TITLE = re.compile(r"^title:[ \t]*(.+)$", re.M)

_blocks = MarkdownIt("commonmark", {"maxNesting": 20}).enable("table").disable("inline")
_inlines = MarkdownIt("commonmark", {"maxNesting": 20})


def read(text: str) -> Parsed:
    text = normalise(text)
    title, body = None, 0
    front = _FRONT_MATTER.match(text)
    if front:
        body = front.end()
        if named := _TITLE.search(front[1]):
            title = one_line(named[1].strip().strip("\"'"))[:MAX_TITLE]
    headings = find_headings(text, body)
    return Parsed(
        text,
        "text/markdown",
        headings,
        title=title or next((heading for _, level, heading in headings if level == 1), None),
    )


def find_headings(text: str, start: int = 0) -> list[tuple[int, int, str]]:
    """(offset of its line, level, title without markup) of each heading that is not inside a list or quotation."""
    lines = list(accumulate((len(line) + 1 for line in text[start:].split("\n")), initial=start))
    tokens = _blocks.parse(text[start:])
    headings = []
    for token, content in pairwise(tokens):
        if token.type == "heading_open" and token.level == 0 and token.map:
            title = _plain(content.content)
            if title:
                headings.append((lines[token.map[0]], int(token.tag[1]), title[:MAX_TITLE]))
    return headings


def _plain(markup: str) -> str:
    tokens = _inlines.parseInline(markup[: 4 * MAX_TITLE])
    children = (child for token in tokens for child in token.children or ())
    kept = (
        " " if child.type in ("softbreak", "hardbreak") else child.content
        for child in children
        if child.type in ("text", "code_inline", "softbreak", "hardbreak", "image")
    )
    return one_line("".join(kept))
