"""The report of a verdict: for people one HTML page that needs nothing else, for machines the same facts as a dict.

In: the run, its verdict, and what is left of it: the dataset, the curves, every rival's outcomes. What is missing is
left out and said so. Out: text; nothing is written or fetched. `findings.py` chooses what is said, `plots.py` draws.

**A report quotes held-out requests and answers.** It is for people who may read the skill's examples, and belongs where
its run's files are; what was erased from a dataset later still stands in reports made before. Answers are hostile
input: everything is escaped, and the page forbids itself scripts and the network.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from intern.learning.judging.outcomes import Decision, Interval
from intern.learning.reports import plots
from intern.learning.reports.findings import report_of
from intern.learning.reports.kept import Kept
from intern.learning.reports.svg import COLOURS, DARK, allowed
from intern.types import Json, Run

if TYPE_CHECKING:
    from intern.learning.judging.growth import Growth
    from intern.learning.loop.judging import Verdict

HEADLINES: Mapping[Decision | None, tuple[str, str]] = {
    "promote": ("Promote", "The new adapter is better than everything that it was compared with."),
    "reject": ("Reject", "The new adapter does not go into service."),
    "inconclusive": ("Not decided", "The held-out examples cannot tell whether the new adapter is better."),
    "prompting_is_enough": ("Prompting is enough", "Training brings nothing that counts beyond a good prompt."),
    None: ("Compared", "No new adapter was judged."),
}


def render_html(run: Run, verdict: Verdict, kept: Kept) -> str:
    """One page: no file, script or network beside it. Quotes held-out data: see the module's docstring."""
    report = report_of(run, verdict, kept)
    summaries = {rival.name: rival.summary for rival in report.rivals}
    compared = {name: summaries[name] for name in report.side_by_side}
    fields = list(dict.fromkeys(field for summary in compared.values() for field in summary.metrics))
    curve = plots.curve_plot(kept.curves)
    page = _template().render(
        report=report,
        compared=compared,
        fields=fields,
        drawn=plots.shown_fields(compared),
        rival_bars=Markup(plots.rival_bars(summaries)) if summaries else None,
        field_bars=Markup(plots.field_bars(compared)) if fields else None,
        curve_plot=Markup(curve) if curve else None,
        growth=verdict.growth,
        growth_plot=Markup(_growth_plot(verdict.growth)) if verdict.growth else None,
        confusion_plots=[Markup(plots.confusion_plot(c.counts, field=c.field)) for c in report.confusions],
        light=COLOURS,
        dark=DARK,
    )
    return allowed(page)


def _growth_plot(growth: Growth) -> str:
    measured = [(size, score.mean) for size, score in growth.scores.items()]
    return plots.learning_curve_plot(growth.curve, measured, most=max(growth.scores) + 4 * growth.more)


def render_json(run: Run, verdict: Verdict, kept: Kept) -> dict[str, Json]:
    """The fields of `Report` as JSON values, and `growth`, the verdict's learning curve. Quotes held-out data as
    well."""
    report = report_of(run, verdict, kept)
    growth = None if verdict.growth is None else verdict.growth.model_dump(mode="json")
    found: dict[str, Json] = _cleaned({**report.model_dump(mode="json"), "growth": growth})
    return found


# --- words and markup ------------------------------------------------------------------------------------------


def _signed(value: float) -> str:
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def _difference(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return _signed(interval.mean)
    return f"{_signed(interval.mean)} ({_signed(interval.low)} to {_signed(interval.high)})"


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}" if value in (0, 1) else f"{value:.1%}"


def _share(interval: Interval) -> str:
    span = "" if interval.low is None or interval.high is None else f" ({interval.low:.0%} to {interval.high:.0%})"
    return f"{interval.mean:.0%}{span}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _moment(when: datetime | None) -> str:
    return "–" if when is None else when.strftime("%d %B %Y, %H:%M %Z").lstrip("0")


def _code(text: str) -> Markup:
    """Escaped, with what stands between backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return Markup(Markup.escape(text))
    pieces = (Markup("<code>{}</code>").format(p) if i % 2 else Markup.escape(p) for i, p in enumerate(parts))
    return Markup("").join(pieces)


def _cleaned(value: Json) -> Json:
    """Without lone surrogates and control characters, which no file in UTF-8, or no XML, could hold."""
    if isinstance(value, str):
        return allowed(value)
    if isinstance(value, dict):
        return {allowed(key): _cleaned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    return value


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("intern.learning.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "interval": plots.interval_text,
        "difference": _difference,
        "signed": _signed,
        "p": _p,
        "percent": _percent,
        "share": _share,
        "duration": _duration,
        "moment": _moment,
        "code": _code,
        "called": plots.called,
    }
    environment.filters.update(filters)
    environment.globals.update(headlines=HEADLINES, limits={"fields": plots.MOST_FIELDS, "values": plots.MOST_VALUES})
    return environment.get_template("report.html")
