"""Plots are right to the point, well-formed whatever the labels hold, and the same each time they are drawn."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import matplotlib
import numpy as np
import numpy.typing as npt
import pytest
from lxml import etree

from intern.errors import InvalidInput
from intern.learning.judging.curve import LearningCurve, fit_learning_curve
from intern.learning.judging.outcomes import Interval, Summary
from intern.learning.reports.plots import (
    confusion_plot,
    curve_plot,
    field_bars,
    interval_text,
    learning_curve_plot,
    rival_bars,
    shown_values,
)
from intern.learning.reports.svg import COLOURS, DARK, WIDTH, label, text_width, ticks

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = (
    "<script>alert(1)</script>]]></svg><!-- & \"'",
    "$\\frac{1}{$ \\undefined $$",
    "x" * 10_000,
    "😀👩‍👩‍👧 \u202eدفع \u0301\u0301\u0301 漢字かな \x00\x1b \ud800 \n\n line",
    "",
    "var(--plot-ink) url(#x) #1c2126",
)


def interval(mean: float, reach: float | None = 0.1) -> Interval:
    if reach is None:
        return Interval(mean=mean, low=None, high=None, n=1, groups=1)
    return Interval(mean=mean, low=max(0, mean - reach), high=min(1, mean + reach), n=50, groups=50)


def summary(score: float, reach: float | None = 0.1, **fields: float) -> Summary:
    metrics = {name: interval(value, reach) for name, value in (fields or {"intent": score}).items()}
    return Summary(n=50, valid=1.0, score=interval(score, reach), metrics=metrics)


CURVES: dict[str, list[float]] = {
    "step_at": [1, 2, 3],
    "step_loss": [3.0, 2.0, 1.5],
    "heldout_at": [0, 3],
    "heldout_loss": [3.1, 1.7],
}
COUNTS = {"card": {"card": 8, "pin": 2}, "pin": {"pin": 5, "(no object)": 1}}


def learning_curve() -> LearningCurve:
    return fit_learning_curve([50, 100, 200], [0.5, 0.6, 0.68])


PLOTS: dict[str, Callable[[str], str | None]] = {
    "rivals": lambda name: rival_bars({"candidate": summary(0.8), "base": summary(0.3), name: summary(0.5)}),
    "fields": lambda name: field_bars({"candidate": summary(0.8, **{name: 0.8}), name: summary(0.5, **{name: 0.5})}),
    "curves": lambda name: curve_plot(CURVES),
    "confusion": lambda name: confusion_plot({**COUNTS, name: {name: 3, "card": 1}}, field=name),
    "learning": lambda name: learning_curve_plot(learning_curve(), [(50, 0.5), (100, 0.6), (200, 0.68)]),
}


def parsed(svg: str | None) -> etree._Element:
    assert svg is not None
    return etree.fromstring(svg.encode())


def texts(svg: str | None) -> list[str]:
    return [element.text or "" for element in parsed(svg).iter(f"{SVG}text")]


def paths(svg: str | None, paint: str) -> list[npt.NDArray[np.float64]]:
    """The points of every path that is painted so, each of shape (points, 2)."""
    found = []
    for element in parsed(svg).iter(f"{SVG}path"):
        if paint in element.get("style", ""):
            numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", element.get("d", ""))]
            found.append(np.asarray(numbers).reshape(-1, 2))
    return found


# --- any page can hold them --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vendor", *HOSTILE])
@pytest.mark.parametrize("plot", PLOTS)
def test_every_plot_is_well_formed_and_reaches_for_nothing(plot: str, name: str) -> None:
    svg = PLOTS[plot](name)
    root = parsed(svg)
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for reference in root.get("aria-labelledby", "").split():
        assert root.xpath(f"//*[@id='{reference}']")[0].text
    allowed = {"svg", "g", "defs", "clipPath", "path", "rect", "text", "title", "desc", "use"}
    assert {etree.QName(element).localname for element in root.iter()} <= allowed
    for element in root.iter():
        assert not any(key.startswith("on") for key in element.attrib)
        assert element.get("href", "#").startswith("#")
        for reference in re.findall(r"url\((.*?)\)", " ".join(element.attrib.values())):
            assert reference[1:] in ids


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("plot", ["rivals", "fields", "confusion"])
def test_no_label_leaves_the_plot(plot: str, name: str) -> None:
    drawn = list(parsed(PLOTS[plot](name)).iter(f"{SVG}text"))
    assert drawn
    for element in drawn:
        size = float(re.findall(r"font-size: ([\d.]+)px", element.get("style", ""))[0])
        x, wide = float(element.get("x", "")), text_width(element.text or "") * size
        if "transform" in element.attrib:
            assert float(element.get("y", "")) - wide >= 0
        else:
            left = x - {"start": 0, "middle": 0.5, "end": 1}[element.get("text-anchor", "")] * wide
            assert left >= 0
            assert left + wide <= WIDTH


def test_labels_stay_text_in_any_script() -> None:
    drawn = texts(field_bars({"candidate": summary(0.5, **dict.fromkeys(HOSTILE[:2], 0.5))}))
    assert {"<script>alert(1)</script>]]></svg><!-- & \"'", "$\\frac{1}{$ \\undefined $$"} <= set(drawn)
    assert "دفع 漢字" in texts(field_bars({"candidate": summary(0.5, **{"\u202eدفع\n漢字": 0.5})}))
    assert label("abc\x00\ud800", 100, 10) == "abc��"
    assert label("  ", 100, 10) == "(empty)"


@pytest.mark.parametrize("plot", PLOTS)
def test_the_same_numbers_make_the_same_text_in_every_thread(plot: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        drawn = set(pool.map(PLOTS[plot], ["vendor"] * 4))
    assert drawn == {PLOTS[plot]("vendor")}


def test_plots_of_one_page_share_no_id() -> None:
    ids = [e.get("id") for plot in PLOTS.values() for e in parsed(plot("vendor")).iter() if e.get("id")]
    assert len(ids) == len(set(ids))


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    before = dict(matplotlib.rcParams)
    for plot in PLOTS.values():
        plot("vendor")
    assert dict(matplotlib.rcParams) == before
    probe = "import intern.learning.reports.plots, sys; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_colours_are_the_page_s_with_a_fallback() -> None:
    svg = rival_bars({"candidate": summary(0.8), "serving": summary(0.5), "base": summary(0.1), "x": summary(0.2)})
    for name in ("ink", "muted", "grid", "paper", "candidate", "serving", "prompt", "outside"):
        assert f"var(--plot-{name}, {COLOURS[name]})" in svg
    assert not re.findall(r"(?<!, )#[0-9a-f]{6}", svg)


# --- they show what is so ----------------------------------------------------------------------------------------


def test_bars_are_as_long_as_scores_and_intervals_end_where_they_should() -> None:
    svg = rival_bars({"candidate": summary(0.75), "base": summary(0.25, reach=0.05)})
    along = WIDTH - 16
    (bar,) = paths(svg, "fill: var(--plot-candidate")
    assert (bar[:, 0].min(), bar[:, 0].max()) == pytest.approx((8, 8 + 0.75 * along))
    ends = {(round(p[0, 0]), round(p[1, 0])) for p in paths(svg, "stroke: var(--plot-ink") if p[0, 1] == p[1, 1]}
    assert ends == {(round(8 + low * along), round(8 + high * along)) for low, high in ((0.65, 0.85), (0.2, 0.3))}
    assert {"Candidate", "0.75 (0.65 to 0.85)", "Base model alone", "0.25 (0.20 to 0.30)"} <= set(texts(svg))
    assert "Base model alone 0.25 (0.20 to 0.30)." in parsed(svg).findtext(f"{SVG}desc")


def test_no_interval_is_drawn_where_there_is_none() -> None:
    svg = rival_bars({"candidate": summary(0.75, reach=None)})
    assert "0.75" in texts(svg)
    assert not paths(svg, "stroke: var(--plot-paper")
    assert interval_text(interval(0.5, None)) == "0.50"


def test_of_many_fields_those_that_differ_most_are_drawn() -> None:
    mine = {f"field{i:02}": 0.5 + 0.01 * i for i in range(30)}
    rivals = {"candidate": summary(0.5, **mine), "base": summary(0.5, **dict.fromkeys(mine, 0.5), only=0.1)}
    drawn = [text for text in texts(field_bars(rivals, most=3)) if text.startswith("field") or text == "only"]
    assert drawn == ["field27", "field28", "field29"]


def test_a_field_that_one_rival_lacks_has_one_bar() -> None:
    svg = field_bars({"candidate": summary(0.5, a=0.5), "base": summary(0.5, a=0.4, b=0.9)})
    assert len(paths(svg, "fill: var(--plot-prompt")) == 3  # the legend's, a, b
    assert len(paths(svg, "fill: var(--plot-candidate")) == 2


def test_the_next_stage_s_curve_goes_on_to_the_right() -> None:
    curves: dict[str, list[float]] = {
        "step_at": [1, 2, 3, 1, 2],
        "step_loss": [3, 2, 2, 1, 0.5],
        "heldout_at": [0, 2],
        "heldout_loss": [2, 1],
    }
    svg = curve_plot(curves)
    first, second = (p for p in paths(svg, "stroke: var(--plot-prompt") if len(p) in (2, 3) and p[0, 1] != p[1, 1])
    (heldout,) = (p for p in paths(svg, "stroke: var(--plot-candidate") if len(p) == 2 and p[0, 1] != p[1, 1])
    assert first[-1, 0] == pytest.approx(heldout[0, 0])
    assert second[-1, 0] == pytest.approx(heldout[-1, 0])
    assert first[-1, 0] < second[0, 0]
    assert "Held-out loss: from 2 to 1 at step 2." in parsed(svg).findtext(f"{SVG}desc")


def test_a_stage_is_where_its_name_says_and_not_where_steps_begin_again() -> None:
    curves: dict[str, list[float]] = {
        "step_at": [1, 2, 3, 8, 9],  # of the second stage the beginning was lost
        "step_loss": [3, 2, 2, 1, 0.5],
        "step_stage": [0, 0, 0, 1, 1],
        "heldout_at": [0, 3],
        "heldout_loss": [2, 1],
        "heldout_stage": [0, 0],
    }
    svg = curve_plot(curves)
    first, second = (p for p in paths(svg, "stroke: var(--plot-prompt") if len(p) in (2, 3) and p[0, 1] != p[1, 1])
    (heldout,) = (p for p in paths(svg, "stroke: var(--plot-candidate") if len(p) == 2 and p[0, 1] != p[1, 1])
    step = (first[-1, 0] - first[0, 0]) / 2
    assert heldout[:, 0] == pytest.approx([first[0, 0] - step, first[-1, 0]])
    assert second[:, 0] == pytest.approx([first[-1, 0] + 8 * step, first[-1, 0] + 9 * step])


@pytest.mark.parametrize(
    "curves", [{}, {"step_at": [], "step_loss": []}, {"step_at": [1], "step_loss": [float("nan")]}, {"step_at": [1]}]
)
def test_without_a_finite_point_there_is_no_curve(curves: dict[str, list[float]]) -> None:
    assert curve_plot(curves) is None


@pytest.mark.parametrize("loss", [0.0, 1e-9, 1.0, 12_345.0])
def test_one_point_is_a_curve(loss: float) -> None:
    assert parsed(curve_plot({"heldout_at": [0], "heldout_loss": [loss]})) is not None
    marks = ticks(loss)
    assert marks[0] == 0
    assert marks[-1] >= loss
    assert 2 <= len(marks) <= 6


def test_the_learning_curve_is_dashed_beyond_what_was_measured() -> None:
    measured = [(50, 0.5), (100, 0.6), (200, 0.68)]
    svg = learning_curve_plot(learning_curve(), measured, most=800)
    lines = [p for p in parsed(svg).iter(f"{SVG}path") if "stroke: var(--plot-candidate" in p.get("style", "")]
    assert ["dasharray" in line.get("style", "") for line in lines] == [False, True]
    known, foretold = paths(svg, "stroke: var(--plot-candidate")
    assert known[:, 0].max() <= foretold[:, 0].min()
    assert foretold[:, 0].max() == pytest.approx(WIDTH - 14)
    assert {"50", "100", "200", "400", "800"} <= set(texts(svg))
    assert "foretold with 800" in parsed(svg).findtext(f"{SVG}desc")


def test_every_answer_is_in_one_cell_of_the_confusions() -> None:
    random = np.random.default_rng(0)
    values = [f"value {i}" for i in range(40)]
    counts = {
        w: {str(g): int(n) for g, n in zip(random.choice(values, 4, replace=False), (9, 3, 2, 1), strict=True)}
        for w in values
    }
    svg = confusion_plot(counts, field="intent", most=12)
    numbers = [int(text) for text in texts(svg) if text.isdecimal()]
    assert sum(numbers) == 15 * 40
    assert len([text for text in texts(svg) if text.startswith(("value", "(others)"))]) == 2 * 13


def test_right_answers_and_mistakes_differ_in_colour_and_stand_where_they_belong() -> None:
    svg = confusion_plot({**COUNTS, "fee": {"card": 4}}, field="intent")
    right, wrong = paths(svg, "fill: var(--plot-candidate"), paths(svg, "fill: var(--plot-prompt")
    assert (len(right), len(wrong)) == (2, 3)
    left = min(path[:, 0].min() for path in right)
    top = min(path[:, 1].min() for path in right)
    for path in right:
        assert path[:, 0].min() - left == pytest.approx(path[:, 1].min() - top, abs=0.01)
    assert (
        "13 of 20 values are right. fee answered as card: 4; card answered as pin: 2; pin answered as (no object): 1"
        in parsed(svg).findtext(f"{SVG}desc")
    )


def test_of_many_values_the_confused_ones_are_shown() -> None:
    counts = {f"v{i}": {f"v{i}": 100} for i in range(30)} | {"rare": {"v29": 1, "rare": 1}}
    assert shown_values(counts, 2) == ["v29", "rare"]
    assert "(others)" in texts(confusion_plot(counts, field="intent", most=2))


def test_nothing_to_draw_is_an_error() -> None:
    draws: tuple[Callable[[], object], ...] = (
        lambda: rival_bars({}),
        lambda: field_bars({}),
        lambda: confusion_plot({}, field="intent"),
    )
    for draw in draws:
        with pytest.raises(InvalidInput):
            draw()


# --- everybody can tell the colours apart ------------------------------------------------------------------------

# Machado, Oliveira and Fernandes (2009), severity 1.
SIGHT = {
    "usual": np.eye(3),
    "protan": np.asarray([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]),
    "deutan": np.asarray([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]),
    "tritan": np.asarray([[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]]),
}


def linear(colour: str) -> npt.NDArray[np.float64]:
    values = np.asarray([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    matrix = np.asarray([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(matrix @ np.clip(rgb, 0, 1) / np.asarray([0.9505, 1.0, 1.089]))
    return np.asarray([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: str, other: str) -> float:
    dark, light = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (one, other))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("colours", [COLOURS, DARK], ids=["light", "dark"])
def test_kinds_of_rivals_are_told_apart(colours: dict[str, str], sight: str) -> None:
    for one, other in combinations(("candidate", "prompt", "serving", "outside"), 2):
        seen = [lab(SIGHT[sight] @ linear(colours[name])) for name in (one, other)]
        assert np.linalg.norm(seen[0] - seen[1]) > 20, (one, other)


@pytest.mark.parametrize("colours", [COLOURS, DARK], ids=["light", "dark"])
def test_bars_and_texts_stand_out_from_the_page(colours: dict[str, str]) -> None:
    for name in ("candidate", "prompt", "serving", "outside"):
        assert contrast(colours[name], colours["paper"]) >= 3
    for name in ("ink", "muted"):
        assert contrast(colours[name], colours["paper"]) >= 4.5
