"""The tokens of one request put together to choices.

In: tokens as an engine streams them. Out: the choices of an answer whose end was seen, or, of one that broke off, what
there is of them. Knows nothing of schemas: whether a finished choice keeps one is checked later.
"""

from __future__ import annotations

from collections.abc import Mapping

from intern.engines.base import Token
from intern.errors import EngineFailure
from intern.types import Choice, FinishReason, Json, Usage

UNFINISHED = "not finished, and not checked"


class Gathered:
    """Gathers the choices 0 to `count` - 1."""

    def __init__(self, count: int) -> None:
        self.usage = Usage()
        self._count = count
        self._texts: dict[int, list[str]] = {}
        self._logprobs: dict[int, list[Mapping[str, Json]]] = {}
        self._calls: dict[int, dict[int, dict[str, Json]]] = {}
        self._reasons: dict[int, FinishReason] = {}

    def add(self, token: Token) -> None:
        if token.usage is not None:  # the prompt of n choices counts once
            once = token.usage if token.index == 0 else Usage(completion_tokens=token.usage.completion_tokens)
            self.usage += once
            return
        self._texts.setdefault(token.index, []).append(token.text)
        if token.logprobs:
            self._logprobs.setdefault(token.index, []).extend(token.logprobs)
        for delta in token.tool_calls:
            _merge_call(self._calls.setdefault(token.index, {}), delta)
        if token.finish_reason is not None:
            self._reasons[token.index] = token.finish_reason

    def finished(self) -> tuple[Choice, ...]:
        """Every choice. Raises EngineFailure when the end of one was not seen: it may be cut anywhere."""
        if any(index not in self._reasons for index in range(self._count)):
            raise EngineFailure("The engine broke off before the answer was finished.")
        return tuple(self._choice(index) for index in range(self._count))

    def unfinished(self) -> tuple[Choice, ...]:
        """What there is of an answer that broke off, for the record: nobody may take it for an answer."""
        broken = {"valid": False, "problems": (UNFINISHED,)}
        return tuple(self._choice(index).model_copy(update=broken) for index in sorted(self._texts))

    def _choice(self, index: int) -> Choice:
        calls = tuple(call for _, call in sorted(self._calls.get(index, {}).items()))
        reason = self._reasons.get(index, "length")
        return Choice(
            index=index,
            text="".join(self._texts.get(index, ())),
            # A choice without calls is a text, whatever the engine says.
            finish_reason="stop" if reason == "tool_calls" and not calls else reason,
            logprobs=tuple(self._logprobs.get(index, ())),
            tool_calls=calls,
        )


def _merge_call(calls: dict[int, dict[str, Json]], delta: Mapping[str, Json]) -> None:
    """Add one tool-call delta (OpenAI's streaming shape) to the calls so far."""
    call = calls.setdefault(
        delta.get("index", 0), {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
    )
    call["id"] = delta.get("id") or call["id"]
    part = delta.get("function") or {}
    call["function"]["name"] += part.get("name") or ""
    call["function"]["arguments"] += part.get("arguments") or ""
