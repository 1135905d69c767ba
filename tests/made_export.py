"""A workspace with a tiny base model of its own and an adapter that changes what it says: what exports are tried on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from made_adapters import keep_adapter
from made_base import loud_tensors, write_tiny_base
from made_lora import write_lora

from intern.learning.adapters.adapter import store_adapter, write_verdict
from intern.learning.adapters.gguf_lora import GGUF, convert
from intern.learning.adapters.lora import read_lora
from intern.learning.adapters.manifest import Base, Provenance
from intern.learning.adapters.shapes import read_shape
from intern.learning.export.exporter import Exporter
from intern.models.fake import HashEmbedder
from intern.settings import Settings
from intern.skill import write_skill
from intern.store import learning as store
from intern.types import Adapter, Dataset, Deployment, Dropped, Example, Json, new_id, now
from intern.workspace import Workspace

SKILL = "kind"
SECRET = "held-out-secret"  # stands in a held-out example: nothing of those may leave
KIND = {
    "type": "object",
    "properties": {"kind": {"enum": ["paid", "unpaid"]}, "note": {"type": "string", "maxLength": 12}},
    "required": ["kind", "note"],
    "additionalProperties": False,
}
INTERVAL = {"mean": 0.9, "low": 0.81, "high": 0.97, "n": 40, "groups": 40}
VERDICT: dict[str, Json] = {
    "rivals": {
        name: {
            "n": 40,
            "valid": 1.0,
            "score": {**INTERVAL, "mean": mean},
            "metrics": {"kind": INTERVAL, "note": INTERVAL},
        }
        for name, mean in (("base", 0.25), ("candidate", 0.9))
    },
    "ruling": {"decision": "promote", "reason": "0.90 against 0.25 for the base model."},
}


def make_home(home: Path, like: Path) -> Path:
    """A workspace with one skill and, beside it, the base model's file. `like`: the default base."""
    rows = [{"input": f"request {n} {SECRET}", "output": {"kind": "paid", "note": "x"}} for n in range(6)]
    about = {
        "title": "Kinds of leave",
        "description": "Says which kind.",
        "instructions": "Say the kind.\n```\nOnly that.",
    }
    write_skill(home / "skills", SKILL, about, schema=KIND, examples=rows)
    write_tiny_base(like, home / "tiny.gguf")
    return home


def open_workspace(home: Path) -> Workspace:
    return Workspace(Settings(home=home, model=str(home / "tiny.gguf"), context=1024), embedder=HashEmbedder())


def add_adapter(workspace: Workspace, scratch: Path, *, team: str = "default", quiet: bool = False) -> Adapter:
    """A version of the skill that was trained, evaluated and put into service. `quiet`: it changes next to nothing."""
    assert workspace.base is not None
    shape = read_shape(Path(workspace.base.path))
    weights = {name: values * (1e-4 if quiet else 1) for name, values in loud_tensors(shape).items()}
    source = write_lora(scratch, weights)
    convert(read_lora(source, shape), shape, source / GGUF)
    rows = [Example(id=f"ex_{n}", input=f"ask {n} {SECRET}", output={"kind": "paid", "note": "x"}) for n in range(6)]
    dropped = (Dropped(example="ex_9", reason="duplicate", detail="the same as ex_1"),)
    dataset = Dataset(
        id=new_id("ds"), team=team, skill=SKILL, digest="d" * 64, created=now(), train=60, heldout=6, dropped=dropped
    )
    bare = Adapter(
        team=team, skill=SKILL, version=0, digest="", base=workspace.base.sha256, dataset=dataset.id, created=now()
    )
    items = [store.Item(example=row, key=row.id, split="heldout") for row in rows]
    with workspace.database.begin() as connection:
        dataset = store.add_dataset(connection, dataset, items)
        adapter = keep_adapter(connection, bare.model_copy(update={"dataset": dataset.id}))
    provenance = Provenance(
        team=team,
        skill=SKILL,
        name=adapter.name,
        base=Base(name="tiny", sha256=workspace.base.sha256, dtype="float32, dequantised"),
        dataset=dataset.digest,
        run="run_1",
        recipe={"name": "lora", "rank": 2, "alpha": 4, "epochs": 3.0},
        created=adapter.created,
    )
    files = store_adapter(workspace.parts.adapters_folder, source, provenance)
    write_verdict(files.folder, VERDICT)
    adapter = adapter.model_copy(update={"digest": files.digest})
    with workspace.database.begin() as connection:
        store.update_adapter(connection, adapter)
        store.deploy(
            connection, Deployment(team=team, skill=SKILL, version=adapter.version, previous=None, changed=now())
        )
    return adapter


def exporter_for(workspace: Workspace, **more: Any) -> Exporter:
    settings = workspace.settings
    return Exporter(
        workspace.parts,
        workspace.library,
        workspace.engine,
        settings.data / "exports",
        **more,
    )
