"""One process's view of a workspace: opens every part by the settings, keeps them in step, closes them.

In: `Settings`. Out: a `Workspace` whose parts the edges use: library, pipeline, knowledge, reviews, store. Parts that
cost time or memory (embedder, index, engine) are opened at first use, or all at once by `warm`. A background task
watches the skill folders; what changes there reaches router and index while the platform runs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self, TypeVar, overload

from intern import prompt as prompts
from intern.engines.base import Engine, EngineRequest
from intern.errors import Conflict, InternError, NotFound, StoreFailure
from intern.knowledge import Ingested, Knowledge, Upload, open_index
from intern.knowledge.parse import Parser
from intern.learning.adapters.deployments import Deployments, greet
from intern.learning.adapters.shipped import adopt
from intern.learning.erasure import Erasure
from intern.learning.examples.shots import ServedShots
from intern.learning.learner import Learner
from intern.learning.loop.collecting import gathered
from intern.learning.loop.contracts import BaseModel
from intern.learning.parts import WorkspaceParts
from intern.learning.privacy.documents import Source
from intern.learning.triggers import Triggers
from intern.library import SkillLibrary
from intern.models import source
from intern.models.embedder import Embedder, Vectors
from intern.models.loading import open_embedder
from intern.ownership import Ownership
from intern.pipeline import Pipeline
from intern.reviews import Reviews
from intern.routing.router import Router, SkillTexts
from intern.routing.texts import standing
from intern.settings import Settings
from intern.skill import Skill
from intern.store import records
from intern.store.documents import list_origins
from intern.store.engine import open_database
from intern.store.keys import list_keys
from intern.threads import Threads
from intern.types import DEFAULT_TEAM, Message, Passage, Route

log = logging.getLogger(__name__)

FOLDER_SOURCE = "docs"
_WATCH_SECONDS = 1.0
_EXPIRE_SECONDS = 3600.0
_LEFT_SECONDS = 86_400.0

Progress = Callable[[str], None]

T = TypeVar("T")


class _opened_once(cached_property[T]):
    """A cached property that opens its part once, however many threads ask first: since Python 3.12 the plain one would
    let each of them open it, and an embedded index must not be opened twice."""

    def __init__(self, function: Callable[[Any], T]) -> None:
        super().__init__(function)
        self._opening = threading.RLock()

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> T: ...

    def __get__(self, instance: object | None, owner: type[Any] | None = None) -> Self | T:
        with self._opening:
            return super().__get__(instance, owner)


class Workspace:
    """Open with `open`, then `start` on the event loop that serves; `close` at the end."""

    def __init__(self, settings: Settings, *, engine: Engine | None = None, embedder: Embedder | None = None) -> None:
        self.settings = settings
        self.opened = int(time.time())
        self.ownership = Ownership(settings.data)
        self.ownership.take()
        try:
            self.database = open_database(settings.database_url or f"sqlite:///{settings.data / 'intern.db'}")
        except BaseException:
            self.ownership.release()
            raise
        self.threads = Threads()
        self.library = SkillLibrary(settings.home)
        self.recorder = records.Recorder(self.database)
        self.say: Progress = log.info
        self.routes = _Routes(self)
        self.documents = _Documents(self)
        self.engine = engine or open_engine(settings)
        self.base = None if engine is not None else base_model(settings)
        self._given_embedder = embedder
        self._removing: set[tuple[str, str]] = set()
        self._watchers: list[asyncio.Task[None]] = []
        self._tended = False
        adapters = settings.home / "adapters"
        base, model = (self.base.sha256, Path(self.base.path)) if self.base else (None, None)
        self.deployments = Deployments(self.database, self.engine, adapters, base, model, self._trial)
        self.pipeline = Pipeline(
            library=self.library,
            router=self.routes,
            knowledge=self.documents,
            engine=self.engine,
            adapters=self.deployments,
            examples=ServedShots(self.database, lambda texts: self.embedder.embed(texts), self.engine),
            recorder=self.recorder,
            passage_tokens=settings.passage_tokens,
            deadline=settings.deadline,
        )
        self.reviews = Reviews(self.database, self.library, self.routes, self.recorder.flush, self.routes.outdate)
        self.parts = _parts(self)
        self.learner = Learner(self.parts, self.library, self.deployments, hours=settings.learning_hours)
        self.triggers = Triggers(
            self.database, self.library, self.learner, hours=settings.learning_hours, heldout=self._heldout
        )
        self.erasure = Erasure(self.parts, self.learner, self.library, self.recorder.flush)
        self.library.refresh()

    @_opened_once
    def embedder(self) -> Embedder:
        if self._given_embedder is not None:
            return self._given_embedder
        threads = self.settings.threads or available_cpus()
        return open_embedder(self.settings.embedder, self.cache, threads, progress=self.say)

    @_opened_once
    def router(self) -> Router:
        return Router(self.embedder, cache=self.cache / "router", refuse_rate=self.settings.refuse_rate)

    @_opened_once
    def knowledge(self) -> Knowledge:
        parser = Parser(
            seconds=self.settings.parse_seconds,
            memory_bytes=self.settings.parse_bytes,
            pages=self.settings.upload_pages,
            file_bytes=self.settings.upload_bytes,
            inflated_bytes=self.settings.inflated_bytes,
        )
        index = open_index(self.settings.data / "index", self.settings.chroma_url)
        return Knowledge(self.database, self.embedder, parser, index)

    @property
    def cache(self) -> Path:
        return self.settings.data / "cache"

    async def warm(self, say: Progress | None = None) -> None:
        """Open every part now, so that the first request is as fast as the next. `say` is told what takes time."""
        if say is not None:
            self.say = say
        self.threads.lend()
        self.say(f"engine: loading {self.engine.info.model}")
        await self.load_engine()
        self.say("router: learning the skills")
        for team in self.library.teams:
            await self.routes.ready(team)
        self.say("documents: checking the skills' folders")
        for team in self.library.teams:
            for skill in self.library.all(team):
                if skill.spec.retrieval.enabled:
                    await self.documents.ready(team, skill.name)
        self.learner.start()
        self._watchers.append(asyncio.create_task(self.triggers.watch()))
        if self.database.dialect.name != "sqlite":  # of which one process is the owner
            self._watchers.append(asyncio.create_task(self.deployments.watch()))
        self.say = log.info

    async def load_engine(self) -> None:
        """Start the engine, with every adapter in service, those that came with the workspace included. Whoever answers
        or measures does this first, and no part of it alone."""
        await self.engine.start()
        await asyncio.to_thread(self._adopt)
        await self.deployments.load()

    def _heldout(self, team: str, skill: Skill) -> int:
        """How many examples a dataset of the skill would hold out now."""
        return gathered(self.parts, team, skill, "original")[1].heldout

    @contextmanager
    def removing(self, team: str, skill: str) -> Iterator[None]:
        """While a skill is being deleted: what is removed by its name must not be another's. Raises Conflict where that
        goes on already."""
        self.check_free(team, skill)
        self._removing.add((team, skill))
        try:
            yield
        finally:
            self._removing.discard((team, skill))

    def check_free(self, team: str, skill: str) -> None:
        """Raises Conflict while a skill of this name is being deleted."""
        if (team, skill) in self._removing:
            raise Conflict(f"The skill '{skill}' is being deleted. Ask again in a moment.")

    async def _trial(self, team: str, skill: str) -> EngineRequest:
        """A request as the skill's are rendered, for an adapter to be tried with. That a skill's prompt cannot be made
        is no fault of its adapter."""
        try:
            known = self.library.get(team, skill)
            plain = await greet(team, skill)
            prompt = await prompts.build(known, plain.messages, (), self.engine, passage_tokens=0)
        except InternError:
            return await greet(team, skill)
        schema = prompts.decoding_schema(known, known.schema, ())
        return EngineRequest(messages=prompt.messages, schema_=schema)

    def _adopt(self) -> None:
        """Put adapters in service that came with the workspace."""
        if self.base is not None:
            team = DEFAULT_TEAM
            skills = frozenset(skill.name for skill in self.library.all(team))
            adapters, model = self.settings.home / "adapters", Path(self.base.path)
            adopt(self.database, adapters, self.base.sha256, team, skills, model)

    def start(self) -> None:
        """Begin to watch the skill folders and to expire old records, on the running loop, whose `asyncio.to_thread`
        uses the workspace's threads from here on."""
        if self._tended:
            return
        self._tended = True
        self.threads.lend()
        for name, seconds, work in (
            ("(skills)", _WATCH_SECONDS, self._tend),
            ("(documents)", _WATCH_SECONDS, self.documents.catch_up),  # may take minutes, which skills must not wait
            ("(records)", _EXPIRE_SECONDS, self._expire),
        ):
            self._watchers.append(asyncio.create_task(self._repeat(name, seconds, work)))

    async def close(self) -> None:
        """Close every part. Gives the workspace back only when no thread writes to it any more."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        await self.learner.close()
        await asyncio.to_thread(self.parts.close)
        await self.threads.close()
        await self.engine.close()
        await asyncio.to_thread(self.recorder.close)
        if "knowledge" in self.__dict__:
            await asyncio.to_thread(self.knowledge.close)
        self.database.dispose()
        self.ownership.release()

    def refresh(self) -> None:
        """Take over what changed in the skill folders. Blocking; called by the watcher and after writes."""
        changes = self.library.refresh()
        for _, skill in sorted(changes.removed):
            # Its documents, examples and records stay: a folder can be gone for a moment (a volume, a checkout).
            # Only DELETE /api/skills deletes them.
            log.info("the folder of skill %s is gone: it serves no more", skill)
        for team, skill in sorted(changes.added | changes.changed):
            log.info("skill %s was read", skill)
            self.documents.outdate(team, skill)
        for team, skill in sorted(changes.documents):
            self.documents.outdate(team, skill)
        for (_, skill), problems in self.library.problems().items():
            if changes:
                log.warning("skill %s cannot be read: %s", skill, problems[0])
        for team in changes.teams:
            self.routes.outdate(team)

    def _tend(self) -> None:
        self.refresh()
        self.routes.catch_up()

    def _expire(self) -> None:
        with self.database.begin() as connection:
            gone = records.expire_records(connection, self.settings.record_days)
        if gone:
            log.info("%d records older than %d days were deleted", gone, self.settings.record_days)
        for folder in (self.settings.data / "exports").glob("*/leaving-*"):  # of a command that was killed
            if time.time() - folder.stat().st_mtime > _LEFT_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)

    async def _repeat(self, name: str, seconds: float, work: Callable[[], None]) -> None:
        while True:
            try:
                await self.threads.at_length(name, work)
            except Exception:
                log.exception("tending the workspace failed; trying again")
            await asyncio.sleep(seconds)


class _Routes:
    """The router, fitted to a team's skills at first use and again whenever they change."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._fitted: set[str] = set()
        self._stale: set[str] = set()

    def embed(self, text: str) -> Vectors:
        return self._workspace.router.embed(text)

    def route(self, team: str, text: str, *, vector: Vectors | None = None) -> Route:
        self.ensure(team)
        there = frozenset(skill.name for skill in self._workspace.library.all(team))
        # A skill that was removed a moment ago gets nothing more, though the router has not been fitted again yet.
        among = None if self.known(team) <= there else there
        return self._workspace.router.route(team, text, vector=vector, among=among)

    def known(self, team: str) -> frozenset[str]:
        """The skills that requests can be routed to now."""
        return frozenset(self._workspace.router.skills(team))

    def learn(self, team: str, text: str, *, skill: str | None, not_skill: str | None = None) -> None:
        self.ensure(team)
        self._workspace.router.learn(team, text, skill=skill, not_skill=not_skill)

    async def ready(self, team: str) -> None:
        """Wait, off the threads that requests share, until the team's requests can be routed."""
        if team not in self._fitted:
            await self._workspace.threads.once(team, ("routes", team), partial(self.ensure, team))

    def ensure(self, team: str) -> None:
        """As `ready`, blocking."""
        if team not in self._fitted:
            with self._lock:
                if team not in self._fitted:
                    self._fit(team)

    def outdate(self, team: str) -> None:
        """Fit again soon; until then the old state serves."""
        self._stale.add(team)

    def catch_up(self) -> None:
        for team in tuple(self._stale & self._fitted):
            with self._lock:
                self._stale.discard(team)  # first: what changes from here on makes it stale again
                try:
                    self._fit(team)
                except Exception:
                    self._stale.add(team)
                    raise

    def _fit(self, team: str) -> None:
        workspace = self._workspace
        known = workspace.router.learned(team)
        with workspace.database.connect() as connection:
            learned = standing(records.list_utterances(connection, team))
            examples = {s.name: records.list_examples(connection, team, s.name) for s in workspace.library.all(team)}
        texts = [
            SkillTexts(
                skill=skill.name,
                title=skill.spec.title,
                description=skill.spec.description,
                utterances=tuple(
                    dict.fromkeys(
                        text
                        for text in (
                            *skill.utterances,
                            *(e.text for e in (*skill.examples, *examples[skill.name]) if e.split != "heldout"),
                            *(text for name, _, text in learned if name == skill.name),
                        )
                        if text.strip()
                    )
                ),
            )
            for skill in workspace.library.all(team)
        ]
        outside = [text for name, not_name, text in learned if name is None and not_name is None]
        wrong = [(text, not_name) for _, not_name, text in learned if not_name is not None]
        workspace.router.fit(team, texts, out_of_scope=outside, wrong=wrong, known=known)
        self._fitted.add(team)


