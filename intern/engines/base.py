"""The seam in front of every engine: a process that turns messages into tokens.

In: an `EngineRequest` (final messages, sampling, optional JSON Schema, optional adapter). Out: a stream of `Token`
chunks, the last one per choice with a finish reason, and one `Usage`. An engine knows nothing of skills, routing,
documents or records.

Every engine keeps these rules, and tests/engines/test_contract.py checks them on all of them:
closing the stream (aclose, or cancelling the task) stops the generation; a full queue raises `Overloaded` before
the first token; a prompt that does not fit raises `ContextOverflow`; a schema that it cannot enforce raises
`SchemaRefused`; a deadline that passes, also in the queue, raises `DeadlineExceeded`; an adapter that is not loaded
raises `EngineUnavailable`; any other failure raises `EngineFailure`, also in mid-stream, and an answer without a finish
reason is one; `generate` never blocks the event loop. What an engine says in its errors may quote the request, so only
words that it uses as identifiers go on (`identifiers`), never its sentences.
"""

from __future__ import annotations

import re
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


_IDENTIFIER = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def identifiers(**words: Json) -> str:
    """What is an identifier or a number among an engine's own words for an error: ' (type a, code 400)', or ''."""
    kept = {name: str(word) for name, word in words.items() if isinstance(word, str | int)}
    listed = ", ".join(f"{name} {word}" for name, word in kept.items() if _IDENTIFIER.fullmatch(word))
    return f" ({listed})" if listed else ""


def time_left(request: EngineRequest, started: float) -> float | None:
    """Seconds until the request's deadline, counted from `started` (`time.monotonic`); None without a deadline."""
    return None if request.deadline is None else request.deadline - (time.monotonic() - started)


class EngineInfo(Model):
    """What an engine is. `model` is a name with a content hash where one is known.

    `context` is what one request may fill, prompt and answer together, in tokens. `version` is that of the library that
    runs the model here, '' where it runs elsewhere: another one may give other answers.
    """

    kind: str
    model: str
    context: int
    slots: int
    tools: bool = False
    version: str = ""


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

    async def set_adapters(self, adapters: Mapping[str, str]) -> None:
        """Have exactly these adapters, by name the path of each, while requests go on. A name stands for one file for
        ever: what is loaded already stays as it is. Raises EngineFailure or EngineUnavailable; then nothing changed."""
        ...

    async def health(self) -> str | None:
        """None when it can serve, otherwise one line that says why not."""
        ...
