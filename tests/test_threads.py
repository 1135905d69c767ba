"""Short work never waits for long work, nobody waits for another's, and `close` waits for all that writes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from intern.errors import StoreFailure
from intern.threads import LONG_THREADS, Threads

PATIENCE = 10.0


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, PATIENCE))


class Held:
    """Blocking work that waits until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()
        self.done = 0

    def __call__(self) -> None:
        self.begun.release()
        assert self.go.wait(PATIENCE)
        self.done += 1

    async def has_begun(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.begun.acquire)


def test_short_work_and_another_teams_do_not_wait_for_long_work() -> None:
    async def scenario() -> None:
        threads, held = Threads(), Held()
        jobs = [asyncio.ensure_future(threads.at_length("red", held)) for _ in range(LONG_THREADS + 5)]
        for _ in range(LONG_THREADS):
            await held.has_begun()
        assert await threads.promptly(lambda: "short") == "short"
        assert await threads.at_length("blue", lambda: "blue") == "blue"
        assert held.done == 0
        held.go.set()
        await asyncio.gather(*jobs)
        await threads.close()

    run(scenario())


def test_who_asks_for_the_same_waits_for_one_run_that_goes_on_when_they_leave() -> None:
    async def scenario() -> None:
        threads, held = Threads(), Held()
        first, second = (asyncio.ensure_future(threads.once("red", "folder", held)) for _ in range(2))
        await held.has_begun()
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first
        held.go.set()
        await second
        assert held.done == 1
        await threads.once("red", "folder", held)
        assert held.done == 2, "the next to ask gets a new run"
        await threads.close()

    run(scenario())


def test_an_error_reaches_all_who_wait_and_the_next_tries_again() -> None:
    async def scenario() -> None:
        threads, go = Threads(), threading.Event()

        def fail() -> None:
            assert go.wait(PATIENCE)
            raise ValueError("no")

        both = [asyncio.ensure_future(threads.once("red", "folder", fail)) for _ in range(2)]
        await asyncio.sleep(0)
        go.set()
        assert [type(error) for error in await asyncio.gather(*both, return_exceptions=True)] == [ValueError] * 2
        await threads.once("red", "folder", lambda: None)
        await threads.close()

    run(scenario())


@pytest.mark.parametrize("kind", ["promptly", "at_length", "once", "to_thread"])
def test_close_waits_for_work_whose_caller_has_left(kind: str) -> None:
    async def scenario() -> None:
        threads, held = Threads(), Held()
        threads.lend()
        work: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "promptly": lambda: threads.promptly(held),
            "at_length": lambda: threads.at_length("red", held),
            "once": lambda: threads.once("red", "folder", held),
            "to_thread": lambda: asyncio.to_thread(held),
        }
        job = asyncio.ensure_future(work[kind]())
        await held.has_begun()
        job.cancel()
        with suppress(asyncio.CancelledError):
            await job
        closing = asyncio.ensure_future(threads.close())
        await asyncio.wait({closing}, timeout=0.2)
        assert not closing.done()
        held.go.set()
        await closing
        assert held.done == 1
        assert await asyncio.to_thread(lambda: "still works") == "still works"

    run(scenario())


def test_what_comes_after_the_end_is_refused_and_what_had_not_begun_is_dropped() -> None:
    async def scenario() -> None:
        threads, held, late = Threads(), Held(), Held()
        jobs = [asyncio.ensure_future(threads.once("red", n, held)) for n in range(LONG_THREADS)]
        for _ in range(LONG_THREADS):
            await held.has_begun()
        waiting = asyncio.ensure_future(threads.once("red", "late", late))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(threads.close())
        with pytest.raises(StoreFailure):
            await waiting
        held.go.set()
        await closing
        await asyncio.gather(*jobs)
        for refused in (threads.promptly(late), threads.at_length("red", late), threads.once("red", "late", late)):
            with pytest.raises(StoreFailure):
                await refused
        assert late.done == 0

    run(scenario())
