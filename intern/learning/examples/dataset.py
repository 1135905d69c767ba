"""Examples to a frozen dataset: cleaned, split, decontaminated, with a reason for everything left out.

In: a skill's gathered examples (`gather.py`), which inputs are held out already and which were trained on. Out: a
`Built`: train and held-out examples, the dropped ones, notes for people. Knows no database, model or engine.

The order matters: outputs are checked, then personal data is redacted (nothing later sees the original), then what
says the same or contradicts itself is settled, then groups are split, then training examples too near to a held-out
one go. What the skill's folder says is settled already, and what an administrator imported after it: nobody outvotes
them. What a model wrote is never held out.

What is held out judges every adapter, so no user's key can choose it. Inputs that users brought are held out by a lot
that nobody can know, are at most half of all where the owners' are enough to judge by, and take no example of the
owners' away as its copies.

An input that is held out once stays so for the life of the skill, and one that was trained on is never held out later,
or an adapter would be judged on what it has learned. Whole groups go to one side, but groups grow together: an author
is named later, or no longer wrote a third of everything. Where what was held out and what was trained on come to belong
together, authors there are given up as a link, as those are who wrote too much, and threads decide: both sides stay as
they were, and nothing new leaks. Where even one thread has both, the held-out ones stay, new ones join them, and those
trained on are left out of both sides (`trained_group`).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Protocol

from intern.learning.examples.duplicates import contaminated, find_copies
from intern.learning.privacy.places import place_of
from intern.schema import OutputSchema
from intern.types import Dropped, Example, Json, Model

HELDOUT_SHARE = 0.2
HELDOUT_WANTED = 40  # smaller collections hold out a larger share, to come near the 30 that the gate needs
HELDOUT_MOST_SHARE = 0.4
HELDOUT_ENOUGH = 400  # more than that is held out by name only: evaluation takes time, and training wants the rest
HELDOUT_JUDGES = 30  # so many of the owners' judge alone: from there on, users' are at most half of all held out
NEAR = 0.8  # word Jaccard from which two inputs are copies
TRUSTED = ("folder", "import")  # written or confirmed by the skill's owners, in this order: no cap on how many
_OVERRULED = {"folder": "the skill's folder says otherwise:", "import": "an administrator's import says otherwise:"}

Keys = Set[str]  # hashes of inputs, see `key_of`


class Gathered(Model):
    """An example with what splitting and deletion need to know. `person` is the end user whose words the input are."""

    example: Example
    person: str | None = None


class Redacts(Protocol):
    def __call__(self, example: Example) -> tuple[Example, str | None]:
        """The example without personal data, or with a sentence that says why that cannot be done."""
        ...


class Kept(Model):
    """An example of the dataset. `key` is the hash of its input as it was before redaction.

    A held-out example's `group` is its cluster: the id of the first held-out example of the same thread or author.
    """

    example: Example
    key: str
    person: str | None = None


class Built(Model):
    """A dataset before it is stored. `digest` is the SHA-256 over both splits in order."""

    train: tuple[Kept, ...]
    heldout: tuple[Kept, ...]
    dropped: tuple[Dropped, ...]
    notes: tuple[str, ...]
    digest: str


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
    `contributor_cap` is how many examples count of one contributor (the newest ones), folder and imports aside: about
    250 poisoned examples can plant a backdoor whatever the size of the rest (arXiv 2510.07192).
    """
    work = _Work(skill, schema, secret)
    rows = work.checked(gathered)
    rows = work.capped(rows, contributor_cap)
    tell(f"redacting {len(rows)} examples")
    rows = work.redacted(rows, redact)
    tell("looking for copies and contradictions")
    rows = work.settled(rows)
    train, heldout = work.split(rows, frozen, trained)
    heldout = work.without_copies(heldout)
    train = work.without_copies(train)
    train, heldout = work.decontaminated(train, heldout)
    heldout = work.clustered(heldout)
    return Built(
        train=tuple(train),
        heldout=tuple(heldout),
        dropped=tuple(work.dropped),
        notes=tuple(work.notes),
        digest=_digest(train, heldout),
    )


