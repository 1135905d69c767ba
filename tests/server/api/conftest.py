"""The session's server with a learner that follows a script, for one test."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_learning import Script, script

KEPT = ("base", "deployments", "learner")


@pytest.fixture
def learning(server: Any, tmp_path: Path) -> Iterator[Script]:
    workspace = server.workspace
    before = {name: getattr(workspace, name) for name in KEPT}
    made = script(workspace, tmp_path)
    yield made
    made.go_on()
    asyncio.run_coroutine_threadsafe(_end(server, made), server.loop).result(20)
    for name, part in before.items():
        setattr(workspace, name, part)
    workspace.pipeline.adapters = workspace.deployments


async def _end(server: Any, made: Script) -> None:
    """Leave no run that another test's learner would take up, and no adapter in the engine."""
    learner = server.workspace.learner
    for run in await asyncio.to_thread(learner._waiting):
        async for _ in learner.events(run.team, run.id):
            pass
    await learner.close()
    await server.workspace.engine.set_adapters({})
