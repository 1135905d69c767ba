"""An export goes to the hub as one commit: privately unless it was said otherwise, and with a reason when it cannot."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from intern.errors import Conflict, InternError, InvalidInput, NotAllowed, NotAuthenticated, StoreFailure
from intern.learning.export.hub import push

REPOSITORY = "acme/triage"


class Hub(ThreadingHTTPServer):
    """Speaks as the hub does, as far as its client asks to upload small files."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.private: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}
        self.messages: list[str] = []
        self.token = "hf_right"
        self.refuse_commit: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.answer(b"")

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers.get("content-length", 0))))

    def answer(self, body: bytes) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        if self.headers.get("authorization") != f"Bearer {hub.token}":
            self.say(401, {"error": "Invalid credentials"})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization', 'acme')}/{asked['name']}"
            if name in hub.private:
                self.say(409, {"error": "exists", "url": f"{hub.url}/{name}"})
                return
            hub.private[name] = asked.get("private", asked.get("visibility") == "private")
            self.say(200, {"url": f"{hub.url}/{name}"})
        elif path == "/api/validate-yaml":  # the front matter of a README.md
            self.say(200, {"errors": [], "warnings": []})
        elif path == f"/api/models/{REPOSITORY}":
            siblings = [{"rfilename": name} for name in hub.files]
            self.say(200, {"id": REPOSITORY, "private": hub.private[REPOSITORY], "siblings": siblings, "sha": "0" * 40})
        elif path == f"/api/models/{REPOSITORY}/preupload/main":
            files = json.loads(body)["files"]
            told = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            self.say(200, {"files": told})
        elif path == f"/api/models/{REPOSITORY}/commit/main":
            if hub.refuse_commit is not None:
                self.say(hub.refuse_commit, {"error": "no"})
                return
            for line in body.splitlines():
                row = json.loads(line)
                if row["key"] == "header":
                    hub.messages.append(row["value"]["summary"])
                elif row["key"] == "file":
                    hub.files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            url = f"{hub.url}/{REPOSITORY}/commit/{'1' * 40}"
            self.say(200, {"commitUrl": url, "commitOid": "1" * 40, "success": True})
        else:
            self.say(404, {"error": f"nothing at {path}"})

    def say(self, status: int, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        if status >= 400:
            self.send_header("x-error-message", body["error"])
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("README.md", "adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_text(f"contents of {name}")
    return tmp_path


def pushed(hub: Hub, folder: Path, **changes: Any) -> str:
    options = {"token": hub.token, "private": True, "message": "triage@v3", "endpoint": hub.url, **changes}
    return push(folder, REPOSITORY, **options)


def test_every_file_arrives_in_one_commit_of_a_private_repository(hub: Hub, folder: Path) -> None:
    address = pushed(hub, folder)
    assert hub.private == {REPOSITORY: True}
    assert hub.messages == ["triage@v3"]
    assert hub.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert address.startswith(f"{hub.url}/{REPOSITORY}")


def test_a_repository_can_be_public_on_purpose_and_is_pushed_to_again(hub: Hub, folder: Path) -> None:
    pushed(hub, folder, private=False)
    (folder / "README.md").write_text("another text")
    pushed(hub, folder, private=False, message="triage@v4")
    assert hub.private == {REPOSITORY: False}
    assert hub.files["README.md"] == b"another text"
    assert hub.messages == ["triage@v3", "triage@v4"]


def test_nothing_private_goes_to_a_repository_that_is_public_already(hub: Hub, folder: Path) -> None:
    hub.private[REPOSITORY] = False
    with pytest.raises(NotAllowed, match="is public"):
        pushed(hub, folder)
    assert hub.files == {}


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [(403, NotAllowed, "may not write"), (412, Conflict, "Push again"), (400, StoreFailure, "refused")],
)
def test_a_refusal_says_why(hub: Hub, folder: Path, status: int, error: type[InternError], words: str) -> None:
    hub.refuse_commit = status
    with pytest.raises(error, match=words):
        pushed(hub, folder)


def test_a_token_that_is_unknown_is_said(hub: Hub, folder: Path) -> None:
    with pytest.raises(NotAuthenticated, match="hf auth login"):
        pushed(hub, folder, token="hf_wrong")


def test_a_hub_that_cannot_be_reached_is_said(hub: Hub, folder: Path) -> None:
    with pytest.raises(StoreFailure, match="cannot be reached"):
        pushed(hub, folder, endpoint="http://127.0.0.1:9")  # the discard port: refused at once


@pytest.mark.parametrize(
    "name", ["triage", "acme/", "/triage", "acme/triage/x", "acme/tri age", "a--b/c", "acme/..", ""]
)
def test_a_repository_is_owner_and_name(folder: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="OWNER/REPO"):
        push(folder, name, token="t", private=True, message="m", endpoint="http://127.0.0.1:9")
