"""Blocking work that is never left half awaited: whoever is cancelled meanwhile goes only when it is done.

In: a function and its arguments. Out: what it returns. A write that a cancelled run had begun would come late
otherwise, after somebody was told that the run has ended. `stored` also waits for a database that is out of reach for a
moment, or whose disk is full, so that neither costs a training of hours.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from intern.errors import StoreFailure
from intern.store.engine import refused_by_disk

log = logging.getLogger(__name__)

OUT_OF_REACH = (OperationalError, InterfaceError, PoolTimeout)
PATIENCE = 120.0  # seconds that a database may stay away before a run is put down
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 10.0

T = TypeVar("T")
P = ParamSpec("P")


class StoreAway(StoreFailure):
    """The database stayed out of reach. What was going on can be taken up when it is back."""


class StoreFull(StoreAway):
    """The database is there and its disk takes nothing. What was going on can be taken up when there is room."""


async def settled(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """`work` in a thread. Raises CancelledError after it, and what it raises."""
    job = asyncio.ensure_future(asyncio.to_thread(work, *arguments, **named))
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        while not job.done():  # however often we are cancelled
            with suppress(asyncio.CancelledError):
                await asyncio.wait({job})
        if not job.cancelled():
            job.exception()  # nobody is left to be told
        raise


async def stored(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """As `settled`, for work in the database: done again for PATIENCE seconds while that is out of reach, or its disk
    full.

    `work` must be such that doing it twice comes to the same, since the connection may be lost after it was committed.
    Raises StoreAway, StoreFull, and what `work` raises.
    """
    waited, wait = 0.0, _FIRST_WAIT
    while True:
        try:
            return await settled(work, *arguments, **named)
        except OUT_OF_REACH as error:
            away = went_away(error)
            if waited >= PATIENCE:
                raise away from error
            log.warning("%s Trying again in %.1f s.", away.message, wait)
        await asyncio.sleep(wait)
        waited += wait
        wait = min(wait * 2, _LONGEST_WAIT)


def went_away(error: Exception) -> StoreAway:
    """What one of OUT_OF_REACH means: a full disk is for people to clear, anything else may pass."""
    if (refused := refused_by_disk(error)) is not None:
        return StoreFull(f"The database's disk refuses it: {refused}. Make room there; what waits then goes on.")
    reason = f"{type(error).__name__}: {error.__cause__ or error}"[:300]
    return StoreAway(f"The database is out of reach ({reason}).")
