"""Examples to a frozen dataset: cleaned, split, decontaminated, with a reason for everything left out.

In: a skill's gathered examples (`gather.py`), which inputs are held out already and which were trained on. Out: a
`Built`: train and held-out examples, the dropped ones, notes for people. Knows no database, model or engine.

The order matters: outputs are checked, then personal data is redacted (nothing later sees the original), then what
says the same or contradicts itself is settled, then groups are split, then training examples too near to a held-out
one go. What the skill's folder says is settled already, and what an administrator imported after it: nobody outvotes
them. What a model wrote is never held out.

Which side an example comes to, and for how long, is said in `splitting.py`; no copy that a user brings takes an example
of the owners' away, unless that copy was held out before: what is frozen gives way to nothing new.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from intern.learning.examples.duplicates import contaminated, find_copies
from intern.learning.examples.items import (
    TRUSTED,
    Built,
    Gathered,
    Kept,
    Keys,
    Redacts,
    canonical,
    from_users,
    key_of,
    openings_of,
    origin_of,
    plain_input,
)
from intern.learning.examples.splitting import Splitting
from intern.learning.privacy.places import place_of
from intern.schema import OutputSchema
from intern.types import Dropped, Example

NEAR = 0.8  # word Jaccard from which two inputs are copies
_OVERRULED = {"folder": "the skill's folder says otherwise:", "import": "an administrator's import says otherwise:"}


def build(
    skill: str,
    gathered: Sequence[Gathered],
    *,
    schema: OutputSchema | None,
    redact: Redacts,
    secret: str,
    frozen: Keys = frozenset(),
    trained: Keys = frozenset(),
    contributor_cap: int = 200,
    tell: Callable[[str], None] = lambda text: None,
) -> Built:
    """Make the dataset. `frozen` and `trained` are keys (see `key_of`) of inputs held out, or trained on, before.

    `secret` decides by lot which inputs that users brought are held out, the skill's name which others are.
    `contributor_cap` is how many examples count of one contributor (the newest ones): about 250 poisoned examples can
    plant a backdoor whatever the size of the rest (arXiv 2510.07192). Folder and imports are not capped, nor is what a
    teacher wrote because an owner asked for it; nor what is held out, which is not trained on.
    """
    work = _Work(schema, frozen)
    splitting = Splitting(skill, secret, work.drop)
    rows = work.checked(gathered)
    rows = work.capped(rows, contributor_cap)
    tell(f"redacting {len(rows)} examples")
    rows = work.redacted(rows, redact)
    tell("looking for copies and contradictions")
    rows = work.settled(rows)
    train, heldout = splitting.split(rows, frozen, trained)
    heldout = work.without_copies(heldout)
    train = work.without_copies(train)  # none of them is frozen
    train, heldout = work.decontaminated(train, heldout)
    heldout = splitting.clustered(heldout)
    return Built(
        train=tuple(train),
        heldout=tuple(heldout),
        dropped=tuple(work.dropped),
        notes=tuple(splitting.notes),
        digest=_digest(train, heldout),
    )


class _Work:
    """One dataset in the making."""

    def __init__(self, schema: OutputSchema | None, frozen: Keys) -> None:
        self.schema = schema
        self.frozen = frozen
        self.dropped: list[Dropped] = []

    def drop(self, row: Kept | Gathered, reason: str, detail: str) -> None:
        self.dropped.append(Dropped(example=row.example.id, reason=reason, detail=detail))

    def checked(self, gathered: Iterable[Gathered]) -> list[Kept]:
        """Those with a text to answer and an output that keeps the schema of today."""
        kept = []
        for row in gathered:
            output = row.example.output
            if not row.example.text.strip():
                self.drop(row, "empty", "the input is empty")
            elif self.schema is None and not (isinstance(output, str) and output.strip()):
                self.drop(row, "empty", "the output is empty or not a text")
            elif self.schema is not None and (problems := self.schema.problems(output)):
                self.drop(row, "breaks_schema", f"the output breaks the schema{place_of(problems[0], self.schema)}")
            else:
                example = row.example
                hashes = {"key": key_of(example), "origin": origin_of(example), "openings": openings_of(example)}
                kept.append(Kept(example=example, person=row.person, **hashes))
        return kept

    def capped(self, rows: list[Kept], cap: int) -> list[Kept]:
        counted: Counter[str] = Counter()
        kept = []
        for row in reversed(rows):
            who = row.example.contributor
            exempt = row.example.provenance in (*TRUSTED, "synthesis") or row.key in self.frozen
            if who is not None and not exempt:
                counted[who] += 1
                if counted[who] > cap:
                    self.drop(row, "contributor_cap", f"more than {cap} examples of one contributor; the newest count")
                    continue
            kept.append(row)
        return kept[::-1]

    def redacted(self, rows: list[Kept], redact: Redacts) -> list[Kept]:
        kept = []
        for row in rows:
            example, problem = redact(row.example)
            if problem is not None:
                self.drop(row, "personal_data", problem)
            elif self.schema is not None and (problems := self.schema.problems(example.output)):
                where = place_of(problems[0], self.schema)
                self.drop(row, "personal_data", f"without personal data it breaks the schema{where}")
            else:
                kept.append(row.model_copy(update={"example": example}))
        return kept

    def settled(self, rows: list[Kept]) -> list[Kept]:
        """One example an input. Where outputs differ, the folder's; without one there, an administrator's import;
        without either, the output that most contributors gave. A tie settles nothing."""
        by_key: dict[str, list[Kept]] = defaultdict(list)
        for row in rows:
            by_key[row.key].append(row)
        kept = []
        for same in by_key.values():
            trusted = next((one for one in TRUSTED if any(row.example.provenance == one for row in same)), None)
            heard = [row for row in same if trusted in (None, row.example.provenance)]
            voices: dict[str, set[str]] = defaultdict(set)
            for row in heard:
                voices[canonical(row.example.output)].add(row.example.contributor or row.example.provenance)
            ranked = sorted(voices, key=lambda output: -len(voices[output]))
            if len(ranked) > 1 and len(voices[ranked[0]]) == len(voices[ranked[1]]):
                for row in same:
                    self.drop(row, "contradiction", f"the same input has {len(ranked)} different outputs")
                continue
            right = [row for row in same if canonical(row.example.output) == ranked[0]]
            first = min(right, key=_precedence)
            kept.append(first)
            for row in same:
                if row is first:
                    continue
                if canonical(row.example.output) == ranked[0]:
                    self.drop(row, "duplicate", f"the same as {first.example.id}")
                else:
                    said = "outvoted by" if trusted in (None, row.example.provenance) else _OVERRULED[trusted]
                    self.drop(row, "contradiction", f"{said} {first.example.id}")
        return kept

    def without_copies(self, rows: list[Kept]) -> list[Kept]:
        """Without inputs that nearly repeat another one and have the same output; one that was held out before stays,
        and what repeats it goes."""
        ordered = sorted(rows, key=lambda row: row.key not in self.frozen)
        texts = [_words_of(row.example) for row in ordered]
        gone: set[str] = set()
        labels = [canonical(row.example.output) for row in ordered]
        for index, kept_index, similarity in find_copies(texts, NEAR, labels=labels):
            copy, first = ordered[index], ordered[kept_index]
            gone.add(copy.key)
            if first.key in self.frozen and copy.key not in self.frozen:
                self.drop(copy, "heldout_copy", f"{similarity:.0%} the words of held-out {first.example.id}")
            else:
                self.drop(copy, "near_duplicate", f"{similarity:.0%} the words of {first.example.id}")
        return [row for row in rows if row.key not in gone]

    def decontaminated(self, train: list[Kept], heldout: list[Kept]) -> tuple[list[Kept], list[Kept]]:
        """Training examples without those too near to a held-out one; new held-out ones without those of users that
        are too near to what the owners train on: nobody takes the owners' examples away by copying them. What was held
        out before stays: it has judged adapters, and is not trained on in another wording either."""
        theirs = [row for row in heldout if self._is_new_of_users(row)]
        owners = [row for row in train if row.example.provenance in TRUSTED]
        found = [(theirs[index], owners[other], near) for index, other, near in _near(theirs, owners)]
        while found:
            gone = set()
            for row, first, similarity in found:
                if row.key not in gone:
                    gone.add(row.key)
                    self.drop(row, "near_duplicate", f"{similarity:.0%} the words of {first.example.id}")
            heldout = [row for row in heldout if row.key not in gone]
            pairs = [(heldout[other], train[index], near) for index, other, near in _near(train, heldout)]
            found = [p for p in pairs if self._is_new_of_users(p[0]) and p[1].example.provenance in TRUSTED]
        copies = set()
        for index, other, similarity in _near(train, heldout):
            copies.add(index)
            self.drop(
                train[index], "heldout_copy", f"{similarity:.0%} the words of held-out {heldout[other].example.id}"
            )
        return [row for index, row in enumerate(train) if index not in copies], heldout

    def _is_new_of_users(self, row: Kept) -> bool:
        return from_users(row) and row.key not in self.frozen


def copies_of(examples: Sequence[Example], others: Sequence[Example]) -> set[int]:
    """Places among `examples` of those too near to one of the others; takes seconds for thousands."""
    found = contaminated([_words_of(one) for one in examples], [_words_of(one) for one in others], NEAR)
    return {index for index, _, _ in found}


def _near(rows: Sequence[Kept], others: Sequence[Kept]) -> list[tuple[int, int, float]]:
    return contaminated([_words_of(row.example) for row in rows], [_words_of(row.example) for row in others], NEAR)


def _precedence(row: Kept) -> tuple[bool, bool, bool]:
    """Which of equal examples is kept, least first: one named for holding out, the owners', what people wrote."""
    example = row.example
    return example.split != "heldout", example.provenance not in TRUSTED, example.provenance == "synthesis"


def _words_of(example: Example) -> str:
    if isinstance(example.input, str):
        return example.input
    return "\n".join(m.content for m in example.input)


def _digest(train: Sequence[Kept], heldout: Sequence[Kept]) -> str:
    total = hashlib.sha256()
    for split, rows in (("train", train), ("heldout", heldout)):
        for row in rows:
            example = row.example
            line = json.dumps([split, plain_input(example), example.output], sort_keys=True, ensure_ascii=False)
            total.update(line.encode("utf-8", "replace") + b"\n")
    return total.hexdigest()
