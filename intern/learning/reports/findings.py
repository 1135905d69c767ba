"""What a report says: a run, its verdict and what is left of it in, one `Report` out, for `report.py` to write down.

Picks the answers to show, counts confusions and what was left out, and says what to do next. Decides nothing: the gate
did. A report quotes held-out requests and answers; see `report.py` on who may read it. Knows no HTML.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from intern.learning.judging.attributes import Distribution
from intern.learning.judging.comparison import Case, cases
from intern.learning.judging.guards import why
from intern.learning.judging.outcomes import (
    CANDIDATE,
    EXAMPLES_OF,
    PROMPT_ONLY,
    SERVING,
    Decision,
    Guard,
    Interval,
    Outcome,
    Ruling,
    Summary,
)
from intern.learning.judging.parity import Parity
from intern.learning.judging.probes import Consistency, Probed
from intern.learning.judging.repetition import Phrase
from intern.learning.judging.statistics import wilson
from intern.learning.judging.summary import confusion
from intern.learning.reports import plots
from intern.learning.reports.kept import Kept, Service
from intern.types import Dataset, Model, Run

if TYPE_CHECKING:
    from intern.learning.loop.judging import Verdict

VERSION = 1  # of the dict; a field may come in addition, a change of meaning counts it up
MOST_CONFUSIONS = 6  # fields
_MOST_VALUES = 50  # of a field that counts as enumerated
_MOST_MISTAKES = 10
_CHANCE = 0.05  # differences between distributions at least so likely are called chance
_MOST_DETAILS = 3  # of what was left out, for each reason

WHY = {  # an example was left out
    "empty": "input or output is empty",
    "breaks_schema": "the output breaks the schema",
    "contributor_cap": "too many of one contributor",
    "personal_data": "personal data could not be removed",
    "contradiction": "the same input has different outputs",
    "duplicate": "the same as another one",
    "near_duplicate": "nearly the same as another one",
    "heldout_copy": "nearly the same as a held-out one",
    "trained_group": "was trained on, and its thread is held out",
    "heldout_author": "the owners hold out its author or thread",
    "heldout_share": "belongs to held-out ones, half of which users brought",
    "synthetic_group": "written by a model, and its document is held out",
}


class RivalFacts(Model):
    """A rival's summary, and what its answers cost. None: nothing is known of its single answers."""

    name: str
    called: str
    kind: str
    summary: Summary
    prompt_tokens: float | None  # mean
    slowest: float | None  # seconds that 95% of the answers stay below


class LeftOut(Model):
    """Examples left out of the dataset for one reason, with a few of the details."""

    reason: str
    meaning: str
    count: int
    details: tuple[str, ...]


class Mistake(Model):
    expected: str
    answered: str
    count: int


class Confusions(Model):
    """An enumerated field of the candidate: counts by expected value, then by answered value."""

    field: str
    right: int
    total: int
    counts: Mapping[str, Mapping[str, int]]
    mistakes: tuple[Mistake, ...]


class Comparison(Model):
    """The candidate's answers beside those of `rival`, on the examples that both answered."""

    rival: str
    called: str
    better: int
    worse: int
    same: int
    regressions: tuple[Case, ...]
    gains: tuple[Case, ...]


class AttributeShares(Model):
    """One attribute: the share of each value by rival, what it is compared with, and a sentence on each rival."""

    name: str
    rivals: tuple[str, ...]
    reference: Mapping[str, float]
    shares: Mapping[str, Mapping[str, Interval]]  # by value, then by rival
    said: tuple[str, ...]


class SelfAnswers(Model):
    """What is wrong with the answers to questions about itself, '' for nothing; by question, then by rival.

    Questions that every rival answers right are left out. `right` are all that a rival has right, of `n`.
    """

    n: int
    right: Mapping[str, int]
    wrong: Mapping[str, Mapping[str, str]]


