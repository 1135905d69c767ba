"""What a teacher wrote for each passage, kept on disk until its run ends: nothing is asked, or paid for, twice.

In: what came of one passage. Out: what came of all of them, also after a crash: a line of the file each, on the disk
before the next passage is asked. Knows no teacher, and not what becomes of the examples.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from intern.errors import StoreFailure
from intern.types import Example, Model


class Refused(Model):
    """A pair that the teacher wrote and that does not count."""

    input: str
    reason: str  # no_form, no_request, no_quote, not_grounded, not_found, copy, share
    detail: str = ""


class Reading(Model):
    """What came of one passage, named by its id."""

    passage: str
    examples: tuple[Example, ...] = ()
    refused: tuple[Refused, ...] = ()


class Readings:
    """Blocking. Without a file nothing is kept."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    def known(self) -> dict[str, Reading]:
        """What was added before, by passage. Raises StoreFailure."""
        found: dict[str, Reading] = {}
        try:
            lines = self._file.read_bytes().split(b"\n") if self._file is not None else ()
        except FileNotFoundError:
            return found
        except OSError as error:
            raise StoreFailure(f"What the teacher wrote cannot be read: {error.strerror}.") from error
        for line in lines:
            try:
                reading = Reading.model_validate_json(line)
            except ValidationError:  # of a process that was killed
                continue
            found[reading.passage] = reading
        return found

    def add(self, reading: Reading) -> None:
        """When this returns, it is on the disk. Raises StoreFailure."""
        if self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab") as opened:  # the line feed first: what broke off spoils no other line
                opened.write(b"\n" + reading.model_dump_json().encode())
                opened.flush()
                os.fsync(opened.fileno())
        except OSError as error:
            raise StoreFailure(f"What the teacher wrote cannot be kept: {error.strerror}.") from error