class _Documents:
    """The knowledge base, with each skill's docs/ folder taken in at first use and again whenever it changes."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._guard = threading.Lock()
        self._locks: dict[tuple[str, str], threading.Lock] = {}  # of one skill, while its folder is taken in
        self._current: set[tuple[str, str]] = set()
        self._stale: set[tuple[str, str]] = set()
        self.problems: Mapping[tuple[str, str], tuple[str, ...]] = {}

    def retrieve(
        self, team: str, skill: str, query: str | Sequence[Message], *, limit: int, vector: Vectors | None = None
    ) -> list[Passage]:
        self.ensure(team, skill)
        return self._workspace.knowledge.retrieve(team, skill, query, limit=limit, vector=vector)

    async def ready(self, team: str, skill: str) -> None:
        """Wait, off the threads that requests share, until the skill's folder was taken in once. A caller that gives
        up leaves the reading to go on. Raises NotFound, StoreFailure."""
        if (team, skill) not in self._current:
            await self._workspace.threads.once(team, ("documents", team, skill), partial(self.ensure, team, skill))

    def ensure(self, team: str, skill: str) -> None:
        """As `ready`, blocking."""
        if (team, skill) not in self._current:
            with self._lock(team, skill):
                if (team, skill) not in self._current:
                    self._sync(team, skill)

    def outdate(self, team: str, skill: str) -> None:
        self._stale.add((team, skill))

    def catch_up(self) -> None:
        failed: Exception | None = None
        for key in tuple(self._stale & self._current):
            with self._lock(*key):
                self._stale.discard(key)  # first: what changes from here on makes it stale again
                try:
                    self._sync(*key)
                except NotFound:  # its folder has gone meanwhile
                    self._current.discard(key)
                except Exception as error:  # the others need not wait for it
                    self._stale.add(key)
                    failed = error
        if failed is not None:
            raise failed

    def forget(self, team: str, skill: str) -> None:
        self._current.discard((team, skill))
        self._workspace.knowledge.forget(team, skill)

    def _sync(self, team: str, skill: str) -> None:
        workspace = self._workspace
        folder = workspace.library.get(team, skill).docs
        names = [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if _is_document(p, folder)]
        limit = workspace.settings.upload_bytes
        unreadable: list[str] = []

        def uploads() -> Iterator[Upload]:
            for name in names:
                if workspace.threads.closing.is_set():  # what was stored stays; the next start goes on
                    raise StoreFailure("The workspace is being closed.")
                try:
                    yield Upload(name=name, data=_read(folder / name, limit))
                except OSError as error:  # the version stored before stays, since its name is among `names`
                    unreadable.append(f"{name}: it cannot be read: {error.strerror}")

        results: list[Ingested] = []
        if names:
            results = workspace.knowledge.ingest(team, skill, uploads(), source=FOLDER_SOURCE)
        gone = workspace.knowledge.prune(team, skill, FOLDER_SOURCE, names)
        new = sum(r.status in ("added", "replaced") for r in results)
        if new or gone:
            log.info("skill %s: %d documents read, %d gone", skill, new, len(gone))
        refused = (*unreadable, *(f"{r.name}: {r.problem}" for r in results if r.status == "refused"))
        for problem in refused:
            log.warning("skill %s: %s", skill, problem)
        with self._guard:
            self.problems = {**self.problems, (team, skill): refused}
        self._current.add((team, skill))

    def _lock(self, team: str, skill: str) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault((team, skill), threading.Lock())


def _is_document(path: Path, folder: Path) -> bool:
    return path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)


def _read(path: Path, limit: int) -> bytes:
    """At most one byte more than the limit: enough for the parser to refuse the file by its size."""
    with path.open("rb") as file:
        return file.read(limit + 1)


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def base_model(settings: Settings) -> BaseModel | None:
    """The base model's file, where the platform runs it itself. Raises ModelUnavailable."""
    if settings.engine != "llamacpp":
        return None
    cache = settings.data / "cache"
    path = source.resolve(settings.model, sha256=settings.model_sha256, cache=cache)
    return BaseModel(
        path=str(path),
        name=path.stem,
        sha256=source.content_hash(path, cache=cache),
        reference=settings.model,
    )


