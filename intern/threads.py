"""Threads for blocking work, apart by how long it takes and for whom, so that nothing short waits for anything long.

`promptly`: a few statements on which everybody depends, such as key look-ups and health. `at_length`: what may take
minutes, such as reading folders and uploads, in a few threads for each who asks (a team). What a request needs besides
takes milliseconds and goes to the event loop's own threads (`asyncio.to_thread`), which `lend` makes threads of here.
`close` waits for them all, so that nothing writes any more when the parts are closed. Knows nothing of the work.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

from intern.errors import StoreFailure

PROMPT_THREADS = 4
LONG_THREADS = 2  # for each who asks

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """Thread-safe but for `lend` and `close`. Threads are made when there is work for them."""

    def __init__(self) -> None:
        self.closing = threading.Event()  # long work may look at it, and end early
        self._prompt = ThreadPoolExecutor(PROMPT_THREADS, thread_name_prefix="prompt")
        self._long: dict[str, ThreadPoolExecutor] = {}
        self._lent: tuple[asyncio.AbstractEventLoop, ThreadPoolExecutor] | None = None
        self._running: dict[Hashable, Future[None]] = {}
        self._guard = threading.Lock()

    async def promptly(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of short work, which must not wait for a lock that long work holds. Raises StoreFailure when the
        threads are closed, as `at_length` and `once` do."""
        self._check_open()
        job = partial(copy_context().run, work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._prompt, job)

    async def at_length(self, who: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of work that may take minutes. A caller that is cancelled leaves it running, if it began."""
        job = partial(copy_context().run, work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool(who), job)

    async def once(self, who: str, key: Hashable, work: Callable[[], None]) -> None:
        """As `at_length`, but all who ask while work of the same key runs wait for that one run, and get its error.

        The work goes on when they leave, since the next to ask will want it too.
        """
        pool = self._pool(who)
        with self._guard:
            job = self._running.get(key)
            if job is None or job.done():
                job = self._running[key] = pool.submit(copy_context().run, work)
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def tell(_: Future[None]) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done.set)

        job.add_done_callback(tell)
        await done.wait()
        with self._guard:
            if self._running.get(key) is job:
                del self._running[key]
        if job.cancelled():  # by `close`, before it began
            self._check_open()
        job.result()

    def lend(self) -> None:
        """Have `asyncio.to_thread` of the running loop use threads that `close` waits for."""
        if self._lent is None:
            loop, pool = asyncio.get_running_loop(), ThreadPoolExecutor(thread_name_prefix="request")
            loop.set_default_executor(pool)
            self._lent = (loop, pool)

    async def close(self) -> None:
        """Drop what has not begun, and wait for what has. `asyncio.to_thread` goes on working."""
        self.closing.set()
        with self._guard:
            pools = [self._prompt, *self._long.values()]
        if self._lent is not None:
            loop, pool = self._lent
            if loop is asyncio.get_running_loop():
                loop.set_default_executor(ThreadPoolExecutor())
            pools.append(pool)
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in pools:
            await asyncio.to_thread(pool.shutdown)

    def _pool(self, who: str) -> ThreadPoolExecutor:
        with self._guard:
            self._check_open()
            if who not in self._long:
                self._long[who] = ThreadPoolExecutor(LONG_THREADS, thread_name_prefix=f"long {who}")
            return self._long[who]

    def _check_open(self) -> None:
        if self.closing.is_set():
            raise StoreFailure("The workspace is being closed.")