class Report(Model):
    """Everything that a report says. Rivals come in the order: candidate, in service, prompt-only, outside."""

    version: int = VERSION
    run: Run
    skill_title: str
    service: Service | None  # None: there is no adapter
    decision: Decision | None  # None: there was no candidate to decide about
    reason: str
    next_steps: tuple[str, ...]
    ruling: Ruling | None
    looks: int
    rivals: tuple[RivalFacts, ...]
    unanswered: tuple[str, ...]  # rivals without a single outcome
    side_by_side: tuple[str, ...]  # rivals whose fields are compared
    comparison: Comparison | None
    confusions: tuple[Confusions, ...]
    phrases: tuple[Phrase, ...]
    attributes: tuple[AttributeShares, ...]
    identity: SelfAnswers | None
    consistency: Mapping[str, Consistency]
    parity: Parity | None
    dataset: Dataset | None
    left_out: tuple[LeftOut, ...]
    curves: Mapping[str, tuple[float | None, ...]]

    @property
    def guards(self) -> tuple[Guard, ...]:
        return self.ruling.guards if self.ruling else ()

    @property
    def confidence(self) -> float:
        """Of the differences that decide; 0.95 where there are none."""
        found = self.ruling.differences if self.ruling else ()
        return found[0].interval.confidence if found else 0.95


def report_of(run: Run, verdict: Verdict, kept: Kept) -> Report:
    """Everything worth saying."""
    ruling = verdict.ruling
    dataset, outcomes = kept.dataset, kept.outcomes
    answered = {name: some for name, some in outcomes.items() if some}
    rivals = [_rival(name, verdict.rivals[name], answered.get(name, ())) for name in _ordered(verdict.rivals)]
    candidate = answered.get(CANDIDATE, ())
    best = _best_prompt(verdict)
    probes = {name: verdict.probes[name] for name in _ordered(verdict.probes)} if verdict.probes else {}
    return Report(
        run=run,
        skill_title=kept.skill_title,
        service=kept.service,
        decision=ruling.decision if ruling else None,
        reason=ruling.reason if ruling else _without_ruling(rivals, verdict.other),
        next_steps=tuple(_next_steps(run, ruling, best, kept.service)),
        ruling=ruling,
        looks=verdict.looks,
        rivals=tuple(rivals),
        unanswered=tuple(name for name in outcomes if name not in answered and name not in verdict.rivals),
        side_by_side=tuple(name for name in (CANDIDATE, SERVING, best) if name in verdict.rivals and name is not None),
        comparison=_comparison({name: some for name, some in answered.items() if name in verdict.rivals}, best),
        confusions=tuple(_confusions(candidate)),
        phrases=verdict.phrases.get(CANDIDATE if CANDIDATE in verdict.rivals else SERVING, ()),
        attributes=tuple(_attributes(probes)),
        identity=_identity(probes),
        consistency={name: probed.consistency for name, probed in probes.items() if probed.consistency},
        parity=verdict.parity,
        dataset=dataset,
        left_out=tuple(_left_out(dataset)) if dataset else (),
        curves={name: tuple(v if math.isfinite(v) else None for v in values) for name, values in kept.curves.items()},
    )


# --- the facts -------------------------------------------------------------------------------------------------


def _ordered(rivals: Mapping[str, object]) -> list[str]:
    first = [name for name in (CANDIDATE, SERVING, *PROMPT_ONLY) if name in rivals]
    return [*first, *(name for name in rivals if name not in first)]


def _rival(name: str, summary: Summary, outcomes: Sequence[Outcome]) -> RivalFacts:
    timed = [outcome.seconds for outcome in outcomes if outcome.seconds > 0]  # what was remembered took none
    return RivalFacts(
        name=name,
        called=plots.called(name),
        kind=plots.kind(name),
        summary=summary,
        prompt_tokens=fmean(outcome.prompt_tokens for outcome in outcomes) if outcomes else None,
        slowest=float(np.quantile(timed, 0.95)) if timed else None,
    )


def _best_prompt(verdict: Verdict) -> str | None:
    if verdict.ruling is not None and verdict.ruling.best_prompt is not None:
        return verdict.ruling.best_prompt
    names = [name for name in PROMPT_ONLY if name in verdict.rivals]
    return max(names, key=lambda name: verdict.rivals[name].score.mean, default=None)


