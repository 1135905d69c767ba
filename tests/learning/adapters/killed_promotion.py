"""`python killed_promotion.py HOME STEP`: promotes v2 of a skill, and is killed (SIGKILL) at STEP on the way there."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from intern.engines.fake import FakeEngine
from intern.learning.adapters import deployments
from intern.learning.adapters.deployments import Deployments
from intern.store import learning as store
from intern.store.engine import open_database

BASE = "a" * 64
# step -> the function that it is at, and whether that has done its work by then
STEPS: dict[str, tuple[Any, str, bool]] = {
    "before the files are verified": (deployments, "verify", False),
    "before the engine loads it": (FakeEngine, "set_adapters", False),
    "when the engine has loaded it": (FakeEngine, "set_adapters", True),
    "before it is tried": (Deployments, "_probe", False),
    "when it has been tried": (Deployments, "_probe", True),
    "before the row changes": (store, "deploy", False),
    "before the row's change is committed": (store, "deploy", True),
    "when the row has changed": (Deployments, "_flip", True),
}


def killing(
    function: Callable[..., Any], *, done: bool, when: Callable[..., bool] = lambda *_: True
) -> Callable[..., Any]:
    """`function`, killed at its beginning or at its end; only if its arguments are such `when` it is to be."""

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def later(*arguments: Any, **named: Any) -> Any:
        if not done and when(*arguments):
            die()
        result = await function(*arguments, **named)
        if when(*arguments):
            die()
        return result

    def now(*arguments: Any, **named: Any) -> Any:
        if not done and when(*arguments):
            die()
        result = function(*arguments, **named)
        if when(*arguments):
            die()
        return result

    return later if inspect.iscoroutinefunction(function) else now


async def promote(home: Path, step: str) -> None:
    database = open_database(f"sqlite:///{home / 'intern.db'}")
    serving = Deployments(database, FakeEngine(), home / "adapters", BASE)
    await serving.load()
    place, name, done = STEPS[step]
    setattr(place, name, killing(getattr(place, name), done=done))
    await serving.promote("default", "sorting", 2, by="test", reason="better")


if __name__ == "__main__":
    asyncio.run(promote(Path(sys.argv[1]), sys.argv[2]))
