"""What a run keeps on disk, in a folder of its own: what it was asked with, how often it was begun, its stages' files.

In: the folder. Out: `RunFolder`. Rows, checkpoints and adapters are written by the stages themselves, and go when the
run has ended, unless it failed and can go on with them; outcomes stay for its report. Knows nothing of the store.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from intern.errors import Conflict, InvalidInput, StoreFailure
from intern.learning.train import job as jobs
from intern.types import Example, Json, Model

_ASKED = "asked.json"
_BEGUN = "begun"
_BASE = "base"  # content hash of the base model that the run works with
_STATE = "trainer_state.json"  # what the trainer writes last into a checkpoint


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

    def stay_on(self, base: str) -> None:
        """Note the base model that the run begins on. Raises Conflict when it began on another one, StoreFailure."""
        if self.began_on is None:
            self._write(_BASE, base)
        self.check_base(base)

    def check_base(self, base: str | None) -> None:
        """Raises Conflict when the run began on another base model: its rows and checkpoints are for that one."""
        if self.began_on not in (None, base):
            raise Conflict(
                "The base model is another one than the run began on. Bring that one back to go on, or begin anew with "
                "`intern learn`."
            )

    @property
    def began_on(self) -> str | None:
        """Content hash of the base model; None before it was noted."""
        with suppress(OSError):
            return (self.path / _BASE).read_text(encoding="ascii") or None
        return None

    @property
    def resumable(self) -> bool:
        """Whether there is work to go on with: a job with rows, and a checkpoint or an adapter made from them."""
        if not all((self.path / name).exists() for name in (jobs.JOB, jobs.ROWS)):
            return False
        made = (self.path / jobs.ADAPTER, *(self.path / jobs.STAGES).glob("*/finished"))
        return any(place.exists() for place in made) or any(_whole(place) for place in self._checkpoints())

    def mend(self) -> None:
        """Remove checkpoints that were being written when the disk was full or the process was killed: the one before
        is still there."""
        for place in [place for place in self._checkpoints() if not _whole(place)]:
            shutil.rmtree(place, ignore_errors=True)

    def _checkpoints(self) -> Iterator[Path]:
        for stages in (self.path / jobs.STAGES, *self.path.glob(f"part-*/{jobs.STAGES}")):
            yield from stages.glob("*/checkpoint-*")

    def clear(self) -> None:
        """Remove what only the work needed: checkpoints, rows, the adapter that is stored by now, those of parts."""
        (self.path / jobs.JOB).unlink(missing_ok=True)  # first: half cleared, nothing goes on with the rest
        for folder in (self.path / jobs.STAGES, self.path / jobs.ADAPTER, *self.path.glob("part-*")):
            shutil.rmtree(folder, ignore_errors=True)
        written = (jobs.ROWS, jobs.HELDOUT, jobs.TEXTS, jobs.PAIRS, jobs.PROMPTS, jobs.ANSWERS)
        for name in (*written, _ASKED, _BEGUN, _BASE):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):  # there are outcomes in it, or it never was
            self.path.rmdir()

    def _write(self, name: str, text: str) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise StoreFailure(f"The run's folder cannot be written: {error.strerror}.") from error


def _whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
