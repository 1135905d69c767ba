"""An export appears whole, tried and described, or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from made_export import SECRET, VERDICT, add_adapter, exporter_for, make_home, open_workspace

from intern.errors import (
    AdapterRefused,
    Conflict,
    InternError,
    InvalidInput,
    NotFound,
    StoreFailure,
    TrainingUnavailable,
)
from intern.learning.export import card
from intern.learning.export.describe import describe
from intern.learning.export.exporter import Exporter
from intern.learning.export.formats import Agreement
from intern.learning.train.job import Event
from intern.types import Adapter
from intern.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    opened = open_workspace(make_home(tmp_path_factory.mktemp("home"), model_path))
    yield opened
    asyncio.run(opened.close())


@pytest.fixture(scope="module")
def adapter(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    return add_adapter(workspace, tmp_path_factory.mktemp("loud"))


@pytest.fixture
def exporter(workspace: Workspace) -> Iterator[Exporter]:
    shutil.rmtree(workspace.settings.data / "exports", ignore_errors=True)
    yield exporter_for(workspace)
    left = [path.name for path in (workspace.settings.data / "exports").glob("*/.*")]
    assert not left, "an export leaves nothing behind"


def export(exporter: Exporter, name: str, *, team: str = "default", **options: Any) -> list[Event]:
    async def collect() -> list[Event]:
        async with aclosing(exporter.export(team, name, **options)) as events:
            return [event async for event in events]

    return asyncio.run(collect())


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("format", "files"),
    [
        ("gguf-q8_0", {"kind-v1.q8_0.gguf", "chat_template.jinja"}),
        (
            "peft",
            {
                *("adapter_config.json", "adapter_model.safetensors"),
                *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
            },
        ),
    ],
)
def test_an_export_is_tried_described_and_told_of(
    exporter: Exporter, workspace: Workspace, adapter: Adapter, format: Any, files: set[str]
) -> None:
    events = export(exporter, adapter.name, format=format)
    assert [e.stage for e in events if e.kind == "stage"] == ["prompts", "write", "try", "try"]
    assert [e.step for e in events if e.kind == "answers"] == [*range(1, 7), *range(1, 7)]
    assert events[-1].kind == "exported"
    made = events[-1].numbers
    folder = Path(made["folder"])
    assert folder == (workspace.settings.data / "exports" / "default" / f"kind-v1-{format}").resolve()
    assert set(contents(folder)) == files | {"README.md", "schema.json", "export.json"}
    assert made["files"] == {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    report = json.loads((folder / "export.json").read_text())
    assert (report["name"], report["digest"], report["format"]) == (adapter.name, adapter.digest, format)
    assert report["agreement"] == made["agreement"]
    assert made["agreement"]["examples"] == 6
    assert made["agreement"]["fields"] is not None
    for path in folder.iterdir():
        assert SECRET.encode() not in path.read_bytes(), path.name
        assert str(workspace.settings.home).encode() not in path.read_bytes(), path.name
    if format == "peft":
        stored = workspace.parts.adapters_folder / adapter.digest
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            assert contents(folder)[name] == contents(stored)[name]


def test_a_card_says_what_it_is_how_good_and_how_to_load_it(exporter: Exporter, adapter: Adapter) -> None:
    made = export(exporter, "kind", format="gguf-f16", folder="serving")[-1].numbers
    assert (made["name"], Path(made["folder"]).name) == (adapter.name, "serving"), "a skill's name: what serves it"
    folder = Path(made["folder"])
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front) == {
        "license": "apache-2.0",
        "library_name": "gguf",
        "pipeline_tag": "text-generation",
        "tags": ["llama-intern", "lora", "gguf"],
    }
    for said in (
        "# Kinds of leave (kind@v1)",
        "60 examples to train on, 6 held out and never trained on,\n1 left out",
        "| **this adapter** | 0.900 [0.810, 0.970] | 100.0% |",
        "| base model alone | 0.250 [0.810, 0.970] | 100.0% |",
        "| note | 0.900 [0.810, 0.970] | 0.900 [0.810, 0.970] |",
        "promote. 0.90 against 0.25 for the base model.",
        "Recipe `lora`, rank 2, alpha 4, epochs 3.0; trained",
        "````text\nSay the kind.\n```\nOnly that.\n````",
        "llama-server -m kind-v1.f16.gguf --jinja",
        f"`{adapter.base}`",
    ):
        assert said in body, said


def test_a_base_from_the_hub_is_linked(workspace: Workspace, adapter: Adapter) -> None:
    chosen = exporter_for(workspace)._choose("default", adapter.name)
    base = chosen.base.model_copy(update={"reference": "hub:acme/small/weights/small.gguf@v2"})
    agreement = Agreement(format="peft", examples=6, same_prompts=6, tokens=1, exact=1, changed=0)
    text = card.render(describe(chosen.files, chosen.skill, base, None, {}, agreement=agreement))
    front = yaml.safe_load(text.split("---\n")[1])
    assert (front["base_model"], front["base_model_relation"]) == ("acme/small", "adapter")
    assert 'gguf_file="weights/small.gguf"' in text
    assert "--max-lora-rank 8" in text


def test_a_crash_between_taking_away_and_putting_in_place_loses_no_export(exporter: Exporter, tmp_path: Path) -> None:
    """As if the process had ended between the two renames, then after both."""
    (tmp_path / ".former-here").mkdir()
    (tmp_path / ".former-here" / "export.json").write_text("old")
    exporter._sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert (tmp_path / "here" / "export.json").read_text() == "old"
    (tmp_path / ".former-here").mkdir()
    exporter._sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_the_card_of_an_adapter_itself_loads_it_onto_its_base_and_speaks_of_no_export(
    workspace: Workspace, adapter: Adapter
) -> None:
    chosen = exporter_for(workspace)._choose("default", adapter.name)
    text = card.render(describe(chosen.files, chosen.skill, chosen.base, chosen.dataset, VERDICT))
    assert f"# {chosen.skill.spec.title} ({adapter.name})" in text
    assert "| **this adapter** |" in text
    assert "AutoTokenizer.from_pretrained(base" in text
    assert f"llama-server -m {Path(chosen.base.path).name} --lora adapter.gguf --jinja" in text
    assert "export" not in text


def test_a_card_has_the_instructions_that_were_trained_with_not_todays(workspace: Workspace, adapter: Adapter) -> None:
    chosen = exporter_for(workspace)._choose("default", adapter.name)
    known = chosen.files.manifest.model_copy(update={"instructions": "Say it.\n````\nOnly that."})
    files = replace(chosen.files, manifest=known)
    text = card.render(describe(files, chosen.skill, chosen.base, chosen.dataset, VERDICT))
    assert "word for word, and then the request as the user's message:\n\n`````text\nSay it." in text
    assert chosen.skill.spec.instructions.strip() not in text


def test_what_lies_there_is_replaced_only_on_purpose_and_only_by_a_good_export(
    exporter: Exporter, workspace: Workspace, adapter: Adapter
) -> None:
    folder = workspace.settings.data / "exports" / "default" / "here"
    folder.mkdir(parents=True)
    for name in ("export.json", "former.gguf"):
        (folder / name).write_text(name)
    before = contents(folder)
    with pytest.raises(Conflict, match="exists"):
        export(exporter, adapter.name, format="gguf-q8_0", folder="here")
    with pytest.raises(AdapterRefused, match="Take gguf-q8_0"):
        export(exporter, adapter.name, format="gguf-q4_0", folder="here", force=True)
    assert contents(folder) == before
    export(exporter, adapter.name, format="gguf-f16", folder="here", force=True)
    assert (folder / "kind-v1.f16.gguf").exists()
    assert not (folder / "former.gguf").exists()
    precious = folder.with_name("precious")
    precious.mkdir()
    with pytest.raises(Conflict, match="is no export"):
        export(exporter, adapter.name, format="gguf-q8_0", folder="precious", force=True)


def begin(exporter: Exporter, adapter: Adapter, kind: str) -> None:
    """Leave an export at its first event of that kind."""

    async def leave() -> None:
        async with aclosing(exporter.export("default", adapter.name, format="gguf-q8_0")) as events:
            async for event in events:
                if event.kind == kind:
                    return

    asyncio.run(leave())


def test_an_export_that_is_cancelled_leaves_nothing(exporter: Exporter, workspace: Workspace, adapter: Adapter) -> None:
    begin(exporter, adapter, "answers")
    assert list((workspace.settings.data / "exports" / "default").iterdir()) == []


def test_what_a_crash_left_is_cleared_away(exporter: Exporter, workspace: Workspace, adapter: Adapter) -> None:
    left = workspace.settings.data / "exports" / "default" / ".exporting-1"
    (left / "export").mkdir(parents=True)
    begin(exporter, adapter, "stage")
    assert not left.exists()


def test_a_disk_that_is_too_full_is_said_with_numbers_before_anything_is_written(
    exporter: Exporter, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=7_000_000))
    with pytest.raises(StoreFailure, match=r"needs 5\d MB .* 7 MB are free"):
        export(exporter, adapter.name, format="gguf-q8_0")


def test_a_process_that_dies_is_told_of(
    exporter: Exporter, workspace: Workspace, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(InternError, match="process ended with code 1"):
        export(exporter, adapter.name, format="gguf-q8_0")


@pytest.mark.parametrize("folder", ["../out", "/tmp/out", "a/b", "..", ".hidden", "", "x" * 101, "a\x00b"])
def test_a_folder_is_a_name_and_no_path(exporter: Exporter, adapter: Adapter, folder: str) -> None:
    with pytest.raises(InvalidInput, match="no name for an export"):
        export(exporter, adapter.name, format="peft", folder=folder or " ")


def test_only_what_is_there_and_ones_own_can_be_exported(exporter: Exporter, adapter: Adapter) -> None:
    with pytest.raises(NotFound, match="kind@v9"):
        export(exporter, "kind@v9", format="peft")
    with pytest.raises(NotFound):
        export(exporter, adapter.name, format="peft", team="blue")
    with pytest.raises(NotFound):
        export(exporter, "unheard-of", format="peft")


def test_damaged_files_are_refused(exporter: Exporter, workspace: Workspace, tmp_path: Path) -> None:
    damaged = add_adapter(workspace, tmp_path / "quiet", quiet=True)
    file = workspace.parts.adapters_folder / damaged.digest / "adapter_model.safetensors"
    os.truncate(file, file.stat().st_size - 4)
    with pytest.raises(AdapterRefused, match="changed after it was stored"):
        export(exporter, damaged.name, format="peft")


def test_a_library_that_is_missing_is_named(
    exporter: Exporter, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else name)
    with pytest.raises(TrainingUnavailable, match=r"gguf, which this installation lacks.*make train"):
        export(exporter, adapter.name, format="gguf-q8_0")
