"""Which adapter serves which skill: kept in one database row each, loaded in the engine, changed while requests run.

In: adapters on disk, deployments in the store. Out: for each request a `Lease` on the adapter that answers it. A lease
holds its adapter in the engine until the request is done, so that a request finishes on the adapter that it started
with. The row is changed only after the new adapter is verified, loaded and has answered: after a crash at any point
the old or the new one serves. Adapters of another base model, or damaged ones, are never loaded: their skill serves
the base model, and says so. What another process on the same database puts in service is taken over by `watch`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Engine as Database

from intern.engines.base import Engine, EngineRequest
from intern.errors import AdapterRefused, Conflict, EngineFailure, InternError, InvalidInput, NotFound
from intern.learning.adapters.adapter import verify
from intern.store import learning as store
from intern.types import Adapter, Deployment, Lease, Message, Sampling, now

log = logging.getLogger(__name__)

SECONDS = 5.0  # between two looks at what other processes put in service
SPARE = 8  # adapters beyond those in service that stay loaded: former ones for a rollback, versions asked for by name
_PROBE_SECONDS = 60.0
_TRIES = 12

Key = tuple[str, str]
ANY: Any = object()  # whatever serves now


@dataclass
class _Loaded:
    """An adapter that the engine has, or is getting."""

    adapter: Adapter
    path: str
    users: int = 0
    used: float = field(default_factory=time.monotonic)


class Deployments:
    """All methods run on the event loop that serves. `base` is the base model's content hash; None: an engine without
    adapters of our own, where every skill serves the base model."""

    def __init__(self, database: Database, engine: Engine, root: Path, base: str | None) -> None:
        self._database = database
        self._engine = engine
        self._root = root
        self._base = base
        self._serving: dict[Key, Deployment] = {}
        self._loaded: dict[str, _Loaded] = {}
        self._problems: dict[Key, str] = {}
        self._tries: dict[Key, int] = {}  # left, for what another process put in service and cannot be loaded here yet
        self._changing = asyncio.Lock()

    @property
    def problems(self) -> Mapping[Key, str]:
        """Why a skill's adapter in service is not loaded, by team and skill."""
        return dict(self._problems)

    def serving(self, team: str, skill: str) -> Deployment | None:
        """What was decided, whether or not it could be loaded."""
        return self._serving.get((team, skill))

    async def load(self) -> None:
        """Take over what the store says is in service. What cannot be loaded is left out and told by `problems`."""
        for deployment in await asyncio.to_thread(self._stored):
            key = (deployment.team, deployment.skill)
            self._serving[key] = deployment
            if deployment.version is None:
                continue
            try:
                loaded = await asyncio.to_thread(self._verified, deployment.team, deployment.skill, deployment.version)
            except InternError as error:
                self._problems[key] = error.message
                log.warning("skill %s serves the base model: %s", deployment.skill, error.message)
            else:
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
            if deployment.version is not None and name not in self._loaded:
                await self._load_one(team, skill, deployment.version, name)
        except InternError as error:
            problem = error.message
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
        Raises NotFound, AdapterRefused, EngineFailure, Conflict when another one than `former` serves; then nothing
        has changed.
        """
        if version is not None:
            name = f"{team}/{skill}@v{version}"
            if name not in self._loaded:
                await self._load_one(team, skill, version, name)
            await self._probe(name)
        deployment = await self._change(team, skill, version, by, reason, former)
        log.info("skill %s is served by %s", skill, f"v{version}" if version is not None else "the base model")
        return deployment

    async def _change(
        self, team: str, skill: str, version: int | None, by: str, reason: str, former: int | None
    ) -> Deployment:
        async with self._changing:
            flip = asyncio.ensure_future(asyncio.to_thread(self._flip, team, skill, version, by, reason, former))
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
        """Let what served before serve again. Raises NotFound when there was nothing before, Conflict when another was
        promoted meanwhile."""
        current = await asyncio.to_thread(self._one_stored, team, skill)
        if current is None:
            raise NotFound("deployment", skill, "The skill never had an adapter in service.")
        return await self.promote(team, skill, current.previous, by=by, reason=reason, former=current.version)

    # --- inside ------------------------------------------------------------------------------------------------

    async def _load_one(self, team: str, skill: str, version: int, name: str) -> None:
        async with self._changing:
            if name in self._loaded:
                return
            loaded = await asyncio.to_thread(self._verified, team, skill, version)
            kept = self._worth_keeping()
            await self._set({**kept, name: loaded})
            self._loaded[name] = loaded

    def _worth_keeping(self) -> dict[str, _Loaded]:
        """What is in service or in use, and the most recently used of the rest."""
        serving = {
            f"{team}/{skill}@v{d.version}" for (team, skill), d in self._serving.items() if d.version is not None
        }
        needed = {name for name, loaded in self._loaded.items() if loaded.users or name in serving}
        rest = sorted(self._loaded.keys() - needed, key=lambda name: self._loaded[name].used)
        return {name: self._loaded[name] for name in (*rest[-SPARE:], *sorted(needed))}

    async def _set(self, wanted: Mapping[str, _Loaded]) -> None:
        """Make the engine hold `wanted`. Leases are counted on this loop, so none can begin on one that goes."""
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
                self._problems[(loaded.adapter.team, loaded.adapter.skill)] = error.message
                log.warning("skill %s serves the base model: %s", loaded.adapter.skill, error.message)
            else:
                self._loaded[name] = loaded

    async def _probe(self, name: str) -> None:
        """The adapter must answer before anyone depends on it; this warms it up as well."""
        request = EngineRequest(
            messages=(Message(role="user", content="Hello"),),
            sampling=Sampling(max_tokens=4, temperature=0.0),
            adapter=name,
            deadline=_PROBE_SECONDS,
        )
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

    def _verified(self, team: str, skill: str, version: int) -> _Loaded:
        with self._database.connect() as connection:
            try:
                adapter = store.get_adapter(connection, team, skill, version)
            except NotFound as error:
                hint = "The skill has no adapter of this version."
                raise NotFound("model", f"intern/{skill}@v{version}", hint) from error
        if self._base is None:
            raise InvalidInput("This engine takes no adapters of this platform; use INTERN_ENGINE=llamacpp.")
        files = verify(self._root / adapter.digest, base=self._base)
        if files.gguf is None:
            raise AdapterRefused("It was never converted for llama.cpp. Train the skill again.", adapter=adapter.name)
        return _Loaded(adapter=adapter, path=str(files.gguf))

    def _flip(self, team: str, skill: str, version: int | None, by: str, reason: str, former: int | None) -> Deployment:
        with self._database.begin() as connection:
            current = store.get_deployment(connection, team, skill, lock=True)
            before = current.version if current is not None else None
            if former is not ANY and before != former:
                raise Conflict(f"Something else was put in service of the skill '{skill}' meanwhile.")
            previous = current.previous if current is not None and before == version else before
            deployment = Deployment(
                team=team, skill=skill, version=version, previous=previous, changed=now(), by=by, reason=reason
            )
            store.deploy(connection, deployment)
        return deployment


def _engine_name(adapter: Adapter) -> str:
    """A name that no two adapters share, of whatever team."""
    return f"{adapter.team}/{adapter.name}"
