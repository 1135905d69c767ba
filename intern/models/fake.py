"""An embedder for tests: the direction of a text is the sum of its words' hashes, so texts with common words are near.

No model and no meaning: 'car' and 'automobile' are as far apart as any two words.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from intern.models.embedder import Vectors


class HashEmbedder:
    """Deterministic on every machine. Texts longer than `max_tokens` words are cut, as a model would."""

    def __init__(self, dimension: int = 64, *, max_tokens: int = 256, id: str = "hash") -> None:
        self._dimension = dimension
        self._max_tokens = max_tokens
        self._id = id

    @property
    def id(self) -> str:
        return self._id

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def max_tokens(self) -> int:
        return self._max_tokens

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self._dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in _words(text)[: self._max_tokens]:
                seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
                vectors[row] += np.random.default_rng(seed).standard_normal(self._dimension, dtype=np.float32)
            if not vectors[row].any():
                vectors[row, 0] = 1.0
        unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    def count_tokens(self, text: str) -> int:
        return len(_words(text))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
