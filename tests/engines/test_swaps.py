"""Adapters come and go in the embedded engine while it serves, and nothing fails, leaks or outlives it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from transformers import AutoTokenizer

from intern.engines import llamacpp
from intern.engines.base import EngineRequest, Token
from intern.engines.llamacpp import LlamaCppEngine
from intern.errors import EngineFailure, EngineUnavailable
from intern.types import Message, Sampling

WIDTH, INNER = 576, 1536  # of the default base model


class Watched(llamacpp._Server):
    """A llama.cpp server that is remembered."""

    made: list[Watched] = []  # noqa: RUF012

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.made.append(self)

    @property
    def alive(self) -> bool:
        return hasattr(self, "handle")


@pytest.fixture(autouse=True)
def servers(monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    """Every server that was made, in order."""
    monkeypatch.setattr(Watched, "made", [])
    monkeypatch.setattr(llamacpp, "_Server", Watched)
    return Watched.made


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Three small LoRA files for the default base model that all say something else."""
    return [_lora(tmp_path / f"{seed}.gguf", seed) for seed in range(3)]


def _lora(path: Path, seed: int) -> str:
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 2.0)
    for side, shape in (("a", (2, INNER)), ("b", (WIDTH, 2))):
        values = random.normal(size=shape, scale=0.3).astype(np.float32)
        writer.add_tensor(f"blk.20.ffn_down.weight.lora_{side}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def say(adapter: str | None = None, tokens: int = 4) -> EngineRequest:
    sampling = Sampling(temperature=0, max_tokens=tokens, logprobs=True)
    return EngineRequest(messages=(Message(role="user", content="Hello"),), sampling=sampling, adapter=adapter)


async def collect(engine: LlamaCppEngine, request: EngineRequest) -> list[Token]:
    async with aclosing(engine.generate(request)) as stream:
        return [token async for token in stream]


async def first_logprob(engine: LlamaCppEngine, adapter: str | None) -> float:
    (entry, *_) = [entry for token in await collect(engine, say(adapter)) for entry in token.logprobs]
    return round(float(entry["logprob"]), 2)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a turn of the loop, not a wait
        await asyncio.sleep(0)


def run(path: Path, scenario: Callable[[LlamaCppEngine], Coroutine[Any, Any, None]], slots: int = 2) -> None:
    async def main() -> None:
        engine = LlamaCppEngine(path, model="m", context=256, slots=slots, threads=2)
        await engine.start()
        try:
            await asyncio.wait_for(scenario(engine), 60)
        finally:
            await engine.close()
        assert engine.load == (0, 0)
        assert not any(server.alive for server in Watched.made)

    asyncio.run(main())


def test_one_swap_takes_in_what_is_new_and_leaves_out_what_goes(
    model_path: Path, files: list[str], servers: list[Watched]
) -> None:
    async def scenario(engine: LlamaCppEngine) -> None:
        await engine.set_adapters({"a": files[0], "b": files[1]})
        said = {name: await first_logprob(engine, name) for name in (None, "a", "b")}
        assert len(set(said.values())) == 3
        await engine.set_adapters({"b": files[0], "c": files[2]})
        assert await engine.adapters() == ("b", "c")
        assert await first_logprob(engine, "b") == said["b"], "a name keeps its file"
        assert await first_logprob(engine, "c") not in said.values()
        with pytest.raises(EngineUnavailable):
            await collect(engine, say("a"))
        assert len(servers) == 3
        await engine.set_adapters({"c": files[2], "b": files[1]})
        assert len(servers) == 3, "nothing changed, so nothing is swapped"

    run(model_path, scenario)


def test_a_conversation_has_the_token_ids_of_the_models_own_tokenizer(model_path: Path, files: list[str]) -> None:
    async def scenario(engine: LlamaCppEngine) -> None:
        turns = [Message(role="system", content="Du bist kurz."), Message(role="user", content='Größe? 🙂 {"a": 1}')]
        tokenizer = AutoTokenizer.from_pretrained(model_path.parent, gguf_file=model_path.name)
        expected = tokenizer.apply_chat_template(
            [{"role": m.role, "content": m.content} for m in turns], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        assert await engine.prompt_ids(turns) == list(expected)

    run(model_path, scenario)


def test_a_broken_file_leaves_the_engine_as_it_was(model_path: Path, files: list[str], tmp_path: Path) -> None:
    async def scenario(engine: LlamaCppEngine) -> None:
        await engine.set_adapters({"a": files[0]})
        broken = tmp_path / "broken.gguf"
        broken.write_bytes(b"GGUF but not really")
        with pytest.raises(EngineFailure):
            await engine.set_adapters({"b": str(broken)})
        assert await engine.adapters() == ("a",)
        assert (await collect(engine, say("a")))[-1].usage

    run(model_path, scenario)


def test_answers_and_counts_go_on_while_adapters_are_swapped(
    model_path: Path, files: list[str], servers: list[Watched]
) -> None:
    async def scenario(engine: LlamaCppEngine) -> None:
        await engine.set_adapters({"kept": files[0]})
        swapping, done = True, {"answers": 0, "counts": 0, "checks": 0}

        async def ask(adapter: str | None) -> None:
            while swapping:
                tokens = await collect(engine, say(adapter, tokens=20))
                assert tokens[-1].usage is not None
                done["answers"] += 1

        async def count(name: int) -> None:
            while swapping:
                await engine.count_tokens(f"{name} {done['counts']} " + "some words " * 2_000)
                done["counts"] += 1

        async def check() -> None:
            while swapping:
                assert await engine.health() is None
                done["checks"] += 1

        work = (ask(None), ask("kept"), ask("kept"), count(1), count(2), check())
        jobs = [asyncio.create_task(job) for job in work]
        for number in range(4):
            await engine.set_adapters({"kept": files[0], f"other {number}": files[1 + number % 2]})
        swapping = False
        await asyncio.gather(*jobs)
        assert min(done.values()) > 4
        await until(lambda: sum(server.alive for server in servers) == 1)
        assert len(servers) == 6

    run(model_path, scenario)


def test_closing_during_a_swap_closes_everything(model_path: Path, files: list[str], servers: list[Watched]) -> None:
    async def scenario(engine: LlamaCppEngine) -> None:
        swap = asyncio.create_task(engine.set_adapters({"a": files[0]}))
        await until(lambda: engine._swap.locked())
        await engine.close()
        with pytest.raises(EngineUnavailable):
            await swap
        assert not any(server.alive for server in servers)
        for work in (collect(engine, say()), engine.count_tokens("x"), engine.adapters(), engine.set_adapters({})):
            with pytest.raises(EngineUnavailable):
                await work
        assert await engine.health()

    run(model_path, scenario)


def test_a_swap_that_is_cancelled_changes_nothing_and_leaves_no_server(
    model_path: Path, files: list[str], servers: list[Watched]
) -> None:
    async def scenario(engine: LlamaCppEngine) -> None:
        swap = asyncio.create_task(engine.set_adapters({"a": files[0]}))
        await until(lambda: engine._swap.locked())
        await asyncio.sleep(0)
        swap.cancel()
        with pytest.raises(asyncio.CancelledError):
            await swap
        assert await engine.adapters() == ()
        await until(lambda: sum(server.alive for server in servers) == 1)
        assert (await collect(engine, say()))[-1].usage

    run(model_path, scenario)


def test_an_answer_that_closing_breaks_off_is_no_answer(model_path: Path) -> None:
    async def scenario(engine: LlamaCppEngine) -> None:
        stream: AsyncGenerator[Token, None] = engine.generate(say(tokens=200))
        await anext(stream)
        waiting = asyncio.create_task(collect(engine, say()))
        await until(lambda: engine.load == (1, 1))
        closing = asyncio.create_task(engine.close())
        with pytest.raises(EngineUnavailable):
            async for _ in stream:
                pass
        with pytest.raises(EngineUnavailable):
            await waiting
        await closing

    run(model_path, scenario, slots=1)


def test_an_engine_that_was_closed_before_it_could_answer_leaks_no_slot(model_path: Path) -> None:
    async def scenario(engine: LlamaCppEngine) -> None:
        await engine.close()
        for _ in range(3):
            with pytest.raises(EngineUnavailable):
                await collect(engine, say())
        assert engine.load == (0, 0)

    run(model_path, scenario, slots=1)


def test_counts_are_remembered_without_the_texts(model_path: Path) -> None:
    async def scenario(engine: LlamaCppEngine) -> None:
        text = "word " * 20_000
        first = await engine.count_tokens(text)
        assert await engine.count_tokens(text) == first
        assert [len(key) for key in engine._counts] == [32]

    run(model_path, scenario)