def _without_ruling(rivals: Sequence[RivalFacts], other: str | None) -> str:
    if not rivals:
        return "Nothing was evaluated."
    best = max(rivals, key=lambda rival: rival.summary.score.mean)
    score = plots.interval_text(best.summary.score)
    judged = "There was no new adapter to judge." if other is None else f"The candidate is {other}."
    return f"{best.called} scores best: {score} on {best.summary.n} examples. {judged}"


def _comparison(outcomes: Mapping[str, Sequence[Outcome]], best: str | None) -> Comparison | None:
    """Against the adapter in service; where there is none, against the best prompt-only rival."""
    rival = next((name for name in (SERVING, best, *PROMPT_ONLY) if name and name in outcomes), None)
    if rival is None or CANDIDATE not in outcomes:
        return None
    before = {outcome.example: outcome.score for outcome in outcomes[rival]}
    changes = [after.score - before[after.example] for after in outcomes[CANDIDATE] if after.example in before]
    if not changes:
        return None
    regressions, gains = cases(outcomes[CANDIDATE], outcomes[rival])
    better, worse = sum(change > 1e-9 for change in changes), sum(change < -1e-9 for change in changes)
    return Comparison(
        rival=rival,
        called=plots.called(rival),
        better=better,
        worse=worse,
        same=len(changes) - better - worse,
        regressions=tuple(regressions),
        gains=tuple(gains),
    )


def _confusions(candidate: Sequence[Outcome]) -> list[Confusions]:
    found = []
    for field in enumerated_fields(candidate)[:MOST_CONFUSIONS]:
        counts = confusion(candidate, field)
        wrong = [Mistake(expected=e, answered=a, count=n) for e, a, n in plots.mistakes(counts)]
        found.append(
            Confusions(
                field=field,
                right=sum(row.get(value, 0) for value, row in counts.items()),
                total=sum(sum(row.values()) for row in counts.values()),
                counts=counts,
                mistakes=tuple(wrong[:_MOST_MISTAKES]),
            )
        )
    return found


