"""What a trainer leaves on disk: nothing passes for whole that a power cut left empty, and nothing half made stays.

In: folders that a trainer has just written, checkpoints and unpacked base models that an earlier process left. Out:
whether they are whole, or theirs to remove. Knows nothing of models: needs neither torch nor safetensors.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from intern.learning.disk import sync

STATE = "trainer_state.json"  # what the trainer writes last into a checkpoint
UNPACKING = ".base-"  # what a folder is called into which a base model is being unpacked
_CHECKPOINT = re.compile(r"checkpoint-[0-9]+")


def settle(folder: Path) -> None:
    """Bring every file below `folder`, and the folder's own entry, to the disk itself. Raises OSError."""
    for place, _, names in os.walk(folder):
        for name in names:
            sync(Path(place) / name)
        sync(Path(place))
    sync(folder.parent)


def keep_only(checkpoint: Path) -> None:
    """Bring a checkpoint to the disk, and remove those before it only then. Raises OSError."""
    settle(checkpoint)
    for place in checkpoint.parent.iterdir():
        if place != checkpoint and _CHECKPOINT.fullmatch(place.name):
            shutil.rmtree(place, ignore_errors=True)


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end: its last file is there, and no other is empty or cut short."""
    try:
        json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        return all(_is_complete(file) for file in checkpoint.rglob("*") if file.is_file())
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def unpacking(cache: Path) -> FileLock:
    """Held by whoever unpacks a base model below `cache`; the system frees it at any death."""
    return FileLock(cache / ".unpacking.lock")


def sweep_unpacked(cache: Path) -> None:
    """Remove base models below `cache` that were being unpacked when their process was killed; none while another one
    is being unpacked."""
    if not any(cache.glob(f"{UNPACKING}*")):
        return
    with suppress(Timeout), unpacking(cache).acquire(timeout=0):
        for folder in cache.glob(f"{UNPACKING}*"):
            shutil.rmtree(folder, ignore_errors=True)


def _is_complete(file: Path) -> bool:
    if file.suffix == ".safetensors":
        return _safetensors_bytes(file) == file.stat().st_size
    if file.suffix in (".pt", ".pth"):
        return zipfile.is_zipfile(file)  # its directory stands at its end
    return True


def _safetensors_bytes(file: Path) -> int:
    """How long a file of tensors is by its own header: 8 bytes with the header's length, the header, the tensors."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > file.stat().st_size:
            return -1
        header = json.loads(opened.read(length))
    ends = [int(tensor["data_offsets"][1]) for name, tensor in header.items() if name != "__metadata__"]
    return 8 + length + max(ends, default=0)