def key_of(example: Example) -> str:
    """Hash of the normalised input, whatever its punctuation's width, capitals and spaces."""
    turns = [example.input] if isinstance(example.input, str) else [f"{m.role}: {m.content}" for m in example.input]
    text = "\n".join(" ".join(unicodedata.normalize("NFKC", turn).casefold().split()) for turn in turns)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def canonical(value: Json) -> str:
    """One spelling for equal JSON values; texts without outer and doubled spaces."""
    return json.dumps(_collapsed(value), sort_keys=True, ensure_ascii=False)


def _collapsed(value: Json) -> Json:
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, dict):
        return {key: _collapsed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_collapsed(item) for item in value]
    return value


class _Work:
    """One dataset in the making."""

    def __init__(self, skill: str, schema: OutputSchema | None, secret: str) -> None:
        self.skill = skill
        self.secret = secret
        self.schema = schema
        self.dropped: list[Dropped] = []
        self.notes: list[str] = []
        self.busy: set[str] = set()  # authors who wrote too much to be held together

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
                kept.append(Kept(example=row.example, key=key_of(row.example), person=row.person))
        return kept

    def capped(self, rows: list[Kept], cap: int) -> list[Kept]:
        counted: Counter[str] = Counter()
        kept = []
        for row in reversed(rows):
            who = row.example.contributor
            if who is not None and row.example.provenance not in TRUSTED:
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

    def split(self, rows: list[Kept], frozen: Keys, trained: Keys) -> tuple[list[Kept], list[Kept]]:
        """Whole groups go to one side: by what was decided before, by what the examples say, then by lot."""
        named = sum(1 for row in rows if row.key in frozen or row.example.split == "heldout")
        share = max(HELDOUT_SHARE, min(HELDOUT_MOST_SHARE, HELDOUT_WANTED / max(len(rows), 1)))
        if named >= HELDOUT_ENOUGH:
            share = 0.0
        declared = any(row.example.split is not None for row in rows if row.example.provenance == "folder")
        train: list[Kept] = []
        heldout: list[Kept] = []
        drawn: list[tuple[float, list[Kept]]] = []  # by lot, for holding out
        for name, part in self._parts(rows, frozen, trained).items():
            if any(row.key in frozen for row in part):
                part = self._never_trained(part, frozen, trained)
                held = True
            elif any(row.key in trained for row in part):
                held = False
            elif any(row.example.split is not None for row in part):
                held = any(row.example.split == "heldout" for row in part)
            elif declared and all(row.example.provenance == "folder" for row in part):
                held = False  # the folder says what it holds out; the rest of it is for training
            elif all(row.example.provenance == "synthesis" for row in part):
                held = False
            else:
                place = _position(self.secret if any(map(_users, part)) else None, self.skill, name)
                if place < share:
                    drawn.append((place, part))
                    continue
                held = False
            (heldout if held else train).extend(self._asked(part) if held else part)
        drawn.sort(key=lambda lot: lot[0])
        heldout, more = self._bounded(heldout, [part for _, part in drawn], frozen)
        train += more
        order = {row.example.id: place for place, row in enumerate(rows)}
        for side in (train, heldout):
            side.sort(key=lambda row: order[row.example.id])
        return train, heldout

    def _bounded(self, heldout: list[Kept], drawn: Sequence[list[Kept]], frozen: Keys) -> tuple[list[Kept], list[Kept]]:
        """(held out, for training after all) of what is held out for sure and of parts by lot, the first lots first.

        Where the owners' held-out examples could judge alone, users' are at most as many. Those held out before stay.
        """
        rows = [row for part in (heldout, *drawn) for row in part if row.example.provenance != "synthesis"]
        owners = sum(not _users(row) for row in rows)
        room = owners if owners >= HELDOUT_JUDGES else len(rows)
        room -= sum(_users(row) and row.key in frozen for row in heldout)
        held, more = [], []
        for row in heldout:
            if _users(row) and row.key not in frozen:
                if room <= 0:
                    self.drop(row, "heldout_share", "it belongs to held-out ones, half of which users brought already")
                    continue
                room -= 1
            held.append(row)
        for part in drawn:
            theirs = sum(map(_users, part))
            if theirs and theirs > room:
                more += part
            else:
                room -= theirs
                held += self._asked(part)
        return held, more

    def _asked(self, part: list[Kept]) -> list[Kept]:
        """A part that is held out, without what a model wrote: that is no measure of what people ask."""
        for row in part:
            if row.example.provenance == "synthesis":
                self.drop(row, "synthetic_group", "a model wrote it, and what it belongs to is held out")
        return [row for row in part if row.example.provenance != "synthesis"]

    def _never_trained(self, part: list[Kept], frozen: Keys, trained: Keys) -> list[Kept]:
        """A part that is held out, without what was trained on before."""
        kept = [row for row in part if row.key not in trained]
        held = next((row.example.id for row in kept if row.key in frozen), None)
        for row in part:
            if row.key in trained:
                why = f"and belongs to held-out {held}" if held and row.key not in frozen else "and is held out as well"
                self.drop(row, "trained_group", f"was trained on before, {why}")
        return kept

    def _parts(self, rows: list[Kept], frozen: Keys, trained: Keys) -> dict[str, list[Kept]]:
        """Groups that must not be torn apart: examples of one document or thread (`group`) or one author (`person`)."""
        authors = Counter(row.person for row in rows if row.person)
        # Someone who wrote a third of everything would drag it all to one side.
        busy = self.busy = {person for person, count in authors.items() if count > max(10, len(rows) / 3)}
        if busy:
            self.notes.append(
                f"{len(busy)} of {len(authors)} authors wrote more than a third of the examples each; those are split "
                "and judged by thread, not by author."
            )
        parts = _joined(rows, busy)
        torn = [
            name
            for name, part in parts.items()
            if any(row.key in frozen for row in part) and any(row.key in trained for row in part)
        ]
        loose = 0
        for name in torn:
            part = parts.pop(name)
            parts |= _joined(part, {row.person for row in part if row.person})
            loose += sum(1 for row in part if row.person and row.person not in busy)
        if loose:
            self.notes.append(
                f"{loose} examples are split by thread, not by author: of what their authors wrote, some was held out "
                "before and some trained on."
            )
        return parts

    def without_copies(self, rows: list[Kept]) -> list[Kept]:
        """Without inputs that nearly repeat another one and have the same output."""
        texts = [_words_of(row.example) for row in rows]
        gone: set[int] = set()
        labels = [canonical(row.example.output) for row in rows]
        for index, kept_index, similarity in find_copies(texts, NEAR, labels=labels):
            gone.add(index)
            self.drop(rows[index], "near_duplicate", f"{similarity:.0%} the words of {rows[kept_index].example.id}")
        return [row for index, row in enumerate(rows) if index not in gone]

    def decontaminated(self, train: list[Kept], heldout: list[Kept]) -> tuple[list[Kept], list[Kept]]:
        """Training examples without those too near to a held-out one; held-out ones without those of users that are
        too near to what the owners train on: nobody takes the owners' examples away by copying them."""
        theirs = [row for row in heldout if _users(row)]
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
            found = [pair for pair in pairs if _users(pair[0]) and pair[1].example.provenance in TRUSTED]
        copies = set()
        for index, other, similarity in _near(train, heldout):
            copies.add(index)
            self.drop(
                train[index], "heldout_copy", f"{similarity:.0%} the words of held-out {heldout[other].example.id}"
            )
        return [row for index, row in enumerate(train) if index not in copies], heldout

    def clustered(self, heldout: list[Kept]) -> list[Kept]:
        """Held-out examples, each in the group of all that are not independent of it: what one author wrote goes
        together as what one thread holds does, or intervals come out too narrow. Groups name examples, nobody else."""
        cluster: dict[str, str] = {}
        for part in _joined(heldout, self.busy).values():
            cluster |= {row.key: part[0].example.id for row in part}
        return [
            row.model_copy(update={"example": row.example.model_copy(update={"group": cluster[row.key]})})
            for row in heldout
        ]