def enumerated_fields(outcomes: Sequence[Outcome]) -> list[str]:
    """Scored fields whose expected values look like a choice from a list, judged by the outcomes alone.

    They are texts, booleans or null, right or wrong and nothing between, and at most 50 values stand twice on average.
    """
    found = []
    for field in dict.fromkeys(name for outcome in outcomes for name in outcome.fields):
        having = [o for o in outcomes if field in o.fields and isinstance(o.expected, Mapping)]
        values = [outcome.expected.get(field) for outcome in having]
        different = {v for v in values if isinstance(v, str | bool)}
        whole = all(outcome.fields[field] in (0.0, 1.0) for outcome in having)
        choice = all(v is None or isinstance(v, str | bool) for v in values)
        if whole and choice and 2 <= len(different) <= min(_MOST_VALUES, len(values) // 2):
            found.append(field)
    return found


def _attributes(probes: Mapping[str, Probed]) -> list[AttributeShares]:
    by_name: dict[str, dict[str, Distribution]] = defaultdict(dict)
    for rival, probed in probes.items():
        for found in probed.attributes:
            by_name[found.name][rival] = found
    shown = []
    for name, rivals in by_name.items():
        reference = {share.value: share.reference for found in rivals.values() for share in found.shares}
        known = {rival: {share.value: share.share for share in found.shares} for rival, found in rivals.items()}
        shown.append(
            AttributeShares(
                name=name,
                rivals=tuple(rivals),
                reference=reference,
                shares={
                    value: {rival: known[rival].get(value) or wilson(0, found.n) for rival, found in rivals.items()}
                    for value in reference
                },
                said=tuple(f"{plots.called(rival)}: {_apart(found)}" for rival, found in rivals.items()),
            )
        )
    return shown


def _apart(found: Distribution) -> str:
    if found.p >= _CHANCE:
        return "no further from the reference than chance explains."
    return (
        f"{found.distance.mean:.0%} of the answers would have to change to be like the reference, more than chance "
        f"explains ({found.chance:.0%})."
    )


def _identity(probes: Mapping[str, Probed]) -> SelfAnswers | None:
    answered = {rival: probed.identity for rival, probed in probes.items() if probed.identity is not None}
    if not answered:
        return None
    n = max(found.share.n for found in answered.values())
    wrong = {rival: {missed.question: why(missed) for missed in found.missed} for rival, found in answered.items()}
    questions = dict.fromkeys(question for missed in wrong.values() for question in missed)
    return SelfAnswers(
        n=n,
        right={rival: n - len(missed) for rival, missed in wrong.items()},
        wrong={question: {rival: wrong[rival].get(question, "") for rival in answered} for question in questions},
    )


def _left_out(dataset: Dataset) -> list[LeftOut]:
    details: dict[str, list[str]] = defaultdict(list)
    for dropped in dataset.dropped:
        details[dropped.reason].append(dropped.detail)
    return [
        LeftOut(
            reason=reason,
            meaning=WHY.get(reason, reason.replace("_", " ")),
            count=count,
            details=tuple(dict.fromkeys(details[reason]))[:_MOST_DETAILS],
        )
        for reason, count in sorted(Counter(d.reason for d in dataset.dropped).items(), key=lambda r: (-r[1], r[0]))
    ]


def _next_steps(run: Run, ruling: Ruling | None, best: str | None, service: Service | None) -> list[str]:
    adapter = run.adapter or "the adapter"
    if ruling is None:
        return []
    if ruling.decision == "promote":
        return _of_promoted(adapter, run.skill, service)
    stays = "What is in service stays in service."
    if service is not None and service.state == "serves":  # a person let it serve all the same
        stays = (
            f"{adapter} serves now, since somebody promoted it; `intern adapters rollback {run.skill}` takes it back."
        )
    if ruling.decision == "reject":
        broken = [guard.name for guard in ruling.guards if not guard.passed]
        return [
            stays,
            *([f"First mend what broke a guard: {', '.join(broken)}."] if broken else []),
            "Read the worst regressions below: examples that contradict each other, or are missing for such requests, "
            "are the usual reason. Correct or add them, then learn again.",
        ]
    if ruling.decision == "inconclusive":
        if ruling.collect:
            return [
                stays,
                f"Collect about {ruling.collect:,} more held-out examples, by reviews or by an import; part of all new "
                "examples is held out by itself. Then learn again.",
            ]
        return [stays, "Collect more examples to train on, of the kinds that go wrong below, and learn again."]
    shots = EXAMPLES_OF.get(best or "")
    return [
        f"{adapter} is not needed. {stays}",
        f"{plots.called(best or 'base')} does as well."
        + (f" To serve that quality, put `prompting: {{examples: {shots}}}` into skill.yaml." if shots else ""),
        "Learn again when requests or expected answers change.",
    ]


def _of_promoted(adapter: str, skill: str, service: Service | None) -> list[str]:
    """Next steps where the gate said promote: by what has become of it since."""
    state = service.state if service is not None else "waits"
    promote, rollback = f"`intern adapters promote {adapter}`", f"`intern adapters rollback {skill}`"
    if state == "serves":
        return [
            f"Nothing has to be done: {adapter} serves.",
            "Read the worst regressions below. Where such requests matter, correct the answers when they come up for "
            "review: the next run learns from them.",
            f"{rollback} brings back what served before, at any time.",
        ]
    if state == "gone":
        return [f"Nothing can be done: {adapter} went with its skill, which was deleted."]
    if state == "going":
        return [f"The run has not ended: whether {adapter} goes into service is decided at its end."]
    if state == "served":
        return [
            f"{adapter} has served, and does not serve any more: something else was put into service since.",
            f"{promote} puts it into service again.",
        ]
    first = "Read the worst regressions below first."
    why = service.why if service is not None else ""
    return [
        f"{adapter} did not go into service: {why} {first}"
        if why
        else f"{adapter} waits for somebody to approve it. {first}",
        f"{promote} puts it into service, {rollback} takes it out again.",
    ]
