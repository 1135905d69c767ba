"""Nothing that people set, call or type is undocumented."""

from __future__ import annotations

import re
from pathlib import Path

from intern.settings import Settings
from intern.skill import SkillSpec

DOCS = Path(__file__).parents[1] / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text()


def test_every_setting_is_documented_with_its_default() -> None:
    text = page("operations.md")
    for name, field in Settings.model_fields.items():
        row = re.search(rf"^\| `INTERN_{name.upper()}` \| (.+) \| (.+) \|$", text, re.M)
        assert row is not None, f"docs/operations.md lacks INTERN_{name.upper()}"
        assert row[1] == field.description, name
        default = "unset" if field.default is None else "empty" if field.default == () else f"`{field.default}`"
        assert row[2] == default, name


def test_every_documented_setting_exists() -> None:
    known = {f"INTERN_{name.upper()}" for name in Settings.model_fields}
    for path in [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]:
        assert set(re.findall(r"INTERN_[A-Z0-9_]*[A-Z0-9]", path.read_text())) <= known, path.name


def test_every_key_of_a_skill_is_documented() -> None:
    text = page("skills.md")
    for name, field in SkillSpec.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        for key in [f"{name}.{k}" for k in inner] if inner else [name]:
            assert f"`{key}" in text or f"`{key.split('.')[-1]}`" in text, f"docs/skills.md lacks {key}"
