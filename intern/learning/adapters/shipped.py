"""Adapters that come with a workspace: they lie in its folder, and its database knows nothing of their skill yet.

In: the folder, the skills of a team, the base model in service. Out: rows in the store, as if the adapter had been
promoted here, so that a copied workspace serves from the first request on what it was copied with. Only an adapter
whose verdict said promote is taken, only for a skill that never had an adapter here, and only after it was verified;
what an adapter was called where it was trained, it is called here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import Engine as Database

from intern.errors import InternError
from intern.learning.adapters.adapter import AdapterFiles, read_manifest, read_verdict, stored, verify
from intern.store import learning as store
from intern.types import Adapter, Deployment, now

log = logging.getLogger(__name__)


def adopt(database: Database, root: Path, base: str, team: str, skills: frozenset[str]) -> list[Adapter]:
    """Put those below `root` in service that belong to one of `skills`; returns them. `base` is the base model's hash.

    An adapter that cannot be used is left where it lies, and the log says why. Raises StoreFailure.
    """
    with database.begin() as connection:
        known = {adapter.skill for adapter in store.list_adapters(connection, team)}
        known |= {deployment.skill for deployment in store.list_deployments(connection, team)}
        newest: dict[str, Adapter] = {}
        for files in _worthy(root, base, team, skills - known) if skills - known else ():
            adapter = _adapter(files)
            if adapter.skill not in newest or newest[adapter.skill].version < adapter.version:
                newest[adapter.skill] = adapter
        for adapter in newest.values():
            store.put_adapter(connection, adapter)
            reason = "It came with the workspace."
            row = Deployment(
                team=team, skill=adapter.skill, version=adapter.version, changed=now(), by="workspace", reason=reason
            )
            store.deploy(connection, row)
            log.info("skill %s is served by v%d, which came with the workspace", adapter.skill, adapter.version)
    return list(newest.values())


def _worthy(root: Path, base: str, team: str, skills: frozenset[str]) -> Iterator[AdapterFiles]:
    for folder in stored(root):
        try:
            manifest = read_manifest(folder)
            if manifest.team != team or manifest.skill not in skills:
                continue
            files = verify(folder, base=base)
            ruling = (read_verdict(folder) or {}).get("ruling")
        except InternError as error:
            log.info("the adapter %s is not used: %s", folder.name, error.message)
            continue
        if isinstance(ruling, dict) and ruling.get("decision") == "promote" and files.gguf is not None:
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
