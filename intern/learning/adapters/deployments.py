"""Which adapter serves which skill: kept in one database row each, loaded in the engine, changed while requests run.

In: adapters on disk, deployments in the store. Out: for each request a `Lease` on the adapter that answers it. A lease
holds its adapter in the engine until the request is done, so that a request finishes on the adapter that it started
with. The row is changed only after the new adapter is verified, loaded and has answered: after a crash at any point
the old or the new one serves. What served before stays loaded, after a restart too, and has answered already: to go
back to it takes neither a load nor a place in the engine's queue. Adapters of another base model, or damaged ones, are
never loaded: their skill serves the base model, and says so. What another process on the same database puts in service
is taken over by `watch`. Knows nothing of skills: with what an adapter is tried, it is told (`Trial`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Engine as Database
from sqlalchemy.exc import SQLAlchemyError

from intern.engines.base import Engine, EngineRequest
from intern.errors import AdapterRefused, Conflict, EngineFailure, InternError, InvalidInput, NotFound, Overloaded
from intern.learning.adapters.adapter import verify
from intern.learning.adapters.gguf_lora import GGUF
from intern.learning.adapters.shapes import BaseShape, read_shape
from intern.store import learning as store
from intern.types import Adapter, Deployment, Lease, Message, Sampling, now

log = logging.getLogger(__name__)

SECONDS = 5.0  # between two looks at what other processes put in service
SPARE = 8  # adapters that stay loaded beyond those in service and those before them: versions asked for by name
_PROBE_SECONDS = 60.0
_FULL_SECONDS = 0.5  # between two attempts to try an adapter while the engine's queue is full
_TRIES = 12

Key = tuple[str, str]
Trial = Callable[[str, str], Awaitable[EngineRequest]]  # by team and skill, a request such as that skill's are
ANY: Any = object()  # whatever serves now


async def greet(team: str, skill: str) -> EngineRequest:
    """The plainest trial: a word, without any skill's prompt."""
    return EngineRequest(messages=(Message(role="user", content="Hello"),))


@dataclass
class _Loaded:
    """An adapter that the engine has, or is getting."""

    adapter: Adapter
    path: str
    verified: tuple[int, ...]  # which state of its file was
    answered: bool = False
    users: int = 0
    used: float = field(default_factory=time.monotonic)


