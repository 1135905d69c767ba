"""A server on a real engine, in a process of its own, that learns and is killed (SIGKILL) on the way to going live.

In: a workspace, a key, the step at which it dies; without one it serves until the run that it finds, or begins, has
ended. Out: a file with a line of JSON for every answer that its clients got, who ask all the while where it is to be
killed, and for the run at its end. The training is scripted, the rest is the platform: HTTP, pipeline, llama.cpp on a
tiny base, learner, database.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from learning.adapters.killed_promotion import killing
from made_adapters import keep_adapter
from made_base import loud_tensors
from made_export import SKILL, open_workspace
from made_learning import Script
from made_lora import write_lora

from intern.engines import llamacpp
from intern.engines.llamacpp import LlamaCppEngine
from intern.learning import carrying, journal
from intern.learning.adapters.adapter import store_adapter
from intern.learning.adapters.deployments import Deployments
from intern.learning.adapters.gguf_lora import GGUF, convert
from intern.learning.adapters.lora import read_lora
from intern.learning.adapters.manifest import Base, Provenance
from intern.learning.adapters.shapes import read_shape
from intern.learning.journal import Journal
from intern.learning.learner import Learner
from intern.store import learning as store
from intern.types import Adapter, Dataset, now
from intern.workspace import Workspace
from server.app import create_app

CLIENTS = 2

Say = Callable[..., None]


def _promoted(_: Journal, run: Any, event: Any) -> bool:
    return bool(event.kind == "promoted")


def _done(_: Journal, run: Any) -> bool:
    return bool(run.state == "done")


# step -> the function that it is at, whether that has done its work by then, and for which of its calls
STEPS: dict[str, tuple[Any, ...]] = {
    "when the verdict is in the store": (journal, "write_verdict", False),
    "when the verdict lies beside the adapter": (journal, "write_verdict", True),
    "when the adapter has its card": (carrying, "write_card", True),
    "when the engine has loaded it": (LlamaCppEngine, "set_adapters", True),
    "while the former engine ends its answers": (LlamaCppEngine, "_released", False),
    "when the former engine is unloaded": (llamacpp._Server, "free", True),
    "before the row changes": (Deployments, "_flip", False),
    "when the row has changed": (Deployments, "_flip", True),
    "when it is told": (Journal, "tell", True, _promoted),
    "before the run is saved as done": (Journal, "save", False, _done),
    "when the run is saved as done": (Journal, "save", True, _done),
}


class Training(Script):
    """Makes the same adapter for the tiny base each time, once a run."""

    def adapter(self, team: str, skill: str, *, run: str | None = None, dataset: Dataset | None = None) -> Adapter:
        base = self.workspace.base
        assert base is not None
        with self.workspace.database.connect() as connection:
            for known in store.list_adapters(connection, team, skill=skill):
                if known.run == run and known.digest:
                    return known
        shape = read_shape(Path(base.path))
        source = write_lora(self.scratch, loud_tensors(shape, seed=2))
        convert(read_lora(source, shape), shape, source / GGUF, dtype="f16")
        bare = Adapter(
            team=team, skill=skill, version=0, digest="", base=base.sha256, run=run, recipe="lora", created=now(),
            dataset=dataset.id if dataset else None,
        )  # fmt: skip
        with self.workspace.database.begin() as connection:
            adapter = keep_adapter(connection, bare)
            provenance = Provenance(
                team=team, skill=skill, name=adapter.name, base=Base(name="tiny", sha256=base.sha256), run=run or "",
                dataset="d" * 64, recipe={"name": "lora"}, created=adapter.created,
            )  # fmt: skip
            files = store_adapter(self.workspace.parts.adapters_folder, source, provenance)
            adapter = adapter.model_copy(update={"digest": files.digest})
            store.update_adapter(connection, adapter)
        return adapter


async def ask(http: httpx2.AsyncClient, say: Say) -> None:
    answer = await http.post("/api/ask", json={"skill": SKILL, "input": "Is it paid?"})
    body = answer.json()
    say(status=answer.status_code, adapter=body.get("adapter"), output=body.get("output"))


async def keep_asking(http: httpx2.AsyncClient, say: Say) -> None:
    while True:
        await ask(http, say)


async def follow(http: httpx2.AsyncClient, say: Say) -> None:
    """Begin a run if there is none, wait for its end and tell it."""
    runs = (await http.get("/api/runs")).json()["data"]
    run = runs[0] if runs else (await http.post("/api/runs", json={"skill": SKILL})).json()
    while run["state"] not in ("done", "failed", "cancelled"):
        await asyncio.sleep(0.05)
        run = (await http.get(f"/api/runs/{run['id']}")).json()
    say(run={name: run[name] for name in ("state", "stage", "decision", "adapter")}, runs=len(runs) or 1)


async def serve(workspace: Workspace, key: str, step: str | None, say: Say) -> None:
    server = uvicorn.Server(uvicorn.Config(create_app(workspace), port=0, log_config=None, access_log=False))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn tells nobody
        await asyncio.sleep(0.01)
    if step is not None:
        place, name, done, *when = STEPS[step]
        setattr(place, name, killing(getattr(place, name), done=done, **({"when": when[0]} if when else {})))
    port = server.servers[0].sockets[0].getsockname()[1]
    headers = {"authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as http:
        await ask(http, say)
        clients = [asyncio.create_task(keep_asking(http, say)) for _ in range(CLIENTS if step is not None else 0)]
        await follow(http, say)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        await ask(http, say)
    server.should_exit = True
    await serving


def main(home: Path, key: str, step: str | None, said: Path) -> None:
    def say(**words: Any) -> None:
        with said.open("a") as file:
            file.write(json.dumps(words) + "\n")

    workspace = open_workspace(home)
    training: Any = Training(workspace, home / "trained")
    workspace.learner = Learner(workspace.parts, workspace.library, workspace.deployments, loop=training, look=0.05)
    asyncio.run(serve(workspace, key, step, say))
