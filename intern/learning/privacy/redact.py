"""Personal data out of examples, consistent placeholders in: `Anna` and `anna@example.com` become `<PERSON_1>` and
`<EMAIL_1>`.

In: a text, or an example with the schema of its output. Out: the same with placeholders, where each was put, and for an
example a reason if it cannot be used so. Within one `Scope` the same value gets the same placeholder, so that an output
that must repeat an address of its input still does; what was found in one text of an example is replaced in the others
too. Structure stays as it is: keys, numbers, and values that the schema enumerates. Redacting twice changes nothing.

What the recognisers do not find stays in: recall is measured (docs/privacy.md), anonymity is not promised. Knows
nothing of how data is recognised, and stores nothing; the values found are never part of what is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Protocol

from intern.errors import InvalidInput
from intern.learning.privacy.occurrences import Occurrences
from intern.learning.privacy.placeholders import MARKUP, Scope, identity, mentions
from intern.learning.privacy.places import Leaf, place_of, rebuilt
from intern.learning.privacy.recognisers import COVER, Span
from intern.schema import OutputSchema
from intern.types import Example, Model

MAX_CHARACTERS = 200_000  # of all texts of an example with their labels; no context of a model is that long
MAX_TEXTS = 20_000
MAX_VALUES = 2_000  # different values found in an example: a list of people rather than a request


class Recognises(Protocol):
    """Where `Recognition` fits in."""

    def find(self, texts: Sequence[str]) -> list[list[Span]]: ...


class Found(Model):
    """Personal data of a `kind` stood at characters `start` to `end` (exclusive) of the original text. `where` names
    the text of an example: `input`, `input/0/content`, `output/customer/name`, with `*` for keys that the schema does
    not declare."""

    kind: str
    start: int
    end: int
    where: str = ""


class Redacted(Model):
    text: str
    found: tuple[Found, ...] = ()


class RedactedExample(Model):
    """`problem` is None, or one sentence that says why the example must not be trained on; it quotes no value and no
    key that the schema does not declare."""

    example: Example
    found: tuple[Found, ...] = ()
    problem: str | None = None


class Redactor:
    """Thread-safe if its recogniser is. PLACE is found by a spaCy model only."""

    def __init__(self, recognises: Recognises) -> None:
        self._recognises = recognises

    def stated(self, texts: Sequence[str]) -> frozenset[str]:
        """Personal data that texts state, as they write it: for `keep`, what a skill's own documents and instructions
        say. An answer should repeat the hotline that its passages name. Raises as `redact` does."""
        found = zip(texts, self._recognises.find(texts), strict=True)
        return frozenset(text[span.start : span.end] for text, spans in found for span in spans)

    def redact(self, text: str, scope: Scope | None = None, *, keep: frozenset[str] = frozenset()) -> Redacted:
        """One text, but for the values in `keep` (see `stated`). Raises InvalidInput when it is too long or cannot be
        searched, TrainingUnavailable without the recognisers."""
        scope = scope or Scope()
        leaves = _Leaves()
        leaves.add(Leaf(text=text))
        spans = self._spans(leaves, scope, keep)
        return Redacted(
            text=_replaced(leaves, spans, scope)[0],
            found=tuple(Found(kind=s.kind, start=s.start, end=s.end) for s in spans[0]),
        )

    def redact_example(
        self,
        example: Example,
        schema: OutputSchema | None = None,
        *,
        keep: frozenset[str] = frozenset(),
        scope: Scope | None = None,
    ) -> RedactedExample:
        """Input, tool calls and output of an example in one scope, but for the values in `keep` (see `stated`).

        Raises TrainingUnavailable without the recognisers.
        """
        scope = scope or Scope()
        leaves = _Leaves()
        try:
            rebuilt(example, schema, leaves.add)
            spans = self._spans(leaves, scope, keep)
        except InvalidInput as error:
            return RedactedExample(example=example, problem=error.message)
        found = tuple(
            Found(kind=span.kind, start=span.start, end=span.end, where=leaf.where)
            for leaf, its in zip(leaves, spans, strict=True)
            for span in its
        )
        for leaf, its in zip(leaves, spans, strict=True):
            if leaf.fixed and its:
                problem = f"{leaf.where} is personal data ({its[0].kind}) in a {leaf.fixed}, which has no placeholder"
                return RedactedExample(example=example, found=found, problem=problem)
        texts = iter(_replaced(leaves, spans, scope))
        redacted = rebuilt(example, schema, lambda leaf: next(texts))
        broken = None
        if schema is not None and found and (problems := schema.problems(redacted.output)):
            broken = f"without personal data the output breaks the schema{place_of(problems[0], schema)}"
        return RedactedExample(example=redacted, found=found, problem=broken)

    def for_schema(
        self, schema: OutputSchema | None, keep: frozenset[str] = frozenset()
    ) -> Callable[[Example], tuple[Example, str | None]]:
        """What `dataset.build` takes: an example to (the redacted one, why it cannot be used or None)."""

        def redact(example: Example) -> tuple[Example, str | None]:
            done = self.redact_example(example, schema, keep=keep)
            return done.example, done.problem

        return redact

    def _spans(self, leaves: Sequence[Leaf], scope: Scope, keep: frozenset[str]) -> list[list[Span]]:
        """What to replace in each text, in order.

        Looked for again and again with what was found under covers, until nothing new turns up: so the result is the
        same as if it were redacted once more.
        """
        untouched = [[Span("", *match.span(), 0) for match in MARKUP.finditer(leaf.text)] for leaf in leaves]
        for leaf in leaves:
            scope.reserve(leaf.text)
        spans: list[list[Span]] = [[] for _ in leaves]
        waiting = list(range(len(leaves)))
        known = 0
        while waiting:
            covered = [_Covered(leaves[i], [*untouched[i], *spans[i]]) for i in waiting]
            changed = set()
            for i, view, found in zip(waiting, covered, self._recognises.find([c.text for c in covered]), strict=True):
                new = [span for span in map(view.original, found) if span and _goes(span, leaves[i].text, keep)]
                spans[i] += new
                if new:
                    changed.add(i)
            values = _values(leaves, spans, scope)
            if len(values) > known:  # else every text was looked through for them
                changed |= _repeated(leaves, untouched, spans, values)
                known = len(values)
            waiting = sorted(changed)
        return [sorted(its, key=lambda span: span.start) for its in spans]


def _goes(span: Span, text: str, keep: frozenset[str]) -> bool:
    return not keep or identity(span.kind, text[span.start : span.end]) not in _identities(span.kind, keep)


def _values(leaves: Sequence[Leaf], spans: Sequence[Sequence[Span]], scope: Scope) -> dict[str, str]:
    """The texts that stand for what was found or is known in the scope, with their kind. Raises InvalidInput."""
    values = dict(scope.values)
    for leaf, its in zip(leaves, spans, strict=True):
        for span in its:
            values.update(mentions(span.kind, leaf.text[span.start : span.end]))
    if len(values) - len(scope.values) > MAX_VALUES:
        raise InvalidInput(f"There is too much personal data in it: more than {MAX_VALUES:,} different values.")
    return values


def _repeated(
    leaves: Sequence[Leaf], untouched: list[list[Span]], spans: list[list[Span]], values: Mapping[str, str]
) -> set[int]:
    """Add to `spans` where a value that was found in one text stands in the same words; returns which changed."""
    occurrences = Occurrences(values)
    changed = set()
    for i, leaf in enumerate(leaves):
        taken = bytearray(len(leaf.text))
        for span in (*untouched[i], *spans[i]):
            taken[span.start : span.end] = b"\x01" * (span.end - span.start)
        for start, end in occurrences.find(leaf.text):
            if taken.find(1, start, end) < 0:
                spans[i].append(Span(values[leaf.text[start:end]], start, end, 0))
                changed.add(i)
    return changed


@lru_cache(maxsize=256)
def _identities(kind: str, values: frozenset[str]) -> frozenset[str]:
    return frozenset(identity(kind, value) for value in values)


class _Leaves(list[Leaf]):
    """The texts of one example. Raises InvalidInput with the first one that is too much."""

    def __init__(self) -> None:
        super().__init__()
        self._room = MAX_CHARACTERS

    def add(self, leaf: Leaf) -> str:
        self._room -= len(leaf.text) + len(leaf.label)
        if self._room < 0 or len(self) == MAX_TEXTS:
            most = f"{MAX_CHARACTERS:,} characters or {MAX_TEXTS:,} texts"
            raise InvalidInput(f"It is too long to be searched for personal data: more than {most}.")
        self.append(leaf)
        return leaf.text


class _Covered:
    """A text with one COVER for everything that is dealt with, behind the label that says what it is."""

    def __init__(self, leaf: Leaf, done: Iterable[Span]) -> None:
        pieces = [f"{leaf.label}: "] if leaf.label else []
        self._lead = len(pieces[0]) if pieces else 0
        self._places = list[int]()
        position = 0
        for span in sorted(done, key=lambda span: span.start):
            if span.start < position:
                continue
            pieces += [leaf.text[position : span.start], COVER]
            self._places += [*range(position, span.start), span.start]
            position = span.end
        pieces.append(leaf.text[position:])
        self._places += range(position, len(leaf.text) + 1)
        self.text = "".join(pieces)

    def original(self, span: Span) -> Span | None:
        """A span of this text as one of the original; None if it begins in the label."""
        if span.start < self._lead:
            return None
        start, last = self._places[span.start - self._lead], self._places[span.end - 1 - self._lead]
        return span._replace(start=start, end=last + 1)


def _replaced(leaves: Sequence[Leaf], spans: Sequence[Sequence[Span]], scope: Scope) -> list[str]:
    """The texts with placeholders; numbered in the order in which values first appear."""
    texts = []
    for leaf, its in zip(leaves, spans, strict=True):
        pieces, position = [], 0
        for span in its:
            pieces += [leaf.text[position : span.start], scope.placeholder(span.kind, leaf.text[span.start : span.end])]
            position = span.end
        texts.append("".join([*pieces, leaf.text[position:]]))
    return texts
