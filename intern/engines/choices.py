"""Several answers to one request, from an engine that makes one at a time.

In: a request, and how many choices are wanted. Out: the tokens of all of them as they come, each with its choice's
index. Each choice is a generation of its own, with a seed of its own where the request has one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from intern.engines.base import Engine, EngineRequest, Token


async def tokens_of(engine: Engine, request: EngineRequest, count: int) -> AsyncGenerator[Token, None]:
    """The tokens of `count` choices as they come. Raises as `engine.generate`; closing it ends every generation."""
    if count == 1:
        async with aclosing(engine.generate(request)) as stream:
            async for token in stream:
                yield token
        return
    tokens: asyncio.Queue[Token | Exception | None] = asyncio.Queue()

    async def one(index: int) -> None:
        seed = request.sampling.seed
        sampling = request.sampling.model_copy(update={"seed": None if seed is None else seed + index})
        try:
            async with aclosing(engine.generate(request.model_copy(update={"sampling": sampling}))) as stream:
                async for token in stream:
                    tokens.put_nowait(token.model_copy(update={"index": index}) if index else token)
            tokens.put_nowait(None)
        except Exception as error:
            tokens.put_nowait(error)

    jobs = [asyncio.create_task(one(index)) for index in range(count)]
    try:
        running = count
        while running:
            item = await tokens.get()
            if item is None:
                running -= 1
            elif isinstance(item, Exception):
                raise item
            else:
                yield item
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
