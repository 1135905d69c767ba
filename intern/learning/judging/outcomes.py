"""What an evaluation deals in: one rival's outcome on one held-out example, and what all of them together came to.

Data only. `metrics.py` makes field scores, `evaluate.py` outcomes, `summary.py` sums, `statistics.py` intervals,
`guards.py` guards, `gate.py` the decision, `report.py` pages for people. A score is between 0 (wrong) and 1 (right).
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from intern.types import Json, Model

# base: the skill as it is served without an adapter. few-shot: the same with fixed examples in the prompt.
# retrieval: with the training examples nearest to each request in the prompt. serving: the adapter in service.
# candidate: the new one. Any other name: an outside system, whose outputs were imported.
PROMPT_ONLY = ("base", "few-shot", "retrieval")
EXAMPLES_OF = {"few-shot": "fixed", "retrieval": "nearest"}  # what `prompting.examples` says to serve such prompts
SERVING = "serving"
CANDIDATE = "candidate"

Decision = Literal["promote", "reject", "inconclusive", "prompting_is_enough"]


def incumbent(rivals: Container[str], examples: str = "none") -> str | None:
    """Who of the rivals answers the skill's requests today, without the candidate: the adapter in service, or the base
    model with the `examples` that the skill has in its prompt (`prompting.examples`); the next best known otherwise."""
    prompt = next((name for name, mode in EXAMPLES_OF.items() if mode == examples), "base")
    return next((name for name in (SERVING, prompt, *PROMPT_ONLY) if name in rivals), None)


def _without(body: Any, *former: str) -> Any:
    """A stored body without what former versions kept in it."""
    return {name: value for name, value in body.items() if name not in former} if isinstance(body, dict) else body


class TextScores(Model):
    """The two halves of the metric `text`, each 0 to 1: chrF (Popovic 2015) and token F1 (Rajpurkar et al. 2016)."""

    chrf: float
    token_f1: float


class Outcome(Model):
    """What one rival made of one held-out example.

    `fields` are the scores by output field (a text skill has the one field `text`), `score` their mean. An answer that
    broke the schema has `valid` false and scores 0 everywhere. `tokens` counts the completion; `seconds` is wall time,
    0 where the answer was remembered and not generated now. `failed`: the engine gave no answer, which counts as a
    broken one. `support`, `support_expected` and `sources` are a `support.Grounding`.
    """

    example: str
    group: str  # examples of one group are not independent: standard errors are clustered by it
    valid: bool
    fields: Mapping[str, float]
    score: float
    expected: Json
    output: Json  # parsed; the raw text where it cannot be parsed
    request: str  # the request, for people to read
    tokens: int = 0
    prompt_tokens: int = 0
    seconds: float = 0.0
    examples: int | None = None  # worked ones in its prompt; None where nobody knows
    failed: bool = False
    texts: Mapping[str, TextScores] = {}  # of the fields that are compared as text
    support: float | None = None
    support_expected: float | None = None
    sources: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _stored(cls, body: Any) -> Any:
        return _without(body, "cited")

    def as_asked(self, other: Outcome) -> bool:
        """Whether the other is on the same question with the same right answer: a label may have been corrected between
        two evaluations, and its example keeps its id."""
        return (self.request, self.expected) == (other.request, other.expected)


class Interval(Model):
    """A mean with its confidence interval; `n` observations in `groups` clusters. None bounds: too few to say."""

    mean: float
    low: float | None
    high: float | None
    n: int
    groups: int
    confidence: float = 0.95


class Difference(Model):
    """Candidate minus rival on the same examples, paired. `p` is McNemar's exact test where scores are 0 or 1.

    `needed` is how many held-out examples in all would show a difference of this size with a power of 0.8 (10,000: that
    many or more), or None where the difference is shown already, is nil, or there are fewer than two groups.
    """

    rival: str
    interval: Interval
    p: float | None = None
    wins: int = 0
    losses: int = 0
    ties: int = 0
    needed: int | None = None


class Against(Model):
    """Every other rival against the one called `rival`: its score minus that one's, on the examples that both answered.

    `field` is the output field that was compared; None is the mean over all scored fields.
    """

    rival: str
    differences: Mapping[str, Difference]
    field: str | None = None


class Summary(Model):
    """One rival on all held-out examples. None: nothing of the kind was there to measure."""

    n: int
    valid: float
    score: Interval
    metrics: Mapping[str, Interval]
    null_precision: float | None = None
    null_recall: float | None = None
    support: float | None = None  # mean share of what answers state that stands in the passages they cite
    support_expected: float | None = None  # the same of the expected outputs
    sources: float | None = None  # mean F1 of the documents cited, where some are expected
    texts: Mapping[str, TextScores] = {}  # means, of the fields that are compared as text
    distinct_1: float | None = None  # distinct n-grams over all n-grams of the outputs' texts (Li et al. 2016)
    distinct_2: float | None = None
    distinct_3: float | None = None
    tokens: float = 0.0  # mean completion tokens
    prompt_tokens: float = 0.0  # mean
    seconds: float = 0.0  # median seconds of the answers that were generated now; 0 where all were remembered
    shown: float | None = None  # mean number of worked examples in its prompts
    failed: int = 0  # answers that the engine did not give; they count as broken ones

    @model_validator(mode="before")
    @classmethod
    def _stored(cls, body: Any) -> Any:
        return _without(body, "grounded")


class Guard(Model):
    """One thing that a candidate may not break, whatever it scores."""

    name: str
    passed: bool
    detail: str


class Ruling(Model):
    """What the gate decided, and why. `collect` is about how many more held-out examples are needed."""

    decision: Decision
    reason: str
    best_prompt: str | None = None
    differences: tuple[Difference, ...] = ()
    guards: tuple[Guard, ...] = ()
    collect: int | None = Field(default=None, ge=0)
