"""The default embedder, exported once for all test sessions of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from intern.models.embedder import Embedder
from intern.models.loading import open_embedder
from intern.settings import Settings


@pytest.fixture(scope="session")
def models_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beside the sessions' folders: the export's folder carries the content hash, so it never goes stale."""
    return tmp_path_factory.getbasetemp().parent / "exported-models"


@pytest.fixture(scope="session")
def embedder(models_cache: Path) -> Embedder:
    return open_embedder(Settings.model_fields["embedder"].default, models_cache, 2)
