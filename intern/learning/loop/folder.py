"""What a run keeps on disk, in a folder of its own: what it was asked with, how often it was begun, its stages' files.

In: the folder. Out: `RunFolder`. Rows, checkpoints and adapters are written by the stages themselves, and go when the
run has ended, unless it failed and can go on with them; outcomes stay for its report, and with them, where no dataset
says it, whose examples they are on. Knows nothing of the store, nor which run that is: `leftovers.py` does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Set
from contextlib import suppress
from pathlib import Path

from intern.errors import Conflict, InvalidInput, StoreFailure
from intern.learning.disk import sync
from intern.learning.train import job as jobs
from intern.learning.train.process import checkpoints
from intern.schema import OutputSchema
from intern.types import Example, Json, Model

_ASKED = "asked.json"
_OWNERS = "owners.json"
_BEGUN = "begun"
_BASE = "base"  # content hash of the base model that the run works with
_SCHEMA = "schema"  # digest of the schema that its rows keep
_OUTCOMES = "outcomes-*.jsonl"


class Asked(Model):
    """What a run works on beside its skill. `outside` are answers of other systems, by system and example id; without
    `examples`, by the key of the input. `adapter` is one to measure that need not serve, SKILL@vN."""

    examples: tuple[Example, ...] = ()
    outside: Mapping[str, Mapping[str, Json]] = {}
    adapter: str | None = None
    count: int = 0  # examples to synthesize; 0: as many as the documents give


class Owner(Model):
    """Whose an example is: the person whose words it holds, the record that it was made of."""

    person: str | None = None
    record: str | None = None


class _Owners(Model):
    owners: Mapping[str, Owner] = {}  # by example id


class RunFolder:
    """Blocking. The folder need not be there yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self, asked: Asked) -> None:
        """Raises StoreFailure."""
        self.own({example.id: Owner(person=example.person) for example in asked.examples})
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

    @property
    def only_asked(self) -> bool:
        """Whether nothing is in it but what a run was asked with."""
        there = {place.name.removeprefix(".") for place in self.path.iterdir()}
        return bool(there) and there <= {_ASKED, _OWNERS}

    def own(self, owners: Mapping[str, Owner]) -> None:
        """Note whose examples a run without a dataset works on, by id, those noted before included; who deletes a
        person's data, or a record's, finds what the run keeps of it. Before anything is made of them. Raises
        StoreFailure."""
        known = {example: owner for example, owner in owners.items() if owner != Owner()}
        if known:
            self._write_owners({**self.owners(), **known})

    def owners(self) -> Mapping[str, Owner]:
        """Whose examples the run worked on, by id. Raises StoreFailure for a file that cannot be read: whoever deletes
        must not pass over it."""
        try:
            return _Owners.model_validate_json((self.path / _OWNERS).read_text(encoding="utf-8")).owners
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise StoreFailure(
                f"Whose examples a run worked on cannot be read. Remove its folder {self.path}, with its outcomes."
            ) from error

    def disown(self, examples: Set[str]) -> None:
        """Nothing is left of these examples: nobody need find them any more. Raises StoreFailure, OSError."""
        owners = self.owners()
        left = {example: owner for example, owner in owners.items() if example not in examples}
        if len(left) == len(owners):
            return
        if left:
            self._write_owners(left)
        else:
            (self.path / _OWNERS).unlink(missing_ok=True)
            self._remove_empty()

    def _write_owners(self, owners: Mapping[str, Owner]) -> None:
        self._write(_OWNERS, _Owners(owners=owners).model_dump_json())

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

    def stay_on(self, base: str, schema: OutputSchema | None) -> None:
        """Note base model and schema that the run begins with. Raises Conflict as `check` does, StoreFailure."""
        for name, now_is in ((_BASE, base), (_SCHEMA, _digest(schema))):
            if self._noted(name) is None:
                self._write(name, now_is)
        self.check(base, schema)

    def check(self, base: str | None, schema: OutputSchema | None) -> None:
        """Raises Conflict when the run began with another base model, or another schema of its skill: its rows,
        checkpoints and held-out examples are for those."""
        for what, name, now_is in (("base model", _BASE, base), ("skill's schema", _SCHEMA, _digest(schema))):
            if self._noted(name) not in (None, now_is):
                raise Conflict(
                    f"The {what} is another one than the run began with. Bring that one back to go on, or begin anew "
                    "with `intern learn`."
                )

    def _noted(self, name: str) -> str | None:
        with suppress(OSError):
            return (self.path / name).read_text(encoding="ascii") or None
        return None

    @property
    def resumable(self) -> bool:
        """Whether there is work to go on with: a job with rows, and a checkpoint or an adapter made from them."""
        if not all((self.path / name).exists() for name in (jobs.JOB, jobs.ROWS)):
            return False
        made = (self.path / jobs.ADAPTER, *(self.path / jobs.STAGES).glob("*/finished"))
        return any(place.exists() for place in made) or any(whole for _, whole in checkpoints(self.path))

    def give_up(self) -> None:
        """There is nothing to go on with any more, whatever was done; the rest goes with `clear`."""
        with suppress(OSError):
            (self.path / jobs.JOB).unlink()

    def clear(self, *, everything: bool = False) -> None:
        """Remove what only the work needed, which is everything but outcomes and, beside some, whose examples they are
        on; `everything`: those too. Raises OSError."""
        (self.path / jobs.JOB).unlink(missing_ok=True)  # first: half cleared, nothing goes on with the rest
        there: list[Path] = []
        with suppress(FileNotFoundError):
            there = list(self.path.iterdir())
        stay = [] if everything else [place for place in there if place.match(_OUTCOMES)]
        stay += [self.path / _OWNERS] if stay else []
        for place in there:
            if place.is_dir():
                shutil.rmtree(place, ignore_errors=True)
            elif place not in stay:
                place.unlink(missing_ok=True)
        self._remove_empty()

    def _remove_empty(self) -> None:
        with suppress(OSError):  # there are outcomes in it, or it never was
            self.path.rmdir()

    def _write(self, name: str, text: str) -> None:
        """Whole or not at all: what breaks off would pass for nothing noted."""
        temporary = self.path / f".{name}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text, encoding="utf-8")
            sync(temporary)
            os.replace(temporary, self.path / name)
        except OSError as error:
            raise StoreFailure(f"The run's folder cannot be written: {error.strerror}.") from error


def _digest(schema: OutputSchema | None) -> str:
    return "none" if schema is None else schema.digest
