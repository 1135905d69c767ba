"""Blocking work that is never left half awaited: whoever is cancelled meanwhile goes only when it is done.

In: a function and its arguments. Out: what it returns. A write that a cancelled run had begun would come late
otherwise, after somebody was told that the run has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


async def settled(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """`work` in a thread. Raises CancelledError after it, and what it raises."""
    job = asyncio.ensure_future(asyncio.to_thread(work, *arguments, **named))
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        await asyncio.wait({job})
        raise
