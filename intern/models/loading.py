"""Opens the embedder that a reference names, on onnxruntime where that gives the same vectors, else on torch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from intern.models.embedder import Embedder
from intern.models.onnx import NotExportable, OnnxEmbedder, exported
from intern.models.source import content_hash, resolve
from intern.models.torch import TorchEmbedder

log = logging.getLogger(__name__)


def open_embedder(
    reference: str,
    cache: Path,
    threads: int,
    *,
    progress: Callable[[str], None] | None = None,
) -> Embedder:
    """The embedder named by `reference` (see source.py), ready to use.

    `cache` keeps the ONNX export and known hashes; `threads` are CPU threads of one call; `progress` hears one sentence
    before and after the one-time export. Raises ModelUnavailable, with what to do.
    """
    folder = resolve(reference, cache=cache)
    digest = content_hash(folder, cache=cache)
    try:
        return OnnxEmbedder(exported(folder, digest, cache, progress=progress), id=digest, threads=threads)
    except NotExportable as reason:
        log.warning(
            "The embedder '%s' runs on torch, which takes more memory and time: %s.", reference, str(reason).rstrip(".")
        )
    return TorchEmbedder(folder, id=digest, threads=threads)
