"""Which examples are held out to judge adapters by, and which ones are trained on.

In: examples as they are kept, the keys of those that were held out and trained on before. Out: the two sides, with a
reason for what stands on neither. Knows no schema, model or database.

What is held out judges every adapter, so no user's key can choose it. Inputs that users brought are held out by a lot
that nobody can know, are at most half of all where the owners' are enough to judge by, and add nothing to what the
owners hold out. What a model wrote is never held out.

A thread is what `group` says. Where nothing is said, the turns of one conversation are one: each begins with what was
said before it. But people who have nothing to do with each other begin with the same words, "hello" for instance, and
one group of all of them would drag them all to one side. So a beginning that goes on in more than CONTINUED ways joins
nothing, and the longer ones behind it do.

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
from collections import Counter, defaultdict
from collections.abc import Sequence, Set
from typing import Protocol

from intern.learning.examples.items import Kept, Keys, from_users

HELDOUT_SHARE = 0.2
HELDOUT_WANTED = 40  # smaller collections hold out a larger share, to come near the 30 that the gate needs
HELDOUT_MOST_SHARE = 0.4
HELDOUT_ENOUGH = 400  # more than that is held out by name only: evaluation takes time, and training wants the rest
HELDOUT_JUDGES = 30  # so many of the owners' judge alone: from there on, users' are at most half of all held out
# Ways in which one conversation goes on from one of its turns: it ends there, goes on, was asked again, or otherwise.
CONTINUED = 5
HELDOUT_GROUPS = 30  # independent groups of held-out examples that the gate asks for, unless it is told otherwise


class Drops(Protocol):
    def __call__(self, row: Kept, reason: str, detail: str) -> None:
        """Leave an example out: one word for machines, one sentence for people."""
        ...


class Splitting:
    """The sides of one skill's dataset. `secret` decides by lot on users' inputs, the skill's name on others. `notes`
    are for people."""

    def __init__(self, skill: str, secret: str, drop: Drops) -> None:
        self.notes: list[str] = []
        self._skill = skill
        self._secret = secret
        self._drop = drop
        self._busy: set[str] = set()  # authors who wrote too much to be held together
        self._openings: set[str] = set()  # beginnings of one conversation, not of many

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
        for part in self._parts(rows, frozen, trained):
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
                owners = [row for row in part if _is_owners(row)]  # users add to such a part, and decide nothing
                name = min(name for row in owners or part for name in self._names(row, self._busy))
                secret = None if owners or not any(map(from_users, part)) else self._secret
                if (place := _position(secret, self._skill, name)) < share:
                    drawn.append((place, part))
                    continue
                held = False
            (heldout if held else train).extend(self._asked(part, frozen) if held else part)
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
        owners = sum(not from_users(row) for row in rows)
        room = owners if owners >= HELDOUT_JUDGES else len(rows)
        room -= sum(from_users(row) and row.key in frozen for row in heldout)
        held, more = [], []
        for row in heldout:
            if from_users(row) and row.key not in frozen:
                if room <= 0:
                    self._drop(row, "heldout_share", "it belongs to held-out ones, half of which users brought already")
                    continue
                room -= 1
            held.append(row)
        for part in drawn:
            theirs = 0 if any(map(_is_owners, part)) else sum(map(from_users, part))
            if theirs and theirs > room:
                more += part
            else:
                room -= theirs
                held += self._asked(part, frozen)
        return held, more

    def _asked(self, part: list[Kept], frozen: Keys) -> list[Kept]:
        """A part that is held out, without what a model wrote: that is no measure of what people ask. And without what
        users bring anew to what the owners hold out, or naming its author would be enough to add to it."""
        owners = any(map(_is_owners, part))
        kept = []
        for row in part:
            if row.example.provenance == "synthesis":
                self._drop(row, "synthetic_group", "a model wrote it, and what it belongs to is held out")
            elif owners and from_users(row) and row.key not in frozen:
                self._drop(row, "heldout_author", "what the owners hold out is of the same author or thread")
            else:
                kept.append(row)
        return kept

    def _never_trained(self, part: list[Kept], frozen: Keys, trained: Keys) -> list[Kept]:
        """A part that is held out, without what was trained on before."""
        kept = [row for row in part if row.key not in trained]
        held = next((row.example.id for row in kept if row.key in frozen), None)
        for row in part:
            if row.key in trained:
                why = f"and belongs to held-out {held}" if held and row.key not in frozen else "and is held out as well"
                self._drop(row, "trained_group", f"was trained on before, {why}")
        return kept

    def _parts(self, rows: list[Kept], frozen: Keys, trained: Keys) -> list[list[Kept]]:
        """Groups that must not be torn apart: examples of one document or thread (`group`), of one conversation, or of
        one author (`person`)."""
        self._openings = _told_apart(rows)
        authors = Counter(row.person for row in rows if row.person)
        # Someone who wrote a third of everything would drag it all to one side.
        busy = self._busy = {person for person, count in authors.items() if count > max(10, len(rows) / 3)}
        if busy:
            self.notes.append(
                f"{len(busy)} of {len(authors)} authors wrote more than a third of the examples each; those are split "
                "and judged by thread, not by author."
            )
        parts = []
        loose = 0
        for part in self._joined(rows, busy):
            if any(row.key in frozen for row in part) and any(row.key in trained for row in part):
                parts += self._joined(part, {row.person for row in part if row.person})
                loose += sum(1 for row in part if row.person and row.person not in busy)
            else:
                parts.append(part)
        if loose:
            self.notes.append(
                f"{loose} examples are split by thread, not by author: of what their authors wrote, some was held out "
                "before and some trained on."
            )
        return parts

    def clustered(self, heldout: list[Kept]) -> list[Kept]:
        """Held-out examples, each in the group of all that are not independent of it: what one author wrote goes
        together as what one thread holds does, or intervals come out too narrow. Groups name examples, nobody else."""
        cluster: dict[str, str] = {}
        parts = self._joined(heldout, self._busy)
        threads = len(self._joined(heldout, {row.person for row in heldout if row.person}))
        if len(parts) < HELDOUT_GROUPS <= threads:
            self.notes.append(
                f"The held-out examples are of {threads} threads, but {len(parts)} authors or groups of them: what one "
                f"author wrote counts as dependent, and under {HELDOUT_GROUPS} no adapter can be proved better. Bring "
                "examples of more people; if `person` is something else than who wrote them, import them without it."
            )
        for part in parts:
            cluster |= {row.key: part[0].example.id for row in part}
        return [
            row.model_copy(update={"example": row.example.model_copy(update={"group": cluster[row.key]})})
            for row in heldout
        ]

    def _joined(self, rows: Sequence[Kept], apart: Set[str]) -> list[list[Kept]]:
        """Rows that belong together, directly or through others. Authors `apart` link nothing."""
        parent: dict[str, str] = {}

        def find(name: str) -> str:
            while parent.setdefault(name, name) != name:
                parent[name] = parent[parent[name]]
                name = parent[name]
            return name

        for row in rows:
            own, *others = self._names(row, apart)
            for name in others:
                one, other = find(own), find(name)
                if one != other:
                    parent[max(one, other)] = min(one, other)
        parts: dict[str, list[Kept]] = defaultdict(list)
        for row in rows:
            parts[find(f"key:{row.key}")].append(row)
        return list(parts.values())

    def _names(self, row: Kept, apart: Set[str]) -> list[str]:
        """What a row belongs to, itself first."""
        names = [f"key:{row.key}"]
        if row.example.group:
            names.append(f"group:{row.example.group}")
        if row.person and row.person not in apart:
            names.append(f"person:{row.person}")
        return names + [name for name in _openings(row) if name in self._openings]


def _is_owners(row: Kept) -> bool:
    return not from_users(row) and row.example.provenance != "synthesis"


def _openings(row: Kept) -> list[str]:
    """Names of what was said up to each of the user's turns.

    They join nobody who is known to be apart: two authors, two threads that have names (a record's own id is none), or
    users and owners. Else whoever writes what a held-out conversation begins with would add to it.
    """
    example = row.example
    thread = example.group if example.group != example.record else None
    scope = hashlib.sha256(repr((from_users(row), row.person, thread)).encode("utf-8", "replace")).hexdigest()
    return [f"opening:{scope}:{opening}" for opening in row.openings]


def _told_apart(rows: Sequence[Kept]) -> set[str]:
    """Openings that go on in few ways: as one conversation does, whose turns were brought one by one."""
    ways: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        names = _openings(row)
        for name, then in zip(names, [*names[1:], row.key], strict=True):
            if len(ways[name]) <= CONTINUED:
                ways[name].add(then)
    return {name for name, found in ways.items() if len(found) <= CONTINUED}


def _position(secret: str | None, skill: str, name: str) -> float:
    """Where a group stands between 0 and 1: always in the same place, whatever else there is. With a `secret`, nobody
    who does not know it can write an input for a place."""
    text = f"{skill}\0{name}".encode("utf-8", "replace")
    digest = hashlib.sha256(text) if secret is None else hmac.new(secret.encode(), text, hashlib.sha256)
    return int(digest.hexdigest()[:12], 16) / 16**12
