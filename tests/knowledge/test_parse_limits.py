"""The fences of the parsing process: limits hold, failures are told, and the next document always works."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from made_documents import pdf, pdf_with_stream

from intern.errors import DocumentRefused, InternError
from intern.knowledge.parse import Parser

ROOT = Path(__file__).parents[2]
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def make(
    *,
    seconds: float = 20.0,
    memory_bytes: int = 1_500_000_000,
    pages: int = 100,
    file_bytes: int = 30_000_000,
    inflated_bytes: int = 100_000_000,
) -> Parser:
    return Parser(
        seconds=seconds,
        memory_bytes=memory_bytes,
        pages=pages,
        file_bytes=file_bytes,
        inflated_bytes=inflated_bytes,
    )


@pytest.fixture
def parser() -> Iterator[Parser]:
    parser = make()
    yield parser
    parser.close()


def test_a_document_larger_than_allowed_is_refused_with_the_numbers_and_no_process() -> None:
    parser = make(file_bytes=1_000)
    with pytest.raises(DocumentRefused, match="has 1,001 bytes; at most 1,000"):
        parser.parse("a.txt", b"x" * 1001)
    assert parser.pid is None


def test_a_document_that_takes_too_long_is_refused_and_the_next_one_works() -> None:
    parser = make(seconds=0.4)
    try:
        slow = b"a,b\n" + b"1,2\n" * 2_000_000
        began = time.monotonic()
        with pytest.raises(DocumentRefused, match=r"took longer than 0\.4 seconds"):
            parser.parse("slow.csv", slow)
        assert time.monotonic() - began < 5
        assert parser.parse("a.txt", b"hello").text == "hello"
    finally:
        parser.close()


@linux
def test_a_document_that_needs_too_much_memory_is_refused_and_the_next_one_works() -> None:
    parser = make(memory_bytes=200_000_000)
    try:
        with pytest.raises(DocumentRefused, match="200 MB of memory"):
            parser.parse("a.html", b"<html>" + b"<p>x</p>" * 2_500_000)
        assert parser.parse("a.txt", b"hello").text == "hello"
    finally:
        parser.close()


@linux
def test_a_pdf_that_inflates_without_end_is_refused_and_the_next_one_works() -> None:
    parser = make(memory_bytes=300_000_000)
    try:
        show = b"BT /F 9 Tf 5 5 Td " + (b"(" + b"a" * 90 + b") Tj ") * 500_000 + b"ET"
        with pytest.raises(DocumentRefused):
            parser.parse("bomb.pdf", pdf_with_stream(show))
        assert parser.parse("a.pdf", pdf([[(11.0, "hello")]])).text == "hello"
    finally:
        parser.close()


def test_ten_thousand_pages_are_refused_by_number_and_at_once(parser: Parser) -> None:
    data = pdf([[(11.0, "page")]] * 10_000, shared=True)
    parser.parse("a.pdf", pdf([[(11.0, "warm")]]))
    began = time.monotonic()
    with pytest.raises(DocumentRefused, match="has 10,000 pages; at most 100"):
        parser.parse("long.pdf", data)
    assert time.monotonic() - began < 2


def test_more_text_than_allowed_is_refused() -> None:
    parser = make(inflated_bytes=10_000)
    try:
        header = ",".join(f"a rather long name of column {n}" for n in range(40))
        with pytest.raises(DocumentRefused, match="more than 10,000 characters"):
            parser.parse("a.csv", (header + "\n" + (",".join("1" * 40) + "\n") * 50).encode())
    finally:
        parser.close()


@linux
def test_a_worker_that_dies_in_the_middle_is_told_and_the_next_document_works(parser: Parser) -> None:
    failures: list[Exception] = []

    def work() -> None:
        try:
            parser.parse("big.csv", b"a,b\n" + b"1,2\n" * 4_000_000)
        except DocumentRefused as refused:
            failures.append(refused)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: parser.pid is not None and processor_ticks(parser.pid) > 40)  # 0.4 s: past its start
    assert parser.pid is not None
    os.kill(parser.pid, signal.SIGKILL)
    thread.join(30)
    assert "broke its parser (SIGKILL)" in str(failures[0])
    assert parser.parse("a.txt", b"hello").text == "hello"


@linux
def test_a_worker_that_died_between_documents_costs_no_document(parser: Parser) -> None:
    parser.parse("a.txt", b"hello")
    first = parser.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert parser.parse("b.txt", b"again").text == "again"
    assert parser.pid != first


def test_one_worker_serves_all_documents_and_threads(parser: Parser) -> None:
    parser.parse("a.txt", b"hello")
    first = parser.pid
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda n: parser.parse(f"{n}.txt", f"text {n}".encode()).text, range(100)))
    assert texts == [f"text {n}" for n in range(100)]
    assert parser.pid == first


def test_small_documents_take_about_a_millisecond(parser: Parser) -> None:
    data = (b"# Title\n\n" + b"Some words of a small document. " * 30 + b"\n\n## More\n\n") * 2
    parser.parse("a.md", data)
    times = []
    for _ in range(100):
        began = time.perf_counter()
        parser.parse("a.md", data)
        times.append(time.perf_counter() - began)
    assert sorted(times)[20] < 0.01


@linux
def test_the_worker_has_its_limits_its_own_session_and_no_secrets(
    parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERN_API_KEY", "sk-secret")
    parser.parse("a.txt", b"hello")
    assert parser.pid is not None
    limits = Path(f"/proc/{parser.pid}/limits").read_text()
    fields = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()}
    assert fields["Max address space"] == "1500000000"
    assert fields["Max file size"] == "0"
    assert fields["Max core file size"] == "0"
    assert fields["Max open files"] == "64"
    assert fields["Max cpu time"].isdigit()
    environment = Path(f"/proc/{parser.pid}/environ").read_bytes()
    assert b"secret" not in environment
    assert b"HOME=" not in environment
    assert os.getsid(parser.pid) == parser.pid


@linux
def test_the_worker_ends_when_its_parent_is_killed() -> None:
    program = """
        import sys
        from intern.knowledge.parse import Parser
        parser = Parser(seconds=9, memory_bytes=10**9, pages=9, file_bytes=10**6, inflated_bytes=10**6)
        parser.parse("a.txt", b"hello")
        print(parser.pid, flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    try:
        ended, _, _ = select.select([worker], [], [], 10)
        assert ended
    finally:
        os.close(worker)


@linux
def test_closing_ends_the_worker_and_a_later_document_starts_another(parser: Parser) -> None:
    parser.parse("a.txt", b"hello")
    assert parser.pid is not None
    worker = os.pidfd_open(parser.pid)
    parser.close()
    assert select.select([worker], [], [], 10)[0]
    os.close(worker)
    assert parser.parse("a.txt", b"hello").text == "hello"


@linux
def test_a_worker_without_room_to_start_is_no_fault_of_the_document() -> None:
    parser = make(memory_bytes=1_000_000)
    try:
        with pytest.raises(InternError, match="cannot start") as failure:
            parser.parse("a.txt", b"hello")
        assert not isinstance(failure.value, DocumentRefused)
    finally:
        parser.close()


def test_the_parsing_program_imports_nothing_else_of_the_platform() -> None:
    names = sorted(path.stem for path in (ROOT / "intern" / "parsers").glob("*.py") if not path.stem.startswith("__"))
    program = f"""
import importlib, sys
for name in {["__main__", *names]!r}:
    importlib.import_module("intern.parsers." + name)
print([m for m in sys.modules if m.split(".")[0] in ("pydantic", "sqlalchemy", "numpy", "chromadb", "torch")
       or (m.startswith("intern.") and not m.startswith("intern.parsers") and m != "intern.apart")])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def processor_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def wait_until(condition: object, seconds: float = 20.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        os.sched_yield()
