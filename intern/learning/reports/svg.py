"""A matplotlib figure in, one SVG element out, that fits into any page: light or dark, on paper, read aloud.

Deterministic: the same figure makes the same text, without dates, random ids or the fonts of a machine. Colours of
`COLOURS` become CSS variables (`--plot-ink`, ...) with the light colour as fallback, texts stay texts, and no style
sheet, script or link goes out. Touches no setting of matplotlib, so that threads may draw at the same time. Does not
know what is plotted.
"""

from __future__ import annotations

import bisect
import hashlib
import io
import itertools
import math
import re
import unicodedata
from collections.abc import Callable
from typing import Any, cast

from lxml import etree
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.figure import Figure

WIDTH = 400.0  # points, and pixels where nothing scales it: texts of 12 are then still legible on a phone

# For a light page. Kinds of rivals are told apart with every kind of colour blindness, and stand out 3:1 from paper.
COLOURS = {
    "ink": "#1c2126",
    "muted": "#5b6570",
    "grid": "#d5dae0",
    "paper": "#ffffff",
    "candidate": "#0b5cad",
    "prompt": "#c47a12",
    "serving": "#2b9c86",
    "outside": "#4f5257",
}
# The same for a dark page; who embeds a plot there sets the variables to these.
DARK = {
    "ink": "#e8ebee",
    "muted": "#a3adb8",
    "grid": "#3a424b",
    "paper": "#15191e",
    "candidate": "#4a95ee",
    "prompt": "#f0a83a",
    "serving": "#7be3c8",
    "outside": "#868b91",
}

_NAMES = {colour: name for name, colour in COLOURS.items()}
_COLOUR = re.compile("|".join(_NAMES))
_REFERENCE = re.compile(r"#([\w-]+)")
_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REPLACEMENT = "\ufffd"


def allowed(text: str) -> str:
    """The text with U+FFFD for what neither XML nor HTML may hold: control characters and lone surrogates."""
    return _FORBIDDEN.sub(_REPLACEMENT, text)


def label(text: str, width: float, size: float) -> str:
    """A text as a label of at most `width` points at that font size: one line, shortened, in plain order.

    Characters that change the direction of what follows are left out; letters of any script stay.
    """
    kept = (c if unicodedata.category(c) != "Cf" or c == "\u200d" else "" for c in allowed(text))
    line = " ".join("".join(kept).split()) or "(empty)"
    if text_width(line) * size <= width:
        return line
    ends = itertools.accumulate(text_width(c) * size for c in line)
    return line[: bisect.bisect_right(list(ends), width - text_width("…") * size)].rstrip() + "…"


def text_width(text: str) -> float:
    """About how wide a line is, in font sizes: the page's font is not known here, and need not have been installed."""
    return sum(
        0.0 if unicodedata.combining(c) else 1.05 if unicodedata.east_asian_width(c) in "WF" else 0.56 for c in text
    )


def draw(figure: Figure, *, title: str, description: str) -> str:
    """The figure as `<svg role="img">` with a title and a description for those who do not see it.

    Figures must be made with 72 dots per inch. Ids are unique per title and description, so that many plots can stand
    in one page.
    """
    width, height = (72 * float(inches) for inches in figure.get_size_inches())
    file = io.StringIO()
    make = cast(Callable[..., Any], _Renderer)
    renderer = make(width, height, file, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    figure.draw(renderer)
    renderer.finalize()
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True)
    root = etree.fromstring(file.getvalue().encode(), parser)
    prefix = "plot-" + hashlib.sha256(f"{title}\0{description}".encode("utf-8", "replace")).hexdigest()[:8]
    return _finished(root, prefix, width, height, allowed(title), allowed(description))


def _finished(root: Any, prefix: str, width: float, height: float, title: str, description: str) -> str:
    for style in list(root.iter(f"{_SVG}style")):  # it would hold for the whole page
        style.getparent().remove(style)
    for defs in [element for element in root.iter(f"{_SVG}defs") if not len(element)]:
        defs.getparent().remove(defs)
    _rename(root, prefix)
    for element in root.iter(f"{_SVG}*"):
        if "style" in element.attrib:
            element.set("style", _COLOUR.sub(lambda m: f"var(--plot-{_NAMES[m[0]]}, {m[0]})", element.get("style")))
    for name, value in {
        "width": f"{width:g}",
        "height": f"{height:g}",
        "role": "img",
        "aria-labelledby": f"{prefix}-title {prefix}-description",
        "font-family": "system-ui, sans-serif",
        "stroke-linejoin": "round",
    }.items():
        root.set(name, value)
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = etree.Element(f"{_SVG}{tag}", id=f"{prefix}-{'description' if place else 'title'}")
        element.text = text
        root.insert(place, element)
    etree.cleanup_namespaces(root)
    return str(etree.tostring(root, encoding="unicode", with_tail=False))


def _rename(root: Any, prefix: str) -> None:
    """Number the ids in order of appearance, and drop those that nothing refers to: matplotlib's are partly random."""
    names: dict[str, str] = {}

    def renamed(match: re.Match[str]) -> str:
        return "#" + names.setdefault(match[1], f"{prefix}-{len(names)}")

    for element in root.iter(f"{_SVG}*"):
        if _XLINK in element.attrib:
            element.set("href", _REFERENCE.sub(renamed, element.attrib.pop(_XLINK)))
        for name in ("clip-path", "style"):
            if "url(#" in element.get(name, ""):
                element.set(name, re.sub(r"(?<=url\()#([\w-]+)", renamed, element.get(name)))
    for element in root.iter(f"{_SVG}*"):
        if (old := element.attrib.pop("id", None)) in names:
            element.set("id", names[old])


class _Renderer(RendererSVG):
    """Writes texts as texts and measures them by rule of thumb: no font is asked for the glyphs of a hostile label."""

    def get_text_width_height_descent(self, s: str, prop: Any, ismath: Any) -> tuple[float, float, float]:
        size = prop.get_size_in_points()
        return text_width(s) * size, size, 0.25 * size

    def draw_text(
        self, gc: Any, x: float, y: float, s: str, prop: Any, angle: float, ismath: Any = False, mtext: Any = None
    ) -> None:
        """At (x, y), the left end of the baseline in pixels from the top left corner."""
        size = prop.get_size_in_points()
        side = mtext.get_horizontalalignment() if mtext is not None and angle == 0 else "left"
        share, anchor = {"center": (0.5, "middle"), "right": (1.0, "end")}.get(side, (0.0, "start"))
        x += share * text_width(s) * size
        red, green, blue = (round(255 * float(part)) for part in gc.get_rgb()[:3])
        style = f"font-size: {size:g}px; fill: #{red:02x}{green:02x}{blue:02x}"
        if prop.get_weight() == "bold":
            style += "; font-weight: 600"
        place = {"x": f"{x:.2f}", "y": f"{y:.2f}", "text-anchor": anchor, "style": style}
        if angle:
            place["transform"] = f"rotate({-angle:g} {x:.2f} {y:.2f})"
        write = cast(Callable[..., None], self.writer.element)
        write("text", s, attrib=place)


def ticks(most: float) -> list[float]:
    """About five round numbers from 0 to at least `most`; 0 and 1 where that is nothing."""
    if most <= 0:
        return [0.0, 1.0]
    step: float = 10 ** math.floor(math.log10(most))
    step = next(step * factor for factor in (0.2, 0.25, 0.5, 1, 2) if most / (step * factor) <= 5)
    return [step * i for i in range(math.ceil(most / step - 1e-9) + 1)]
