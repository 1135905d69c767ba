"""The OpenAI-compatible routes: translate, call the pipeline, translate back."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from intern.engines.base import Token
from intern.errors import InternError, InvalidInput, NotFound
from intern.pipeline import AUTO, Closed, Opened
from intern.types import Ask
from server import errors
from server.auth import KeyedRoute, User, Work
from server.departure import EventStream, until_gone
from server.metrics import Counted, Metrics
from server.openai import responses
from server.openai.requests import PREFIX, ChatRequest, EmbeddingsRequest

log = logging.getLogger(__name__)

EMBEDDINGS = "intern-embeddings"
MAX_EMBEDDED = 2048

router = APIRouter(prefix="/v1", route_class=KeyedRoute, tags=["openai"])

Pieces = AsyncGenerator[Opened | Token | Closed, None]


@router.post("/chat/completions", response_model=None)
async def chat(request: Request, body: ChatRequest, caller: User, workspace: Work, metrics: Counted) -> Response:
    """Answer a conversation: routed (`intern-auto`), by a skill, or by one version of it."""
    ask = body.ask(caller)
    try:
        if body.stream:
            include_usage = bool(body.stream_options and body.stream_options.include_usage)
            pieces, deadline = workspace.pipeline.stream(ask), workspace.pipeline.deadline
            return await _stream(request, pieces, ask, metrics, deadline, include_usage=include_usage)
        answer = await until_gone(request.receive, workspace.pipeline.answer(ask))
    except NotFound as error:
        if error.what != "skill" or ask.skill is None:
            raise
        # A skill that was asked for as a model is a model that does not exist.
        raise NotFound("model", body.model[:200], "GET /v1/models lists what there is.") from error
    metrics.answer(caller.team, answer)
    return JSONResponse(responses.completion(answer), headers=responses.headers(answer))


async def _stream(
    request: Request, pieces: Pieces, ask: Ask, metrics: Metrics, deadline: float, *, include_usage: bool
) -> Response:
    until = asyncio.get_running_loop().time() + (ask.deadline or deadline)

    async def begin() -> tuple[Opened, Opened | Token | Closed]:
        # The first token is waited for as well, so that what fails before it has a proper status.
        opened = await anext(pieces)
        assert isinstance(opened, Opened)
        return opened, await anext(pieces)

    try:
        opened, first = await until_gone(request.receive, begin())
    except BaseException:
        await pieces.aclose()
        raise
    chunks = responses.Chunks(opened.answer, include_usage=include_usage)

    async def events() -> AsyncGenerator[bytes, None]:
        async with aclosing(pieces):
            try:
                yield chunks.open(opened.answer)
                item = first
                while isinstance(item, Token):
                    if item.text or item.tool_calls or item.logprobs:
                        yield chunks.token(item)
                    item = await anext(pieces)
                assert isinstance(item, Closed)
                metrics.answer(ask.caller.team, item.answer)
                yield chunks.close(item.answer)
                yield responses.DONE
            except InternError as error:
                log.warning("a stream ended in an error: %s", error.code)
                yield responses.event(errors.body(error))
            except Exception as error:
                log.exception("a stream ended in an unexpected error")
                yield responses.event(errors.body(error))

    return EventStream(events(), responses.headers(opened.answer), until=until)


@router.get("/models")
async def models(caller: User, workspace: Work) -> dict[str, Any]:
    """What can stand in `model`: intern-auto, every skill, every skill's versions, and the embedder."""
    names = [AUTO]
    for skill in workspace.library.all(caller.team):
        names += [f"{PREFIX}{skill.name}", f"{PREFIX}{skill.name}@base"]
    names.append(EMBEDDINGS)
    return {"object": "list", "data": [_model(name, workspace) for name in names]}


@router.get("/models/{model:path}")
async def model(model: str, caller: User, workspace: Work) -> dict[str, Any]:
    """One model."""
    listed = (await models(caller, workspace))["data"]
    found = next((entry for entry in listed if entry["id"] == model), None)
    if found is None:
        raise NotFound("model", model, "GET /v1/models lists what there is.")
    return dict(found)


def _model(name: str, workspace: Work) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": workspace.opened, "owned_by": "llama-intern"}


@router.post("/embeddings")
async def embeddings(body: EmbeddingsRequest, caller: User, workspace: Work) -> dict[str, Any]:
    """Vectors of texts, by the embedder that routing and retrieval use."""
    if body.model != EMBEDDINGS:
        raise NotFound("model", body.model, f"The embedder is called '{EMBEDDINGS}'.")
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not texts or not all(isinstance(text, str) for text in texts):
        raise InvalidInput("input must be a text or a list of texts; tokens are not supported.", param="input")
    if len(texts) > MAX_EMBEDDED:
        raise InvalidInput(f"input holds {len(texts)} texts; at most {MAX_EMBEDDED} are allowed.", param="input")
    inputs = [str(text) for text in texts]
    tokens, vectors = await asyncio.to_thread(_embed, workspace, inputs, body.dimensions)
    data = [
        {"object": "embedding", "index": i, "embedding": _encode(vector, body.encoding_format)}
        for i, vector in enumerate(vectors)
    ]
    return {
        "object": "list",
        "model": EMBEDDINGS,
        "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _embed(workspace: Work, texts: list[str], dimensions: int | None) -> tuple[int, Any]:
    embedder = workspace.embedder
    if dimensions not in (None, embedder.dimension):
        raise InvalidInput(f"This embedder makes {embedder.dimension} dimensions.", param="dimensions")
    counts = [embedder.count_tokens(text) for text in texts]
    if not all(text.strip() for text in texts):
        raise InvalidInput("input holds an empty text.", param="input")
    if max(counts) > embedder.max_tokens:
        number = counts.index(max(counts))
        raise InvalidInput(
            f"Text {number} has {max(counts)} tokens; the embedder reads at most {embedder.max_tokens}.", param="input"
        )
    return sum(counts), embedder.embed(texts)


def _encode(vector: Any, encoding: str) -> Any:
    if encoding == "base64":
        return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
    return [float(v) for v in vector]
