"""The seam in front of every engine: a process that turns messages into tokens.

In: an `EngineRequest` (final messages, sampling, optional JSON Schema, optional adapter). Out: a stream of `Token`
chunks, the last one per choice with a finish reason, and one `Usage`. An engine knows nothing of skills, routing,
documents or records.

Every engine keeps these rules, and tests/test_engines_contract.py checks them on all of them:
closing the stream (aclose, or cancelling the task) stops the generation; a full queue raises `Overloaded` before
the first token; a prompt that does not fit raises `ContextOverflow`; a schema that it cannot enforce raises
`SchemaRefused`; any other failure raises `EngineFailure`, also in mid-stream; `generate` never blocks the event loop.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from typing import Protocol

from intern.types import FinishReason, Json, Message, Model, Sampling, Usage


class EngineRequest(Model):
    """What an engine gets: one answer to make (`sampling.n` is the pipeline's business).

    `adapter` is a name that the engine lists, or None for the base model.
    """

    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    schema_: Mapping[str, Json] | None = None
    json_object: bool = False
    adapter: str | None = None
    tools: tuple[Mapping[str, Json], ...] = ()
    tool_choice: Json = None
    deadline: float | None = None  # seconds from now


class Token(Model):
    """A piece of one choice: text, a tool-call delta, or its end; or the usage of the whole request."""

    index: int = 0
    text: str = ""
    tool_calls: tuple[Mapping[str, Json], ...] = ()
    logprobs: tuple[Mapping[str, Json], ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


def time_left(request: EngineRequest, started: float) -> float | None:
    """Seconds until the request's deadline, counted from `started` (`time.monotonic`); None without a deadline."""
    return None if request.deadline is None else request.deadline - (time.monotonic() - started)


class EngineInfo(Model):
    """What an engine is. `model` is a name with a content hash where one is known.

    `context` is what one request may fill, prompt and answer together, in tokens.
    """

    kind: str
    model: str
    context: int
    slots: int
    tools: bool = False


class Engine(Protocol):
    """One engine. `start` loads it and may take seconds; `close` ends it and everything in flight."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    @property
    def info(self) -> EngineInfo: ...

    @property
    def load(self) -> tuple[int, int]:
        """(requests running, requests waiting)."""
        ...

    def generate(self, request: EngineRequest) -> AsyncGenerator[Token, None]:
        """Stream the answer. Raises the errors of the module's contract."""
        ...

    async def count_tokens(self, text: str) -> int:
        """Tokens of a plain text: exact where the engine has its tokenizer, otherwise an upper estimate."""
        ...

    async def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that are loaded now."""
        ...

    async def load_adapter(self, name: str, path: str) -> None: ...

    async def unload_adapter(self, name: str) -> None: ...

    async def health(self) -> str | None:
        """None when it can serve, otherwise one line that says why not."""
        ...