def _joined(rows: Sequence[Kept], apart: Set[str]) -> dict[str, list[Kept]]:
    """Rows that belong together, directly or through others, by name. Authors `apart` link nothing."""
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for row in rows:
        own = f"key:{row.key}"
        for name in _belongs(row, apart):
            one, other = find(own), find(name)
            if one != other:
                parent[max(one, other)] = min(one, other)
    parts: dict[str, list[Kept]] = defaultdict(list)
    for row in rows:
        parts[find(f"key:{row.key}")].append(row)
    return parts


def _belongs(row: Kept, apart: Set[str]) -> list[str]:
    names = []
    if row.example.group:
        names.append(f"group:{row.example.group}")
    if row.person and row.person not in apart:
        names.append(f"person:{row.person}")
    return names


def _users(row: Kept) -> bool:
    """Whether any key may have brought it. What an example says of its split, only an administrator may say."""
    return row.example.provenance not in (*TRUSTED, "synthesis") and row.example.split is None


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


def _position(secret: str | None, skill: str, name: str) -> float:
    """Where a group stands between 0 and 1: always in the same place, whatever else there is. With a `secret`, nobody
    who does not know it can write an input for a place."""
    text = f"{skill}\0{name}".encode("utf-8", "replace")
    digest = hashlib.sha256(text) if secret is None else hmac.new(secret.encode(), text, hashlib.sha256)
    return int(digest.hexdigest()[:12], 16) / 16**12


