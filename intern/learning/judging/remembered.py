"""Rivals' answers of earlier evaluations, in a file of JSON lines: who did not change need not answer again.

In: answers by the hash of what was asked of whom. Out: the same. The newest ones that were asked for are kept, in
memory and in the file. Knows nothing of what makes two requests the same.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path

from intern.learning.judging.evaluate import Generated

log = logging.getLogger(__name__)

MOST = 20_000


class AnswerMemory:
    """Thread-safe. Keeps `most` answers; the file is written anew when it is twice as long. All but `get` read or write
    the file; `get` waits for none of them."""

    def __init__(self, file: Path, *, most: int = MOST) -> None:
        self._file = file
        self._new = file.with_name(f".{file.name}")
        self._most = most
        self._writing = threading.Lock()  # held before the other one
        self._looking = threading.Lock()  # held for moments
        self._known: dict[str, Generated] = {}  # what was asked for last stands at the end
        self._lines = 0
        self._torn = False  # the last line of the file is not whole
        if file.exists():
            text = file.read_text(encoding="utf-8", errors="replace")
            self._torn = bool(text) and not text.endswith("\n")
            for line in text.splitlines():
                self._lines += 1
                try:
                    key, body = json.loads(line)
                    self._remember(key, Generated.model_validate(body))
                except (ValueError, TypeError):  # the last line of a process that was killed, or a disk's odd byte
                    continue

    def get(self, key: str) -> Generated | None:
        with self._looking:
            if (found := self._known.get(key)) is not None:
                self._remember(key, found)
            return found

    def put(self, key: str, generated: Generated) -> None:
        with self._writing:
            with self._looking:
                self._remember(key, generated)
            self._lines += 1
            try:
                if self._lines > 2 * self._most:
                    self._write_anew()
                    return
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with self._file.open("a", encoding="utf-8") as file:
                    file.write("\n" * self._torn + _line(key, generated))
                self._torn = False
            except OSError as error:  # the disk is full: what is not remembered is asked again
                self._torn = True
                log.warning("answers are not remembered in '%s': %s", self._file, error.strerror)

    def forget(self) -> None:
        """Drop everything: somebody's data was deleted."""
        with self._writing:
            with self._looking:
                self._known.clear()
            self._lines = 0
            for file in (self._file, self._new):
                file.unlink(missing_ok=True)

    def _remember(self, key: str, generated: Generated) -> None:
        self._known.pop(key, None)
        self._known[key] = generated
        if len(self._known) > self._most:
            del self._known[next(iter(self._known))]

    def _write_anew(self) -> None:
        with self._looking:
            known = list(self._known.items())
        with self._new.open("w", encoding="utf-8") as file:
            file.writelines(_line(key, generated) for key, generated in known)
        os.replace(self._new, self._file)
        self._lines, self._torn = len(known), False


def _line(key: str, generated: Generated) -> str:
    return json.dumps([key, generated.model_dump(mode="json")]) + "\n"
