"""The embedder seam: texts in, unit vectors out. See onnx.py and torch.py for what runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into vectors for cosine similarity. Thread-safe; blocks, so call it off the event loop.

    `id` changes whenever vectors would (a content hash of the weights); `dimension` is the length of a vector;
    `max_tokens` is where longer texts are cut by the model.
    """

    @property
    def id(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    @property
    def max_tokens(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """float32 array of shape (len(texts), dimension), each row of Euclidean length 1."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` for this model, special tokens not counted, nothing cut."""
        ...