class Deployments:
    """All methods run on the event loop that serves. `base` is the base model's content hash; None: an engine without
    adapters of our own, where every skill serves the base model. `model` is its file or folder, whose shape every
    adapter must fit. `trial` makes what an adapter must answer before it serves."""

    def __init__(
        self,
        database: Database,
        engine: Engine,
        root: Path,
        base: str | None,
        model: Path | None = None,
        trial: Trial = greet,
    ) -> None:
        self._database = database
        self._engine = engine
        self._root = root
        self._base = base
        self._model = model
        self._trial = trial
        self._shape: BaseShape | None = None  # of the model, once it was read
        self._serving: dict[Key, Deployment] = {}
        self._loaded: dict[str, _Loaded] = {}
        self._problems: dict[Key, str] = {}
        self._tries: dict[Key, int] = {}  # left, for what another process put in service and cannot be loaded here yet
        self._loading = asyncio.Lock()  # the engine's adapters; may take seconds
        self._changing = asyncio.Lock()  # row and memory of what serves, which waits for no load

    @property
    def problems(self) -> Mapping[Key, str]:
        """Why a skill's adapter in service is not loaded, by team and skill."""
        return dict(self._problems)

    def serving(self, team: str, skill: str) -> Deployment | None:
        """What was decided, whether or not it could be loaded."""
        return self._serving.get((team, skill))

    async def load(self) -> None:
        """Take over what the store says is in service, and load what served before, for a rollback. What cannot be
        loaded is left out and told by `problems`."""
        deployments = await asyncio.to_thread(self._stored)
        self._serving |= {(deployment.team, deployment.skill): deployment for deployment in deployments}
        wanted = [(deployment, deployment.version) for deployment in deployments]
        for deployment, version in (*wanted, *((deployment, deployment.previous) for deployment in deployments)):
            if version is None:
                continue
            team, skill = deployment.team, deployment.skill
            try:
                loaded = await asyncio.to_thread(self._verified, team, skill, version)
            except SQLAlchemyError:
                raise
            except Exception as error:
                self._left_out(team, skill, version, error)
            else:
                loaded.answered = True  # before it was put in service
                self._loaded[_engine_name(loaded.adapter)] = loaded
        if self._loaded:
            await self._set_what_loads()

    async def watch(self) -> None:
        """Take over what other processes put in service, again and again, until cancelled."""
        while True:
            await asyncio.sleep(SECONDS)
            try:
                await self.refresh()
            except Exception:
                log.exception("looking for what other processes put in service failed; trying again")

    async def refresh(self) -> None:
        """Take over what other processes put in service since. What cannot be loaded is told by `problems`, and tried
        again for a minute: on a shared volume its files may come later than its row."""
        for deployment in await asyncio.to_thread(self._stored):
            key = (deployment.team, deployment.skill)
            if deployment != self._serving.get(key) or self._tries.get(key):
                await self._take_over(key, deployment)

    async def _take_over(self, key: Key, deployment: Deployment) -> None:
        team, skill = key
        problem = None
        name = f"{team}/{skill}@v{deployment.version}"
        try:
            if deployment.version is not None:
                if name not in self._loaded:
                    await self._load_one(team, skill, deployment.version, name)
                self._loaded[name].answered = True  # where it was put in service
        except SQLAlchemyError:
            raise
        except Exception as error:  # which keeps no other skill from being taken over
            problem = _said(error)
        async with self._changing:
            if deployment != await asyncio.to_thread(self._one_stored, team, skill):
                return  # it was changed meanwhile, perhaps by ourselves
            tries = self._tries.pop(key, _TRIES) if deployment == self._serving.get(key) else _TRIES
            self._serving[key] = deployment
            if problem is None:
                self._problems.pop(key, None)
                log.info("skill %s: what another process put in service serves here, too", skill)
                return
            self._problems[key] = problem
            self._tries[key] = tries - 1
            if tries == _TRIES:
                log.warning("skill %s serves the base model: %s", skill, problem)

    async def acquire(self, team: str, skill: str, version: str | None) -> Lease:
        """A lease on what `version` ('base', 'vN', or None for what is in service) means now; `release` it.

        Raises NotFound for a version that does not exist, AdapterRefused for one that cannot be loaded.
        """
        if version == "base":
            return Lease()
        if version is None:
            deployment = self._serving.get((team, skill))
            if deployment is None or deployment.version is None:
                return Lease()
            if problem := self._problems.get((team, skill)):
                return Lease(note=f"The skill's adapter {skill}@v{deployment.version} does not serve: {problem}")
            number = deployment.version
        else:
            number = int(version.removeprefix("v")) if version[1:].isdecimal() and len(version) < 9 else 0
            await asyncio.to_thread(self._known, team, skill, number)
        name = f"{team}/{skill}@v{number}"
        if name not in self._loaded:
            await self._load_one(team, skill, number, name)
        loaded = self._loaded[name]
        loaded.users += 1
        loaded.used = time.monotonic()
        return Lease(name=loaded.adapter.name, engine_name=name)

    def release(self, lease: Lease) -> None:
        if lease.engine_name is not None:
            self._loaded[lease.engine_name].users -= 1

    async def promote(
        self, team: str, skill: str, version: int | None, *, by: str, reason: str, former: int | None = ANY
    ) -> Deployment:
        """Let `version` serve the skill (None: the base model). The former one stays loaded for a rollback.

        `former`: only if that version serves now. Whoever is cancelled leaves when it has happened, or never will.
        Raises NotFound, AdapterRefused, EngineFailure, Conflict when another one than `former` serves, Overloaded when
        the engine's queue stayed full for a minute; then nothing has changed.
        """
        return await self._put_in_service(team, skill, version, by, reason, former, tried=False)

    async def _put_in_service(
        self, team: str, skill: str, version: int | None, by: str, reason: str, former: int | None, *, tried: bool
    ) -> Deployment:
        lease = await self.acquire(team, skill, "base" if version is None else f"v{version}")  # it is not unloaded
        try:
            if lease.engine_name is not None and not tried:
                await self._try(lease.engine_name)
            flip = partial(self._flip, team, skill, version, by, reason, former)
            deployment = await self._change(team, skill, flip)
        finally:
            self.release(lease)
        log.info("skill %s is served by %s", skill, f"v{version}" if version is not None else "the base model")
        return deployment

    async def _try(self, name: str) -> None:
        """An adapter that is loaded must answer before anyone depends on it, once. A full queue is waited for."""
        loaded, until = self._loaded[name], time.monotonic() + _PROBE_SECONDS
        while not loaded.answered:
            try:
                await self._probe(name, until - time.monotonic())
                loaded.answered = True
            except Overloaded:
                await asyncio.sleep(_FULL_SECONDS)
                if time.monotonic() >= until:
                    raise

    async def _change(self, team: str, skill: str, change: Callable[[], Deployment]) -> Deployment:
        async with self._changing:
            flip = asyncio.ensure_future(asyncio.to_thread(change))
            cancelled = False
            while not flip.done():  # row and memory change together
                try:
                    await asyncio.wait({flip})
                except asyncio.CancelledError:
                    cancelled = True
            if flip.exception() is None:
                self._serving[(team, skill)] = flip.result()
                self._problems.pop((team, skill), None)
                self._tries.pop((team, skill), None)
        if cancelled:
            raise asyncio.CancelledError
        return flip.result()

    async def rollback(self, team: str, skill: str, *, by: str, reason: str = "rolled back") -> Deployment:
        """Let what served before serve again, which was tried when it was promoted. Raises NotFound when there was
        nothing before, Conflict when another was promoted meanwhile, and as `promote` where it is not loaded."""
        current = await asyncio.to_thread(self._one_stored, team, skill)
        if current is None:
            raise NotFound("deployment", skill, "The skill never had an adapter in service.")
        return await self._put_in_service(team, skill, current.previous, by, reason, current.version, tried=True)

    async def forget(self, team: str, skill: str, *, by: str, reason: str) -> None:
        """The skill is gone: nothing serves it, and there is nothing to go back to. Raises StoreFailure."""
        current = await asyncio.to_thread(self._one_stored, team, skill)
        if current is not None and (current.version, current.previous) != (None, None):
            await self._change(team, skill, partial(self._leave, team, skill, by, reason))

    # --- inside ------------------------------------------------------------------------------------------------

    async def _load_one(self, team: str, skill: str, version: int, name: str) -> None:
        async with self._loading:
            if name in self._loaded:
                return
            loaded = await asyncio.to_thread(self._verified, team, skill, version)
            changed = await asyncio.to_thread(self._changed, dict(self._loaded))
            kept = self._worth_keeping(changed)
            await self._set({**kept, name: loaded})
            self._loaded[name] = loaded

    def _changed(self, there: Mapping[str, _Loaded]) -> dict[str, str]:
        """Why adapters that the engine has cannot be loaded again: their files are not those that were verified. The
        engine opens all of its adapters' files anew when one is added."""
        found = {}
        for name, loaded in there.items():
            if _state(loaded.path) != loaded.verified:
                try:
                    loaded.verified = self._check(loaded.adapter).verified  # such as a restored backup
                except AdapterRefused as error:
                    found[name] = error.message
        return found

    def _worth_keeping(self, changed: Mapping[str, str]) -> dict[str, _Loaded]:
        """What is in service, what was before it, what is in use, and the most recently used of the rest; without what
        was `changed` on disk. Raises AdapterRefused when that is in service."""
        serving = {f"{team}/{skill}@v{one.version}" for (team, skill), one in self._serving.items()}
        before = {f"{team}/{skill}@v{one.previous}" for (team, skill), one in self._serving.items()}
        used = {name for name, loaded in self._loaded.items() if loaded.users}
        if gone := sorted(serving & changed.keys()):
            adapter = self._loaded[gone[0]].adapter
            raise AdapterRefused(
                f"No other adapter can be loaded beside {adapter.name}, which serves: {changed[gone[0]]} "
                f"Or take it out of service: `intern adapters rollback {adapter.skill}`.",
                adapter=adapter.name,
            )
        for name in changed:
            log.warning("the adapter %s is unloaded: %s", name, changed[name])
        there = self._loaded.keys() - changed.keys()
        needed = there & (serving | before | used)
        rest = sorted(there - needed, key=lambda name: self._loaded[name].used)
        return {name: self._loaded[name] for name in (*rest[-SPARE:], *sorted(needed))}

    async def _set(self, wanted: Mapping[str, _Loaded]) -> None:
        """Make the engine hold `wanted`. Leases are counted on this loop, so none can begin on one that goes if nothing
        is awaited between the choice of `wanted` and this."""
        going = {name: self._loaded.pop(name) for name in self._loaded.keys() - wanted.keys()}
        try:
            await self._engine.set_adapters({name: loaded.path for name, loaded in wanted.items()})
        except BaseException:
            self._loaded |= going
            raise

    async def _set_what_loads(self) -> None:
        """All at once; one by one where the engine refuses that: a bad adapter keeps no other from serving."""
        try:
            await self._set(self._loaded)
            return
        except InternError:
            wanted, self._loaded = self._loaded, {}
        for name, loaded in wanted.items():
            try:
                await self._set({**self._loaded, name: loaded})
            except InternError as error:
                adapter = loaded.adapter
                self._left_out(adapter.team, adapter.skill, adapter.version, error)
            else:
                self._loaded[name] = loaded

    def _left_out(self, team: str, skill: str, version: int, error: Exception) -> None:
        """Note why a version is not loaded at the start."""
        if self._serving[team, skill].version != version:
            log.warning("skill %s: v%d, which served before, is not loaded: %s", skill, version, _said(error))
            return
        self._problems[team, skill] = _said(error)
        log.warning("skill %s serves the base model: %s", skill, self._problems[team, skill])

    async def _probe(self, name: str, seconds: float) -> None:
        """Have an adapter answer; this warms it up as well."""
        adapter = self._loaded[name].adapter
        made = await self._trial(adapter.team, adapter.skill)
        short = {"sampling": Sampling(max_tokens=4, temperature=0.0), "adapter": name, "deadline": seconds}
        request = made.model_copy(update=short)
        finished = False
        async with aclosing(self._engine.generate(request)) as tokens:
            async for token in tokens:
                finished = finished or token.finish_reason is not None
        if not finished:
            raise EngineFailure(f"The adapter {name} gave no answer when it was tried.")

    def _stored(self) -> list[Deployment]:
        with self._database.connect() as connection:
            return store.list_deployments(connection, None)

    def _one_stored(self, team: str, skill: str) -> Deployment | None:
        with self._database.connect() as connection:
            return store.get_deployment(connection, team, skill)

    def _known(self, team: str, skill: str, version: int) -> Adapter:
        with self._database.connect() as connection:
            try:
                return store.get_adapter(connection, team, skill, version)
            except NotFound as error:
                hint = "The skill has no adapter of this version."
                raise NotFound("model", f"intern/{skill}@v{version}", hint) from error

    def _verified(self, team: str, skill: str, version: int) -> _Loaded:
        return self._check(self._known(team, skill, version))

    def _check(self, adapter: Adapter) -> _Loaded:
        if self._base is None:
            raise InvalidInput("This engine takes no adapters of this platform; use INTERN_ENGINE=llamacpp.")
        if self._shape is None and self._model is not None:
            self._shape = read_shape(self._model)
        folder = self._root / adapter.digest
        before = _state(folder / GGUF)
        files = verify(folder, base=self._base, shape=self._shape)
        if files.gguf is None:
            raise AdapterRefused("It was never converted for llama.cpp. Train the skill again.", adapter=adapter.name)
        return _Loaded(adapter=adapter, path=str(files.gguf), verified=before)

    def _flip(self, team: str, skill: str, version: int | None, by: str, reason: str, former: int | None) -> Deployment:
        with self._database.begin() as connection:
            current = store.get_deployment(connection, team, skill, lock=True)
            before = current.version if current is not None else None
            if version is not None:
                store.get_adapter(connection, team, skill, version)  # its skill may have been deleted meanwhile
            if former is not ANY and before != former:
                raise Conflict(f"Something else was put in service of the skill '{skill}' meanwhile.")
            previous = current.previous if current is not None and before == version else before
            deployment = Deployment(
                team=team, skill=skill, version=version, previous=previous, changed=now(), by=by, reason=reason
            )
            store.deploy(connection, deployment)
        return deployment

    def _leave(self, team: str, skill: str, by: str, reason: str) -> Deployment:
        deployment = Deployment(team=team, skill=skill, version=None, changed=now(), by=by, reason=reason)
        with self._database.begin() as connection:
            store.deploy(connection, deployment)
        return deployment


def _state(path: Path | str) -> tuple[int, ...]:
    """What differs when a file was replaced or written to; empty: it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _said(error: Exception) -> str:
    """What people are told of a failure; of one that nobody foresaw, the log has the rest."""
    if isinstance(error, InternError):
        return error.message
    log.error("an adapter cannot be loaded", exc_info=error)
    return f"It cannot be loaded ({type(error).__name__}); the log says more."


def _engine_name(adapter: Adapter) -> str:
    """A name that no two adapters share, of whatever team."""
    return f"{adapter.team}/{adapter.name}"
