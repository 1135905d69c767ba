"""A learner whose runs follow a script, on a real workspace: its tables, events, deployments and adapter files.

What is scripted is the loop, which would train: it tells the events that a training tells, and stores a dataset, a tiny
adapter that passes every check, outcomes and a verdict.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from made_adapters import keep_adapter
from made_lora import base_folder, base_shape, tensors, write_lora

from intern.errors import InternError
from intern.learning.adapters.adapter import store_adapter
from intern.learning.adapters.deployments import Deployments
from intern.learning.adapters.gguf_lora import GGUF, convert
from intern.learning.adapters.lora import read_lora
from intern.learning.adapters.manifest import Base, Provenance
from intern.learning.judging.outcomes import Interval, Outcome, Ruling, Summary
from intern.learning.learner import Learner
from intern.learning.loop.contracts import BaseModel
from intern.learning.loop.judging import Verdict
from intern.learning.loop.loop import Finished
from intern.learning.synthesis import Refused, Synthesized
from intern.learning.train.job import Event, write_lines
from intern.learning.train.recipe import Recipe
from intern.skill import Skill
from intern.store import learning as store
from intern.types import Adapter, Dataset, Dropped, Example, Run, new_id, now
from intern.workspace import Workspace

BASE = "b" * 64
SCORES = {"base": 0.31, "few-shot": 0.52, "retrieval": 0.61, "candidate": 0.84}
CURVES = {
    "step_at": (1.0, 2.0, 3.0, 4.0),
    "step_loss": (2.0, 1.4, 1.1, 0.9),
    "heldout_at": (0.0, 4.0),
    "heldout_loss": (2.31, 0.58),
}

Tell = Callable[[Event], Awaitable[None]]


class Script:
    """What runs do from now on. While `hold`, a run stops in the middle of its training until `go_on` is called."""

    def __init__(self, workspace: Workspace, scratch: Path) -> None:
        self.workspace = workspace
        self.scratch = scratch
        self.runs: list[Run] = []
        self.recipes: list[Recipe] = []
        self.forced: list[bool] = []
        self.examples: list[Sequence[Example]] = []
        self.outside: dict[str, Any] = {}
        self.serving: list[Adapter | None] = []
        self.items: list[store.Item] = []
        self.decision = "promote"
        self.reason = "0.84 against 0.61 with the nearest examples in the prompt."
        self.approve = False
        self.failure: InternError | None = None
        self.late: InternError | None = None  # after the training, which leaves what a run can go on with
        self.hold = False
        self.ended = 0
        self._made = 0

    def go_on(self) -> None:
        self.hold = False

    def __call__(self, parts: Any, skill: Skill, run: Run, recipe: Recipe, tell: Tell) -> ScriptedLoop:
        return ScriptedLoop(self, skill, run, recipe, tell)

    def dataset(self, team: str, skill: str) -> Dataset:
        """A frozen dataset of `items`, new in the store."""
        self._made += 1
        dataset = Dataset(
            id=new_id("ds"),
            team=team,
            skill=skill,
            digest=secrets.token_hex(32),
            created=now(),
            train=60,
            heldout=40,
            dropped=(
                Dropped(example="ex_1", reason="duplicate", detail="the same as ex_2"),
                Dropped(example="ex_3", reason="contradiction", detail="outvoted by ex_4"),
                Dropped(example="ex_5", reason="duplicate", detail="the same as ex_2"),
            ),
        )
        with self.workspace.database.begin() as connection:
            return store.add_dataset(connection, dataset, self.items)

    def adapter(self, team: str, skill: str, *, run: str | None = None, dataset: Dataset | None = None) -> Adapter:
        """A new version of a skill, with files that can be loaded."""
        self._made += 1
        folder = self.scratch / str(self._made)
        shape = base_shape(self.scratch / "base")
        source = write_lora(folder, tensors(shape, seed=self._made))
        convert(read_lora(source, shape), shape, source / GGUF)
        bare = Adapter(
            team=team, skill=skill, version=0, digest="", base=BASE, run=run, recipe="lora", created=now(),
            dataset=dataset.id if dataset else None,
        )  # fmt: skip
        with self.workspace.database.begin() as connection:
            adapter = keep_adapter(connection, bare)
        provenance = Provenance(
            team=team, skill=skill, name=adapter.name, base=Base(name="tiny", sha256=BASE), dataset="d" * 64,
            run=run or "run_none", recipe={"name": "lora"}, created=adapter.created, curves=CURVES,
        )  # fmt: skip
        files = store_adapter(self.workspace.settings.home / "adapters", source, provenance)
        kept = adapter.model_copy(update={"digest": files.digest})
        with self.workspace.database.begin() as connection:
            store.update_adapter(connection, kept)
        return kept


class ScriptedLoop:
    def __init__(self, script: Script, skill: Skill, run: Run, recipe: Recipe, tell: Tell) -> None:
        self.script = script
        self.skill = skill
        self.run = run
        self.tell = tell
        script.runs.append(run)
        script.recipes.append(recipe)

    async def learn(self, *, serving: Adapter | None, force: bool = False) -> Finished:
        script, run = self.script, self.run
        script.forced.append(force)
        script.serving.append(serving)
        try:
            await self.say("stage", "gather", "collecting the examples")
            if script.failure is not None:
                raise script.failure
            dataset = await asyncio.to_thread(script.dataset, run.team, run.skill)
            numbers = {"dataset": dataset.id}
            await self.say("dataset", "gather", "60 examples to train on, 40 held out, 3 left out", numbers=numbers)
            await self.train()
            if script.late is not None:
                await asyncio.to_thread(self.leave_work)
                raise script.late
            adapter = await asyncio.to_thread(script.adapter, run.team, run.skill, run=run.id, dataset=dataset)
            await self.say("adapter", "convert", f"{adapter.name} is stored", numbers={"adapter": adapter.name})
            rivals = await self.evaluate({**SCORES, **({"serving": 0.7} if serving else {})})
        finally:
            script.ended += 1
        collect = 50 if script.decision == "inconclusive" else None
        ruling = Ruling.model_validate({"decision": script.decision, "reason": script.reason, "collect": collect})
        return Finished(
            dataset=dataset,
            adapter=adapter,
            verdict=Verdict(rivals=rivals, ruling=ruling),
            ruling=ruling,
            train_seconds=12.5,
            approve=script.approve,
        )

    async def grow(self, verdict: Verdict, *, parts: bool) -> None:
        pass

    async def compare(
        self,
        *,
        serving: Adapter | None,
        other: Adapter | None = None,
        examples: Sequence[Example] = (),
        outside: Any = None,
    ) -> Verdict:
        self.script.examples.append(examples)
        self.script.outside = dict(outside or {})
        names = [name for name in SCORES if name != "candidate" or other is not None]
        return Verdict(rivals=await self.evaluate({name: SCORES[name] for name in names}))

    async def synthesize(self, count: int) -> Synthesized:
        await self.say("stage", "synthesize", "reading 3 passages")
        made = tuple(
            Example(id=f"ex_s{n}", input=f"question {n}", output="paid", provenance="synthesis", passage="p1")
            for n in range(count)
        )
        refused = (Refused(input="a question", reason="no_quote"),)
        return Synthesized(examples=made, refused=refused, passages=3)

    async def train(self) -> None:
        await self.say("stage", "train", "rendering the examples as serving would")
        await self.say("loading", "train", "loading the training libraries and the base model", seconds=0.1)
        await self.say("phase", "examples", step=0, steps=4, seconds=2.0)
        await self.say("heldout", "examples", step=0, steps=4, loss=CURVES["heldout_loss"][0], seconds=2.5)
        for step, loss in enumerate(CURVES["step_loss"], 1):
            await self.say("step", "examples", step=step, steps=4, loss=loss, seconds=2.5 + step)
            while self.script.hold:  # noqa: ASYNC110 - the test lets it go on from another thread
                await asyncio.sleep(0.005)
        await self.say("heldout", "examples", step=4, steps=4, loss=CURVES["heldout_loss"][1], seconds=7.0)
        await self.say("done", "train", "the adapter is written", numbers={"train_seconds": 12.5})

    def leave_work(self) -> None:
        folder = self.script.workspace.settings.data / "runs" / self.run.id
        (folder / "adapter").mkdir(parents=True)
        for name in ("job.json", "rows.jsonl"):
            (folder / name).write_text("{}")

    async def evaluate(self, scores: Mapping[str, float]) -> dict[str, Summary]:
        await self.say("stage", "evaluate", "asking every rival 40 times")
        found = {}
        for name, score in scores.items():
            await self.say("answers", "evaluate", name, step=40, steps=40)
            await self.say("rival", "evaluate", f"{name}: {score:.2f}")
            found[name] = Summary(
                n=40, valid=1.0, score=interval(score), metrics=dict.fromkeys(self.fields, interval(score))
            )
            rows = [self.outcome(number, number < 40 * score) for number in range(40)]
            folder = self.script.workspace.settings.data / "runs" / self.run.id
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            await asyncio.to_thread(write_lines, folder / f"outcomes-{name}.jsonl", rows)
        return found

    @property
    def fields(self) -> list[str]:
        return list(self.skill.schema.schema["properties"]) if self.skill.schema else ["text"]

    def outcome(self, number: int, right: bool) -> Outcome:
        expected: Any = dict.fromkeys(self.fields, "good")
        fields = dict.fromkeys(self.fields, float(right))
        return Outcome(
            example=f"ex_{number}", group=f"g_{number}", valid=True, fields=fields, score=float(right),
            expected=expected, output=expected if right else {}, request=f"request <{number}>", seconds=0.2,
        )  # fmt: skip

    async def say(self, kind: str, stage: str, text: str = "", **more: Any) -> None:
        await self.tell(Event(kind=kind, stage=stage, text=text, **more))

    def clear(self) -> None:
        pass


def interval(mean: float) -> Interval:
    return Interval(mean=mean, low=round(mean - 0.09, 4), high=round(mean + 0.09, 4), n=40, groups=40)


def script(workspace: Workspace, scratch: Path) -> Script:
    """Give a workspace a learner that follows the script, and deployments for the script's adapters."""
    parts = workspace.parts
    base = BaseModel(path=str(base_folder(scratch / "base")), name="tiny", sha256=BASE)
    made = Script(workspace, scratch)
    root = workspace.settings.home / "adapters"
    workspace.base = base
    workspace.deployments = Deployments(workspace.database, workspace.engine, root, BASE, Path(base.path))
    workspace.pipeline.adapters = workspace.deployments
    loop: Any = made
    workspace.learner = Learner(parts, workspace.library, workspace.deployments, loop=loop)
    return made