def _digest(train: Sequence[Kept], heldout: Sequence[Kept]) -> str:
    total = hashlib.sha256()
    for split, rows in (("train", train), ("heldout", heldout)):
        for row in rows:
            example = row.example
            value = example.input if isinstance(example.input, str) else [m.model_dump() for m in example.input]
            line = json.dumps([split, value, example.output], sort_keys=True, ensure_ascii=False)
            total.update(line.encode("utf-8", "replace") + b"\n")
    return total.hexdigest()


# --- is it enough? -------------------------------------------------------------------------------------------------


class Readiness(Model):
    """Whether a dataset is worth training on; `missing` says what is not there yet, `notes` what to know anyway."""

    ready: bool
    train: int
    heldout: int
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    dropped: Mapping[str, int] = {}


def readiness(built: Built, schema: OutputSchema | None, *, min_examples: int) -> Readiness:
    """What is missing before training makes sense, in sentences with numbers."""
    missing, notes = [], list(built.notes)
    train = [row.example for row in built.train]
    if len(train) < min_examples:
        missing.append(f"{len(train)} examples to train on, {min_examples} needed.")
    outputs = {canonical(example.output) for example in train}
    if len(train) > 1 and len(outputs) == 1:
        missing.append("Every example has the same output: there is nothing to learn from them.")
    if len(built.heldout) < 30:
        notes.append(f"{len(built.heldout)} held-out examples; under 30 no adapter can be proved better.")
    for path, values in enumerated(schema).items():
        seen = Counter(str(_at(example.output, path)) for example in train)
        never = [value for value in values if not seen[str(value)]]
        if never:
            notes.append(f"`{'.'.join(path)}` never has the value{'s' * (len(never) > 1)} {_listed(never)}.")
    reasons = Counter(row.reason for row in built.dropped)
    if reasons["contradiction"]:
        notes.append(f"{reasons['contradiction']} examples contradict others and are left out.")
    return Readiness(
        ready=not missing,
        train=len(train),
        heldout=len(built.heldout),
        missing=tuple(missing),
        notes=tuple(notes),
        dropped=dict(reasons),
    )


def enumerated(schema: OutputSchema | None) -> dict[tuple[str, ...], list[Json]]:
    """Fields of the output, by path, that can only have a few values."""
    found: dict[tuple[str, ...], list[Json]] = {}

    def walk(node: Json, path: tuple[str, ...]) -> None:
        if not isinstance(node, dict):
            return
        if path and isinstance(node.get("enum"), list) and len(node["enum"]) <= 50:
            found[path] = node["enum"]
        elif path and node.get("type") == "boolean":
            found[path] = [True, False]
        for name, child in (node.get("properties") or {}).items():
            walk(child, (*path, name))

    walk(schema.schema if schema else None, ())
    return found


def _at(value: Json, path: Sequence[str]) -> Json:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _listed(values: Sequence[Json]) -> str:
    names = [f"`{json.dumps(value, ensure_ascii=False).strip(chr(34))}`" for value in values[:5]]
    return ", ".join(names) + (f" and {len(values) - 5} more" if len(values) > 5 else "")
