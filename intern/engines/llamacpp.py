"""The embedded engine: llama.cpp in this process, through xllamacpp.

In: a GGUF file. Each request runs in a thread that hands chunks to the event loop, so nothing here blocks it. Loading
or unloading adapters makes a second llama.cpp server (weights are mapped, so it takes about a second), sends new
requests there, and closes the first when its last request is done; no request is dropped.

llama.cpp also listens on a loopback port, which every local process could use, so it is locked with a random key.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2

from intern.engines.base import EngineInfo, EngineRequest, Token, identifiers, time_left
from intern.engines.turns import Turns
from intern.errors import ContextOverflow, DeadlineExceeded, EngineFailure, EngineUnavailable, InvalidInput
from intern.schema import check_schema
from intern.types import Json, Message, Usage

_END = object()
_COUNT_CACHE = 4096
_COUNTERS = 2  # texts tokenized at the same time: a long one keeps a core for seconds
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
        self._turns = Turns(slots, queue)
        self._adapters: dict[str, str] = dict(adapters or {})
        self._current: _Server | None = None
        self._servers: set[_Server] = set()  # the one in service, and those that are still used
        self._retiring: set[asyncio.Task[None]] = set()
        self._swap = asyncio.Lock()
        self._closed = False
        self._pool = ThreadPoolExecutor(max_workers=slots, thread_name_prefix="llamacpp")
        self._counting = asyncio.Semaphore(_COUNTERS)
        self._counts: OrderedDict[bytes, int] = OrderedDict()  # by the text's SHA-256
        self._info = EngineInfo(kind="llamacpp", model=model, context=context, slots=slots)

    async def start(self) -> None:
        async with self._swap:
            self._check_open()
            if self._current is None:
                self._current = await self._make(self._adapters)
                self._info = self._info.model_copy(
                    update={"tools": self._current.tools, "version": self._current.version}
                )

    async def close(self) -> None:
        """End every answer, and every server: the one in service, those that are on their way in, those on their way
        out. Returns when all are gone."""
        self._closed = True
        for server in self._servers:
            server.stop.set()
        async with self._swap:  # whoever makes a server has it closed before
            current, self._current = self._current, None
            if current is not None:
                self._retire(current)
        await asyncio.gather(*self._retiring)
        await asyncio.to_thread(self._pool.shutdown)

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def load(self) -> tuple[int, int]:
        """(requests running, requests waiting)."""
        return self._turns.running, self._turns.waiting

    async def generate(self, request: EngineRequest) -> AsyncGenerator[Token, None]:
        started = time.monotonic()
        # Compiling the parameters of many tools takes seconds, too long for the event loop.
        body = await asyncio.to_thread(self._body, request) if request.tools else self._body(request)
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[Any] = asyncio.Queue()
        left = threading.Event()

        def hand_over(item: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(chunks.put_nowait, item)

        def run(server: _Server, prompt: str) -> None:
            def on_chunk(chunk: str) -> bool:
                hand_over(chunk)
                return left.is_set() or server.stop.is_set()

            try:
                server.handle.handle_chat_completions(prompt, on_chunk)
                hand_over(_END)
            except Exception as error:
                hand_over(error)

        entered = await self._turns.enter(request.deadline)
        try:
            server = self._server()  # only now: the wait may have outlasted a swap
            prompt = json.dumps(body | server.choose(request.adapter))
            job = loop.run_in_executor(self._pool, run, server, prompt)
        except BaseException:
            self._turns.leave(entered)
            raise
        server.join()

        def done(_: Any) -> None:
            # The slot is free when llama.cpp is done with it, which may be later than the reader's leaving.
            self._turns.leave(entered)
            server.leave()

        job.add_done_callback(done)
        del job
        finished = False
        try:
            while True:
                async with asyncio.timeout(time_left(request, started)):
                    item = await chunks.get()
                if item is _END:
                    break
                for token in _read(item, request.sampling.top_logprobs):
                    finished = finished or token.finish_reason is not None
                    yield token
            if not finished:
                self._check_open()
                raise EngineFailure("llama.cpp broke off before the answer was finished.")
        except TimeoutError as error:
            raise DeadlineExceeded(f"The answer was not finished in {request.deadline:g} s.") from error
        finally:
            left.set()

    async def count_tokens(self, text: str) -> int:
        key = hashlib.sha256(text.encode()).digest()
        if (known := self._counts.get(key)) is not None:
            self._counts.move_to_end(key)
            return known
        async with self._counting:
            with self._joined() as server:
                try:
                    response = await server.http.post("/tokenize", json={"content": text})
                    response.raise_for_status()
                    count = len(response.json()["tokens"])
                except (httpx2.HTTPError, ValueError, KeyError) as error:
                    raise EngineFailure(f"llama.cpp's tokenizer failed ({type(error).__name__}).") from error
        self._counts[key] = count
        if len(self._counts) > _COUNT_CACHE:
            self._counts.popitem(last=False)
        return count

    async def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation as `generate` would send it to the model. Raises EngineFailure."""
        with self._joined() as server:
            try:
                body = {"messages": [_message(m) for m in messages]}
                rendered = await server.http.post("/apply-template", json=body)
                rendered.raise_for_status()
                text = {"content": rendered.json()["prompt"], "add_special": True, "parse_special": True}
                response = await server.http.post("/tokenize", json=text)
                response.raise_for_status()
                return [int(token) for token in response.json()["tokens"]]
            except (httpx2.HTTPError, ValueError, KeyError) as error:
                raise EngineFailure(f"llama.cpp's tokenizer failed ({type(error).__name__}).") from error

    async def adapters(self) -> tuple[str, ...]:
        return tuple(self._server().adapters)

    async def set_adapters(self, adapters: Mapping[str, str]) -> None:
        """Serve exactly these GGUF LoRA files, by name. One swap takes in what is new and leaves out what is not
        there; a name that is loaded keeps its file, since what was computed with it may be kept too.

        Raises EngineFailure for a file that cannot be loaded, EngineUnavailable when the engine is not running.
        """
        async with self._swap:
            await self._replace(adapters)

    async def health(self) -> str | None:
        if self._current is None:
            return "the engine is not started"
        with self._joined() as server:
            try:
                response = await server.http.get("/health", timeout=5)
            except httpx2.HTTPError as error:
                return f"llama.cpp does not answer: {type(error).__name__}"
        return None if response.status_code == 200 else f"llama.cpp says {response.status_code}"

    # --- inside ----------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise EngineUnavailable("The engine is closed.")

    def _server(self) -> _Server:
        self._check_open()
        if self._current is None:
            raise EngineUnavailable("The engine is not started.")
        return self._current

    @contextlib.contextmanager
    def _joined(self) -> Iterator[_Server]:
        """The server in service, which stays open as long as this takes."""
        server = self._server()
        server.join()
        try:
            yield server
        finally:
            server.leave()

    async def _make(self, adapters: Mapping[str, str]) -> _Server:
        """A new server. Whoever is cancelled meanwhile, or closes the engine, leaves none behind."""
        parts = (self._path, self._context, self._slots, self._threads, self._gpu_layers, dict(adapters))
        making = asyncio.ensure_future(asyncio.to_thread(_Server, *parts))
        try:
            server = await asyncio.shield(making)
        except asyncio.CancelledError:  # a thread cannot be stopped
            with contextlib.suppress(EngineFailure):
                self._retire(await making)
            raise
        if self._closed:
            self._retire(server)
            self._check_open()
        self._servers.add(server)
        return server

    async def _replace(self, adapters: Mapping[str, str]) -> None:
        """Swap to a server with these adapters; to be called with `_swap` held."""
        wanted = {name: self._adapters.get(name, path) for name, path in adapters.items()}
        old = self._server()
        if wanted == self._adapters:
            return
        server = await self._make(wanted)
        self._current, self._adapters = server, wanted
        self._retire(old)

    def _retire(self, server: _Server) -> None:
        """Close a server once nobody uses it."""
        task = asyncio.create_task(self._released(server))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _released(self, server: _Server) -> None:
        await server.idle.wait()
        self._servers.discard(server)
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
            for tool in request.tools:  # llama.cpp makes a grammar of them, with no bounds of its own
                function = tool.get("function")
                if isinstance(function, dict) and function.get("parameters") is not None:
                    check_schema(function["parameters"], param="tools")
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

        self.version = str(xllamacpp.__version__)  # one of llama.cpp to each of its own
        self.adapters = adapters
        self.users = 0
        self.idle = asyncio.Event()
        self.idle.set()
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

    def join(self) -> None:
        """Use it: it is not closed before `leave`. Both on the event loop."""
        self.users += 1
        self.idle.clear()

    def leave(self) -> None:
        self.users -= 1
        if self.users == 0:
            self.idle.set()

    def free(self) -> None:
        del self.handle


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
    said = identifiers(type=error.get("type"), code=error.get("code"))
    if error.get("code") == 400:
        return InvalidInput(f"The engine refused the request{said}.")
    return EngineFailure(f"llama.cpp failed{said}.")


def _read(item: Any, alternatives: int) -> list[Token]:
    """The tokens of what llama.cpp handed over. Raises what it says went wrong."""
    if isinstance(item, Exception):
        raise EngineFailure(f"llama.cpp failed ({type(item).__name__}).")
    chunk = json.loads(item)
    if "error" in chunk:
        raise _error(chunk["error"])
    return _tokens(chunk, alternatives)


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
