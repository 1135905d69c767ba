"""The gate: every rival's outcomes on the same held-out examples in, a `Ruling` with its reason in plain words out.

An adapter goes live only when it is better, beyond the interval, than the one in service and than every prompt-only
rival, and breaks no guard. "Better than every one" needs no correction for how many there are (an intersection-union
test, Berger 1982), and does not depend on which of them was luckiest on these examples, as a comparison with "the best"
picked by its score would. Candidates that were judged on the same examples before do need one: see `confidence_for`.
Does not know engines, files, or what happens to the candidate afterwards.

In this order:
1. fewer than `least_groups` independent groups of held-out examples: inconclusive;
2. a guard is broken: reject;
3. prompting is enough: some prompt-only rival is good by itself (its interval lies above `good`, its score not below
   that of the adapter in service) and training brings nothing beyond it: the whole interval of the difference lies
   below `negligible`; or less than `negligible` is left to gain; or as many held-out examples were judged by as ever
   are, the difference on them is below `negligible`, and its interval below `slight`;
4. worse than the adapter in service or than a prompt-only rival, beyond the interval: reject;
5. better than each of them, beyond the interval: promote;
6. otherwise inconclusive, with how many more held-out examples would tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pydantic import Field

from intern.errors import InvalidInput
from intern.learning.judging.attributes import Identity
from intern.learning.judging.guards import Refusal, check_guards
from intern.learning.judging.outcomes import (
    CANDIDATE,
    PROMPT_ONLY,
    SERVING,
    Difference,
    Interval,
    Outcome,
    Ruling,
    incumbent,
)
from intern.learning.judging.statistics import MOST_NEEDED, clustered_mean, paired_difference
from intern.types import Model

_TOO_MANY = 1_000  # more held-out examples than it makes sense to ask for

CALLED = {
    "base": "the base model alone",
    "few-shot": "fixed examples in the prompt",
    "retrieval": "the nearest examples in the prompt",
    SERVING: "the adapter in service",
}


class GateSettings(Model):
    """What the gate goes by. `field` is the deciding output field; None is the mean over all scored fields. `examples`
    are those that the skill has in its base model's prompt (`prompting.examples`)."""

    field: str | None = None
    least_groups: int = Field(default=30, ge=2)
    examples: str = "none"
    negligible: float = Field(default=0.01, ge=0, le=1)
    slight: float = Field(default=0.05, ge=0, le=1)
    good: float = Field(default=0.5, ge=0, le=1)
    most_judged: int | None = None  # held-out examples that rivals answer at most; more of them decide nothing
    refusal: Refusal | None = None  # (field, value) by which the skill says no; None: a field left null


def decide(
    outcomes: Mapping[str, Sequence[Outcome]],
    *,
    settings: GateSettings | None = None,
    confidence: float = 0.95,
    identities: Mapping[str, Identity] | None = None,
) -> Ruling:
    """Judge the candidate. `outcomes` is rival's name to its outcomes, one for each held-out example.

    There must be a candidate and at least one prompt-only rival; outside systems are compared and decide nothing. What
    the engine failed to answer counts against the candidate, and never for it: a rival's failures are left out.
    `confidence` is that of all intervals: `confidence_for(k)` for the k-th candidate on the same held-out examples.
    `identities` are answers to questions about itself, by rival; they count where candidate and reference have them.
    Raises InvalidInput when a rival is missing, has an example twice, or shares none with the candidate.
    """
    settings = settings or GateSettings()
    outcomes = {
        name: [outcome for outcome in some if name == CANDIDATE or not outcome.failed]
        for name, some in outcomes.items()
    }
    prompts = [name for name in PROMPT_ONLY if outcomes.get(name)]
    if not outcomes.get(CANDIDATE) or not prompts:
        missing = "candidate" if not outcomes.get(CANDIDATE) else f"prompt-only rival ({', '.join(PROMPT_ONLY)})"
        raise InvalidInput(f"There are no outcomes of a {missing}; the gate compares the two.", param="outcomes")
    return _Case(outcomes, prompts, settings, confidence, identities or {}).rule()


