"""The embedded engine: llama.cpp in this process, through xllamacpp.

In: a GGUF file. Each request runs in a thread that hands chunks to the event loop, so nothing here blocks it. Loading
or unloading an adapter makes a second llama.cpp server (weights are mapped, so it takes about a second), sends new
requests there, and closes the first when its last request is done; no request is dropped.

llama.cpp also listens on a loopback port, which every local process could use, so it is locked with a random key.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2

from intern.engines.base import EngineInfo, EngineRequest, Token, time_left
from intern.engines.gate import Gate
from intern.errors import ContextOverflow, DeadlineExceeded, EngineFailure, EngineUnavailable, InvalidInput, NotFound
from intern.schema import check_schema
from intern.types import Json, Message, Usage

_END = object()
_COUNT_CACHE = 4096
PROMPT_CACHE_MIB = 128  # llama.cpp would take up to 8 GiB


class LlamaCppEngine:
    """`path` is a GGUF file, `model` its identity for records; `context` is what one request may fill, in tokens."""

    def __init__(
        self,
        path: Path,
        *,
        model: str,
        context: int = 4096,
        slots: int = 4,
        queue: int = 64,
        threads: int = 2,
        gpu_layers: int = -1,
        adapters: Mapping[str, str] | None = None,
    ) -> None:
        self._path = path
        self._context = context
        self._slots = slots
        self._threads = threads
        self._gpu_layers = gpu_layers
        self._gate = Gate(slots, queue)
        self._adapters: dict[str, str] = dict(adapters or {})
        self._current: _Server | None = None
        self._draining: set[_Server] = set()
        self._swap = asyncio.Lock()
        self._pool = ThreadPoolExecutor(max_workers=slots, thread_name_prefix="llamacpp")
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._info = EngineInfo(kind="llamacpp", model=model, context=context, slots=slots)

    async def start(self) -> None:
        if self._current is None:
            self._current = await self._make(self._adapters)
            self._info = self._info.model_copy(update={"tools": self._current.tools})

    async def close(self) -> None:
        current, self._current = self._current, None
        for server in {*self._draining, *((current,) if current else ())}:
            server.stop.set()
        await asyncio.to_thread(self._pool.shutdown, wait=True)
        if current is not None:
            await current.http.aclose()
        for server in tuple(self._draining):
            await self._release(server)

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def load(self) -> tuple[int, int]:
        """(requests running, requests waiting)."""
        return self._gate.running, self._gate.waiting

    async def generate(self, request: EngineRequest) -> AsyncGenerator[Token, None]:
        started = time.monotonic()
        body = self._body(request)
        entered = await self._gate.enter()
        try:
            server = self._server()  # only now: the wait may have outlasted a swap
            prompt = json.dumps(body | server.choose(request.adapter))
        except BaseException:
            self._gate.leave(entered)
            raise
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[Any] = asyncio.Queue()
        left = threading.Event()

        def hand_over(item: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(chunks.put_nowait, item)

        def on_chunk(chunk: str) -> bool:
            hand_over(chunk)
            return left.is_set() or server.stop.is_set()

        def run() -> None:
            try:
                server.handle.handle_chat_completions(prompt, on_chunk)
                hand_over(_END)
            except Exception as error:
                hand_over(error)

        server.users += 1
        job = loop.run_in_executor(self._pool, run)

        def done(_: Any) -> None:
            # The slot is free when llama.cpp is done with it, which may be later than the reader's leaving.
            self._gate.leave(entered)
            server.users -= 1
            if server in self._draining and server.users == 0:
                _background(loop, self._release(server))

        job.add_done_callback(done)
        del job
        try:
            while True:
                async with asyncio.timeout(time_left(request, started)):
                    item = await chunks.get()
                if item is _END:
                    break
                if isinstance(item, Exception):
                    raise EngineFailure(f"llama.cpp failed: {item}") from item
                chunk = json.loads(item)
                if "error" in chunk:
                    raise _error(chunk["error"])
                for token in _tokens(chunk, request.sampling.top_logprobs):
                    yield token
        except TimeoutError as error:
            raise DeadlineExceeded(f"The answer was not finished after {request.deadline:g} s.") from error
        finally:
            left.set()

    async def count_tokens(self, text: str) -> int:
        if (known := self._counts.get(text)) is not None:
            self._counts.move_to_end(text)
            return known
        server = self._server()
        try:
            response = await server.http.post("/tokenize", json={"content": text})
            response.raise_for_status()
        except httpx2.HTTPError as error:
            raise EngineFailure(f"llama.cpp's tokenizer failed: {error}") from error
        count = len(response.json()["tokens"])
        self._counts[text] = count
        if len(self._counts) > _COUNT_CACHE:
            self._counts.popitem(last=False)
        return count

    async def adapters(self) -> tuple[str, ...]:
        return tuple(self._server().adapters)

    async def load_adapter(self, name: str, path: str) -> None:
        """Load a GGUF LoRA file under a name that was never used before. Raises EngineFailure, InvalidInput."""
        async with self._swap:
            if name in self._adapters:
                raise InvalidInput(f"The adapter name {name} is taken; names are used once.")
            await self._replace({**self._adapters, name: path})

    async def unload_adapter(self, name: str) -> None:
        async with self._swap:
            if name not in self._adapters:
                raise NotFound("adapter", name)
            await self._replace({k: v for k, v in self._adapters.items() if k != name})

    async def health(self) -> str | None:
        if self._current is None:
            return "the engine is not started"
        try:
            response = await self._current.http.get("/health", timeout=5)
        except httpx2.HTTPError as error:
            return f"llama.cpp does not answer: {type(error).__name__}"
        return None if response.status_code == 200 else f"llama.cpp says {response.status_code}"

    # --- inside ----------------------------------------------------------------------------------------------

    def _server(self) -> _Server:
        if self._current is None:
            raise EngineUnavailable("The engine is not started.")
        return self._current

    async def _make(self, adapters: Mapping[str, str]) -> _Server:
        return await asyncio.to_thread(
            _Server, self._path, self._context, self._slots, self._threads, self._gpu_layers, dict(adapters)
        )

    async def _replace(self, adapters: dict[str, str]) -> None:
        server = await self._make(adapters)
        old, self._current = self._current, server
        self._adapters = adapters
        if old is not None:
            self._draining.add(old)
            if old.users == 0:
                await self._release(old)

    async def _release(self, server: _Server) -> None:
        self._draining.discard(server)
        await server.http.aclose()
        await asyncio.to_thread(server.free)

    def _body(self, request: EngineRequest) -> dict[str, Json]:
        sampling = request.sampling
        body: dict[str, Json] = {
            "messages": [_message(m) for m in request.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "cache_prompt": True,
        }
        for key in ("temperature", "top_p", "max_tokens", "seed", "presence_penalty", "frequency_penalty"):
            if (value := getattr(sampling, key)) is not None:
                body[key] = value
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.logprobs:
            # Asked for no alternatives, llama.cpp gives no log-probabilities at all.
            body |= {"logprobs": True, "top_logprobs": max(sampling.top_logprobs, 1)}
        constraint = (
            request.schema_ if request.schema_ is not None else {"type": "object"} if request.json_object else None
        )
        if request.tools:
            if not self._info.tools:
                raise InvalidInput("The base model's chat template knows no tools; leave `tools` out.", param="tools")
            if constraint is not None:
                raise InvalidInput("This engine cannot do tools and a JSON schema in one request.", param="tools")
            body["tools"] = list(request.tools)
            if request.tool_choice is not None:
                body["tool_choice"] = request.tool_choice
        if constraint is not None:
            body["grammar"] = check_schema(constraint).grammar
        return body


class _Server:
    """One llama.cpp server with a fixed set of adapters. Blocking to make and to free."""

    def __init__(
        self, path: Path, context: int, slots: int, threads: int, gpu_layers: int, adapters: dict[str, str]
    ) -> None:
        # Read by libgomp when it is loaded. By default its threads spin long at every barrier, and lose up to a
        # hundredfold in speed as soon as anything else wants a core; without any spinning an idle machine is slower.
        if "OMP_WAIT_POLICY" not in os.environ:
            os.environ.setdefault("GOMP_SPINCOUNT", "2000")
        import xllamacpp

        self.adapters = adapters
        self.users = 0
        self.stop = threading.Event()
        key = secrets.token_hex(16)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = context * slots
        params.n_parallel = slots
        params.kv_unified = False
        params.cache_ram_mib = PROMPT_CACHE_MIB
        params.n_gpu_layers = gpu_layers
        # One token at a time gains little from the last core (121 against 130 tokens/s on two), and without it neither
        # the barriers nor the event loop and the embedder suffer.
        params.cpuparams.n_threads = max(1, threads - 1)
        params.cpuparams_batch.n_threads = threads
        params.use_jinja = True
        params.ui = False
        params.verbosity = -1
        params.api_keys = [key]
        if adapters:
            loras = []
            for file in adapters.values():
                lora = xllamacpp.CommonAdapterLoraInfo()
                lora.path = file
                lora.scale = 1.0
                loras.append(lora)
            params.lora_adapters = loras
            params.lora_init_without_apply = True
        try:
            self.handle = xllamacpp.Server(params)
        except Exception as error:
            raise EngineFailure(f"llama.cpp cannot load {path.name}: {error}") from error
        address = self.handle.listening_address
        headers = {"authorization": f"Bearer {key}"}
        properties = httpx2.get(f"{address}/props", headers=headers, timeout=30).json()
        capabilities = properties.get("chat_template_caps", {})
        self.tools = bool(capabilities.get("supports_tools") and capabilities.get("supports_tool_calls"))
        self.http = httpx2.AsyncClient(base_url=address, headers=headers, timeout=30)

    def choose(self, adapter: str | None) -> dict[str, Json]:
        """The part of a request's body that selects the adapter. Raises EngineUnavailable when it is not loaded."""
        if adapter is not None and adapter not in self.adapters:
            raise EngineUnavailable(f"The adapter {adapter} is not loaded.")
        scales = [{"id": i, "scale": 1.0 if name == adapter else 0.0} for i, name in enumerate(self.adapters)]
        return {"lora": scales} if scales else {}

    def free(self) -> None:
        del self.handle


