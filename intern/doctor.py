"""What this installation chose by itself, and why: one finding a choice, with advice where something is amiss.

In: an open `Workspace`. Out: `Finding`s in the order a person would ask, those of `intern/machine.py` last. It opens
nothing that is not open yet, changes nothing, and never fails: a check that breaks becomes a bad finding. Keys and
passwords are never shown.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from intern.machine import Check, Finding, examine_machine, run_checks, usable_cpus
from intern.models import source
from intern.ownership import read_owner
from intern.settings import Settings
from intern.store import keys
from intern.store.engine import describe
from intern.store.tables import DocumentRow, PassageRow

if TYPE_CHECKING:
    from intern.workspace import Workspace

# Carries the WAL-reset bug: two connections that write or checkpoint at the same moment can corrupt the file.
BROKEN_SQLITE = ((3, 7, 0), (3, 51, 2))
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


async def examine(workspace: Workspace) -> list[Finding]:
    """Every automatic choice of this process and machine. Call it on the event loop that serves."""
    settings = workspace.settings
    health = await _health(workspace)
    checks: list[Check] = [
        ("workspace", lambda: _workspace(workspace)),
        ("address", lambda: _address(settings)),
        ("engine", lambda: _engine(workspace, health)),
        ("embedder", lambda: _embedder(workspace)),
        ("router", lambda: _router(workspace)),
        ("database", lambda: _database(workspace)),
        ("index", lambda: _index(workspace)),
        ("skills", lambda: _skills(workspace)),
        ("documents", lambda: _documents(workspace)),
        ("keys", lambda: _keys(workspace)),
        ("limits", lambda: _limits(settings)),
        ("tracing", lambda: _tracing(settings)),
    ]
    found = await asyncio.to_thread(run_checks, checks)
    return found + await asyncio.to_thread(examine_machine, settings)


async def _health(workspace: Workspace) -> str | None:
    try:
        return await workspace.engine.health()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _workspace(workspace: Workspace) -> Iterator[Finding]:
    yield Finding(
        part="workspace",
        choice=str(workspace.settings.home.resolve()),
        reason=f"INTERN_HOME, or the folder that the command ran in; owned by process {os.getpid()}",
    )


def _address(settings: Settings) -> Iterator[Finding]:
    open_to_all = settings.host not in _LOOPBACK
    owner = read_owner(settings.data)
    yield Finding(
        part="address",
        choice=(owner.url if owner else "") or f"{settings.host}:{settings.port}",
        reason="INTERN_HOST and INTERN_PORT; " + ("other machines can connect" if open_to_all else "this machine only"),
        state="warn" if open_to_all and not settings.allowed_hosts else "ok",
        advice="Keys travel in plain text: put a proxy with TLS in front, and set INTERN_ALLOWED_HOSTS."
        if open_to_all and not settings.allowed_hosts
        else None,
    )


def _engine(workspace: Workspace, health: str | None) -> Iterator[Finding]:
    settings, info = workspace.settings, workspace.engine.info
    yield Finding(
        part="engine",
        choice=info.kind,
        reason=f"INTERN_ENGINE; {health or 'it is up and can serve'}",
        state="warn" if health else "ok",
        advice="It is loaded when the server starts (`intern up`), or its own server has to be started."
        if health
        else None,
    )
    if info.kind == "llamacpp":
        path = source.resolve(settings.model, cache=workspace.cache)
        size = path.stat().st_size
        yield Finding(
            part="model",
            choice=info.model,
            reason=f"INTERN_MODEL={settings.model}: {path} ({size / 1e6:.0f} MB, SHA-256 "
            f"{source.content_hash(path, cache=workspace.cache)})",
        )
    else:
        where = f" at {settings.engine_url}" if settings.engine_url else ""
        yield Finding(part="model", choice=info.model, reason=f"the engine's own{where}")
    threads = (
        f"{settings.threads} threads (INTERN_THREADS)"
        if settings.threads
        else f"{usable_cpus()} threads (all usable CPUs)"
    )
    yield Finding(
        part="context",
        choice=f"{info.context} tokens a request, {info.slots} at the same time",
        reason=f"INTERN_CONTEXT and INTERN_SLOTS; {threads}; {settings.queue} more may wait (INTERN_QUEUE)",
    )


def _embedder(workspace: Workspace) -> Iterator[Finding]:
    reference = workspace.settings.embedder
    if "embedder" not in workspace.__dict__:
        path = source.resolve(reference, cache=workspace.cache)
        yield Finding(part="embedder", choice=reference, reason=f"INTERN_EMBEDDER: {path}; loaded at first use")
        return
    embedder = workspace.embedder
    runtime, why, state = {
        "OnnxEmbedder": ("onnxruntime", "it was exported faithfully, and runs faster and smaller than on torch", "ok"),
        "TorchEmbedder": ("torch", "it cannot be exported to ONNX; this takes more memory and time", "warn"),
    }.get(type(embedder).__name__, (type(embedder).__name__, "it was given by the program", "ok"))
    yield Finding(
        part="embedder",
        choice=f"{reference} on {runtime}",
        reason=f"INTERN_EMBEDDER, {embedder.id[:12]}, {embedder.dimension} dimensions, texts up to "
        f"{embedder.max_tokens} tokens; {why}",
        state="warn" if state == "warn" else "ok",
        advice="Choose an embedder with a plain transformer and mean or cls pooling." if state == "warn" else None,
    )


def _router(workspace: Workspace) -> Iterator[Finding]:
    for team in workspace.library.teams:
        skills = workspace.library.all(team)
        texts = sum(len(skill.utterances) + len(skill.examples) for skill in skills)
        bare = [skill.name for skill in skills if not skill.utterances and not skill.examples]
        yield Finding(
            part=f"router ({team})",
            choice=f"{len(skills)} skills by {texts} utterances and examples, and what was learned since",
            reason=f"may refuse {workspace.settings.refuse_rate:.0%} of what fits a skill (INTERN_REFUSE_RATE)"
            + (f"; only a description to go by: {', '.join(bare)}" if bare else ""),
            state="warn" if bare or not skills else "ok",
            advice="Add utterances.txt or examples to them." if bare else None if skills else "Add a skill.",
        )


def _database(workspace: Workspace) -> Iterator[Finding]:
    name = describe(workspace.database)
    given = workspace.settings.database_url
    place = make_url(given).render_as_string() if given else str(workspace.settings.data / "intern.db")
    broken = False
    if name.startswith("SQLite"):
        version = tuple(int(part) for part in name.split()[1].split("."))
        broken = BROKEN_SQLITE[0] <= version <= BROKEN_SQLITE[1]
    yield Finding(
        part="database",
        choice=name,
        reason=f"{'INTERN_DATABASE_URL' if given else 'INTERN_DATABASE_URL is unset'}: {place}",
        state="bad" if broken else "ok",
        advice="This SQLite can corrupt its file: reinstall the package pysqlite3." if broken else None,
    )


def _index(workspace: Workspace) -> Iterator[Finding]:
    settings, version = workspace.settings, metadata.version("chromadb")
    if settings.chroma_url:
        choice = f"Chroma server at {make_url(settings.chroma_url).render_as_string()}, client {version}"
        reason = "INTERN_CHROMA_URL; keep that server on a private network"
    else:
        choice = f"Chroma {version}, embedded"
        reason = f"INTERN_CHROMA_URL is unset: {settings.data / 'index'}"
    problem = workspace.knowledge.health() if "knowledge" in workspace.__dict__ else None
    yield Finding(
        part="index",
        choice=choice,
        reason=f"{reason}; {problem}" if problem else reason,
        state="bad" if problem else "ok",
        advice="`intern ingest --rebuild` makes it again from the database." if problem else None,
    )


def _skills(workspace: Workspace) -> Iterator[Finding]:
    for team in workspace.library.teams:
        good = workspace.library.all(team)
        yield Finding(
            part=f"skills ({team})",
            choice=", ".join(skill.name for skill in good) or "none",
            reason=f"the good folders below {workspace.library.folder(team)}",
            state="ok" if good else "warn",
            advice=None if good else "Make one with `intern skills new`, or start with `intern init DIR`.",
        )
    for (team, name), problems in sorted(workspace.library.problems().items()):
        serving = any(skill.name == name for skill in workspace.library.all(team))
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        yield Finding(
            part=f"skill {name} ({team})",
            choice="serves its last good version" if serving else "does not serve",
            reason=f"{problems[0]}{more}",
            state="bad",
            advice=f"`intern skills check {name}` lists every problem.",
        )


def _documents(workspace: Workspace) -> Iterator[Finding]:
    counts = sa.select(DocumentRow.team, DocumentRow.skill, sa.func.count()).group_by(
        DocumentRow.team, DocumentRow.skill
    )
    chunks = sa.select(PassageRow.team, PassageRow.skill, sa.func.count()).group_by(PassageRow.team, PassageRow.skill)
    with workspace.database.connect() as connection:
        passages = {(team, skill): count for team, skill, count in connection.execute(chunks)}
        rows = list(connection.execute(counts.order_by(DocumentRow.team, DocumentRow.skill)))
    for team, skill, count in rows:
        yield Finding(
            part=f"documents of {skill} ({team})",
            choice=f"{count} documents, {passages.get((team, skill), 0)} passages",
            reason=f"at most {workspace.settings.passage_tokens} tokens of them reach a prompt (INTERN_PASSAGE_TOKENS)",
        )
    for (team, skill), problems in sorted(workspace.documents.problems.items()):
        for problem in problems:
            yield Finding(
                part=f"documents of {skill} ({team})",
                choice="left out",
                reason=problem,
                state="warn",
                advice="Correct the file in the skill's docs folder, or remove it.",
            )


def _keys(workspace: Workspace) -> Iterator[Finding]:
    with workspace.database.connect() as connection:
        working = [key for key in keys.list_keys(connection) if key.revoked is None]
    admins = sum(key.role == "admin" for key in working)
    yield Finding(
        part="keys",
        choice=f"{len(working)} that work, {admins} of them admin",
        reason="kept as hashes; INTERN_API_KEY " + ("is set" if workspace.settings.api_key else "is unset"),
        state="ok" if admins else "warn",
        advice=None if admins else "`intern keys create NAME --role admin` makes one; so does the next `intern up`.",
    )


def _limits(settings: Settings) -> Iterator[Finding]:
    kept = f"{settings.record_days} days" if settings.record_days else "for ever"
    yield Finding(
        part="limits",
        choice=f"{settings.deadline:g} s a request, {_megabytes(settings.body_bytes)} a body, "
        f"{_megabytes(settings.upload_bytes)} and {settings.upload_pages} pages a document",
        reason=f"settings; unreviewed records are kept {kept} (INTERN_RECORD_DAYS)",
    )


def _tracing(settings: Settings) -> Iterator[Finding]:
    yield Finding(
        part="tracing",
        choice="OpenTelemetry" if settings.otlp_endpoint else "off",
        reason=f"INTERN_OTLP_ENDPOINT is {settings.otlp_endpoint or 'unset'}",
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:g} MB"
