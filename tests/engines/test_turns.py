"""The queue admits in order, refuses beyond its queue, and never loses a slot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from intern.engines.turns import Turns
from intern.errors import Overloaded


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a turn of the loop, not a wait
        await asyncio.sleep(0)


def test_slots_then_queue_then_overloaded() -> None:
    async def scenario() -> None:
        turns = Turns(slots=1, queue=1)
        first = await turns.enter()
        waiting = asyncio.create_task(turns.enter())
        await until(lambda: turns.waiting == 1)
        with pytest.raises(Overloaded) as caught:
            await turns.enter()
        assert caught.value.retry_after >= 1
        turns.leave(first)
        turns.leave(await waiting)
        assert (turns.running, turns.waiting) == (0, 0)

    asyncio.run(scenario())


def test_who_waits_leaves_in_order_and_the_cancelled_one_is_passed_over() -> None:
    async def scenario() -> None:
        turns = Turns(slots=1, queue=9)
        entered: list[str] = []

        async def visit(name: str) -> None:
            ticket = await turns.enter()
            entered.append(name)
            await asyncio.sleep(0)
            turns.leave(ticket)

        first = await turns.enter()
        tasks = {name: asyncio.create_task(visit(name)) for name in "abc"}
        await until(lambda: turns.waiting == 3)
        tasks["b"].cancel()
        turns.leave(first)
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        assert entered == ["a", "c"]
        assert (turns.running, turns.waiting) == (0, 0)

    asyncio.run(scenario())


def test_a_slot_handed_over_in_the_moment_of_cancelling_is_passed_on() -> None:
    async def scenario() -> None:
        turns = Turns(slots=1, queue=9)
        first = await turns.enter()
        doomed, lucky = asyncio.create_task(turns.enter()), asyncio.create_task(turns.enter())
        await until(lambda: turns.waiting == 2)
        turns.leave(first)  # hands the slot to `doomed` ...
        doomed.cancel()  # ... which is cancelled before it runs
        await asyncio.gather(doomed, return_exceptions=True)
        turns.leave(await lucky)
        assert turns.running == 0

    asyncio.run(scenario())
