"""What a candidate may not break, whatever it scores: outcomes of candidate and reference in, `Guard`s out.

The reference is what would be served without the candidate. Each guard speaks only where its matter is part of the
skill: nothing on citations without citations, nothing on refusals where no field may be null. Guards do not know the
gate's rulings. They always judge with 95% confidence: that a candidate is the tenth one is no reason to look away.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from intern.learning.judging.attributes import Identity, Missed
from intern.learning.judging.comparison import shortened
from intern.learning.judging.metrics import normal_form, null_decisions
from intern.learning.judging.outcomes import Difference, Guard, Outcome
from intern.learning.judging.repetition import distinct_n, loops, texts
from intern.learning.judging.statistics import paired_difference, wilson
from intern.types import Json

VALID_FLOOR = 0.9  # share of answers that keep the schema, however bad the reference is
DISTINCT_FACTOR = 0.5  # distinct bigrams, as a share of the expected outputs' for the same requests
CONSTANT = 0.98  # share of answers that are one and the same
_LEAST_WORDS = 200  # of free text, to judge its variety
_USELESS = 0.5  # a reference that leaves out so many values that are there is no measure of leaving out

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
) -> tuple[Guard, ...]:
    """Every guard that applies. `called` is the reference's name in sentences ("the adapter in service").

    `refusal` declares how the skill says no to what is out of its scope; without it, leaving a field null is meant.
    `identities` are the candidate's and the reference's answers to the same questions about themselves.
    """
    found = [
        _schema(candidate, reference, called),
        _citations(candidate, reference, called),
        _refusals(candidate, reference, called, refusal),
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


def _citations(candidate: Sequence[Outcome], reference: Sequence[Outcome], called: str) -> Guard | None:
    change = _change(candidate, reference, lambda o: None if o.cited is None else float(o.cited))
    if change is None:
        return None
    share = fmean(outcome.cited for outcome in candidate if outcome.cited is not None)
    detail = f"{share:.0%} of the answers with citations cite only passages that were shown"
    if _fell(change):
        return Guard(name="citations", passed=False, detail=f"{detail}, {_against(change, called)}.")
    return Guard(name="citations", passed=True, detail=f"{detail}.")


def _refusals(
    candidate: Sequence[Outcome], reference: Sequence[Outcome], called: str, refusal: Refusal | None
) -> Guard | None:
    """Recall of what is rightly not answered must not fall beyond the interval."""

    def recall(outcome: Outcome) -> float | None:
        given = [said for right, said in _decisions(outcome, refusal) if right]
        return fmean(given) if given else None

    rates = [rate for outcome in candidate if (rate := recall(outcome)) is not None]
    if not rates:
        return None
    detail = f"{fmean(rates):.0%} of what the request does not tell is left out"
    needless = [said for outcome in reference for right, said in _decisions(outcome, refusal) if not right]
    if needless and fmean(needless) > _USELESS:
        more = f"{called} leaves out {fmean(needless):.0%} of what it does tell, and is no measure"
        return Guard(name="refusal", passed=True, detail=f"{detail}; {more}.")
    change = _change(candidate, reference, recall)
    if change is not None and _fell(change):
        return Guard(name="refusal", passed=False, detail=f"{detail}, {_against(change, called)}.")
    return Guard(name="refusal", passed=True, detail=f"{detail}.")


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


def _change(
    candidate: Sequence[Outcome], reference: Sequence[Outcome], measure: Callable[[Outcome], float | None]
) -> Difference | None:
    """The paired difference of a measure on the examples where both have one; None where there are none."""
    mine, other = (
        {outcome.example: value for outcome in outcomes if (value := measure(outcome)) is not None}
        for outcomes in (candidate, reference)
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
