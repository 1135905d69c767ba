"""What a run keeps on disk, in a folder of its own: what it was asked with, how often it was begun, its stages' files.

In: the folder. Out: `RunFolder`. Rows, checkpoints and adapters are written by the stages themselves, and go when the
run has ended; outcomes stay for its report. Knows nothing of the store.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from intern.errors import InvalidInput, StoreFailure
from intern.learning.train import job as jobs
from intern.types import Example, Json, Model

_ASKED = "asked.json"
_BEGUN = "begun"


class Asked(Model):
    """What a run works on beside its skill. `outside` are answers of other systems, by system and example id."""

    examples: tuple[Example, ...] = ()
    outside: Mapping[str, Mapping[str, Json]] = {}
    count: int = 0  # examples to synthesize; 0: as many as the documents give


class RunFolder:
    """Blocking. The folder need not be there yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self, asked: Asked) -> None:
        """Raises StoreFailure."""
        self._write(_ASKED, asked.model_dump_json())

    def asked(self, *, needed: bool) -> Asked:
        """Raises InvalidInput when it is not here though it is `needed`."""
        try:
            return Asked.model_validate_json((self.path / _ASKED).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            if not needed:
                return Asked()
            raise InvalidInput(
                "What the run was asked with lies with the server that was asked. Servers that share a database need "
                "one data/runs for all of them."
            ) from error

    def begin(self) -> int:
        """Count a beginning of the run; how often it was begun without coming to an end. Raises StoreFailure."""
        begun = 0
        with suppress(OSError, ValueError):
            begun = int((self.path / _BEGUN).read_text(encoding="ascii"))
        self._write(_BEGUN, str(begun + 1))
        return begun + 1

    def put_down(self) -> None:
        """The run is left on purpose, in good order: its beginnings so far say nothing against it."""
        with suppress(OSError):
            (self.path / _BEGUN).unlink()

    def clear(self) -> None:
        """Remove what only the work needed: checkpoints, rows, the adapter that is stored by now, those of parts."""
        for folder in (self.path / jobs.STAGES, self.path / jobs.ADAPTER, *self.path.glob("part-*")):
            shutil.rmtree(folder, ignore_errors=True)
        written = (jobs.ROWS, jobs.HELDOUT, jobs.TEXTS, jobs.PAIRS, jobs.PROMPTS, jobs.ANSWERS)
        for name in (*written, _ASKED, _BEGUN):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):  # there are outcomes in it, or it never was
            self.path.rmdir()

    def _write(self, name: str, text: str) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise StoreFailure(f"The run's folder cannot be written: {error.strerror}.") from error
