"""The embedder on torch: any sentence-transformers model, for those that cannot be exported to ONNX.

Texts in, unit vectors out. Slower to start and several hundred megabytes larger than onnx.py.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from intern.errors import ModelUnavailable
from intern.models.embedder import Vectors


class TorchEmbedder:
    """A sentence-transformers folder run by its own library. Thread-safe: one text batch at a time.

    Raises ModelUnavailable when sentence-transformers is not installed or cannot load the folder.
    """

    def __init__(self, folder: Path, *, id: str, threads: int) -> None:
        try:
            import torch
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ModelUnavailable(
                f"The embedder '{folder.name}' needs sentence-transformers. Install it with "
                "'pip install torch sentence-transformers', or choose an embedder that can be exported to ONNX."
            ) from error
        torch.set_num_threads(max(1, threads))
        try:
            self._model = SentenceTransformer(str(folder), local_files_only=True)
        except Exception as error:  # the library raises whatever its parts raise
            raise ModelUnavailable(f"'{folder}' cannot be loaded as a sentence-transformers model: {error}") from error
        self._id = id
        self._dimension = len(self.embed(["."])[0])

    # One at a time: fast tokenizers keep their truncation setting in the object and refuse to be used twice at once.
    _lock = threading.Lock()

    @property
    def id(self) -> str:
        return self._id

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def max_tokens(self) -> int:
        return int(self._model.max_seq_length or 512)

    def embed(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.empty((0, self._dimension), dtype=np.float32)
        with self._lock:
            found = self._model.encode(
                [text.encode("utf-8", "replace").decode("utf-8") for text in texts],
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        return np.ascontiguousarray(found, dtype=np.float32)

    def count_tokens(self, text: str) -> int:
        with self._lock:
            return len(
                self._model.tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
            )
