"""Copies and near-copies among texts.

In: texts. Out: which ones repeat an earlier one, or are too near to one of another set, and how near. Two texts are as
similar as their sets of words (Jaccard). MinHash (Broder, 1997) with locality-sensitive hashing finds the pairs worth a
look, and the sets themselves decide, so that nothing is called a copy by chance; a copy is overlooked with a
probability below MISSED. Deterministic. Knows no examples.

Where inputs are filled-in forms, most words of every text are the form's, and everything would copy everything: words
that more than half of the texts have count only where nothing else is left.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import TypeVar

from datasketch import MinHash, MinHashLSH

T = TypeVar("T", bound=Hashable)
Run = tuple[str, ...]

SHORT = 5  # words; below, one word more or less is another text: only the same set is a copy
SHINGLE = 5  # words in a row
LEAST_SHINGLES = 10  # fewer are a phrase that two texts may share by chance
CONTAINED = 0.8
MISSED = 1e-6
_PERMUTATIONS = 128
_FORM_TEXTS = 20  # fewer texts do not tell what belongs to a form
# Thai, Lao, Burmese, Khmer, Kana, Han
_SPACELESS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_SPACELESS}]|[^\W{_SPACELESS}]+")


def words(text: str) -> list[str]:
    """Words in order, in small letters; in scripts without spaces each letter is one."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def find_copies(
    texts: Sequence[str], threshold: float, *, labels: Sequence[Hashable] | None = None
) -> list[tuple[int, int, float]]:
    """(index, index of the kept text that it copies, similarity) for each text that repeats an earlier, kept one.

    With `labels`, one for each text, only texts of the same label can be copies of each other.
    """
    sets = _Sets(texts)
    indexes: dict[Hashable, _Index] = defaultdict(lambda: _Index(threshold))
    found = []
    for place in range(len(texts)):
        index = indexes[labels[place] if labels is not None else None]
        if (best := index.nearest(sets, place)) is not None:
            found.append((place, *best))
        else:
            index.add(sets, place)
    return found


def contaminated(texts: Sequence[str], heldout: Sequence[str], threshold: float) -> list[tuple[int, int, float]]:
    """(index, index among `heldout`, similarity) for each text that gives a held-out one away.

    That is a text as similar as `threshold`, or one that shares CONTAINED of the runs of SHINGLE words of the shorter
    of the two: a mail that quotes the held-out mail, or a piece cut out of it. One common run of 13 words, which Brown
    et al. (2020, appendix C) took as enough, would let a disclaimer under every mail empty the training set; so runs
    that most texts have do not count here either.
    """
    sets = _Sets([*heldout, *texts])
    index = _Index(threshold)
    for place in range(len(heldout)):
        index.add(sets, place)
    runs = _Runs(texts, heldout)
    found = []
    for place in range(len(texts)):
        best = index.nearest(sets, len(heldout) + place) or runs.containing(place)
        if best is not None:
            found.append((place, *best))
    return found


class _Sets:
    """The words of each text: all of them, and those that do not belong to a form; and the sketch of the latter."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.whole = [frozenset(words(text)) for text in texts]
        common = _common(self.whole)
        self.own = [whole - common for whole in self.whole]
        encoded = ([word.encode("utf-8", "replace") for word in sorted(own)] or [b""] for own in self.own)
        self.sketches: list[MinHash] = MinHash.bulk(encoded, num_perm=_PERMUTATIONS, seed=1) if texts else []

    def similarity(self, one: int, other: int) -> float:
        """Jaccard similarity, or 0 for short texts that are not the same."""
        first, second = self.own[one], self.own[other]
        if not first and not second:
            first, second = self.whole[one], self.whole[other]
        if min(len(first), len(second)) < SHORT:
            return float(first == second)
        return len(first & second) / len(first | second)


class _Index:
    """Texts to look for near ones among. Bands of rows of the sketches propose, the sets decide."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        rows = next(r for r in range(_PERMUTATIONS // 2, 0, -1) if _missed(threshold, r) < MISSED or r == 1)
        self._lsh = MinHashLSH(num_perm=_PERMUTATIONS, params=(_PERMUTATIONS // rows, rows))

    def add(self, sets: _Sets, place: int) -> None:
        self._lsh.insert(place, sets.sketches[place])

    def nearest(self, sets: _Sets, place: int) -> tuple[int, float] | None:
        """The most similar text, the first of those that are equally so; None when none is similar enough."""
        near = ((sets.similarity(place, other), -other) for other in self._lsh.query(sets.sketches[place]))
        similarity, other = max(near, default=(0.0, 0))
        return (-other, similarity) if similarity >= self._threshold else None


class _Runs:
    """Runs of words of the held-out texts, and what others have of them. Only those are kept: a long list of long texts
    has millions."""

    def __init__(self, texts: Sequence[str], heldout: Sequence[str]) -> None:
        its = [frozenset(_shingles(text)) for text in heldout]
        known = frozenset[Run]().union(*its)
        self._sizes = [0] * len(texts)
        self._shared: list[frozenset[Run]] = []
        for place, text in enumerate(texts):
            runs = frozenset(_shingles(text))
            self._sizes[place] = len(runs)
            self._shared.append(runs & known)
        common = _common([*its, *self._shared])
        self._sizes = [size - len(runs & common) for size, runs in zip(self._sizes, self._shared, strict=True)]
        self._shared = [runs - common for runs in self._shared]
        self._heldout_sizes = [len(runs - common) for runs in its]
        self._where: dict[Run, list[int]] = defaultdict(list)
        for place, runs in enumerate(its):
            for run in runs - common:
                self._where[run].append(place)

    def containing(self, place: int) -> tuple[int, float] | None:
        """(held-out text, share of shared runs in the shorter of the two) of the one with most in common."""
        counts = Counter(other for run in self._shared[place] for other in self._where[run])
        shares = ((count / self._least(place, other), -other) for other, count in counts.items())
        share, other = max(shares, default=(0.0, 0))
        return (-other, share) if share >= CONTAINED else None

    def _least(self, place: int, other: int) -> int:
        return max(LEAST_SHINGLES, min(self._sizes[place], self._heldout_sizes[other]))


def _shingles(text: str) -> Iterator[Run]:
    its = words(text)
    return (tuple(its[at : at + SHINGLE]) for at in range(len(its) - SHINGLE + 1))


def _common(sets: Sequence[frozenset[T]]) -> frozenset[T]:
    """What more than half of the sets have."""
    if len(sets) < _FORM_TEXTS:
        return frozenset()
    counts = Counter(item for its in sets for item in its)
    return frozenset(item for item, count in counts.items() if count > len(sets) / 2)


def _missed(similarity: float, rows: int) -> float:
    """How probable it is that no band of so many rows of two sketches agrees."""
    return float((1 - similarity**rows) ** (_PERMUTATIONS // rows))
