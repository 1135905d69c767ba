"""Reads documents in a process apart, with limits on time, memory, pages and size.

In: a name and bytes. Out: a `ParsedDocument`, or DocumentRefused with a reason for people. One worker process is
started when the first document comes, and serves all of them in turn; a document that crashes it, hangs or fills its
memory is refused, and the next one gets a new worker. It knows no format (intern/parsers does), no database, no skill.

The worker is a fence against accidents and ordinary hostile files, not against an exploit in a C library that runs code
of its own: for that, run the platform in a container without a network.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import threading
from typing import IO, Any

from pydantic import ValidationError

from intern import apart
from intern.errors import DocumentRefused, InternError
from intern.knowledge.document import Heading, ParsedDocument

log = logging.getLogger(__name__)

# Changes whenever the same bytes would be parsed differently, so that documents are parsed again.
RECIPE = "parse1"

_START_SECONDS = 30.0  # for a worker to be ready, on top of the document's own time
_HEADER_BYTES = 4


class Parser:
    """Parses one document at a time, whichever thread asks. `seconds` is wall-clock time a document.

    `memory_bytes` limits the worker's address space; `inflated_bytes` what a compressed document may unpack to, and the
    characters of text that any document may give.
    """

    def __init__(self, *, seconds: float, memory_bytes: int, pages: int, file_bytes: int, inflated_bytes: int) -> None:
        self._seconds = seconds
        self._memory = memory_bytes
        self._pages = pages
        self._file_bytes = file_bytes
        self._inflated = inflated_bytes
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        self._warned = False

    def parse(self, name: str, data: bytes) -> ParsedDocument:
        """The document's text. Blocks. Raises DocumentRefused; InternError when no worker can be started at all."""
        if len(data) > self._file_bytes:
            raise DocumentRefused(f"has {len(data):,} bytes; at most {self._file_bytes:,} are accepted", document=name)
        if not data:
            raise DocumentRefused("is empty", document=name)
        with self._lock:
            answer = self._ask(name, data)
        if "refused" in answer:
            raise DocumentRefused(str(answer["refused"]), document=name)
        try:
            return ParsedDocument(
                text=answer["text"],
                media_type=answer["media_type"],
                headings=tuple(
                    Heading(offset=offset, level=level, title=title) for offset, level, title in answer["headings"]
                ),
                pages=tuple(answer["pages"]),
                title=answer["title"],
                notes=tuple(answer["notes"]),
            )
        except (ValidationError, KeyError, TypeError, ValueError):
            raise DocumentRefused("made its parser answer nonsense", document=name) from None

    @property
    def pid(self) -> int | None:
        """Process id of the worker, None while there is none."""
        worker = self._worker
        return None if worker is None else worker.pid

    def close(self) -> None:
        """End the worker. A later `parse` starts a new one."""
        with self._lock:
            self._drop()

    def _ask(self, name: str, data: bytes) -> dict[str, Any]:
        job = {
            "name": name[-200:],  # only its ending matters
            "size": len(data),
            "seconds": self._seconds,
            "pages": self._pages,
            "inflated": self._inflated,
        }
        while True:
            worker, used = self._ready_worker()
            try:
                answer = worker.ask(job, data, self._seconds)
            except _TimeOut:
                self._drop()
                return {"refused": f"took longer than {self._seconds:g} seconds to read"}
            except _Died as died:
                self._drop()
                if used:  # what earlier documents left behind may be at fault: it gets a worker of its own
                    continue
                return {
                    "refused": f"broke its parser ({died}): it is damaged, or needs more than "
                    f"{self._memory // 1_000_000:,} MB of memory to read"
                }
            if answer.get("last"):
                self._drop()
                if used and "refused" in answer:
                    continue
            return answer

    def _ready_worker(self) -> tuple[_Worker, bool]:
        """A live worker, and whether it has already worked."""
        if self._worker is not None and self._worker.alive:
            return self._worker, True
        self._drop()
        self._worker = _Worker()
        try:
            greeting = self._worker.ask({"memory": self._memory}, b"", _START_SECONDS)
        except (_Died, _TimeOut) as failure:
            self._drop()
            raise InternError(
                f"The parsing process cannot start ({failure or 'no answer'}) with {self._memory // 1_000_000:,} MB of"
                " memory: raise parse_bytes."
            ) from None
        if greeting["missing"] and not self._warned:
            self._warned = True
            log.warning(
                "This platform does not limit %s of the parsing process: take documents only from people you trust, or "
                "run in a container with limits.",
                " and ".join(greeting["missing"]),
            )
        return self._worker, False

    def _drop(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None


class _Died(Exception):
    """The worker ended without an answer; the message says how."""


class _TimeOut(Exception):
    """The worker did not answer in time."""


class _Worker:
    """The process and its two pipes."""

    def __init__(self) -> None:
        self._process = apart.start("intern.parsers")
        self._killed = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._killed and self._process.poll() is None

    def ask(self, header: dict[str, Any], body: bytes, seconds: float) -> dict[str, Any]:
        """Send one message and wait for its answer. Raises _TimeOut, _Died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # A timer that kills works with blocking pipes on every platform, also while the worker does not read.
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self._process.kill()

        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            encoded = json.dumps(header).encode()
            self._process.stdin.write(len(encoded).to_bytes(_HEADER_BYTES, "big") + encoded)
            self._process.stdin.write(body)
            self._process.stdin.flush()
            size = int.from_bytes(_exactly(self._process.stdout, _HEADER_BYTES), "big")
            answer = json.loads(_exactly(self._process.stdout, size))
        except (EOFError, OSError, ValueError):
            if expired.is_set():
                raise _TimeOut from None
            raise _Died(self._how_it_ended()) from None
        finally:
            timer.cancel()
            timer.join()
            self._killed = expired.is_set()  # also when the answer came at the last moment
        if not isinstance(answer, dict):
            raise _Died("it answered nonsense")
        return answer

    def end(self) -> None:
        apart.end(self._process)

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it closed its pipes"
        if code >= 0:
            return f"exit code {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data
