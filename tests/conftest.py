"""Fixtures that several test packages share: the real model once a session, and scripted parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from intern.models.source import resolve
from intern.settings import Settings


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The default base model's GGUF file; it is among the locked packages."""
    return resolve(Settings.model_fields["model"].default)
