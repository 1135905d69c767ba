"""Lexical retrieval: BM25 over one skill's passages, kept in memory for the skills in use.

In: ids and texts. Out: the ids that match a text best. It knows no SQL and no vectors; whoever loads it names a
version, and another version is loaded anew.

BM25 as in Lucene (Kamphuis et al., 2020) through bm25s (Lu, 2024), on numpy alone.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Content words of `text`, lower-cased and in the singular, in order; English stop words left out.

    The stemmer is Harman's S-stemmer ("How effective is suffixing?", JASIS 1991): it merges singular and plural and
    nothing else. Porter's moves the benchmark's recall by less than 0.02 either way: not worth a compiled dependency.
    Without the stop words, recall there falls from 0.53 to 0.37.
    """
    return [_singular(word) for word in _WORD.findall(text.lower()) if word not in _stop_words()]


def _singular(word: str) -> str:
    if len(word) < 4 or not word.endswith("s"):
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    if word.endswith("es"):
        return word if word.endswith(("aes", "ees", "oes")) else word[:-1]
    return word if word.endswith(("us", "ss")) else word[:-1]


_stop: frozenset[str] = frozenset()


def _stop_words() -> frozenset[str]:
    global _stop
    if not _stop:
        from bm25s.stopwords import STOPWORDS_EN_PLUS

        _stop = frozenset(STOPWORDS_EN_PLUS)
    return _stop


class LexicalIndex:
    """BM25 over a fixed set of passages. Immutable, so searches need no lock."""

    def __init__(self, passages: Iterable[tuple[str, str]]) -> None:
        """`passages` are (id, text)."""
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG

        self.ids: list[str] = []
        self._vocabulary: dict[str, int] = {}
        corpus: list[list[int]] = []
        for id, text in passages:
            self.ids.append(id)
            corpus.append([self._vocabulary.setdefault(word, len(self._vocabulary)) for word in words(text)])
        self._scorer: Any = None
        if self._vocabulary:
            self._scorer = bm25s.BM25()
            self._scorer.index((corpus, self._vocabulary), create_empty_token=False, show_progress=False)

    def __len__(self) -> int:
        return len(self.ids)

    def search(self, text: str, limit: int) -> list[tuple[str, float]]:
        """(id, BM25 score) of the passages that share a content word with `text`, best first, `limit` at most."""
        known = [self._vocabulary[word] for word in words(text) if word in self._vocabulary]
        if not known:
            return []
        scores = self._scorer.get_scores(known)
        rows = np.flatnonzero(scores > 0)
        if len(rows) > limit:
            # Everything that ties with the last one stays until the ids decide: the same corpus gives the same result.
            edge = np.partition(scores[rows], len(rows) - limit)[len(rows) - limit]
            rows = rows[scores[rows] >= edge]
        found = sorted(((self.ids[row], float(scores[row])) for row in rows), key=lambda hit: (-hit[1], hit[0]))
        return found[:limit]


class LexicalCache:
    """The indexes of the skills in use, least recently used first out. Thread-safe.

    `passages` caps how many passages all of them hold together (about 1.5 KB each); the newest stays in any case.
    """

    def __init__(self, passages: int = 200_000) -> None:
        self._most = passages
        self._held: OrderedDict[tuple[str, str], tuple[int, LexicalIndex]] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: dict[tuple[str, str], threading.Lock] = {}

    def get(self, key: tuple[str, str], version: int, load: Callable[[], Sequence[tuple[str, str]]]) -> LexicalIndex:
        """The index of `key` at `version` or newer; `load` reads its (id, text) rows when it is not at hand. While
        another thread is loading it, an older one where there is one."""
        with self._lock:
            found = self._take(key, version)
            if found is not None:
                return found
            older = self._held.get(key)
            loading = self._loading.setdefault(key, threading.Lock())
        # While documents come in, the newest index is being built most of the time: one caller builds, the others
        # answer from the one before.
        if not loading.acquire(blocking=older is None) and older is not None:
            return older[1]
        try:
            with self._lock:
                found = self._take(key, version)
            if found is not None:
                return found
            built = LexicalIndex(load())
            with self._lock:
                self._held[key] = (version, built)
                self._held.move_to_end(key)
                while len(self._held) > 1 and sum(len(index) for _, index in self._held.values()) > self._most:
                    self._held.popitem(last=False)
            return built
        finally:
            loading.release()

    def drop(self, key: tuple[str, str]) -> None:
        with self._lock:
            self._held.pop(key, None)

    def clear(self) -> None:
        with self._lock:
            self._held.clear()

    def __contains__(self, key: tuple[str, str]) -> bool:
        with self._lock:
            return key in self._held

    def _take(self, key: tuple[str, str], version: int) -> LexicalIndex | None:
        held = self._held.get(key)
        if held is None or held[0] < version:
            return None
        self._held.move_to_end(key)
        return held[1]
