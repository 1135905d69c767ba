"""The gate admits in order, refuses beyond its queue, and never loses a slot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from intern.engines.gate import Gate
from intern.errors import Overloaded


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a turn of the loop, not a wait
        await asyncio.sleep(0)


def test_slots_then_queue_then_overloaded() -> None:
    async def scenario() -> None:
        gate = Gate(slots=1, queue=1)
        first = await gate.enter()
        waiting = asyncio.create_task(gate.enter())
        await until(lambda: gate.waiting == 1)
        with pytest.raises(Overloaded) as caught:
            await gate.enter()
        assert caught.value.retry_after >= 1
        gate.leave(first)
        gate.leave(await waiting)
        assert (gate.running, gate.waiting) == (0, 0)

    asyncio.run(scenario())


def test_who_waits_leaves_in_order_and_the_cancelled_one_is_passed_over() -> None:
    async def scenario() -> None:
        gate = Gate(slots=1, queue=9)
        entered: list[str] = []

        async def visit(name: str) -> None:
            ticket = await gate.enter()
            entered.append(name)
            await asyncio.sleep(0)
            gate.leave(ticket)

        first = await gate.enter()
        tasks = {name: asyncio.create_task(visit(name)) for name in "abc"}
        await until(lambda: gate.waiting == 3)
        tasks["b"].cancel()
        gate.leave(first)
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        assert entered == ["a", "c"]
        assert (gate.running, gate.waiting) == (0, 0)

    asyncio.run(scenario())


def test_a_slot_handed_over_in_the_moment_of_cancelling_is_passed_on() -> None:
    async def scenario() -> None:
        gate = Gate(slots=1, queue=9)
        first = await gate.enter()
        doomed, lucky = asyncio.create_task(gate.enter()), asyncio.create_task(gate.enter())
        await until(lambda: gate.waiting == 2)
        gate.leave(first)  # hands the slot to `doomed` ...
        doomed.cancel()  # ... which is cancelled before it runs
        await asyncio.gather(doomed, return_exceptions=True)
        gate.leave(await lucky)
        assert gate.running == 0

    asyncio.run(scenario())
