"""What the pipeline adds to the bare engine, given the same final prompt.

Each request runs twice in turn, in random order: through the pipeline, and as the very prompt that the pipeline made,
straight to the engine. The difference of the pair is what routing, retrieval, prompt and validation cost. The engine
generates one token of a prompt that it has just seen, so that generation is as short and as equal as it gets.

    python -m benchmarks.overhead [--pairs N]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

from benchmarks import report
from intern.engines.base import EngineRequest
from intern.prompt import decoding_schema
from intern.settings import Settings
from intern.store.records import get_record
from intern.types import Ask, Message, Sampling
from intern.workspace import Workspace

ROOT = Path(__file__).parents[1]
GOALS = {"routed and retrieved": 15.0, "named, no retrieval": 3.0}


async def bare(workspace: Workspace, request: EngineRequest) -> float:
    start = time.perf_counter()
    async with aclosing(workspace.engine.generate(request)) as stream:
        async for _ in stream:
            pass
    return time.perf_counter() - start


async def measure(workspace: Workspace, texts: list[str], skill: str | None, pairs: int) -> list[float]:
    """Milliseconds added, one entry a pair."""
    chance = random.Random(0)
    sampling = Sampling(max_tokens=1, temperature=0)
    added = []
    for number in range(pairs + 5):
        ask = Ask(messages=(Message(role="user", content=texts[number % len(texts)]),), skill=skill, sampling=sampling)
        answer = await workspace.pipeline.answer(ask)
        workspace.recorder.flush()
        with workspace.database.connect() as connection:
            record = get_record(connection, "default", answer.record)
        served = workspace.library.get("default", answer.skill or "")
        shown = sorted({p.document for p in record.passages})
        request = EngineRequest(
            messages=record.prompt, sampling=record.sampling, schema_=decoding_schema(served, served.schema, shown)
        )
        await bare(workspace, request)  # both sides of the pair find the same prompt in the cache

        async def through(ask: Ask = ask) -> float:
            start = time.perf_counter()
            await workspace.pipeline.answer(ask)
            return time.perf_counter() - start

        if chance.random() < 0.5:
            whole, engine = await through(), await bare(workspace, request)
        else:
            engine, whole = await bare(workspace, request), await through()
        if number >= 5:
            added.append((whole - engine) * 1000)
    return added


async def main(pairs: int) -> None:
    home = Path(tempfile.mkdtemp(prefix="intern-overhead-"))
    shutil.copytree(ROOT / "skills", home / "skills")
    workspace = Workspace(Settings(home=home))
    try:
        await workspace.warm()
        policy = [e.text for e in workspace.library.get("default", "policy-answers").examples[:60]]
        routed = [t for t in policy if workspace.routes.route("default", t).skill == "policy-answers"]
        tickets = [e.text for e in workspace.library.get("default", "support-triage").examples[:60]]
        results = {}
        rows = []
        for name, texts, skill in (
            ("routed and retrieved", routed, None),
            ("named, no retrieval", tickets, "support-triage"),
        ):
            median, p99 = report.median_p99(await measure(workspace, texts, skill, pairs))
            results[name] = {"median_ms": median, "p99_ms": p99, "goal_median_ms": GOALS[name], "pairs": pairs}
            met = "met" if median <= GOALS[name] else "missed"
            rows.append([name, f"{median:.2f}", f"{p99:.2f}", f"{GOALS[name]:.0f}", met])
        report.table("Added to the bare engine (ms)", ["case", "median", "p99", "goal", ""], rows)
        report.write("overhead", "What the pipeline adds to the engine, given the same final prompt", results)
    finally:
        await workspace.close()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pairs", type=int, default=200, help="requests measured in each case")
    asyncio.run(main(arguments.parse_args().pairs))
