"""Recognises personal data in a process apart, which is there only while it is needed.

In: texts. Out: their spans (`recognisers/`). The process starts with the first text, since loading takes
two seconds and 100 MB, and ends when nothing was asked of it for a while. A text that takes too long ends it too, and
is refused: nothing passes that was not looked at. Knows no examples and no placeholders.
"""

from __future__ import annotations

import importlib.util
import json
import threading
import time
from collections.abc import Sequence
from typing import Any

from intern import apart
from intern.errors import InvalidInput, TrainingUnavailable
from intern.learning.privacy.recognisers import Span

_START_SECONDS = 60.0


class Recognition:
    """Finds spans, one call at a time, whichever thread asks.

    `model` is the name or folder of an installed spaCy pipeline, whose names and places count too. `seconds` are
    granted to every call, and `more` for each million characters (ordinary text takes about 10, with a model 100);
    after `idle` seconds without a call the process ends.
    """

    def __init__(
        self, *, model: str | None = None, seconds: float = 20.0, more: float = 300.0, idle: float = 60.0
    ) -> None:
        self._model = model
        self._seconds = seconds
        self._more = more
        self._idle = idle
        self._lock = threading.Lock()
        self._worker: _Worker | None = None

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """The spans of each text. Blocks.

        Raises TrainingUnavailable when the recognisers cannot be loaded, InvalidInput when they do not come to an end
        with these texts.
        """
        if not texts:
            return []
        seconds = self._seconds + sum(map(len, texts)) / 1e6 * self._more
        with self._lock:
            for _ in range(2):
                worker, fresh = self._ready()
                try:
                    found = worker.ask({"texts": list(texts)}, seconds, self._idle)["found"]
                except _Ended as ended:
                    self._worker = None
                    if ended.late or fresh:  # an older process may have ended for a reason of its own
                        break
                    continue
                return [[Span(*span) for span in spans] for spans in found]
        raise InvalidInput("The text cannot be searched for personal data: it took too long, or broke the search.")

    def close(self) -> None:
        """End the process. A later `find` starts another one."""
        with self._lock:
            if self._worker is not None:
                self._worker.end()
                self._worker = None

    def __enter__(self) -> Recognition:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id, None while there is none."""
        worker = self._worker
        return worker.pid if worker is not None and worker.alive else None

    def _ready(self) -> tuple[_Worker, bool]:
        """A live process, and whether it is a new one."""
        if self._worker is not None:
            if self._worker.alive:
                return self._worker, False
            self._worker.end()
            self._worker = None
        if importlib.util.find_spec("presidio_analyzer") is None:
            raise TrainingUnavailable.lacks("Removing personal data", ["presidio-analyzer"])
        worker = _Worker()
        try:
            answer = worker.ask({"model": self._model}, _START_SECONDS, self._idle)
        except _Ended:
            answer = {"failed": "it ended without an answer"}
        if "failed" in answer:
            worker.end()
            what = f"The spaCy pipeline '{self._model}'" if self._model else "The search for personal data"
            raise TrainingUnavailable(f"{what} cannot be loaded: {answer['failed'].rstrip('.')}.")
        self._worker = worker
        return worker, True


class _Ended(Exception):
    """The process ended without an answer; `late`: it was made to, since its time was over."""

    def __init__(self, late: bool) -> None:
        super().__init__()
        self.late = late


class _Worker:
    """The process, its two pipes, and a thread that ends it when its time is over, at work or idle."""

    def __init__(self) -> None:
        self._process = apart.start("intern.learning.privacy.recognisers", encoding="utf-8")
        self._changed = threading.Condition()
        self._deadline = time.monotonic() + _START_SECONDS
        self._asked = False
        self._over = False
        self._watch = threading.Thread(target=self._end_in_time, name="recognition", daemon=True)
        self._watch.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._over and self._process.poll() is None

    def ask(self, message: dict[str, Any], seconds: float, idle: float) -> dict[str, Any]:
        """Send one message and wait for its answer; afterwards the process may idle that long. Raises _Ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if not self._grant(seconds, asked=True):
            self.end()
            raise _Ended(late=False)  # it was idle for too long, just now
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            answer = json.loads(line) if line.endswith("\n") else None
        except (OSError, ValueError):
            answer = None
        if not isinstance(answer, dict):
            late = self._over
            self.end()
            raise _Ended(late)
        self._grant(idle, asked=False)
        return answer

    def end(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify()
        self._watch.join()
        apart.end(self._process)

    def _grant(self, seconds: float, *, asked: bool) -> bool:
        """Whether the process still has this time: False when it was ended before."""
        with self._changed:
            self._deadline = time.monotonic() + seconds
            self._asked = asked
            self._changed.notify()
            return not self._over

    def _end_in_time(self) -> None:
        with self._changed:
            while not self._over:
                left = self._deadline - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                self._over = True
                if self._asked:  # whoever waits for the answer reads the pipes, and clears up
                    self._process.kill()
                else:
                    apart.end(self._process)
