"""The parsing process: reads documents from standard input, writes results to standard output, until input ends.

Messages both ways: 4 bytes, big-endian length of a JSON header, the header, and then `size` bytes of body where the
header has one. The process limits itself before it reads the first document, and again for each one. What the
operating system does not enforce is told in the first message, so that the parent can say so.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, BinaryIO

from intern.apart import forbid
from intern.parsers import Limits, Refused, read

_MEGABYTE = 1_000_000
_LEAST_ROOM = 32_000_000  # bytes of memory without which no parser can even be loaded


def limit_process(memory: int) -> list[str]:
    """Limit memory, files and core dumps for good. Returns the names of the limits that do not hold here."""
    missing = []
    try:
        import resource
    except ImportError:  # Windows
        return ["memory", "processor time"]
    for name, value in (("RLIMIT_CORE", 0), ("RLIMIT_FSIZE", 0), ("RLIMIT_NOFILE", 64), ("RLIMIT_AS", memory)):
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (AttributeError, ValueError, OSError):
            if name == "RLIMIT_AS":
                missing.append("memory")
    return missing


def limit_processor(seconds: float) -> None:
    """Let the operating system end the process after `seconds` more of processor time, should the parent be gone."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + 5
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def main() -> None:
    received, sent = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # whatever a library prints must not end up between the messages
    settings = receive(received)
    if settings is None:
        return
    memory = int(settings["memory"])
    missing = limit_process(memory)
    if address_space() + _LEAST_ROOM > memory:
        return  # the parent reports a process that cannot start, rather than refuse every document
    sys.addaudithook(forbid)
    send(sent, {"ready": True, "missing": missing})
    while (job := receive(received)) is not None:
        data = exactly(received, int(job["size"]))
        if data is None:
            return
        limit_processor(float(job["seconds"]))
        answer = work(str(job["name"]), data, Limits(pages=int(job["pages"]), inflated=int(job["inflated"])), memory)
        del data
        # A process that a large document has bloated leaves less room for the next one: the parent starts a new one.
        answer["last"] = bool(answer.get("last")) or address_space() > memory / 2
        send(sent, answer)
        if answer["last"]:
            return


def work(name: str, data: bytes, limits: Limits, memory: int) -> dict[str, Any]:
    """The answer for one document: its fields, or why it is refused."""
    try:
        parsed = read(name, data, limits)
    except Refused as refused:
        return {"refused": str(refused)}
    except MemoryError:
        return {"refused": f"needs more than {memory // _MEGABYTE:,} MB of memory to read", "last": True}
    except RecursionError:
        return {"refused": "is nested too deeply"}
    except Exception as error:  # a parser's bug or a file made to find one: the next document must still work
        return {"refused": f"is damaged, or not what it claims to be ({type(error).__name__})", "last": True}
    return dict(vars(parsed))


def address_space() -> int:
    """Bytes of address space in use, which is what the memory limit counts; 0 where the platform does not say."""
    try:
        with open("/proc/self/statm", "rb") as stream:
            return int(stream.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def exactly(stream: BinaryIO, size: int) -> bytes | None:
    data = stream.read(size)
    return data if len(data) == size else None


def receive(stream: BinaryIO) -> dict[str, Any] | None:
    """The next header, or None when the parent is gone."""
    prefix = exactly(stream, 4)
    header = exactly(stream, int.from_bytes(prefix, "big")) if prefix else None
    return None if header is None else json.loads(header)


def send(stream: BinaryIO, message: dict[str, Any]) -> None:
    try:
        body = json.dumps(message, ensure_ascii=False).encode("utf-8", "replace")
        stream.write(len(body).to_bytes(4, "big") + body)
        stream.flush()
    except BrokenPipeError:  # the parent is gone
        os._exit(0)


if __name__ == "__main__":
    main()