class _Case:
    """One candidate before the gate: all that its ruling rests on, computed once."""

    def __init__(
        self,
        outcomes: Mapping[str, Sequence[Outcome]],
        prompts: Sequence[str],
        settings: GateSettings,
        confidence: float,
        identities: Mapping[str, Identity],
    ) -> None:
        self.settings = settings
        candidate = outcomes[CANDIDATE]
        self.judged = len(candidate)
        groups = {outcome.example: outcome.group for outcome in candidate}
        scores = {name: _scores(name, some, settings.field) for name, some in outcomes.items() if some}
        self.differences = {
            name: paired_difference(scores[CANDIDATE], values, groups, name=name, confidence=confidence)
            for name, values in scores.items()
            if name != CANDIDATE
        }
        self.means = {
            name: clustered_mean(
                [values[e] for e in groups if e in values], [groups[e] for e in groups if e in values], confidence
            )
            for name, values in scores.items()
        }
        self.prompts = prompts
        self.best = max(prompts, key=lambda name: self.means[name].mean)
        self.judges = [*prompts, *([SERVING] if SERVING in scores else [])]
        reference = incumbent(scores, settings.examples) or self.best
        both = (identities.get(CANDIDATE), identities.get(reference))
        self.guards = check_guards(
            candidate,
            outcomes[reference],
            CALLED[reference],
            settings.refusal,
            (both[0], both[1]) if both[0] is not None and both[1] is not None else None,
            {CALLED[name]: outcomes[name] for name in prompts},
        )

    def rule(self) -> Ruling:
        groups = min(self.differences[name].interval.groups for name in self.judges)
        if groups < self.settings.least_groups:
            return self._too_few(groups)
        if broken := [guard for guard in self.guards if not guard.passed]:
            more = f" {self._compared(self.best)}."
            return self._ruling("reject", " ".join(guard.detail for guard in broken) + more)
        if enough := [name for name in self.prompts if self._is_enough(name)]:
            name = max(enough, key=lambda name: self.means[name].mean)
            mean = self.means[name]
            return self._ruling(
                "prompting_is_enough",
                f"With {CALLED[name]} the score is {_number(mean.mean)} {_range(mean)}, and training adds nothing that "
                f"counts to that. {self._compared(name)}.",
            )
        order = sorted(self.judges, key=lambda name: self.differences[name].interval.mean)
        if worse := [name for name in order if _high(self.differences[name]) < 0]:
            return self._ruling("reject", f"{self._compared(worse[0])}.")
        unbeaten = [name for name in order if _low(self.differences[name]) <= 0]
        if not unbeaten:
            against = [self.best, *(name for name in self.judges if name == SERVING)]
            return self._ruling("promote", " ".join(f"{self._compared(name)}." for name in against))
        return self._undecided(unbeaten)

    def _is_enough(self, name: str) -> bool:
        settings, mean, difference = self.settings, self.means[name], self.differences[name]
        good = (mean.low or 0.0) >= settings.good
        if SERVING in self.means:
            good = good and mean.mean >= self.means[SERVING].mean
        high, gained = _high(difference), difference.interval.mean
        all_judged = settings.most_judged is not None and self.judged >= settings.most_judged
        nothing = all_judged and gained < settings.negligible and high < settings.slight
        return good and (high < settings.negligible or 1.0 - mean.mean < settings.negligible or nothing)

    def _too_few(self, groups: int) -> Ruling:
        least = self.settings.least_groups
        more = _tens(least - groups)
        n = self.differences[self.best].interval.n
        return self._ruling(
            "inconclusive",
            f"There are {_independent(n, groups)}, and at least {least} independent ones are needed to tell: "
            f"collect about {more} more. So far: {self._compared(self.best)}.",
            more,
        )

    def _undecided(self, unbeaten: Sequence[str]) -> Ruling:
        """`unbeaten` with the one furthest from being beaten first."""
        name = unbeaten[0]
        differences = [self.differences[rival] for rival in unbeaten]
        short = [difference.needed - difference.interval.n for difference in differences if difference.needed]
        if not short:
            advice = "More training examples may help, rather than held-out ones."
            return self._ruling("inconclusive", f"{self._compared(name)}. {advice}")
        start = f"{self._compared(name)}, which may be chance."
        more = _tens(max(short))
        about = "thousands of" if more >= MOST_NEEDED - _TOO_MANY else f"about {more}"
        most = self.settings.most_judged
        if most is not None and self.differences[name].interval.n + more > most:
            advice = f"More training examples may help; held-out ones would not: at most {most} are judged by."
            return self._ruling("inconclusive", f"{start} {advice}")
        if self.differences[name].interval.mean <= 0:
            advice = f"More training examples may help; {about} more held-out examples would tell."
        elif more > _TOO_MANY:
            advice = f"So small a difference is hard to prove: that would take {about} more held-out examples."
        else:
            advice = f"Collect {about} more held-out examples to tell."
        return self._ruling("inconclusive", f"{start} {advice}", more)

    def _compared(self, name: str) -> str:
        """'0.84 against 0.61 with fixed examples in the prompt: better by 0.23 (0.15 to 0.31) on 60 ...'."""
        difference = self.differences[name]
        interval = difference.interval
        other = self.means[name].mean
        return (
            f"{_number(other + interval.mean)} against {_number(other)} with {CALLED[name]}: "
            f"{_by(interval)} on {_independent(interval.n, interval.groups)}{self._judged_by}"
        )

    @property
    def _judged_by(self) -> str:
        return "" if self.settings.field is None else f", by the field '{self.settings.field}'"

    def _ruling(self, decision: str, reason: str, collect: int | None = None) -> Ruling:
        return Ruling.model_validate(
            {
                "decision": decision,
                "reason": reason,
                "best_prompt": self.best,
                "differences": tuple(self.differences.values()),
                "guards": self.guards,
                "collect": collect,
            }
        )


