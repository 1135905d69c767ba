"""Bringing what was written to the disk itself, so that a power cut leaves whole files behind."""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Bring a file, or a folder's entries, to the disk. Windows neither needs nor offers it for folders.
    Raises OSError."""
    folder = path.is_dir()
    if os.name == "nt" and folder:
        return
    # Windows flushes only what is open for writing.
    handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
