"""Adapters on disk: an immutable LoRA version of a skill, content-addressed, checked whenever it is loaded.

    adapters/<digest>/
        adapter_config.json, adapter_model.safetensors      the LoRA in PEFT's format (vLLM, a merge)
        adapter.gguf                                        the same for llama.cpp, where it was converted
        manifest.json                                       where it comes from; name, size and SHA-256 of those files
        verdict.json                                        what its evaluation said; written later
        README.md                                           the same for people: its model card; written later

`<digest>` is the first 32 hex digits of the manifest's SHA-256, and the manifest names every other file with its own:
no byte can change without the name. Only verdict and card, which come after the artifact is made, lie outside the
digest and may be replaced; nothing that decides what is loaded is read from them.

In: a finished PEFT folder and its provenance. Out: `AdapterFiles`, or AdapterRefused with what is wrong. A folder of
unknown origin passes the same checks. Knows nothing of engines, deployments or the database, which keeps the digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from intern.errors import AdapterRefused, StoreFailure
from intern.learning.adapters.gguf_lora import GGUF, check_gguf
from intern.learning.adapters.lora import Lora, read_lora
from intern.learning.adapters.manifest import (
    FILES,
    MANIFEST,
    MAX_BYTES,
    File,
    Manifest,
    Provenance,
    as_json,
    digest_of,
    render,
)
from intern.learning.adapters.shapes import BaseShape
from intern.learning.disk import sync
from intern.types import Json

VERDICT = "verdict.json"
CARD = "README.md"

_DIGEST = re.compile(r"[0-9a-f]{32}")
_STORING = ".storing-"
# Formats that run code when they are loaded.
_CODE = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".py", ".so"}


@dataclass(frozen=True)
class AdapterFiles:
    """A folder that was verified just now. `folder` is what vLLM loads, `gguf` what llama.cpp loads."""

    folder: Path
    manifest: Manifest
    lora: Lora

    @property
    def digest(self) -> str:
        return self.folder.name

    @property
    def name(self) -> str:
        """skill@vN"""
        return self.manifest.name

    @property
    def gguf(self) -> Path | None:
        return self.folder / GGUF if GGUF in self.manifest.files else None


def store_adapter(root: Path, source: Path, provenance: Provenance) -> AdapterFiles:
    """Copy a PEFT folder's adapter, and its adapter.gguf if there is one, below `root`; returns it verified.

    A crash leaves either nothing that `stored` lists, or the whole adapter. The same files with the same provenance are
    stored once. `source` is left alone, and only the adapter's own files are taken from it.
    Raises AdapterRefused when the folder does not pass, InvalidInput for a provenance that is no JSON or far too large,
    StoreFailure when the disk refuses.
    """
    names = _entries(source)
    _check_lora(source, names, None)
    temporary = root / f"{_STORING}{uuid.uuid4().hex}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        files = {name: _copy(source / name, temporary / name) for name in sorted(FILES & names)}
        manifest = Manifest(**dict(provenance), files=files)
        text = render(manifest)
        _write(temporary / MANIFEST, text)
        sync(temporary)
        target = root / digest_of(text)
        try:
            os.rename(temporary, target)
        except OSError:  # the same content was stored before, or by another process meanwhile
            if not target.is_dir():
                raise
        sync(root)
    except OSError as error:
        raise StoreFailure(f"The adapter cannot be stored in '{root}': {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return verify(target)


def verify(folder: Path, *, base: str | None = None, shape: BaseShape | None = None) -> AdapterFiles:
    """Check an adapter before it is loaded: contents against digest, no stray file, a sound LoRA of the right base.

    `base` is the content hash of the base model in service, which the adapter must have been trained on; with `shape`
    (`shapes.read_shape`) every tensor must fit that model, and llama.cpp's file hold the values of PEFT's. Whatever
    loads an adapter gives both. Raises AdapterRefused.
    """
    names = _entries(folder)
    manifest = read_manifest(folder)
    known = {*manifest.files, MANIFEST}
    if strange := names - known - {VERDICT, CARD}:
        raise _refused(folder, f"it holds '{min(strange)}', which its manifest does not name. Remove that file")
    if missing := known - names:
        raise _refused(folder, f"'{min(missing)}' is missing. Restore it from a backup, or train again")
    for name, file in manifest.files.items():
        if _fingerprint(folder, name) != file:
            raise _refused(folder, f"'{name}' was changed after it was stored. Restore it from a backup")
    if base is not None and base != manifest.base.sha256:
        raise _refused(
            folder,
            f"it was trained on the base model {manifest.base.name} ({manifest.base.sha256[:12]}…), and another one "
            f"({base[:12]}…) is in service. Train the skill again, or serve the former base model",
        )
    return AdapterFiles(folder, manifest, _check_lora(folder, names, shape))


def stored(root: Path) -> list[Path]:
    """The folders of all adapters below `root`, unverified."""
    return sorted(path for path in root.iterdir() if _DIGEST.fullmatch(path.name)) if root.is_dir() else []


def read_manifest(folder: Path) -> Manifest:
    """What an adapter says of itself; its files are not looked at. Raises AdapterRefused."""
    try:
        with (folder / MANIFEST).open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _refused(folder, f"its {MANIFEST} cannot be read: {error.strerror or error}") from error
    if len(text) > MAX_BYTES or digest_of(text) != folder.name:
        raise _refused(folder, f"its {MANIFEST} is not the one it was stored with, or the folder was renamed")
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the whole"
        reason = f"{where}: {problem['msg']}"
        raise _refused(folder, f"its {MANIFEST} cannot be used ({reason}). Did a newer version make it?") from error


def sweep(root: Path, *, runs: Mapping[str, datetime] | None = None, named: Collection[str] = ()) -> int:
    """Remove what a crash left half stored; returns how many. Not while another process may be storing.

    Also adapters of `runs`, by their manifests, whose digest is not among `named`: they were stored, and the database
    did not come to know of them. `runs` says when each ended: what was made later, a database that was restored knows
    nothing of, and the one that it stands in for does. Whatever else lies there is left.
    """
    runs = runs or {}
    left = list(root.glob(f"{_STORING}*"))
    for folder in stored(root) if runs else ():
        with suppress(AdapterRefused):  # nobody can tell whose it is
            made = read_manifest(folder)
            if folder.name not in named and made.run in runs and made.created <= runs[made.run]:
                left.append(folder)
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return len(left)


def write_verdict(folder: Path, verdict: Mapping[str, Json]) -> None:
    """Keep an evaluation beside its adapter, in place of an earlier one. Raises StoreFailure."""
    _replace(folder, VERDICT, as_json(verdict))


def write_card(folder: Path, card: str) -> None:
    """Keep a model card beside its adapter, in place of an earlier one. Raises StoreFailure."""
    _replace(folder, CARD, card.encode("utf-8", "replace"))


def _replace(folder: Path, name: str, text: bytes) -> None:
    # Beside the folder, so that a crash leaves nothing strange inside it.
    temporary = folder.with_name(f"{_STORING}{uuid.uuid4().hex}")
    try:
        temporary.mkdir()
        _write(temporary / name, text)
        os.replace(temporary / name, folder / name)
        sync(folder)
    except OSError as error:
        raise StoreFailure(f"'{folder / name}' cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_verdict(folder: Path) -> dict[str, Json] | None:
    """The verdict beside an adapter, or None. Raises StoreFailure when it cannot be read."""
    try:
        verdict = json.loads((folder / VERDICT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise StoreFailure(f"'{folder / VERDICT}' cannot be read: {error}.") from error
    return verdict if isinstance(verdict, dict) else None


# --- inside --------------------------------------------------------------------------------------------------


def _entries(folder: Path) -> set[str]:
    """The names in a folder of nothing but plain, harmless files. Raises AdapterRefused."""
    try:
        if folder.is_symlink():
            raise _refused(folder, "it is a symbolic link. Put the folder itself there")
        names = set()
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.is_file(follow_symlinks=False):
                    raise _refused(folder, f"'{entry.name}' is no plain file (a link or a folder). Remove it")
                if Path(entry.name).suffix.lower() in _CODE:
                    raise _refused(folder, f"'{entry.name}' can run code when it is loaded. Remove that file")
                names.add(entry.name)
    except OSError as error:
        raise _refused(folder, f"it cannot be read: {error.strerror or error}") from error
    return names


def _check_lora(folder: Path, names: Collection[str], shape: BaseShape | None) -> Lora:
    lora = read_lora(folder, shape)
    if GGUF in names:
        check_gguf(folder / GGUF, lora, shape)
    return lora


def _fingerprint(folder: Path, name: str) -> File:
    try:
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return File(sha256=digest, size=file.tell())
    except OSError as error:
        raise _refused(folder, f"'{name}' cannot be read: {error.strerror or error}") from error


def _copy(source: Path, target: Path) -> File:
    """Copy a file to the disk itself, and say what was written."""
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as old, target.open("xb") as new:
        while block := old.read(1 << 20):
            new.write(block)
            digest.update(block)
            size += len(block)
        new.flush()
        os.fsync(new.fileno())
    return File(sha256=digest.hexdigest(), size=size)


def _write(path: Path, text: bytes) -> None:
    with path.open("xb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _refused(folder: Path, reason: str) -> AdapterRefused:
    return AdapterRefused(f"{reason}.", adapter=folder.name)
