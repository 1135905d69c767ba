"""What a candidate may not break, whatever it scores: outcomes of candidate and reference in, `Guard`s out.

The reference is what would be served without the candidate. Each guard speaks only where its matter is part of the
skill: nothing on grounding without documents, nothing on refusals where no held-out example is to be refused, or the
answers are plain text, in which saying no looks like any other sentence. Guards do not know the gate's rulings. They
always judge with 95% confidence: that a candidate is the tenth one is no reason to look away.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from intern.learning.judging.attributes import Identity, Missed
from intern.learning.judging.comparison import shortened
from intern.learning.judging.metrics import normal_form, null_decisions
from intern.learning.judging.outcomes import Difference, Guard, Outcome
from intern.learning.judging.repetition import distinct_n, loops, texts
from intern.learning.judging.statistics import clustered_mean, paired_difference, wilson
from intern.types import Json

VALID_FLOOR = 0.9  # share of answers that keep the schema, however bad the reference is
DISTINCT_FACTOR = 0.5  # distinct bigrams, as a share of the expected outputs' for the same requests
CONSTANT = 0.98  # share of answers that are one and the same
_LEAST_WORDS = 200  # of free text, to judge its variety
REFUSAL_FLOOR = 0.5  # share of what is to be left out that is left out, however bad the reference is
_MOST_LOST = 0.05  # of the share of words that stand in what is cited: other words for the same are no harm
_USELESS = 0.5  # a rival that leaves out more of the values that are there is no measure of leaving out
_TELLS = 0.2  # nor is one whose recall is not higher by so much: it leaves out everything, nothing, or by lot

FORGOTTEN = 2  # questions about itself that a candidate may not get wrong on balance, or FORGOTTEN_SHARE of all
FORGOTTEN_SHARE = 0.1
_NAMED = 3  # questions in a sentence
_CHARACTERS = 120  # of each

Refusal = tuple[str, Json]  # (field, value) that says no, such as ("found", False)


def check_guards(
    candidate: Sequence[Outcome],
    reference: Sequence[Outcome],
    called: str,
    refusal: Refusal | None = None,
    identities: tuple[Identity, Identity] | None = None,
    prompts: Mapping[str, Sequence[Outcome]] | None = None,
) -> tuple[Guard, ...]:
    """Every guard that applies. `called` is the reference's name in sentences ("the adapter in service").

    `refusal` declares how the skill says no to what is out of its scope; without it, leaving a field null is meant.
    `identities` are the candidate's and the reference's answers to the same questions about themselves. `prompts` are
    the outcomes of prompt-only rivals, by their names in sentences: who refuses best of them stands in for a reference
    that refuses everything, or nothing.
    """
    found = [
        _schema(candidate, reference, called),
        _grounding(candidate, reference, called),
        _refusals(candidate, {called: reference}, prompts or {}, refusal),
        _variety(candidate),
        _loops(candidate),
        _constant(candidate),
        None if identities is None else _identity(*identities, called),
    ]
    return tuple(guard for guard in found if guard is not None)


def _schema(candidate: Sequence[Outcome], reference: Sequence[Outcome], called: str) -> Guard:
    share = fmean(outcome.valid for outcome in candidate)
    change = _change(candidate, reference, lambda outcome: float(outcome.valid))
    detail = f"{share:.0%} of the answers keep the schema"
    if share < VALID_FLOOR:
        return Guard(name="schema", passed=False, detail=f"Only {detail}; at least {VALID_FLOOR:.0%} must.")
    if change is not None and _fell(change):
        return Guard(name="schema", passed=False, detail=f"{detail}, {_against(change, called)}.")
    return Guard(name="schema", passed=True, detail=f"{detail}.")


def _grounding(candidate: Sequence[Outcome], reference: Sequence[Outcome], called: str) -> Guard | None:
    """What answers say must stand in what they cite, as far as with the reference or in the expected outputs, whichever
    asks for less: a reference that copies passages, or cites all of them, is no reason to. Losing up to _MOST_LOST is
    borne. And the right ones be cited.
    """
    against = _change(candidate, reference, lambda o: o.support)
    expected = _change(candidate, candidate, lambda o: o.support, lambda o: o.support_expected)
    support = [(change, of) for change, of in ((against, called), (expected, "the expected outputs")) if change]
    sources = _change(candidate, reference, lambda o: o.sources)
    details = []
    broken = False
    if support:
        share = fmean(outcome.support for outcome in candidate if outcome.support is not None)
        details.append(f"{share:.0%} of what the answers say stands in the passages that they rest on")
        broken = all(_fell(change) and change.interval.mean < -_MOST_LOST for change, _ in support)
        if broken:
            details[-1] += "".join(f", {_against(change, of)}" for change, of in support)
    if sources:
        share = fmean(outcome.sources for outcome in candidate if outcome.sources is not None)
        details.append(f"{share:.0%} of the sources are right")
        if _fell(sources):
            details[-1] += f", {_against(sources, called)}"
    if not details:
        return None
    passed = not broken and not (sources and _fell(sources))
    return Guard(name="grounding", passed=passed, detail=f"{'; '.join(details)}.")


@dataclass(frozen=True)
class _Refusing:
    """How a rival says no: the share of what is to be left out that it leaves out, and of what is not."""

    recall: float
    needless: float

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], refusal: Refusal | None) -> _Refusing:
        decisions = [decision for outcome in outcomes for decision in _decisions(outcome, refusal)]
        rightly, wrongly = ([said for right, said in decisions if right is side] for side in (True, False))
        return cls(recall=fmean(rightly) if rightly else 0.0, needless=fmean(wrongly) if wrongly else 0.0)

    @property
    def informed(self) -> float:
        """Youden's J (1950): 0 for a rival that leaves out everything, nothing, or by lot."""
        return self.recall - self.needless

    @property
    def usable(self) -> bool:
        return self.needless <= _USELESS and self.informed >= _TELLS