_tasks: set[asyncio.Task[None]] = set()


def _background(loop: asyncio.AbstractEventLoop, work: Any) -> None:
    task = loop.create_task(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def _message(message: Message) -> dict[str, Json]:
    body: dict[str, Json] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        body["tool_calls"] = list(message.tool_calls)
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    return body


def _error(error: Mapping[str, Json]) -> Exception:
    if error.get("type") == "exceed_context_size_error":
        return ContextOverflow(error.get("n_prompt_tokens", 0), error.get("n_ctx", 0))
    message = str(error.get("message", "unknown error"))
    if error.get("code") == 400:
        return InvalidInput(f"The engine refused the request: {message}")
    return EngineFailure(f"llama.cpp failed: {message}")


def _tokens(chunk: Mapping[str, Json], alternatives: int) -> list[Token]:
    """A chunk of llama.cpp's stream as tokens, with at most that many `top_logprobs` each."""
    found = []
    for choice in chunk.get("choices", ()):
        delta = choice.get("delta") or {}
        logprobs = (choice.get("logprobs") or {}).get("content") or ()
        token = Token(
            index=choice.get("index", 0),
            text=delta.get("content") or "",
            tool_calls=tuple(delta.get("tool_calls") or ()),
            logprobs=tuple(_logprob(entry, alternatives) for entry in logprobs),
            finish_reason=choice.get("finish_reason"),
        )
        if token.text or token.tool_calls or token.finish_reason or token.logprobs:
            found.append(token)
    if usage := chunk.get("usage"):
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
        found.append(Token(usage=Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)))
    return found


def _logprob(entry: Mapping[str, Json], alternatives: int) -> dict[str, Json]:
    """A log-probability in OpenAI's shape (llama.cpp adds token ids)."""
    keys = ("token", "logprob", "bytes")
    top = [{k: t.get(k) for k in keys} for t in entry.get("top_logprobs", ())[:alternatives]]
    return {**{k: entry.get(k) for k in keys}, "top_logprobs": top}
