"""An `Answer` in OpenAI's shapes: a chat completion, or the chunks of one.

Everything that OpenAI has no field for (record, route, citations, review) is in one extra field, `intern`.
"""

from __future__ import annotations

import json
import time
from typing import Any

from intern.engines.base import Token
from intern.types import Answer, Choice, Passage, Usage

HEADERS = ("x-intern-skill", "x-intern-adapter", "x-intern-confidence")


def headers(answer: Answer) -> dict[str, str]:
    """The x-intern-* headers that are known before the first token."""
    values = (answer.skill or "", answer.adapter or "", f"{answer.route.confidence:.4f}")
    return dict(zip(HEADERS, values, strict=True))


def completion(answer: Answer) -> dict[str, Any]:
    """The body of a chat completion."""
    choices = [_choice(choice) for choice in answer.choices]
    if answer.refusal is not None:
        message = {"role": "assistant", "content": None, "refusal": answer.refusal}
        choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    return {
        "id": _id(answer),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": answer.model,
        "choices": choices,
        "usage": usage(answer.usage),
        "intern": intern_field(answer),
    }


def _id(answer: Answer) -> str:
    return f"chatcmpl-{answer.record.removeprefix('rec_')}"


def _choice(choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
    if choice.tool_calls:
        message |= {"tool_calls": list(choice.tool_calls), "content": choice.text or None}
    return {
        "index": choice.index,
        "message": message,
        "logprobs": _logprobs(choice.logprobs),
        "finish_reason": choice.finish_reason,
    }


def _logprobs(entries: Any) -> dict[str, Any] | None:
    return {"content": list(entries), "refusal": None} if entries else None


def usage(counts: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.completion_tokens,
        "total_tokens": counts.total_tokens,
        "prompt_tokens_details": {"cached_tokens": counts.cached_tokens},
    }


def intern_field(answer: Answer) -> dict[str, Any]:
    """The `intern` field of an answer."""
    return {
        "record": answer.record,
        "skill": answer.skill,
        "adapter": answer.adapter,
        "valid": all(choice.valid for choice in answer.choices),
        "route": answer.route.model_dump(mode="json"),
        "citations": [passage_body(p) for p in answer.citations],
        "passages": [passage_body(p) for p in answer.passages],
        "review": answer.review,
        "notes": list(answer.notes),
        "timings": {stage: round(seconds, 6) for stage, seconds in answer.timings.items()},
    }


def passage_body(passage: Passage) -> dict[str, Any]:
    """A passage in the contract's shape; `start` and `end` are offsets into the document's text."""
    return {
        "document": passage.document,
        "heading": passage.heading,
        "start": passage.start,
        "end": passage.end,
        "score": round(passage.score, 6),
        "text": passage.text,
    }


class Chunks:
    """Makes the chunks of one streamed completion."""

    def __init__(self, answer: Answer, *, include_usage: bool) -> None:
        self._frame = {
            "id": _id(answer),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": answer.model,
        }
        self._include_usage = include_usage
        self._opened: set[int] = set()

    def open(self, answer: Answer) -> bytes:
        """The first chunk: the route, before any token."""
        self._opened.add(0)
        return self._chunk([_delta(0, {"role": "assistant", "content": ""})], intern_field(answer))

    def token(self, token: Token) -> bytes:
        delta: dict[str, Any] = {"content": token.text} if token.text else {}
        if token.index not in self._opened:
            self._opened.add(token.index)
            delta = {"role": "assistant", "content": "", **delta}
        if token.tool_calls:
            delta["tool_calls"] = list(token.tool_calls)
        return self._chunk([_delta(token.index, delta, logprobs=_logprobs(token.logprobs))])

    def close(self, answer: Answer) -> bytes:
        """The last chunks: refusal or finish reasons with the whole `intern` field, then the usage if asked for."""
        parts = []
        if answer.refusal is not None:
            parts.append(self._chunk([_delta(0, {"refusal": answer.refusal})]))
            ends = [_delta(0, {}, reason="stop")]
        else:
            ends = [_delta(choice.index, {}, reason=choice.finish_reason) for choice in answer.choices]
        parts.append(self._chunk(ends, intern_field(answer)))
        if self._include_usage:
            parts.append(event({**self._frame, "choices": [], "usage": usage(answer.usage)}))
        return b"".join(parts)

    def _chunk(self, choices: list[dict[str, Any]], intern: dict[str, Any] | None = None) -> bytes:
        body: dict[str, Any] = {**self._frame, "choices": choices}
        if self._include_usage:
            body["usage"] = None
        if intern is not None:
            body["intern"] = intern
        return event(body)


def _delta(index: int, delta: dict[str, Any], *, logprobs: Any = None, reason: str | None = None) -> dict[str, Any]:
    body = {"index": index, "delta": delta, "finish_reason": reason}
    return body if logprobs is None else {**body, "logprobs": logprobs}


DONE = b"data: [DONE]\n\n"


def event(body: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
