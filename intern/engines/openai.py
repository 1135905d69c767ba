"""Any OpenAI-compatible endpoint as an engine, through the openai client.

In: a base URL, a key, a model name. Retries are the client's own and happen only before the first token. Knows no
tokenizer, so `count_tokens` is an upper estimate, and cannot load adapters into a server that it does not run.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import openai
from openai.types.chat import ChatCompletionChunk

from intern.engines.base import EngineInfo, EngineRequest, Token, identifiers, time_left
from intern.engines.turns import Turns
from intern.errors import (
    ContextOverflow,
    DeadlineExceeded,
    EngineFailure,
    EngineUnavailable,
    InternError,
    InvalidInput,
    Overloaded,
    SchemaRefused,
)
from intern.types import Json, Usage

_PIECES = re.compile(rb" [a-z]{1,3}|[a-z]{1,4}| {1,4}|[^a-z ]")  # of UTF-8, each at most a token in most texts
_OVERFLOW = re.compile(r"(maximum|available) context (length|size)")  # vLLM and OpenAI; llama.cpp


class OpenAIEngine:
    """`context` is what the operator says the model holds, in tokens; the endpoint has the last word."""

    def __init__(self, url: str, *, model: str, key: str = "none", context: int, slots: int, queue: int) -> None:
        self._client = openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=1)
        self._model = model
        self._url = url
        self._turns = Turns(slots, queue)
        self._info = EngineInfo(kind="openai", model=f"{model} at {url}", context=context, slots=slots, tools=True)

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        await self._client.close()

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def load(self) -> tuple[int, int]:
        return self._turns.running, self._turns.waiting

    async def generate(self, request: EngineRequest) -> AsyncGenerator[Token, None]:
        if request.adapter is not None:
            raise EngineUnavailable(f"The endpoint {self._url} cannot serve the adapter {request.adapter}.")
        started = time.monotonic()
        entered = await self._turns.enter(request.deadline)
        finished = False
        try:
            async with asyncio.timeout(time_left(request, started)):
                stream = await self._client.chat.completions.create(**self._body(request))
            async with stream:
                chunks = aiter(stream)
                while True:
                    async with asyncio.timeout(time_left(request, started)):
                        tokens = await _read(chunks)
                    if tokens is None:
                        break
                    for token in tokens:
                        finished = finished or token.finish_reason is not None
                        yield token
            if not finished:
                raise EngineFailure("The engine broke off before the answer was finished.")
        except TimeoutError as error:
            raise DeadlineExceeded(f"The answer was not finished in {request.deadline:g} s.") from error
        except openai.OpenAIError as error:
            raise _translate(error, self._info.context) from None  # its text may quote the request
        finally:
            self._turns.leave(entered)

    async def count_tokens(self, text: str) -> int:
        """An upper estimate: four small letters of a word a token, and each other byte of UTF-8 a token of its own.

        Measured on prose, code, tables and numbers in six scripts, that is 1 to 2.6 times what a small tokenizer
        makes of them. Random letters are more tokens; of those only the endpoint can say that they do not fit.
        """
        return len(_PIECES.findall(text.encode()))

    async def adapters(self) -> tuple[str, ...]:
        return ()

    async def set_adapters(self, adapters: Mapping[str, str]) -> None:
        if adapters:
            raise EngineUnavailable(f"The endpoint {self._url} cannot load adapters.")

    async def health(self) -> str | None:
        try:
            await self._client.with_options(timeout=5, max_retries=0).models.list()
        except openai.OpenAIError as error:
            return f"{self._url} does not answer: {type(error).__name__}"
        return None

    def _body(self, request: EngineRequest) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [m.model_dump(exclude_defaults=True) | {"content": m.content} for m in request.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for key in ("temperature", "top_p", "max_tokens", "seed", "presence_penalty", "frequency_penalty"):
            if (value := getattr(sampling, key)) is not None:
                body[key] = value
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.logprobs:
            body |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
        if request.schema_ is not None:
            schema: dict[str, Json] = {"name": "answer", "schema": dict(request.schema_), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif request.json_object:
            body["response_format"] = {"type": "json_object"}
        if request.tools:
            body["tools"] = list(request.tools)
            if request.tool_choice is not None:
                body["tool_choice"] = request.tool_choice
        return body


async def _read(chunks: AsyncIterator[ChatCompletionChunk]) -> list[Token] | None:
    """The next chunk's tokens, None at the end. Raises EngineFailure for what is no chunk of a completion.

    The client takes JSON as it comes, so what it hands over can have any shape.
    """
    try:
        chunk = await anext(chunks, None)
        return None if chunk is None else _tokens(chunk)
    except (ValueError, TypeError, AttributeError) as error:  # pydantic's and json's errors are ValueErrors
        raise EngineFailure(f"The engine's answer cannot be read ({type(error).__name__}).") from None


def _tokens(chunk: ChatCompletionChunk) -> list[Token]:
    found = []
    for choice in chunk.choices:
        delta = choice.delta
        logprobs = choice.logprobs.content if choice.logprobs and choice.logprobs.content else ()
        reason = choice.finish_reason
        found.append(
            Token(
                index=choice.index,
                text=(delta.content or "") + (delta.refusal or ""),
                tool_calls=tuple(c.model_dump(exclude_none=True) for c in delta.tool_calls or ()),
                logprobs=tuple(entry.model_dump() for entry in logprobs),
                finish_reason="tool_calls" if reason == "function_call" else reason,
            )
        )
    if chunk.usage:
        details = chunk.usage.prompt_tokens_details
        found.append(
            Token(
                usage=Usage(
                    prompt_tokens=chunk.usage.prompt_tokens,
                    completion_tokens=chunk.usage.completion_tokens,
                    cached_tokens=(details.cached_tokens if details else None) or 0,
                )
            )
        )
    return found


def _translate(error: openai.OpenAIError, context: int) -> InternError:
    status = error.status_code if isinstance(error, openai.APIStatusError) else None
    words = {"type": error.type, "code": error.code, "param": error.param} if isinstance(error, openai.APIError) else {}
    said = identifiers(status=status, **words)
    if isinstance(error, openai.APITimeoutError):
        return DeadlineExceeded("The engine did not answer in time.")
    if isinstance(error, openai.APIConnectionError):
        return EngineUnavailable("The engine cannot be reached.")
    if isinstance(error, openai.RateLimitError):
        try:
            after = float(error.response.headers.get("retry-after", "5"))
        except ValueError:
            after = 5.0
        return Overloaded("The engine is overloaded.", retry_after=after)
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return EngineUnavailable("The engine refused the key (INTERN_ENGINE_KEY).")
    if isinstance(error, openai.NotFoundError):
        return EngineUnavailable("The engine does not have this model (INTERN_ENGINE_MODEL).")
    if isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError):
        body = error.body if isinstance(error.body, dict) else {}
        message = str(body.get("message", error))
        if error.code == "context_length_exceeded" or _OVERFLOW.search(message):
            return ContextOverflow(body.get("n_prompt_tokens") or context + 1, body.get("n_ctx") or context)
        if error.param == "response_format":
            return SchemaRefused(f"The engine refused the schema{said}.", param="response_format")
        return InvalidInput(f"The engine refused the request{said}.")
    return EngineFailure(f"The engine failed: {type(error).__name__}{said}.")
