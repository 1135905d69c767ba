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
    """Thread-safe. Keeps `most` answers; the file is written anew when it is twice as long."""

    def __init__(self, file: Path, *, most: int = MOST) -> None:
        self._file = file
        self._new = file.with_name(f".{file.name}")
        self._most = most
        self._lock = threading.Lock()
        self._known: dict[str, Generated] = {}  # what was asked for last stands at the end
        self._lines = 0
        if file.exists():
            text = file.read_text(encoding="utf-8", errors="replace")
            for line in text.splitlines():
                self._lines += 1
                try:
                    key, body = json.loads(line)
                    self._remember(key, Generated.model_validate(body))
                except (ValueError, TypeError):  # the last line of a process that was killed, or a disk's odd byte
                    continue
            if not text.endswith("\n"):
                self._write_anew()

    def get(self, key: str) -> Generated | None:
        with self._lock:
            if (found := self._known.get(key)) is not None:
                self._remember(key, found)
            return found

    def put(self, key: str, generated: Generated) -> None:
        with self._lock:
            self._remember(key, generated)
            self._lines += 1
            try:
                if self._lines > 2 * self._most:
                    self._write_anew()
                    return
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with self._file.open("a", encoding="utf-8") as file:
                    file.write(_line(key, generated))
            except OSError as error:  # the disk is full: what is not remembered is asked again
                log.warning("answers are not remembered in '%s': %s", self._file, error.strerror)

    def forget(self) -> None:
        """Drop everything: somebody's data was deleted."""
        with self._lock:
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
        with self._new.open("w", encoding="utf-8") as file:
            file.writelines(_line(key, generated) for key, generated in self._known.items())
        os.replace(self._new, self._file)
        self._lines = len(self._known)


def _line(key: str, generated: Generated) -> str:
    return json.dumps([key, generated.model_dump(mode="json")]) + "\n"