def _parts(workspace: Workspace) -> WorkspaceParts:
    """What the learning half uses of the workspace."""
    settings = workspace.settings

    def retrieve(team: str, skill: str, turns: Sequence[Message], limit: int) -> Sequence[Passage]:
        return workspace.documents.retrieve(team, skill, turns, limit=limit)

    def sources(team: str, skill: str) -> list[Source]:
        workspace.documents.ensure(team, skill)
        with workspace.database.connect() as connection:
            owners = {None, *(key.id for key in list_keys(connection, team) if key.role == "admin")}
            owned = {name for name, (_, who) in list_origins(connection, team, skill).items() if who in owners}
        return [
            Source(
                id=document.id,
                digest=document.sha256,
                name=document.name,
                owned=document.name in owned,
                read=partial(workspace.knowledge.text, team, skill, document.name),
            )
            for document in workspace.knowledge.documents(team, skill)
        ]

    def passages(team: str, skill: str) -> list[Passage]:
        workspace.documents.ensure(team, skill)
        return workspace.knowledge.passages(team, skill)

    return WorkspaceParts(
        settings,
        workspace.database,
        base=workspace.base,
        threads=settings.threads or available_cpus(),
        embedder=lambda: workspace.embedder,
        retrieve=retrieve,
        sources=sources,
        passages=passages,
    )


def open_engine(settings: Settings) -> Engine:
    """The engine that the settings name, not started. Raises ModelUnavailable, InvalidInput."""
    if settings.engine == "openai":
        from intern.engines.openai import OpenAIEngine
        from intern.errors import InvalidInput

        if not settings.engine_url or not settings.engine_model:
            raise InvalidInput("INTERN_ENGINE=openai needs INTERN_ENGINE_URL and INTERN_ENGINE_MODEL.")
        return OpenAIEngine(
            settings.engine_url,
            model=settings.engine_model,
            key=settings.engine_key.get_secret_value() if settings.engine_key else "none",
            context=settings.context,
            slots=settings.slots,
            queue=settings.queue,
        )
    from intern.engines.llamacpp import LlamaCppEngine

    base = base_model(settings)
    assert base is not None
    return LlamaCppEngine(
        Path(base.path),
        model=f"{base.name}:{base.sha256[:12]}",
        context=settings.context,
        slots=settings.slots,
        queue=settings.queue,
        threads=settings.threads or available_cpus(),
        gpu_layers=settings.gpu_layers,
    )
