"""A skill's documents before training: what their owners state may stay, all other personal data goes.

In: documents with who brought them, a redactor. Out: the values that owners state (`keep`), and the documents' texts
without any others. What users bring states nothing: whoever uploads a list of names must not switch off that they are
taken out of everybody's examples. Each document is searched once while its content stays. Knows no store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from intern.errors import InvalidInput, NotFound
from intern.learning.privacy.placeholders import Scope
from intern.learning.privacy.redact import Redactor

PIECE = 100_000  # characters of a document that are searched together


@dataclass(frozen=True)
class Source:
    """One document, read when it is needed. `digest` names its content; `owned`: whoever brought it may say what the
    skill tells everybody (its folder, an administrator)."""

    id: str
    digest: str
    name: str
    owned: bool
    read: Callable[[], str]


class Documents:
    """The documents of one skill. Blocking; thread-safe as far as the redactor is."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._stated: dict[tuple[str, str], frozenset[str]] = {}

    def stated(self, sources: Sequence[Source]) -> frozenset[str]:
        """The personal data that owners state, as they write it. Raises as `Redactor.stated` does."""
        owned = {(source.id, source.digest): source for source in sources if source.owned}
        found: dict[tuple[str, str], frozenset[str]] = {}
        for key, source in owned.items():
            values = self._stated.get(key)
            if values is None:
                try:
                    values = self._redactor.stated(list(pieces(source.read())))
                except NotFound:  # deleted a moment ago
                    continue
                self._stated[key] = values  # at once: who asks meanwhile need not search it again
            found[key] = values
        for key in self._stated.keys() - found.keys():
            self._stated.pop(key, None)  # nothing of a document outlives it
        return frozenset[str]().union(*found.values())

    def freed(self, sources: Sequence[Source], keep: frozenset[str]) -> tuple[list[str], int]:
        """The documents without personal data but for `keep`, each with its name as first line; and how many cannot be
        searched, or hold more than can be replaced: they are left out. Raises TrainingUnavailable."""
        texts, left_out = [], 0
        for source in sources:
            try:
                texts.append(self._freed(source.name, source.read(), keep))
            except NotFound:
                continue
            except InvalidInput:
                left_out += 1
        return texts, left_out

    def _freed(self, name: str, text: str, keep: frozenset[str]) -> str:
        scope = Scope()
        parts = [name, *pieces(text)]
        for _ in range(2):  # what a later part gave away goes from the earlier ones too
            parts = [self._redactor.redact(part, scope, keep=keep).text for part in parts]
        return f"{parts[0]}\n{''.join(parts[1:])}"


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """The text in pieces of at most `size` characters, cut behind a line or a word where there is one."""
    start = 0
    while len(text) - start > size:
        end = max(text.rfind("\n", start, start + size), start)
        if end == start:
            end = max(text.rfind(" ", start, start + size), start)
        end = start + size if end == start else end + 1
        yield text[start:end]
        start = end
    yield text[start:]
