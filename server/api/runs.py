"""/api/runs: trainings and evaluations of the team's skills: begun, shown, followed, ended, resumed."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from intern.errors import InternError, InvalidInput
from intern.learning.examples.items import key_of
from intern.learning.judging.outcomes import CANDIDATE, PROMPT_ONLY, SERVING
from intern.learning.learner import Asked
from intern.learning.reports.kept import Service
from intern.learning.train.job import Event
from intern.learning.train.recipe import Recipe, RecipeName
from intern.skill import Skill, parse_example
from intern.store import learning as store
from intern.types import Example, Json, Message, Run, RunKind, RunState, Variant
from server import errors
from server.api.adapters import find_adapter
from server.auth import Admin, KeyedRoute, User, Work
from server.body import at_most
from server.departure import EventStream
from server.openai.responses import DONE, event

log = logging.getLogger(__name__)

MOST_EXAMPLES = 10_000
KEEP_ALIVE_SECONDS = 15.0  # proxies close a connection on which nothing comes for a minute
SYSTEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}")
_MOST_EVENTS = 10**9

router = APIRouter(prefix="/api/runs", route_class=KeyedRoute, tags=["runs"])


class NewRun(BaseModel):
    """`recipe` is a name, or an object with `name` and numbers. `examples` go with the kind evaluate, `count` with
    synthesize (0: as many as the skill's documents give). `outside` are other systems' answers, by the system's name:
    to `examples`, in their order, null where it has none; without `examples`, objects with `input` and `output`, of
    which those count whose input is held out. `adapter` (SKILL@vN) is one to measure that need not serve."""

    model_config = ConfigDict(extra="forbid")

    skill: str
    kind: RunKind = "learn"
    recipe: RecipeName | Recipe | None = None
    variant: Variant = "original"
    force: bool = False
    promote: bool = True
    growth: bool = False
    examples: Annotated[list[dict[str, Json]] | None, Field(fail_fast=True), at_most(MOST_EXAMPLES, "examples")] = None
    outside: Annotated[dict[str, list[Json]] | None, Field(max_length=10)] = None
    adapter: str | None = None
    count: Annotated[int | None, Field(ge=0, le=10_000)] = None


@router.post("", status_code=202)
async def begin(body: NewRun, caller: Admin, workspace: Work) -> dict[str, Any]:
    """Queue a run. One skill has one run at a time; runs of different skills wait for each other."""
    skill = workspace.library.get(caller.team, body.skill)
    asked = await asyncio.to_thread(_asked, skill, body)
    if body.adapter is not None:
        await asyncio.to_thread(_check_adapter, workspace, caller.team, body)
    # A workspace that a command opened for itself has not begun to carry out runs. It goes on with what was left in the
    # middle, also where that keeps this one from being queued.
    workspace.learner.start()
    run = await workspace.learner.submit(
        caller.team,
        body.skill,
        kind=body.kind,
        recipe=Recipe(name=body.recipe) if isinstance(body.recipe, str) else body.recipe,
        variant=body.variant,
        by=caller.key or "",
        force=body.force,
        promote=body.promote,
        growth=body.growth,
        asked=asked,
    )
    return run.model_dump(mode="json")


def _asked(skill: Skill, body: NewRun) -> Asked | None:
    """What goes with the run's kind. Raises InvalidInput for what goes with another."""
    if body.examples is not None and body.kind != "evaluate":
        raise InvalidInput("examples go with the kind evaluate: a training takes the skill's own.", param="examples")
    if body.count is not None and body.kind != "synthesize":
        raise InvalidInput("count goes with the kind synthesize.", param="count")
    if body.outside and body.kind != "evaluate":
        raise InvalidInput("outside goes with the kind evaluate.", param="outside")
    if body.adapter is not None and body.kind != "evaluate":
        raise InvalidInput("adapter goes with the kind evaluate: a training makes one.", param="adapter")
    if body.examples is not None:
        examples = _examples(skill, body.examples)
        return Asked(examples=examples, outside=_outside(body.outside or {}, examples), adapter=body.adapter)
    if body.outside or body.adapter:
        outside = {name: _by_input(name, given) for name, given in (body.outside or {}).items()}
        return Asked(outside=outside, adapter=body.adapter)
    return None if body.count is None else Asked(count=body.count)


def _check_adapter(workspace: Work, team: str, body: NewRun) -> None:
    """Raises NotFound, and InvalidInput for another skill's."""
    found = find_adapter(workspace, team, str(body.adapter))
    if found.skill != body.skill:
        raise InvalidInput(f"adapter: {found.name} is none of the skill '{body.skill}'.", param="adapter")


def _examples(skill: Skill, rows: Sequence[Mapping[str, Json]]) -> tuple[Example, ...]:
    """The rows as examples with ids of their own, all or none. Raises InvalidInput naming the row."""
    if not rows:
        raise InvalidInput("examples is empty; leave it out to take the held-out ones.", param="examples")
    found: dict[str, Example] = {}
    for number, row in enumerate(rows):
        try:
            example = parse_example(row, skill.schema)
        except InvalidInput as error:
            raise InvalidInput(f"examples.{number}: {error.message}.", param=f"examples.{number}") from error
        ident = example.id if example.id not in found else f"{example.id}-{number}"
        found[ident] = example.model_copy(update={"id": ident})
    return tuple(found.values())


def _outside(answers: Mapping[str, Sequence[Json]], examples: Sequence[Example]) -> dict[str, dict[str, Json]]:
    """Other systems' answers by system and example id. Raises InvalidInput for a bad name or number."""
    found = {}
    for name, given in answers.items():
        _check_system(name)
        if len(given) != len(examples):
            raise InvalidInput(
                f"outside: '{name}' has {len(given)} answers, and there are {len(examples)} examples; "
                "write null where it has none.",
                param="outside",
            )
        pairs = zip(examples, given, strict=True)
        found[name] = {example.id: answer for example, answer in pairs if answer is not None}
    return found


def _by_input(name: str, rows: Sequence[Json]) -> dict[str, Json]:
    """Another system's answers by the key of the input. Raises InvalidInput for a bad name, or a row without both."""
    _check_system(name)
    if len(rows) > MOST_EXAMPLES:
        raise InvalidInput(
            f"outside: '{name}' has {len(rows)} answers; at most {MOST_EXAMPLES} are allowed.", param="outside"
        )
    found = {}
    for number, row in enumerate(rows):
        try:
            given = _Answered.model_validate(row)
        except ValueError as error:
            raise InvalidInput(
                f"outside: '{name}', row {number + 1} is no object with input (a text or messages) and output; without "
                "examples, answers need the inputs that they are to.",
                param="outside",
            ) from error
        if given.output is not None:
            found[key_of(Example(id=str(number), input=given.input, output=given.output))] = given.output
    return found


class _Answered(BaseModel):
    input: str | tuple[Message, ...]
    output: Json


def _check_system(name: str) -> None:
    if not SYSTEM.fullmatch(name) or name in (*PROMPT_ONLY, SERVING, CANDIDATE):
        raise InvalidInput(
            f"outside: '{name[:50]}' is no name for a system: letters, digits, spaces, '.', '_' and '-', at most "
            f"40, and none of {', '.join((*PROMPT_ONLY, SERVING, CANDIDATE))}.",
            param="outside",
        )


@router.get("")
def listed(
    caller: User,
    workspace: Work,
    skill: str | None = None,
    state: RunState | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """Runs, the newest first, each with whether it can be resumed."""
    states = () if state is None else (state,)
    with workspace.database.connect() as connection:
        found = store.list_runs(connection, caller.team, skill=skill, states=states, limit=limit)
    resumable = workspace.learner.resumable
    return {"data": [{**run.model_dump(mode="json"), "resumable": resumable(run)} for run in found]}


@router.get("/{run}")
def one(run: str, caller: User, workspace: Work) -> dict[str, Any]:
    """One run, with its verdict once there is one, where its adapter stands now, and whether it can be resumed."""
    found, verdict = find_run(workspace, caller.team, run)
    stands = service(workspace, found)
    return {
        **found.model_dump(mode="json"),
        "serves": serves(workspace, found),
        "service": None if stands is None else stands.model_dump(mode="json"),
        "resumable": workspace.learner.resumable(found),
        "verdict": verdict,
    }


@router.post("/{run}/cancel")
async def cancel(run: str, caller: Admin, workspace: Work) -> dict[str, Any]:
    """End a run that waits or goes on, or give up one that failed and could be resumed: what it kept for that is
    removed. What it made so far serves nobody."""
    return (await workspace.learner.cancel(caller.team, run)).model_dump(mode="json")


@router.post("/{run}/resume", status_code=202)
async def resume(run: str, caller: Admin, workspace: Work) -> dict[str, Any]:
    """Queue a training that failed: it goes on from its last checkpoint, or from the adapter that it stored."""
    found = await workspace.learner.resume(caller.team, run)
    workspace.learner.start()
    return found.model_dump(mode="json")


def find_run(workspace: Work, team: str, run: str) -> tuple[Run, Mapping[str, Json] | None]:
    """A run, and its verdict once there is one. Raises NotFound, also for another team's."""
    with workspace.database.connect() as connection:
        return store.get_run(connection, team, run), store.get_verdict(connection, team, run)


def serves(workspace: Work, run: Run) -> bool:
    """Whether the run's adapter is in service now."""
    with workspace.database.connect() as connection:
        deployment = store.get_deployment(connection, run.team, run.skill)
    serving = None if deployment is None else f"{deployment.skill}@v{deployment.version}"
    return serving == run.adapter is not None


def service(workspace: Work, run: Run) -> Service | None:
    """Where the adapter that the run made stands now. None: it made none."""
    if run.adapter is None or run.kind != "learn":
        return None
    if run.retired:
        return Service(state="gone")
    if serves(workspace, run):
        return Service(state="serves")
    with workspace.database.connect() as connection:
        history = store.deployment_history(connection, run.team, run.skill)
        if run.stage == "promote" or any(f"{run.skill}@v{change.version}" == run.adapter for change in history):
            return Service(state="served")
        if run.state in ("queued", "running"):
            return Service(state="going")
        told = [body for _, body in store.list_events(connection, run.team, run.id)]
    refused = [str(body["text"]) for body in told if (body["kind"], body.get("stage")) == ("warning", "promote")]
    return Service(state="waits", why=refused[-1].removeprefix(f"{run.adapter} does not serve: ") if refused else "")


# --- what happens in it ----------------------------------------------------------------------------------------


@router.get("/{run}/events", response_model=None)
async def events(
    run: str,
    caller: User,
    workspace: Work,
    after: Annotated[int | None, Query(ge=-1, le=_MOST_EVENTS)] = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """The run's events as server-sent ones: those that were, those to come, and [DONE] when it has ended."""
    start = _place(last_event_id) if after is None else after
    await asyncio.to_thread(find_run, workspace, caller.team, run)
    frames = _frames(workspace.learner.events(caller.team, run, after=start), start)
    return EventStream(frames, {}, until=asyncio.get_running_loop().time() + workspace.settings.deadline)


def _place(last: str | None) -> int:
    """The event that a client saw last, by the header that browsers send when they connect again."""
    if not last:
        return -1
    if not last.isascii() or not last.isdigit() or int(last[:20]) > _MOST_EVENTS:
        raise InvalidInput("Last-Event-ID must be the id of an event of this run.", param="Last-Event-ID")
    return int(last)


async def _frames(found: AsyncGenerator[tuple[int, Event], None], after: int) -> AsyncGenerator[bytes, None]:
    """Each event as a frame; a comment where nothing comes for a while, which also shows that a client has gone."""
    waiting: asyncio.Task[tuple[int, Event] | None] | None = None
    try:
        while True:
            waiting = waiting or asyncio.create_task(_next(found))
            await asyncio.wait({waiting}, timeout=KEEP_ALIVE_SECONDS)
            if not waiting.done():
                yield b": nothing new\n\n"
                continue
            item, waiting = waiting.result(), None
            if item is None:
                yield DONE
                return
            ordinal, told = item
            # An event that is not kept comes with the number of the last one that was.
            yield _frame(told, ordinal if ordinal > after else None)
            after = max(after, ordinal)
    except InternError as error:
        log.warning("the events of a run ended in an error: %s", error.code)
        yield event(errors.body(error))
    except Exception as error:
        log.exception("the events of a run ended in an unexpected error")
        yield event(errors.body(error))
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await found.aclose()


async def _next(found: AsyncGenerator[tuple[int, Event], None]) -> tuple[int, Event] | None:
    return await anext(found, None)


def _frame(told: Event, ident: int | None) -> bytes:
    """One server-sent event. pydantic writes a loss that is no number as null, which JSON can hold."""
    body = json.loads(told.model_dump_json(exclude_defaults=True))
    if ident is None:
        return event(body)
    return f"id: {ident}\n".encode() + event({"id": ident, **body})
