"""Adapters that come with a workspace: named in its adapters/shipped.json, while its database knows nothing of them.

In: the folder, the skills of a team, the base model in service. Out: rows in the store, as if the adapter had been
promoted here, so that a new workspace serves from the first request on what it was delivered with. Only for a skill of
which nothing was ever put in service here, and only after it was verified. What an adapter was called where it was
trained, it is called here, unless an adapter trained here has that number or a later one: then it gets the next. What
was trained here and lies in the same folder is none of this module's business: whether it serves is for the database
alone to say.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy.engine import Connection
from sqlalchemy.engine import Engine as Database

from intern.errors import InternError, ModelUnavailable
from intern.learning.adapters.adapter import AdapterFiles, read_manifest, verify
from intern.learning.adapters.shapes import BaseShape, read_shape
from intern.store import learning as store
from intern.store.lock import serialise
from intern.types import Adapter, Deployment, now

log = logging.getLogger(__name__)

SHIPPED = "shipped.json"
_DIGEST = re.compile(r"[0-9a-f]{32}")


def adopt(
    database: Database, root: Path, base: str, team: str, skills: frozenset[str], model: Path | None = None
) -> list[Adapter]:
    """Put those below `root` in service that belong to one of `skills`; returns them. `base` is the base model's hash,
    `model` its file or folder, whose shape they must fit.

    An adapter that cannot be used is left where it lies, and the log says why. Raises StoreFailure.
    """
    named = named_below(root)
    if not named:
        return []
    try:
        shape = None if model is None else read_shape(model)
    except ModelUnavailable as error:
        log.info("the adapters in '%s' are not used: %s", root, error.message)
        return []
    with database.begin() as connection:
        serialise(connection, "adopt adapters")  # servers may start at the same moment
        decided = {deployment.skill for deployment in store.list_deployments(connection, team)}
        newest: dict[str, Adapter] = {}
        for files in _worthy([root / digest for digest in named], base, shape, team, skills - decided):
            adapter = _adapter(files)
            if adapter.skill not in newest or newest[adapter.skill].version < adapter.version:
                newest[adapter.skill] = adapter
        adopted = [_numbered(connection, adapter) for adapter in newest.values()]
        for adapter in adopted:
            store.put_adapter(connection, adapter)
            reason = "It came with the workspace."
            row = Deployment(
                team=team, skill=adapter.skill, version=adapter.version, changed=now(), by="workspace", reason=reason
            )
            store.deploy(connection, row)
            log.info("skill %s is served by v%d, which came with the workspace", adapter.skill, adapter.version)
    return adopted


def named_below(root: Path) -> list[str]:
    """The digests of the adapters that came with a workspace."""
    try:
        named = json.loads((root / SHIPPED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        log.warning("'%s' cannot be read: %s", root / SHIPPED, error)
        return []
    good = isinstance(named, list) and all(isinstance(name, str) and _DIGEST.fullmatch(name) for name in named)
    if not good:
        log.warning("'%s' is no list of adapters' digests", root / SHIPPED)
    return named if good else []


def _worthy(
    folders: Sequence[Path], base: str, shape: BaseShape | None, team: str, skills: frozenset[str]
) -> Iterator[AdapterFiles]:
    for folder in folders:
        try:
            manifest = read_manifest(folder)
            if manifest.team != team or manifest.skill not in skills:
                continue
            files = verify(folder, base=base, shape=shape)
        except InternError as error:
            log.info("the adapter %s is not used: %s", folder.name, error.message)
            continue
        if files.gguf is not None:
            yield files


def _adapter(files: AdapterFiles) -> Adapter:
    manifest = files.manifest
    return Adapter(
        team=manifest.team,
        skill=manifest.skill,
        version=int(manifest.name.rpartition("@v")[2]),
        digest=files.digest,
        base=manifest.base.sha256,
        recipe=str(manifest.recipe.get("name", "")),
        decision="promote",
        created=manifest.created,
    )


def _numbered(connection: Connection, adapter: Adapter) -> Adapter:
    """The adapter under its own number, or under the next where one trained here has that or a later one."""
    last = store.last_version(connection, adapter.team, adapter.skill)
    return adapter.model_copy(update={"version": max(adapter.version, last + 1)})
