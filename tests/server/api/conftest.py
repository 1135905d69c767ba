"""The session's server with a learner that follows a script, for one test."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from made_learning import Script, script

from intern.store.tables import DeploymentRow

KEPT = ("base", "deployments", "learner")


@pytest.fixture
def learning(server: Any, tmp_path: Path) -> Iterator[Script]:
    workspace = server.workspace
    before = {name: getattr(workspace, name) for name in KEPT}
    # One learner of a database carries out runs.
    asyncio.run_coroutine_threadsafe(workspace.learner.close(), server.loop).result(20)
    made = script(workspace, tmp_path)
    yield made
    made.go_on()
    asyncio.run_coroutine_threadsafe(_end(server, made), server.loop).result(20)
    for name, part in before.items():
        setattr(workspace, name, part)
    workspace.pipeline.adapters = workspace.deployments
    server.loop.call_soon_threadsafe(workspace.learner.start)


async def _end(server: Any, made: Script) -> None:
    """Leave no run that another test's learner would take up, nothing in service, and no adapter in the engine."""
    learner = server.workspace.learner
    for run in await asyncio.to_thread(learner._journal.waiting):
        async for _ in learner.events(run.team, run.id):
            pass
    await learner.close()
    with server.workspace.database.begin() as connection:
        connection.execute(sa.delete(DeploymentRow))
    await server.workspace.engine.set_adapters({})