def _refusals(
    candidate: Sequence[Outcome],
    reference: Mapping[str, Sequence[Outcome]],
    prompts: Mapping[str, Sequence[Outcome]],
    refusal: Refusal | None,
) -> Guard | None:
    """Recall of what is rightly not answered must not fall beyond the interval, nor lie below the floor beyond it."""

    def recall(outcome: Outcome) -> float | None:
        given = [said for right, said in _decisions(outcome, refusal) if right]
        return fmean(given) if given else None

    rates = {outcome.example: rate for outcome in candidate if (rate := recall(outcome)) is not None}
    if not rates:
        return None
    share = clustered_mean(list(rates.values()), [o.group for o in candidate if o.example in rates])
    detail = f"{share.mean:.0%} of what the request does not tell is left out"
    if share.high is not None and share.high < REFUSAL_FLOOR:
        return Guard(name="refusal", passed=False, detail=f"Only {detail}; at least {REFUSAL_FLOOR:.0%} must be.")
    (called,) = reference
    measure, more = _measure(reference, prompts, refusal)
    if measure is None:
        return Guard(name="refusal", passed=True, detail=f"{detail}; {more}.")
    outcomes = reference[called] if measure == called else prompts[measure]
    change = _change(candidate, outcomes, recall)
    if change is not None and _fell(change):
        return Guard(name="refusal", passed=False, detail=f"{detail}, {_against(change, measure)}.")
    return Guard(name="refusal", passed=True, detail=f"{detail}{f'; {more}' if more else ''}.")


def _measure(
    reference: Mapping[str, Sequence[Outcome]], prompts: Mapping[str, Sequence[Outcome]], refusal: Refusal | None
) -> tuple[str | None, str]:
    """Whose refusals are the measure, if anybody's, and what there is to say about the reference's."""
    ((called, outcomes),) = reference.items()
    own = _Refusing.of(outcomes, refusal)
    if own.usable:
        return called, ""
    rates = f"{own.recall:.0%} of that and {own.needless:.0%} of what it does tell"
    said = f"{called} leaves out {rates}, and is no measure"
    others = {name: _Refusing.of(some, refusal) for name, some in prompts.items()}
    best = max((name for name in others if others[name].usable), key=lambda name: others[name].informed, default=None)
    return best, said


def _variety(candidate: Sequence[Outcome]) -> Guard | None:
    """Against the expected outputs of the same requests, since more text always has fewer distinct bigrams."""
    expected = distinct_n(outcome.expected for outcome in candidate)
    given = distinct_n(outcome.output for outcome in candidate)
    size = sum(len(text.split()) for outcome in candidate for text in texts(outcome.expected))
    if expected is None or size < _LEAST_WORDS:
        return None
    passed = given is None or given >= DISTINCT_FACTOR * expected
    seen = "no word pairs at all" if given is None else f"{given:.0%} of the word pairs in the answers are distinct"
    return Guard(name="variety", passed=passed, detail=f"{seen}, against {expected:.0%} in the expected outputs.")


