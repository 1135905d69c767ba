"""The plots of a verdict: summaries, curves and counts in, SVG text out, for reports and docs alike.

Each plot says the same in numbers in its description, for those who do not see it. Labels may be anything that an
answer or a schema holds: they are shortened and drawn as they are. `svg.py` knows how a figure becomes an element of a
page; this module knows no pages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from intern.errors import InvalidInput
from intern.learning.judging.curve import LearningCurve
from intern.learning.judging.gate import CALLED
from intern.learning.judging.outcomes import CANDIDATE, PROMPT_ONLY, SERVING, Interval, Summary
from intern.learning.reports.svg import COLOURS, WIDTH, draw, label, text_width, ticks

MOST_FIELDS = 12
MOST_VALUES = 12  # of an enumerated field, beside one row and column for all others
_OTHERS = "(others)"
_DOTS = 72.0
_SIZE, _SMALL = 12.0, 10.5
_MARGIN = 8.0
_COARSE, _FINE = 120, 240  # points of a fitted curve: measured range, beyond


def called(rival: str) -> str:
    """A rival's name as people read it."""
    if rival == CANDIDATE:
        return "Candidate"
    name = CALLED.get(rival)
    return f"{label(rival, 130, _SIZE)} (outside system)" if name is None else name.removeprefix("the ").capitalize()


def kind(rival: str) -> str:
    """What a rival is, which is the name of its colour too: candidate, prompt, serving or outside."""
    return "prompt" if rival in PROMPT_ONLY else rival if rival in (CANDIDATE, SERVING) else "outside"


def interval_text(interval: Interval) -> str:
    """'0.85 (0.75 to 0.92)'; the mean alone where there are too few examples for an interval."""
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.2f}"
    return f"{interval.mean:.2f} ({interval.low:.2f} to {interval.high:.2f})"


# --- bars ------------------------------------------------------------------------------------------------------


def rival_bars(rivals: Mapping[str, Summary]) -> str:
    """The score of every rival with its interval, one bar each, in the order given. Raises InvalidInput for none."""
    if not rivals:
        raise InvalidInput("There are no rivals to draw; give at least one summary.", param="rivals")
    row, top, foot = 44.0, 4.0, 34.0
    height = top + row * len(rivals) + foot
    figure, axes = _bar_axes(height, top, foot, [(row * i + 19, row * i + 39) for i in range(len(rivals))])
    for place, (name, summary) in enumerate(rivals.items()):
        y = row * place
        number = interval_text(summary.score)
        room = WIDTH - 2 * _MARGIN - text_width(number) * _SIZE - 10
        _text(axes, 0.0, y + 15, label(called(name), room, _SIZE), weight="bold" if name == CANDIDATE else "normal")
        _text(axes, 1.0, y + 15, number, side="right")
        _bar(axes, y + 29, 15, summary.score, COLOURS[kind(name)])
    return draw(
        figure,
        title="Score of every rival",
        description="; ".join(f"{called(name)} {interval_text(s.score)}" for name, s in rivals.items()) + ".",
    )


def field_bars(rivals: Mapping[str, Summary], *, most: int = MOST_FIELDS) -> str:
    """The score of each output field, a bar for each rival, in the order given.

    Of more than `most` fields those are drawn in which the rivals differ most. Raises InvalidInput where no rival has
    a field.
    """
    fields = shown_fields(rivals, most)
    if not fields:
        raise InvalidInput("There are no fields to draw; give summaries with at least one.", param="rivals")
    bar, head, gap, foot = 11.0, 18.0, 10.0, 34.0
    top = 17.0 * len(rivals) + 12
    row = head + bar * len(rivals) + gap
    bars = [(row * i + head - 1, row * (i + 1) - gap + 3) for i in range(len(fields))]
    figure, axes = _bar_axes(top + row * len(fields) + foot, top, foot, bars)
    for place, name in enumerate(rivals):
        y = -top + 17 * place
        axes.barh(y + 9, 0.035, 10, left=0.0, color=COLOURS[kind(name)], clip_on=False)
        _text(axes, 0.05, y + 13, label(called(name), WIDTH - 40, _SMALL), size=_SMALL)
    told = []
    for place, field in enumerate(fields):
        y = row * place
        _text(axes, 0.0, y + 14, label(field, WIDTH - 2 * _MARGIN, _SIZE))
        for number, (name, summary) in enumerate(rivals.items()):
            if field in summary.metrics:
                interval = summary.metrics[field]
                _bar(axes, y + head + bar * (number + 0.5) + 1, bar - 2, interval, COLOURS[kind(name)])
                told.append(f"{field}, {called(name)}: {interval_text(interval)}")
    return draw(figure, title="Score of each field", description="; ".join(told) + ".")


