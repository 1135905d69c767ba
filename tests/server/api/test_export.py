"""Exports over HTTP: admins only, below the workspace's data/exports only, told of as they go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_export import SKILL, add_adapter, exporter_for, make_home, open_workspace

from intern.types import Adapter
from intern.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Another one than the server's, whose engine has no base model of its own."""
    opened = open_workspace(make_home(tmp_path_factory.mktemp("home"), model_path))
    yield opened
    asyncio.run(opened.close())


@pytest.fixture(scope="module")
def adapter(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    return add_adapter(workspace, tmp_path_factory.mktemp("loud"))


@pytest.fixture
def exporting(server: Any, workspace: Workspace) -> Iterator[Any]:
    """The server, exporting from `workspace`."""
    server.app.state.exporter = exporter_for(workspace)
    yield server
    del server.app.state.exporter


def error(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["message"]


def test_an_export_answers_with_where_it_lies_and_what_it_keeps(exporting: Any, adapter: Adapter) -> None:
    answer = exporting.http().post(f"/api/adapters/{adapter.name}/export", json={"format": "gguf-q8_0"})
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert (made["name"], made["format"], made["agreement"]["examples"]) == (adapter.name, "gguf-q8_0", 6)
    assert {path.name for path in Path(made["folder"]).iterdir()} == made["files"].keys()
    again = exporting.http().post(f"/api/adapters/{adapter.name}/export", json={"format": "gguf-q8_0"})
    assert error(again) == (409, f"'{made['folder']}' exists. Choose another folder, or replace it (force).")


def test_an_export_is_told_of_as_it_goes_on(exporting: Any, adapter: Adapter) -> None:
    body = {"format": "gguf-q4_0", "folder": "four", "stream": True}
    answer = exporting.http().post(f"/api/adapters/{SKILL}/export", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    frames = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    events = [json.loads(frame) for frame in frames]
    assert [e["stage"] for e in events[:-1] if e["kind"] == "stage"] == ["prompts", "write", "try", "try"]
    assert "Take gguf-q8_0" in events[-1]["error"]["message"], "four bits lose this adapter, and the stream says so"


def test_only_admins_export(exporting: Any, adapter: Adapter) -> None:
    path = f"/api/adapters/{adapter.name}/export"
    assert exporting.http("user").post(path, json={}).status_code == 403
    assert exporting.http(None).post(path, json={}).status_code == 401
    assert exporting.http("blue").post(path, json={}).status_code == 404, "another team's"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"folder": "../../etc"}, "no name for an export"),
        ({"folder": "/etc"}, "no name for an export"),
        ({"format": "onnx"}, "format"),
        ({"to": "/tmp"}, "to"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_is_refused_at_once(
    exporting: Any, adapter: Adapter, body: dict[str, Any], said: str, stream: bool
) -> None:
    status, message = error(
        exporting.http().post(f"/api/adapters/{adapter.name}/export", json={**body, "stream": stream})
    )
    assert status == 400
    assert said in message


def test_a_server_without_a_base_model_of_its_own_exports_nothing(server: Any) -> None:
    status, message = error(server.http().post("/api/adapters/mood@v1/export", json={}))
    assert status == 409
    assert "INTERN_ENGINE=llamacpp" in message
    del server.app.state.exporter
