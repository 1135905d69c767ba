"""What routing keeps between starts: vectors of a team's texts, and its trained head with the calibration.

Arrays in, arrays out, one npz file each below a folder (or nowhere, without one). A file that is lost, damaged or made
for other contents is only work to be done again. Files appear whole or not at all; texts are kept as hashes only.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from intern.models.embedder import Embedder, Vectors
from intern.routing.calibrate import Calibration
from intern.routing.head import Head
from intern.routing.index import Ints

log = logging.getLogger(__name__)

_TRAINED = {"key", "weights", "owners", "parts", "skills", "trust", "cells", "coefficients", "inscope"}


class Cache:
    """Files of one embedder: `<what>-<team hash>.npz` below folder/<embedder id>/."""

    def __init__(self, folder: Path | None, embedder: Embedder) -> None:
        self._folder = folder / embedder.id[:24] if folder else None
        self._embedder = embedder

    def vectors(self, team: str, texts: Sequence[str], known: Mapping[str, Vectors]) -> Vectors:
        """One row a text, (len(texts), dimension): from `known`, else from the file, else embedded. Afterwards the
        file holds exactly these texts, so that what was deleted from a skill leaves the disk as well."""
        hashes = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32] for text in texts]
        found: dict[str, Vectors] = {h: known[t] for h, t in zip(hashes, texts, strict=True) if t in known}
        stored = self._load("vectors", team)
        before: set[str] = set()
        if stored is not None and {"hashes", "rows"} <= stored.keys():
            before = {str(h) for h in stored["hashes"]}
            found = {str(h): row for h, row in zip(stored["hashes"], stored["rows"], strict=True)} | found
        missing = {h: t for h, t in zip(hashes, texts, strict=True) if h not in found}
        if missing:
            found.update(zip(missing, self._embedder.embed(list(missing.values())), strict=True))
        unique = sorted(set(hashes))
        if set(unique) != before:
            rows = (
                np.stack([found[h] for h in unique]) if unique else np.zeros((0, self._embedder.dimension), np.float32)
            )
            self._save("vectors", team, hashes=np.asarray(unique, dtype="U32"), rows=rows.astype(np.float32))
        if not texts:
            return np.zeros((0, self._embedder.dimension), dtype=np.float32)
        return np.stack([found[h] for h in hashes]).astype(np.float32, copy=False)

    def trained(self, team: str, key: str) -> tuple[Head | None, Ints, Calibration] | None:
        """The head, the rows' cells and the calibration that were trained from the contents that `key` hashes."""
        stored = self._load("head", team)
        if stored is None or not stored.keys() >= _TRAINED or str(stored["key"]) != key:
            return None
        head = None
        if len(stored["weights"]):
            trust = float(stored["trust"])
            head = Head(stored["weights"], stored["owners"], stored["parts"], stored["skills"], trust)
        return head, stored["cells"], Calibration(stored["coefficients"], stored["inscope"])

    def keep(self, team: str, key: str, head: Head | None, cells: Ints, calibration: Calibration) -> None:
        none = np.zeros(0, dtype=np.int32)
        self._save(
            "head",
            team,
            key=np.asarray(key),
            weights=head.weights if head else np.zeros((0, 0), dtype=np.float32),
            owners=head.owners if head else none,
            parts=head.parts if head else none,
            skills=head.skills if head else none,
            trust=np.asarray(head.trust if head else 0.0),
            cells=cells,
            coefficients=calibration.coefficients,
            inscope=calibration.inscope,
        )

    def _path(self, what: str, team: str) -> Path | None:
        name = hashlib.sha256(team.encode("utf-8", "surrogatepass")).hexdigest()[:24]
        return self._folder / f"{what}-{name}.npz" if self._folder else None

    def _load(self, what: str, team: str) -> dict[str, npt.NDArray[Any]] | None:
        path = self._path(what, team)
        if path is None or not path.exists():
            return None
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("The routing file '%s' is damaged (%s) and is made again.", path, type(error).__name__)
            return None

    def _save(self, what: str, team: str, **arrays: npt.NDArray[Any]) -> None:
        path = self._path(what, team)
        if path is None:
            return
        temporary: str | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{what}-", suffix=".npz")
            with os.fdopen(handle, "wb") as stream:
                np.savez(stream, allow_pickle=False, **arrays)
            Path(temporary).replace(path)
        except OSError as error:
            log.warning("The routing file '%s' cannot be written (%s); the next start computes it again.", path, error)
            if temporary:
                Path(temporary).unlink(missing_ok=True)