def shown_fields(rivals: Mapping[str, Summary], most: int = MOST_FIELDS) -> list[str]:
    """The fields that `field_bars` draws, in the order of the rivals' own."""
    fields = list(dict.fromkeys(field for summary in rivals.values() for field in summary.metrics))

    def spread(field: str) -> float:
        means = [summary.metrics[field].mean for summary in rivals.values() if field in summary.metrics]
        return max(means) - min(means)

    kept = sorted(fields, key=spread, reverse=True)[:most]
    return [field for field in fields if field in kept]


def _bar_axes(height: float, top: float, foot: float, bars: Sequence[tuple[float, float]]) -> tuple[Figure, Axes]:
    """Axes in which x is a score and y a number of points from the top, over all but the head and the foot.

    `bars` is where bars lie, each from its top to its bottom: there a grid is drawn, and not through the labels.
    """
    rows = height - top - foot
    figure = _figure(height)
    axes = figure.add_axes((_MARGIN / WIDTH, foot / height, 1 - 2 * _MARGIN / WIDTH, rows / height), frameon=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(rows, 0)
    axes.set_axis_off()
    for x in (0, 0.25, 0.5, 0.75, 1):
        axes.vlines(
            [x] * len(bars), *zip(*bars, strict=True), color=COLOURS["grid"], linewidth=1, clip_on=False, zorder=0
        )
        _text(axes, x, rows + 15, f"{x:g}", size=_SMALL, colour="muted", side=_side(x))
    _text(axes, 0.5, rows + 29, "score: 0 is wrong, 1 is right", size=_SMALL, colour="muted", side="center")
    return figure, axes


def _bar(axes: Axes, y: float, height: float, interval: Interval, colour: str) -> None:
    axes.barh(y, interval.mean, height, color=colour, zorder=2)
    axes.plot([0, 0], [y - height / 2, y + height / 2], color=COLOURS["ink"], linewidth=1, clip_on=False, zorder=3)
    if interval.low is None or interval.high is None:
        return
    cap = min(height / 2 - 1, 4.5)
    # A rim in the paper's colour keeps the interval legible on any bar.
    for hue, width in (("paper", 3.6), ("ink", 1.6)):
        style: dict[str, Any] = {"color": COLOURS[hue], "linewidth": width, "clip_on": False, "zorder": 4}
        axes.plot([interval.low, interval.high], [y, y], **style)
        for x in (interval.low, interval.high):
            axes.plot([x, x], [y - cap, y + cap], **style)


# --- curves ----------------------------------------------------------------------------------------------------


def curve_plot(curves: Mapping[str, Sequence[float]]) -> str | None:
    """Training and held-out loss by optimiser step. None where no curve has a finite point.

    `curves` are as an adapter's provenance has them (`manifest.Provenance`). A next stage's line goes on to the right
    of the former one.
    """
    names = {"step": "Training loss", "heldout": "Held-out loss"}
    stages = {name: _stages(curves, name) for name in names}
    if not any(stages.values()):
        return None
    starts: dict[int, float] = {}
    end = 0.0
    for place in sorted({place for parts in stages.values() for place in parts}):
        starts[place] = end
        end += max(parts[place][-1][0] for parts in stages.values() if place in parts)
    values = [loss for parts in stages.values() for part in parts.values() for _, loss in part]
    figure, axes = _curve_axes(end, max(values), x="optimiser step", y="loss")
    told, shown = [], []
    for (name, title), hue, width in zip(names.items(), ("prompt", "candidate"), (1.2, 2.2), strict=True):
        parts = stages[name]
        for place, part in parts.items():
            x, y = [starts[place] + step for step, _ in part], [loss for _, loss in part]
            marker = "o" if name == "heldout" or len(part) == 1 else ""
            axes.plot(x, y, color=COLOURS[hue], linewidth=width, marker=marker, markersize=5, clip_on=False)
        if parts:
            shown.append((title, hue))
            first, *_, last = [point for part in parts.values() for point in (part[0], part[-1])]
            told.append(f"{title}: from {first[1]:.3g} to {last[1]:.3g} at step {last[0]:g}")
    for start in list(starts.values())[1:]:
        axes.axvline(start, color=COLOURS["muted"], linewidth=1, dashes=(2, 2))
    _legend(figure, shown)
    return draw(figure, title="Training and held-out loss", description="; ".join(told) + ".")


def learning_curve_plot(
    curve: LearningCurve, measured: Sequence[tuple[int, float]] = (), *, most: int | None = None
) -> str:
    """The fitted curve with its 95% band, up to `most` training examples (default: four times the largest size seen).

    `measured` are the (size, score) points it was fitted to; beyond the largest of them the line is dashed.
    """
    seen = max((size for size, _ in measured), default=curve.unit)
    most = max(most or 4 * seen, curve.unit + 1)
    sizes = sorted({round(size) for size in np.geomspace(curve.unit, most, _COARSE)})
    forecasts = [curve.at(size) for size in sizes]
    figure, axes = _curve_axes(float(most), 1.0, x="training examples", y="score", least=float(curve.unit))
    axes.fill_between(
        sizes,
        [f.low for f in forecasts],
        [f.high for f in forecasts],
        color=COLOURS["candidate"],
        alpha=0.2,
        linewidth=0,
    )
    for part, dashes in (
        ([(s, f.mean) for s, f in zip(sizes, forecasts, strict=True) if s <= seen or not measured], None),
        ([(s, f.mean) for s, f in zip(sizes, forecasts, strict=True) if s >= seen and measured], (5, 3)),
    ):
        if part:
            style: dict[str, Any] = {} if dashes is None else {"dashes": dashes}
            axes.plot(*zip(*part, strict=True), color=COLOURS["candidate"], linewidth=2, **style)
    if measured:
        axes.plot(
            *zip(*measured, strict=True), color=COLOURS["ink"], linewidth=0, marker="o", markersize=6, clip_on=False
        )
    last = forecasts[-1]
    return draw(
        figure,
        title="Learning curve",
        description=f"Score {forecasts[0].mean:.2f} with {sizes[0]} training examples; "
        f"{last.mean:.2f} ({last.low:.2f} to {last.high:.2f}) foretold with {sizes[-1]}.",
    )


def _stages(curves: Mapping[str, Sequence[float]], name: str) -> dict[int, list[tuple[float, float]]]:
    """(step, loss) of each stage that has any, by the stage's place.

    Where no places are given, a step that is not beyond the one before it begins a new stage; places are then counted
    from the last one, 0, backwards: an early stage may have no held-out loss.
    """
    at, losses = curves.get(f"{name}_at", ()), curves.get(f"{name}_loss", ())
    places = [int(place) for place in curves.get(f"{name}_stage", ())]
    if not places:
        for before, step in zip((-math.inf, *at), at, strict=False):
            places.append(places[-1] + (step <= before) if places else 0)
        places = [place - places[-1] for place in places]
    stages: dict[int, list[tuple[float, float]]] = {}
    for place, step, loss in zip(places, at, losses, strict=False):
        if math.isfinite(step) and math.isfinite(loss):
            stages.setdefault(place, []).append((float(step), float(loss)))
    return stages


def _curve_axes(right: float, highest: float, *, x: str, y: str, least: float | None = None) -> tuple[Figure, Axes]:
    """Axes from 0 to a round number above `highest`; along x from 0, or logarithmic from `least`."""
    height, left, foot, top = 240.0, 44.0, 44.0, 34.0
    figure = _figure(height)
    axes = figure.add_axes(
        (left / WIDTH, foot / height, 1 - (left + 14) / WIDTH, 1 - (foot + top) / height), frameon=False
    )
    marks = ticks(highest)
    axes.set_ylim(0, marks[-1])
    if least is None:
        across = [mark for mark in ticks(right) if mark <= right] if right > 0 else [0.0]
        axes.set_xlim(0, max(right, 1))
    else:
        axes.set_xscale("log")
        axes.set_xlim(least, right)
        doublings = range(int(math.log2(right / least)) + 1)
        across = [least * 2**i for i in doublings][:: 1 + len(doublings) // 7]
    axes.set_axis_off()
    end = axes.get_xlim()
    for mark in marks:
        axes.plot(end, [mark, mark], color=COLOURS["grid"], linewidth=1, clip_on=False, zorder=0)
        _text(axes, -6, mark, f"{mark:g}", size=_SMALL, colour="muted", side="right", offset=(end[0], -4.0))
    for mark in across:
        _text(axes, 0, 0.0, f"{mark:g}", size=_SMALL, colour="muted", side="center", offset=(mark, -16.0))
    _text(axes, 0, 0.0, x, size=_SMALL, colour="muted", side="right", offset=(end[1], -34.0))
    figure.text(_MARGIN / WIDTH, 1 - 14 / height, y, **_style(_SMALL, "muted"))
    return figure, axes


# --- confusion -------------------------------------------------------------------------------------------------


def confusion_plot(counts: Mapping[str, Mapping[str, int]], *, field: str, most: int = MOST_VALUES) -> str:
    """How often each expected value (rows) was answered with which value (columns), as `summary.confusion` counts.

    Of more than `most` values the ones most often part of a mistake have a row and column of their own. Right answers
    lie on the diagonal, in another colour than mistakes; a cell is the darker the larger its share of the row. Raises
    InvalidInput for no counts.
    """
    if not counts:
        raise InvalidInput(f"There are no counts of '{field}' to draw.", param="counts")
    names = shown_values(counts, most)
    table = _lumped(counts, names)
    size = len(table)
    labels = [*names, *([_OTHERS] if size > len(names) else [])]
    widest = max(text_width(name) for name in labels) * _SMALL
    left = max(70.0, min(130.0, widest) + 16)
    cell = min(44.0, (WIDTH - left - _MARGIN) / size)
    top = min(110.0, widest) + 34
    height = top + cell * size + 10
    figure = _figure(height)
    axes = figure.add_axes((left / WIDTH, 10 / height, cell * size / WIDTH, cell * size / height), frameon=False)
    axes.set_xlim(0, size)
    axes.set_ylim(size, 0)
    axes.set_axis_off()
    for i in range(size + 1):
        axes.plot([0, size], [i, i], color=COLOURS["grid"], linewidth=1, clip_on=False)
        axes.plot([i, i], [0, size], color=COLOURS["grid"], linewidth=1, clip_on=False)
    number = min(_SMALL, cell * 0.5)
    for row, column in np.ndindex(size, size):
        count, all_of_row = int(table[row, column]), max(1, int(table[row].sum()))
        if count:
            mixed = row == column == len(names)  # right answers and mistakes among the others
            hue = "outside" if mixed else "candidate" if row == column else "prompt"
            shade = 0.15 + 0.45 * count / all_of_row
            axes.barh(row + 0.5, 1, 1, left=column, color=COLOURS[hue], alpha=shade, linewidth=0)
            _text(axes, column + 0.5, row + 0.5, f"{count}", size=number, side="center", middle=True)
    for place, name in enumerate(labels):
        _text(axes, -0.15, place + 0.5, label(name, left - 16, _SMALL), size=_SMALL, side="right", middle=True)
        x = place + 0.5 + 0.35 * _SMALL / cell
        axes.text(x, -0.15, label(name, top - 33, _SMALL), rotation=90, rotation_mode="anchor", **_style(_SMALL, "ink"))
    for x, y, text in ((left, height - 14, "answered →"), (_MARGIN, cell * size + 16, "expected ↓")):
        figure.text(x / WIDTH, y / height, text, **_style(_SMALL, "muted"))
    right = sum(row.get(value, 0) for value, row in counts.items())
    return draw(
        figure,
        title=f"Confusions of {field}",
        description=f"{right} of {sum(sum(row.values()) for row in counts.values())} values are right. "
        + "; ".join(f"{wanted} answered as {given}: {count}" for wanted, given, count in mistakes(counts)[:10]),
    )


def mistakes(counts: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str, int]]:
    """(expected, answered, how often) of all that was not right, the most frequent first."""
    found = [(wanted, given, n) for wanted, row in counts.items() for given, n in row.items() if given != wanted]
    return sorted(found, key=lambda item: (-item[2], item[0], item[1]))


def shown_values(counts: Mapping[str, Mapping[str, int]], most: int = MOST_VALUES) -> list[str]:
    """The values that have a row and a column of their own, in the order of the counts."""
    values = list(dict.fromkeys([*counts, *(given for row in counts.values() for given in row)]))
    wrong = dict.fromkeys(values, 0)
    for wanted, given, count in mistakes(counts):
        wrong[wanted] += count
        wrong[given] += count
    size = {value: sum(counts.get(value, {}).values()) for value in values}
    kept = set(sorted(values, key=lambda value: (-wrong[value], -size[value], value))[:most])
    return [value for value in values if value in kept]


def _lumped(counts: Mapping[str, Mapping[str, int]], names: Sequence[str]) -> np.ndarray[Any, Any]:
    """The counts as a square table, all other values in one last row and column, if there are any."""
    places = {name: place for place, name in enumerate(names)}
    others = len(names)
    table = np.zeros((others + 1, others + 1), dtype=int)
    for wanted, row in counts.items():
        for given, count in row.items():
            table[places.get(wanted, others), places.get(given, others)] += count
    return table if table[others].any() or table[:, others].any() else table[:others, :others]


# --- paper -----------------------------------------------------------------------------------------------------


def _figure(height: float) -> Figure:
    return Figure(figsize=(WIDTH / _DOTS, height / _DOTS), dpi=_DOTS, frameon=False)


def _text(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    *,
    size: float = _SIZE,
    colour: str = "ink",
    side: str = "left",
    weight: str = "normal",
    middle: bool = False,
    offset: tuple[float, float] | None = None,
) -> None:
    """A text with its baseline (or middle) at (x, y) in the axes' units; with `offset`, (x, dy): x and dy in points
    from the data point (offset[0], y)."""
    style = _style(size, colour) | {"fontweight": weight, "ha": side, "va": "center_baseline" if middle else "baseline"}
    if offset is None:
        axes.text(x, y, text, **style)
    else:
        axes.annotate(
            text, (offset[0], y), xytext=(x, offset[1]), textcoords="offset points", annotation_clip=False, **style
        )


def _style(size: float, colour: str) -> dict[str, Any]:
    """Of a text that is no mathematics, whatever stands in it."""
    return {"fontsize": size, "color": COLOURS[colour], "parse_math": False}


def _side(x: float) -> str:
    return "left" if x == 0 else "right" if x == 1 else "center"


def _legend(figure: Figure, entries: Sequence[tuple[str, str]]) -> None:
    """Names with a piece of line in their colour, at the top right."""
    height = float(figure.get_size_inches()[1]) * _DOTS
    x = WIDTH - 14.0
    for name, hue in reversed(entries):
        x -= text_width(name) * _SMALL
        figure.text(x / WIDTH, 1 - 14 / height, name, **_style(_SMALL, "ink"))
        figure.add_artist(_line(x - 22, x - 6, height - 10, height, COLOURS[hue]))
        x -= 34


def _line(left: float, right: float, y: float, height: float, colour: str) -> Line2D:
    return Line2D([left / WIDTH, right / WIDTH], [y / height, y / height], color=colour, linewidth=2.5)
