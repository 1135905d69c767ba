"""Under full load, and just after a restart, what served before serves again without a load or a place in the queue.

On llama.cpp.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from made_adapters import keep_adapter
from made_lora import tensors, write_lora
from sqlalchemy.engine import Engine as Database

from intern.engines.base import EngineRequest, Token
from intern.engines.llamacpp import LlamaCppEngine
from intern.errors import Overloaded
from intern.learning.adapters.adapter import store_adapter
from intern.learning.adapters.deployments import Deployments
from intern.learning.adapters.gguf_lora import GGUF, convert
from intern.learning.adapters.lora import read_lora
from intern.learning.adapters.manifest import Base, Provenance
from intern.learning.adapters.shapes import read_shape
from intern.store import learning as store
from intern.store.engine import open_database
from intern.types import Adapter, Message, Sampling, now

pytestmark = [pytest.mark.anyio, pytest.mark.needs_model]

TEAM, SKILL = "default", "sorting"
BASE = "a" * 64


def add_adapter(database: Database, root: Path, model: Path) -> int:
    shape = read_shape(model)
    with database.begin() as connection:
        bare = Adapter(team=TEAM, skill=SKILL, version=0, digest="", base=BASE, created=now())
        adapter = keep_adapter(connection, bare)
        source = write_lora(root / f"made-{adapter.version}", tensors(shape, seed=adapter.version))
        convert(read_lora(source, shape), shape, source / GGUF, dtype="f16")
        provenance = Provenance(
            skill=SKILL, name=adapter.name, base=Base(name="base", sha256=BASE), dataset="d", run="r", recipe={},
            created=adapter.created,
        )  # fmt: skip
        files = store_adapter(root / "adapters", source, provenance)
        store.update_adapter(connection, adapter.model_copy(update={"digest": files.digest}))
    return adapter.version


class Counting(LlamaCppEngine):
    """Counts the loads and the requests that it is asked for."""

    loads = 0
    requests = 0

    async def set_adapters(self, adapters: Mapping[str, str]) -> None:
        self.loads += 1
        await super().set_adapters(adapters)

    def generate(self, request: EngineRequest) -> AsyncGenerator[Token, None]:
        self.requests += 1
        return super().generate(request)


@asynccontextmanager
async def started(database: Database, root: Path, model: Path) -> AsyncIterator[tuple[Counting, Deployments]]:
    engine = Counting(model, model="m", context=4096, slots=1, queue=1, threads=1)
    await engine.start()
    try:
        deployments = Deployments(database, engine, root / "adapters", BASE, model)
        await deployments.load()
        yield engine, deployments
    finally:
        await engine.close()


@asynccontextmanager
async def full(engine: LlamaCppEngine, adapter: str | None) -> AsyncIterator[None]:
    """While a request runs and another one waits, for minutes, which is all that the engine takes."""
    sampling = Sampling(temperature=0, max_tokens=4000)
    request = EngineRequest(messages=(Message(role="user", content="Tell"),), sampling=sampling, adapter=adapter)

    async def ask() -> None:
        async for _ in engine.generate(request):
            pass

    asking = [asyncio.create_task(ask()) for _ in range(2)]
    while engine.load != (1, 1):  # noqa: ASYNC110 - the engine tells nobody
        await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await ask()
    yield
    assert engine.load == (1, 1)
    for asked in asking:
        asked.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def roll_back(engine: Counting, deployments: Deployments) -> None:
    loads, requests = engine.loads, engine.requests
    await deployments.rollback(TEAM, SKILL, by="test")
    assert (engine.loads, engine.requests) == (loads, requests)
    assert engine.load == (1, 1), "it waited for nobody"


async def test_a_rollback_takes_neither_a_load_nor_a_place_in_a_full_queue(model_path: Path, tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'intern.db'}")
    versions = [add_adapter(database, tmp_path, model_path) for _ in range(2)]
    async with started(database, tmp_path, model_path) as (engine, deployments):
        for version in versions:
            await deployments.promote(TEAM, SKILL, version, by="test", reason="")
        async with full(engine, f"{TEAM}/{SKILL}@v2"):
            await roll_back(engine, deployments)
            assert (await deployments.acquire(TEAM, SKILL, None)).name == f"{SKILL}@v1"
            await roll_back(engine, deployments)
    async with (
        started(database, tmp_path, model_path) as (engine, deployments),
        full(engine, (await deployments.acquire(TEAM, SKILL, None)).engine_name),
    ):
        assert (await deployments.acquire(TEAM, SKILL, None)).name == f"{SKILL}@v2"
        await roll_back(engine, deployments)
        assert (await deployments.acquire(TEAM, SKILL, None)).name == f"{SKILL}@v1"
    database.dispose()
