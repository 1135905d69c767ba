"""What the benchmarks of the learning loop share: a workspace with one skill, a run of the loop in it, its outcomes.

In: a skill's parts as data. Out: a `Learned` with every rival's outcomes on the held-out examples, as the run itself
kept them. The run is the product's own, from `Learner.submit` to the verdict; only HTTP is left out.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from intern.learning.judging.outcomes import Outcome
from intern.learning.train.job import Event, read_lines
from intern.learning.train.recipe import Recipe
from intern.settings import Settings
from intern.store.learning import get_run
from intern.types import Run
from intern.workspace import Workspace

TEAM = "default"


@dataclass(frozen=True)
class Learned:
    """One run that has ended: the run, its events, the outcomes by rival."""

    run: Run
    events: Sequence[Event]
    outcomes: Mapping[str, list[Outcome]]

    @property
    def peak_bytes(self) -> int:
        return int(next(e.numbers["peak_bytes"] for e in self.events if "peak_bytes" in e.numbers))

    @property
    def heldout_loss(self) -> list[float]:
        return [e.loss for e in self.events if e.kind == "heldout" and e.loss is not None]


def write_skill(home: Path, name: str, spec: Mapping[str, Any], schema: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """A skill folder. The rows are public data: nothing of it is redacted."""
    folder = home / "skills" / name
    folder.mkdir(parents=True)
    body = {**spec, "output": "schema.json", "learning": {"redact": "collected"}}
    (folder / "skill.yaml").write_text(yaml.safe_dump(body, sort_keys=False), encoding="utf-8")
    (folder / "schema.json").write_text(json.dumps(schema, indent=1), encoding="utf-8")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "examples.jsonl").write_text(lines, encoding="utf-8")


@asynccontextmanager
async def opened(home: Path, *, keep: bool = False) -> AsyncIterator[Workspace]:
    """The workspace in `home`, ready to learn; `home` is deleted at the end unless it is kept."""
    workspace = Workspace(Settings(home=home))
    try:
        await workspace.warm()
        yield workspace
    finally:
        await workspace.close()
        if not keep:
            shutil.rmtree(home, ignore_errors=True)


def new_home(name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"intern-{name}-"))


async def learn(workspace: Workspace, skill: str, recipe: Recipe | None = None) -> Learned:
    """One run of the loop, told on standard output as it goes. Raises RuntimeError when it fails."""
    run = await workspace.learner.submit(TEAM, skill, recipe=recipe)
    events = await follow(workspace, run.id)
    with workspace.database.connect() as connection:
        ended = get_run(connection, TEAM, run.id)
    if ended.state != "done":
        raise RuntimeError(f"the run of {skill} {ended.state}: {ended.reason}")
    folder = workspace.parts.runs_folder / run.id
    files = sorted(folder.glob("outcomes-*.jsonl"))
    outcomes = {file.stem.removeprefix("outcomes-"): list(read_lines(file, Outcome)) for file in files}
    return Learned(run=ended, events=events, outcomes=outcomes)


async def follow(workspace: Workspace, run: str) -> list[Event]:
    """The events of a run until it has ended, told as they come."""
    began = time.monotonic()
    events = []
    async for _, event in workspace.learner.events(TEAM, run):
        if event.kind == "answers":
            continue
        events.append(event)
        if event.kind == "step" and (event.step or 0) % 25:
            continue
        loss = f" {event.loss:.4f}" if event.loss is not None else ""
        step = f" {event.step}/{event.steps}" if event.step is not None else ""
        print(f"{time.monotonic() - began:7.1f} s  {event.kind}{step}{loss} {event.text}", flush=True)
    return events
