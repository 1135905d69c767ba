"""A scripted engine for tests: it says what it is told to, and fails when it is told to.

It keeps every rule of the protocol, so whatever holds on it must hold on a real engine. No model, no tokens: a
"token" is a word with the space before it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

from intern.engines.base import EngineInfo, EngineRequest, Token, time_left
from intern.engines.turns import Turns
from intern.errors import ContextOverflow, DeadlineExceeded, EngineUnavailable, InternError
from intern.types import Usage

Reply = str | InternError | Callable[[EngineRequest], str]


class FakeEngine:
    """Answers with `replies` in turn, the last one for ever. An error as a reply is raised.

    `fail_after` raises `failure` in mid-stream after that many tokens. While `pause` is a cleared event, the stream
    waits before each token. `requests` keeps what was asked; `closed_early` counts streams that were left unfinished.
    """

    def __init__(
        self,
        replies: Iterable[Reply] = ("ok",),
        *,
        context: int = 8192,
        slots: int = 4,
        queue: int = 64,
        fail_after: int | None = None,
        failure: InternError | None = None,
        tools: bool = False,
    ) -> None:
        self.replies = list(replies)
        self.requests: list[EngineRequest] = []
        self.closed_early = 0
        self.pause = asyncio.Event()
        self.pause.set()
        self.fail_after = fail_after
        self.failure = failure
        self.turns = Turns(slots, queue)
        self.down: str | None = None
        self._info = EngineInfo(kind="fake", model="fake", context=context, slots=slots, tools=tools)
        self._adapters: dict[str, str] = {}

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def load(self) -> tuple[int, int]:
        return self.turns.running, self.turns.waiting

    async def generate(self, request: EngineRequest) -> AsyncGenerator[Token, None]:
        started = time.monotonic()
        entered = await self.turns.enter(request.deadline)
        finished = False
        try:
            self.requests.append(request)
            if request.adapter is not None and request.adapter not in self._adapters:
                raise EngineUnavailable(f"The adapter {request.adapter} is not loaded.")
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
            if isinstance(reply, InternError):
                raise reply
            text = reply if isinstance(reply, str) else reply(request)
            prompt = sum(len(m.content.split()) for m in request.messages)
            if prompt > self._info.context:
                raise ContextOverflow(prompt, self._info.context)
            words = re.findall(r"\s*\S+|\s+$", text)
            limit = request.sampling.max_tokens or len(words)
            for number, word in enumerate(words[:limit]):
                async with asyncio.timeout(time_left(request, started)):
                    await self.pause.wait()
                if self.fail_after is not None and number >= self.fail_after and self.failure:
                    raise self.failure
                yield Token(text=word)
            yield Token(finish_reason="length" if len(words) > limit else "stop")
            yield Token(usage=Usage(prompt_tokens=prompt, completion_tokens=min(len(words), limit)))
            finished = True
        except TimeoutError as error:
            raise DeadlineExceeded(f"The answer was not finished in {request.deadline:g} s.") from error
        finally:
            self.closed_early += not finished
            self.turns.leave(entered)

    async def count_tokens(self, text: str) -> int:
        return len(text.split())

    async def adapters(self) -> tuple[str, ...]:
        return tuple(self._adapters)

    async def set_adapters(self, adapters: Mapping[str, str]) -> None:
        self._adapters = {name: self._adapters.get(name, path) for name, path in adapters.items()}

    async def health(self) -> str | None:
        return self.down