def _loops(candidate: Sequence[Outcome]) -> Guard:
    given = {o.example: float(loops(o.output)) for o in candidate}
    expected = {o.example: float(loops(o.expected)) for o in candidate}
    change = paired_difference(given, expected, {o.example: o.group for o in candidate}, name="expected")
    rises = change.interval.low is not None and change.interval.low > 0
    detail = (
        f"{fmean(given.values()):.0%} of the answers repeat themselves over and over, "
        f"and {fmean(expected.values()):.0%} of the expected outputs."
    )
    return Guard(name="loops", passed=not rises, detail=detail)


def _constant(candidate: Sequence[Outcome]) -> Guard:
    n = len(candidate)
    given = Counter(normal_form(outcome.output) for outcome in candidate).most_common(1)[0][1]
    expected = Counter(normal_form(outcome.expected) for outcome in candidate).most_common(1)[0][1]
    right = wilson(expected, n).high or 0.0
    passed = given < CONSTANT * n or right >= CONSTANT or n < 2
    detail = f"The most frequent answer is given to {given} of {n} requests, and should be to {expected}."
    return Guard(name="constant", passed=passed, detail=detail)


def _identity(candidate: Identity, reference: Identity, called: str) -> Guard:
    """The declared questions are all that there are, and no sample of others: they are counted, without an interval."""
    of = candidate.share.n
    known = {missed.question for missed in reference.missed}
    forgotten = [missed for missed in candidate.missed if missed.question not in known]
    right, before = of - len(candidate.missed), of - len(reference.missed)
    passed = before - right < max(FORGOTTEN, math.ceil(FORGOTTEN_SHARE * of)) and not (right == 0 and before > 0)
    detail = f"{right} of {of} questions about itself are answered right, against {before} with {called}"
    if passed:
        return Guard(name="identity", passed=True, detail=f"{detail}.")
    named = "; ".join(f"'{shortened(missed.question, _CHARACTERS)}' ({why(missed)})" for missed in forgotten[:_NAMED])
    more = f"; and {len(forgotten) - _NAMED} more" if len(forgotten) > _NAMED else ""
    return Guard(name="identity", passed=False, detail=f"Only {detail}. No longer right: {named}{more}.")


def why(missed: Missed) -> str:
    """What is wrong with an answer: 'lacks Ada; says assistant'."""
    parts = [("lacks", missed.lacks), ("says", missed.says)]
    return "; ".join(f"{verb} {', '.join(phrases)}" for verb, phrases in parts if phrases)


def _decisions(outcome: Outcome, refusal: Refusal | None) -> list[tuple[bool, bool]]:
    """(saying no was right, no was said) of one outcome."""
    if refusal is None:
        return null_decisions(outcome.expected, outcome.output, outcome.fields)
    if not isinstance(outcome.expected, Mapping):
        return []
    field, value = refusal
    no = normal_form(value)
    said = isinstance(outcome.output, Mapping) and normal_form(outcome.output.get(field)) == no
    return [(normal_form(outcome.expected.get(field)) == no, said)]


Measure = Callable[[Outcome], float | None]


def _change(
    candidate: Sequence[Outcome], reference: Sequence[Outcome], measure: Measure, other_measure: Measure | None = None
) -> Difference | None:
    """The paired difference of a measure on the examples where both have one; None where there are none."""
    mine, other = (
        {outcome.example: value for outcome in outcomes if (value := read(outcome)) is not None}
        for outcomes, read in ((candidate, measure), (reference, other_measure or measure))
    )
    if not mine.keys() & other.keys():
        return None
    return paired_difference(mine, other, {outcome.example: outcome.group for outcome in candidate})


def _fell(change: Difference) -> bool:
    return change.interval.high is not None and change.interval.high < 0


def _against(change: Difference, called: str) -> str:
    interval = change.interval
    points = (
        f"{-100 * interval.mean:.0f} points ({-100 * (interval.high or 0):.0f} to {-100 * (interval.low or 0):.0f})"
    )
    return f"{points} fewer than with {called}"