def _scores(name: str, outcomes: Sequence[Outcome], field: str | None) -> dict[str, float]:
    scores: dict[str, float] = {}
    for outcome in outcomes:
        if outcome.example in scores:
            raise InvalidInput(f"'{name}' has the example '{outcome.example}' twice; give one outcome an example.")
        if field is not None and field not in outcome.fields:
            raise InvalidInput(
                f"'{name}' has no score for the deciding field '{field}'; its fields: {', '.join(outcome.fields)}.",
                param="field",
            )
        scores[outcome.example] = outcome.score if field is None else outcome.fields[field]
    return scores


def _low(difference: Difference) -> float:
    return -1.0 if difference.interval.low is None else difference.interval.low


def _high(difference: Difference) -> float:
    return 1.0 if difference.interval.high is None else difference.interval.high


# --- words -----------------------------------------------------------------------------------------------------


def _by(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"a difference of {_number(interval.mean)}"
    if interval.mean == 0:
        return f"no difference {_range(interval)}"
    if interval.low > 0:
        return f"better by {_number(interval.mean)} {_range(interval)}"
    if interval.high < 0:
        return f"worse by {_number(-interval.mean)} ({_number(-interval.high)} to {_number(-interval.low)})"
    return f"a difference of {_number(interval.mean)} {_range(interval)}"


def _range(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return "(too few examples for an interval)"
    return f"({_number(interval.low)} to {_number(interval.high)})"


def _number(value: float) -> str:
    """Two decimals; three where two would hide that it is not zero. Never '-0.00'."""
    text = f"{value:.2f}" if abs(value) >= 0.005 else f"{value:.3f}"
    return "0.00" if float(text) == 0 else text


def _independent(n: int, groups: int) -> str:
    if n == groups:
        return f"{n} held-out examples"
    return f"{n} held-out examples in {f'{groups} independent groups' if groups > 1 else 'one group'}"


def _tens(count: int) -> int:
    return 10 * math.ceil(max(count, 1) / 10)
