"""Is what was trained what will serve? Trainer and engine are compared before a candidate counts.

In: the trainer's prompt ids, the engine's greedy answers with the trainer's judgement of each token. Out: a `Parity`.
Two things can go wrong without a sound: another chat template or tokenizer, and an adapter that was converted wrongly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Protocol

from intern.learning.train.job import Agreement, Answer
from intern.types import Message, Metric, Model

_PROMPTS = 20
_FEW_FIELDS = 2
FIELDS_LEAST = 0.95
TOKENS_LEAST = 0.97
TIES_MOST = 0.10  # of all tokens; that many near-ties are no chance, but an adapter that arrives weaker or stronger
MOVED_LEAST = 1e-3  # nats; an adapter that changes no log-probability by more does nothing


def prompts_for(fields: int) -> int:
    """Held-out prompts whose answers are compared: twice as many where an answer has few fields, since one near-tie of
    20 is 5% of them already."""
    return _PROMPTS if fields > _FEW_FIELDS else 2 * _PROMPTS


class Tokenises(Protocol):
    """An engine that tells how it tokenises a conversation."""

    async def prompt_ids(self, messages: Sequence[Message]) -> list[int]: ...


class Parity(Model):
    """`prompts` compared, `same_prompts` of them to the token.

    `fields` is the share of output fields that the trained model would have written just so (None where every field is
    free text), `tokens` that of tokens; both count near-ties, `ties` of all tokens, as written so. `free_text`: some
    output is free text, so that tokens decide. `moved` as in `Agreement`, the largest.
    """

    prompts: int
    same_prompts: int
    answers: int
    tokens: float
    ties: float = 0.0
    fields: float | None
    free_text: bool = False
    moved: float = 0.0

    @property
    def few(self) -> str | None:
        """That fewer answers were compared than it takes to be sure, or None."""
        if self.answers >= _PROMPTS:
            return None
        return (
            f"Trainer and engine were compared on {self.answers} held-out prompts only, and {_PROMPTS} are wanted: a "
            "conversion that is a little off may not show."
        )

    @property
    def problem(self) -> str | None:
        """Why the candidate cannot count, or None."""
        if not self.answers:
            return (
                "Trainer and engine cannot be compared: no held-out example makes a prompt. Shorten the examples, or "
                "raise INTERN_CONTEXT."
            )
        if self.same_prompts < self.prompts:
            return (
                f"{self.prompts - self.same_prompts} of {self.prompts} prompts have other ids in the trainer than "
                "in the engine: the base model's tokenizer or chat template differ between the two."
            )
        if self.moved < MOVED_LEAST:
            return "The adapter changes nothing against the base model."
        if self.fields is not None and self.fields < FIELDS_LEAST:
            return (
                f"Trainer and engine agree on {self.fields:.0%} of the fields, and {FIELDS_LEAST:.0%} are needed: the "
                "adapter was not converted faithfully, or the engine quantises too much."
            )
        if self.free_text and self.tokens < TOKENS_LEAST:
            return (
                f"Trainer and engine agree on {self.tokens:.1%} of the next tokens, and {TOKENS_LEAST:.0%} are needed: "
                "the adapter was not converted faithfully, or the engine quantises too much."
            )
        if self.ties > TIES_MOST:
            return (
                f"{self.ties:.0%} of the tokens are nearly as likely as the trainer's own choice and not that choice, "
                f"and at most {TIES_MOST:.0%} are chance: the adapter was not converted faithfully, or the engine "
                "quantises too much."
            )
        return None


async def same_prompts(
    engine: Tokenises, prompts: Mapping[str, tuple[Sequence[Message], Sequence[int]]]
) -> tuple[int, int]:
    """(prompts compared, prompts with the same ids). `prompts` are messages and the trainer's ids, by example."""
    same = 0
    for messages, ids in prompts.values():
        same += await engine.prompt_ids(messages) == list(ids)
    return len(prompts), same


def parity(
    prompts: tuple[int, int],
    answers: Sequence[Answer],
    agreements: Sequence[Agreement],
    metrics: Mapping[str, Metric],
) -> Parity:
    """Put together what was compared. `agreements` are the trainer's, one an answer.

    A field of free text (metric `text`) is not counted as right or wrong as a whole: among fifty words there is nearly
    always a choice so close that rounding decides it. There the share of tokens tells.
    """
    tokens = sum(a.tokens for a in agreements)
    by_id = {a.id: a for a in agreements}
    free = {name for name, metric in metrics.items() if metric == "text"}
    fields = [
        agrees for answer in answers for name, agrees in _fields(answer, by_id[answer.id]).items() if name not in free
    ]
    return Parity(
        prompts=prompts[0],
        same_prompts=prompts[1],
        answers=len(answers),
        tokens=sum(a.agreed for a in agreements) / tokens if tokens else 0.0,
        ties=sum(a.ties for a in agreements) / tokens if tokens else 0.0,
        fields=sum(fields) / len(fields) if fields else None,
        free_text=bool(free) or not fields,
        moved=max((a.moved for a in agreements), default=0.0),
    )


def _fields(answer: Answer, agreement: Agreement) -> dict[str, bool]:
    """For each field of a JSON answer: no token of its value is another than the model's choice."""
    if answer.grammar is None:
        return {}
    whole = {"": not agreement.differs}
    try:
        value = json.loads(answer.text)
    except ValueError:
        return whole
    if not isinstance(value, dict) or json.dumps(value, ensure_ascii=False) != answer.text:
        return whole
    spans = {}
    at = 1
    for name, item in value.items():
        at += len(json.dumps(name, ensure_ascii=False)) + 2
        end = at + len(json.dumps(item, ensure_ascii=False))
        spans[name] = (at, end)
        at = end + 2
    return {
        name: not any(start < high and end > low for start, end in agreement.differs)
        for name, (low, high) in spans.items()
    }
