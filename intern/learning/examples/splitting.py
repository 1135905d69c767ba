"""Which examples are held out to judge adapters by, and which ones are trained on.

In: examples as they are kept, the keys of those that were held out and trained on before. Out: the two sides, with a
reason for what stands on neither. Knows no schema, model or database.

What is held out judges every adapter, so no user's key can choose it. Inputs that users brought are held out by a lot
that nobody can know, are at most half of all where the owners' are enough to judge by. What a model wrote is never held
out.

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
                place = _position(self._secret if any(map(from_users, part)) else None, self._skill, name)
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
            theirs = sum(map(from_users, part))
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
                self._drop(row, "synthetic_group", "a model wrote it, and what it belongs to is held out")
        return [row for row in part if row.example.provenance != "synthesis"]

    def _never_trained(self, part: list[Kept], frozen: Keys, trained: Keys) -> list[Kept]:
        """A part that is held out, without what was trained on before."""
        kept = [row for row in part if row.key not in trained]
        held = next((row.example.id for row in kept if row.key in frozen), None)
        for row in part:
            if row.key in trained:
                why = f"and belongs to held-out {held}" if held and row.key not in frozen else "and is held out as well"
                self._drop(row, "trained_group", f"was trained on before, {why}")
        return kept

    def _parts(self, rows: list[Kept], frozen: Keys, trained: Keys) -> dict[str, list[Kept]]:
        """Groups that must not be torn apart: examples of one document or thread (`group`) or one author (`person`)."""
        authors = Counter(row.person for row in rows if row.person)
        # Someone who wrote a third of everything would drag it all to one side.
        busy = self._busy = {person for person, count in authors.items() if count > max(10, len(rows) / 3)}
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

    def clustered(self, heldout: list[Kept]) -> list[Kept]:
        """Held-out examples, each in the group of all that are not independent of it: what one author wrote goes
        together as what one thread holds does, or intervals come out too narrow. Groups name examples, nobody else."""
        cluster: dict[str, str] = {}
        for part in _joined(heldout, self._busy).values():
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


def _position(secret: str | None, skill: str, name: str) -> float:
    """Where a group stands between 0 and 1: always in the same place, whatever else there is. With a `secret`, nobody
    who does not know it can write an input for a place."""
    text = f"{skill}\0{name}".encode("utf-8", "replace")
    digest = hashlib.sha256(text) if secret is None else hmac.new(secret.encode(), text, hashlib.sha256)
    return int(digest.hexdigest()[:12], 16) / 16**12
