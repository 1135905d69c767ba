"""`intern adapters export`: the folder lies where it was asked for, as a whole, and nothing else is left."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_export import add_adapter, make_home, open_workspace

from intern.cli import export as module
from intern.cli import run
from intern.errors import Conflict, StoreFailure


@pytest.fixture(scope="module")
def home(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace that nobody owns, with an adapter; commands open it for themselves, with its tiny base model."""
    made = make_home(tmp_path_factory.mktemp("home"), model_path)
    workspace = open_workspace(made)
    add_adapter(workspace, tmp_path_factory.mktemp("loud"))
    asyncio.run(workspace.close())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERN_MODEL", str(made / "tiny.gguf"))
        patch.setenv("INTERN_CONTEXT", "1024")
        yield made


def exports(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "data" / "exports" / "default").iterdir())


def test_a_folder_is_made_where_it_was_asked_for(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "new" / "kind"
    options = ["--to", str(target), "--format", "gguf-q8_0", "--home", str(home), "--json"]
    assert run(["adapters", "export", "kind@v1", *options]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["folder"] == str(target)
    assert {path.name for path in target.iterdir()} == made["files"].keys()
    assert exports(home) == [], "it was moved"
    assert [path.name for path in target.parent.iterdir()] == ["kind"]
    assert run(["adapters", "export", "kind@v1", *options]) == 1
    assert "exists" in capsys.readouterr().err


def test_without_a_place_it_stays_in_the_workspace(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["adapters", "export", "kind", "--format", "gguf-f16", "--home", str(home)]) == 0
    seen = capsys.readouterr()
    assert json.loads(seen.out)["folder"] == str((home / "data" / "exports" / "default" / "kind-v1-gguf-f16").resolve())
    assert '"kind": "exported"' in seen.err


def test_pushing_needs_a_token_before_anything_else(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert run(["adapters", "export", "kind", "--push", "acme/kind", "--home", str(home)]) == 1
    assert "hf auth login" in capsys.readouterr().err
    assert run(["adapters", "export", "kind", "--push", "kind", "--home", str(home)]) == 1
    assert "OWNER/REPO" in capsys.readouterr().err


def test_what_cannot_be_uploaded_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # the discard port: refused
    with pytest.raises(StoreFailure) as caught:
        module._push(tmp_path, "acme/kind", "hf_token", public=False, name="kind@v1")
    assert caught.value.message.endswith(f"The export is in '{tmp_path}'.")


@pytest.mark.parametrize("option", [("--to", "out"), ("--push", "acme/kind")])
def test_through_another_server_nothing_comes_here(option: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["adapters", "export", "kind", *option, "--url", "http://127.0.0.1:9"]) == 1
    assert "stays on the server" in capsys.readouterr().err


# --- putting it in place ---------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("export.json", "model.gguf"):
        (folder / name).write_text(name)
    return folder


def moved(source: Path, target: Path, **options: Any) -> set[str]:
    found = module._move(source, target, force=options.get("force", False))
    return {path.name for path in found.iterdir()}


def test_an_export_is_replaced_as_a_whole(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "export.json").touch()
    (target / "former").touch()
    assert moved(source, target, force=True) == {"export.json", "model.gguf"}
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_what_appeared_meanwhile_is_not_replaced(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(Conflict):
        moved(source, target)
    assert {path.name for path in source.iterdir()} == {"export.json", "model.gguf"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_a_place_that_cannot_be_written_leaves_the_export_where_it_was(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreFailure, match=f"The export is in '{source}'"):
        moved(source, tmp_path / "file" / "target")
    assert (source / "model.gguf").read_text() == "model.gguf"


def test_a_volume_that_is_too_full_is_said_with_numbers(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "model.gguf").write_bytes(bytes(3_000_000))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2_500_000))
    with pytest.raises(StoreFailure, match="has 2 MB free, and 3 MB are needed"):
        module._check_room(source, tmp_path)
