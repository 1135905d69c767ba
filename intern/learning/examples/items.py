"""What a dataset is made of, from what was gathered to what is kept, and when two inputs or outputs are the same.

In: examples. Out: `Gathered`, `Kept`, `Built`; one spelling for inputs (`key_of`) and outputs (`canonical`) that say
the same; and by what an example is known that was changed under its id (`origin_of`). Does not know how any of it is
chosen.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Set
from typing import Protocol

from intern.types import Dropped, Example, Json, Message, Model

TRUSTED = ("folder", "import")  # written or confirmed by the skill's owners, in this order: no cap on how many

Keys = Set[str]  # hashes of inputs, see `key_of`


class Gathered(Model):
    """An example with what splitting and deletion need to know. `person` is the end user whose words the input are."""

    example: Example
    person: str | None = None


class Redacts(Protocol):
    def __call__(self, example: Example, /) -> tuple[Example, str | None]:
        """The example without personal data, or with a sentence that says why that cannot be done."""
        ...


class Kept(Model):
    """An example of the dataset. `key` is the hash of its input as it was before redaction, `origin` that of both sides
    to the letter, `openings` those of its conversation at each of the user's turns.

    A held-out example's `group` is its cluster: the id of the first held-out example of the same thread or author.
    """

    example: Example
    key: str
    origin: str
    openings: tuple[str, ...] = ()
    person: str | None = None


class Built(Model):
    """A dataset before it is stored. `digest` is the SHA-256 over both splits in order."""

    train: tuple[Kept, ...]
    heldout: tuple[Kept, ...]
    dropped: tuple[Dropped, ...]
    notes: tuple[str, ...]
    digest: str


def key_of(example: Example) -> str:
    """Hash of the normalised input, whatever its punctuation's width, capitals and spaces."""
    turns = [example.input] if isinstance(example.input, str) else [f"{m.role}: {m.content}" for m in example.input]
    return hashlib.sha256("\n".join(map(_plain, turns)).encode("utf-8", "replace")).hexdigest()


def openings_of(example: Example) -> tuple[str, ...]:
    """Hashes of what was said up to each turn of the user, normalised as `key_of` does; the last one is of all of it.

    Of two turns of one conversation the earlier one's last is among the later one's. What the system says is left out:
    it changes with the day.
    """
    turns = (
        [Message(role="user", content=example.input)]
        if isinstance(example.input, str)
        else [turn for turn in example.input if turn.role != "system"]
    )
    said = hashlib.sha256()
    found = []
    for turn in turns:
        said.update(_plain(f"{turn.role}: {turn.content}").encode("utf-8", "replace") + b"\n")
        if turn.role == "user":
            found.append(said.hexdigest())
    return tuple(found)


def origin_of(example: Example) -> str:
    """Hash of input and output to the letter: with another one it is another example, whatever its id."""
    text = json.dumps([plain_input(example), example.output], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def plain_input(example: Example) -> Json:
    """The input as JSON: a text, or turns."""
    return example.input if isinstance(example.input, str) else [turn.model_dump() for turn in example.input]


def canonical(value: Json) -> str:
    """One spelling for equal JSON values; texts without outer and doubled spaces."""
    return json.dumps(_collapsed(value), sort_keys=True, ensure_ascii=False)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _collapsed(value: Json) -> Json:
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, dict):
        return {key: _collapsed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_collapsed(item) for item in value]
    return value


def from_users(row: Kept) -> bool:
    """Whether any key may have brought it. What an example says of its split, only an administrator may say."""
    return row.example.provenance not in (*TRUSTED, "synthesis") and row.example.split is None
