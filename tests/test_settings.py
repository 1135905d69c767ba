"""Settings as people really give them."""

from __future__ import annotations

import pytest

from intern.settings import Settings


@pytest.mark.parametrize("name", ["api_key", "engine_key", "teacher_key"])
def test_a_key_that_was_read_from_a_file_loses_its_line_break(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"INTERN_{name.upper()}", " sk-intern-0123456789abcdef\n")
    key = getattr(Settings(), name)
    assert key.get_secret_value() == "sk-intern-0123456789abcdef"
    assert "0123" not in repr(Settings())
