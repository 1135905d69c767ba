"""A bounded queue in front of an engine's slots: first come, first served, and *overloaded* when it is full.

Belongs to one event loop. Knows how many run and wait, nothing of what runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque

from intern.errors import DeadlineExceeded, Overloaded


class Turns:
    """`slots` requests run, `queue` more may wait. A slot is taken with `enter` and given back with `leave`."""

    def __init__(self, slots: int, queue: int) -> None:
        self.slots = slots
        self.queue = queue
        self.running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._seconds = 1.0  # moving average of how long a slot is held

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def enter(self, seconds: float | None = None) -> float:
        """Wait for a free slot, at most that long; returns the time (`time.monotonic`) to hand to `leave`.

        Raises Overloaded, with an estimate of when to come back, when the queue is full; DeadlineExceeded.
        """
        if seconds is not None and seconds <= 0:
            raise DeadlineExceeded("The time was up before the engine was asked.")
        if self.running < self.slots:
            self.running += 1
            return time.monotonic()
        if len(self._waiting) >= self.queue:
            wait = self._seconds * (len(self._waiting) + 1) / self.slots
            raise Overloaded(
                f"{self.running} requests are running and {len(self._waiting)} are waiting. Try again later.",
                retry_after=max(1.0, round(wait, 1)),
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(seconds):
                await self._wait(turn)
        except TimeoutError as error:
            raise DeadlineExceeded(f"No slot of the engine became free in {seconds:g} s.") from error
        return time.monotonic()

    async def _wait(self, turn: asyncio.Future[None]) -> None:
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with contextlib.suppress(ValueError):  # passed over meanwhile
                    self._waiting.remove(turn)
            else:  # the slot was handed over in the same moment: pass it on
                self._hand_on()
            raise

    def leave(self, entered: float) -> None:
        self._seconds += 0.1 * (time.monotonic() - entered - self._seconds)
        self._hand_on()

    def _hand_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1
