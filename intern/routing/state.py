"""What the router knows of one team at one moment: an immutable state, and the decision that follows from it.

In: a request's vector. Out: a Route. The state is replaced as a whole, never changed, so that a request sees one state
from beginning to end. Knows nothing of files, of training or of locks.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from intern.models.embedder import Vectors
from intern.routing.calibrate import BUILT_IN, Calibration, measure, outside_closeness, posterior
from intern.routing.head import Head
from intern.routing.index import ExampleIndex, Ints, Neighbours
from intern.routing.texts import bare_words
from intern.types import Candidate, Route

COPY = 0.95  # a text so similar to a known one is the same request
# The same, where a person has judged that very text: 98.5% of CLINC150's requests whose nearest text is so near
# have that text's intent.
JUDGED_COPY = 0.87
_SURE = 0.95  # share that a copy gives to its skill, also against the head
_CERTAIN_FIT = 6.0  # log odds that a copy of a known text is in scope
_CANDIDATES = 10
_QUOTED = 80  # characters of the nearest example that a reason quotes


@dataclass(frozen=True)
class Learned:
    """One judged text: it belongs to `skill` (None: to no skill), and not to `not_skill`."""

    text: str
    vector: Vectors
    skill: str | None
    not_skill: str | None = None


@dataclass(frozen=True)
class State:
    """`texts` are the index's rows in its own order; `learned` are judged texts, oldest first, that the index lacks."""

    key: str
    skills: tuple[str, ...]
    texts: tuple[str, ...]
    index: ExampleIndex
    outside: Vectors
    head: Head | None = None
    calibration: Calibration = BUILT_IN
    judged: tuple[Learned, ...] = ()
    learned: tuple[Learned, ...] = ()
    complete: bool = False  # trained from all of its texts, not serving in the meantime
    _numbers: dict[str, int] = field(init=False, repr=False)
    _extra: tuple[Learned, ...] = field(init=False, repr=False)
    _extra_vectors: Vectors = field(init=False, repr=False)
    _extra_owners: Ints = field(init=False, repr=False)
    _verdicts: tuple[Learned, ...] = field(init=False, repr=False)
    _verdict_vectors: Vectors = field(init=False, repr=False)
    _verdict_words: dict[str, list[int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        numbers = {name: number for number, name in enumerate(self.skills)}
        extra = tuple(item for item in self.learned if item.skill in numbers)
        verdicts = (*self.judged, *self.learned)
        width = self.outside.shape[1]
        put("_numbers", numbers)
        put("_extra", extra)
        put("_extra_vectors", _stack([item.vector for item in extra], width))
        put("_extra_owners", np.asarray([numbers[str(item.skill)] for item in extra], dtype=np.int32))
        put("_verdicts", verdicts)
        put("_verdict_vectors", _stack([item.vector for item in verdicts], width))
        words: dict[str, list[int]] = {}
        for number, item in enumerate(verdicts):
            words.setdefault(bare_words(item.text), []).append(number)
        put("_verdict_words", words)

    def vectors_by_text(self) -> dict[str, Vectors]:
        """Every text that is known here with its vector, so that fitting again embeds only what is new."""
        known = dict(zip(self.texts, self.index.vectors, strict=True))
        return known | {item.text: item.vector for item in self._verdicts}

    def route(self, text: str, vector: Vectors, *, refuse_rate: float, among: Collection[str] | None) -> Route:
        """The decision for one request and its vector of shape (dimension,)."""
        if not self.skills:
            return abstained("There is no skill yet.")
        allowed = np.asarray([among is None or name in among for name in self.skills])
        if not allowed.any():
            return abstained("None of the allowed skills exists.")
        query = vector[None]
        near = self.index.search(vector, self._extra_vectors, self._extra_owners)
        shares, fits = posterior(near, self.head, query, outside_closeness(query, self.outside))
        verdict = self._verdict(text, vector, near)
        if verdict.winner is not None:
            shares *= 1.0 - _SURE
            shares[0, verdict.winner] += _SURE
            fits[0, verdict.winner] = max(float(fits[0, verdict.winner]), _CERTAIN_FIT)
        shares[0, list(verdict.barred)] = 0.0
        ranked = np.argsort(-np.where(allowed, shares[0], -1.0), kind="stable")[: min(_CANDIDATES, int(allowed.sum()))]
        best = int(ranked[0])
        confidence = float(self.calibration.confidence(measure(shares, fits, near, ranked[:1]))[0])
        if verdict.judged and best == verdict.winner:
            confidence = max(confidence, _SURE)
        if verdict.nowhere or best in verdict.barred:
            confidence = min(confidence, 1.0 - _SURE)
        fitting = (
            confidence >= self.calibration.threshold(refuse_rate) and not verdict.nowhere and best not in verdict.barred
        )
        # People are shown the best skill's own example when it serves, else the nearest of all that they may use.
        shown = best if fitting else int(np.argmax(np.where(allowed & (near.row[0] >= 0), near.nearest[0], -2.0)))
        row, similar = int(near.row[0, shown]), float(near.nearest[0, shown])
        nearest = self._text(row)
        return Route(
            skill=self.skills[best] if fitting else None,
            confidence=confidence,
            runner_up=self.skills[int(ranked[1])] if len(ranked) > 1 else None,
            candidates=tuple(Candidate(skill=self.skills[int(n)], score=min(1.0, float(shares[0, n]))) for n in ranked),
            reason=_reason(fitting, verdict, nearest, self.skills[shown], similar),
            nearest=nearest,
        )

    def _text(self, row: int) -> str | None:
        if row < 0:
            return None
        return self.texts[row] if row < len(self.texts) else self._extra[row - len(self.texts)].text

    def _verdict(self, text: str, vector: Vectors, near: Neighbours) -> Verdict:
        """A copy of a known text goes where that text belongs, whatever the head says; also if it belongs nowhere."""
        best = float(near.nearest[0].max())
        barred: set[int] = set()
        if len(self._verdict_vectors):
            similar = self._verdict_vectors @ vector
            # Capitals and punctuation alone can take a short text's vector below that similarity.
            similar[self._verdict_words.get(bare_words(text), [])] = 1.0
            copies = [int(n) for n in np.flatnonzero(similar >= JUDGED_COPY)]
            # The most similar judgement counts, and of several on the same text the latest. A skill's own text that
            # is nearer still counts more.
            for number in sorted(copies, key=lambda n: (-round(float(similar[n]), 3), -n)):
                item = self._verdicts[number]
                wrong = self._numbers.get(item.not_skill or "")
                if wrong is not None and float(similar[number]) + 1e-3 >= float(near.nearest[0, wrong]):
                    barred.add(wrong)
                if float(similar[number]) + 1e-3 < best:
                    continue
                if item.skill in self._numbers and self._numbers[item.skill] not in barred:
                    return Verdict(winner=self._numbers[item.skill], barred=frozenset(barred), judged=True)
                if item.skill is None and item.not_skill is None:
                    return Verdict(nowhere=True, judged=True)
        winner = int(near.nearest[0].argmax()) if best >= COPY else None
        return Verdict(winner=None if winner in barred else winner, barred=frozenset(barred))


@dataclass(frozen=True)
class Verdict:
    """What known copies of a request say: the skill that wins, skills that are barred, or that it belongs nowhere."""

    winner: int | None = None
    barred: frozenset[int] = frozenset()
    nowhere: bool = False
    judged: bool = False


def abstained(reason: str) -> Route:
    """A Route to no skill, before anything could be compared."""
    return Route(skill=None, confidence=0.0, reason=reason)


def _reason(fitting: bool, verdict: Verdict, nearest: str | None, skill: str, similar: float) -> str:
    if nearest is None:
        return f"It fits {skill} best." if fitting else "No skill is close to it."
    words = " ".join(nearest.split())
    quoted = words if len(words) <= _QUOTED else words[: _QUOTED - 1].rstrip() + "…"
    if fitting:
        return f"Closest to '{quoted}' ({skill}, similarity {similar:.2f})."
    why = "A reviewer said that such a request is for no skill" if verdict.nowhere else "No skill fits well enough"
    return f"{why}; the closest example is '{quoted}' ({skill}, similarity {similar:.2f})."


def _stack(vectors: list[Vectors], width: int) -> Vectors:
    return np.stack(vectors) if vectors else np.zeros((0, width), dtype=np.float32)
