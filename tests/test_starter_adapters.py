"""The adapters that the starter skills come with: whole, made for the default base model, judged better, and in use."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from intern.cli import run
from intern.learning.adapters.adapter import CARD, VERDICT, read_manifest, verify
from intern.learning.adapters.shapes import read_shape
from intern.learning.adapters.shipped import SHIPPED, adopt
from intern.models.source import content_hash
from intern.skill import read_skill
from intern.store.engine import open_database
from intern.store.learning import list_deployments
from intern.types import DEFAULT_TEAM

PROJECT = Path(__file__).parents[1]
ADAPTERS = PROJECT / "adapters"
NAMED: list[str] = json.loads((ADAPTERS / SHIPPED).read_text(encoding="utf-8"))
SKILLS = PROJECT / "docs" / "skills.md"
LARGEST = 10_000_000  # bytes; a clone brings every one


def skill_of(digest: str) -> str:
    return read_manifest(ADAPTERS / digest).skill


def test_a_starter_skill_has_one_at_most() -> None:
    skills = [skill_of(digest) for digest in NAMED]
    assert len(set(skills)) == len(skills) > 0
    assert {path.parent.name for path in PROJECT.glob("skills/*/skill.yaml")} >= set(skills)


@pytest.mark.parametrize("digest", NAMED, ids=skill_of)
def test_it_fits_the_default_base_model_and_was_judged_better(digest: str, model_path: Path) -> None:
    files = verify(ADAPTERS / digest, base=content_hash(model_path), shape=read_shape(model_path))
    assert files.gguf is not None
    assert sum(path.stat().st_size for path in (ADAPTERS / digest).iterdir()) < LARGEST
    verdict = json.loads((ADAPTERS / digest / VERDICT).read_text(encoding="utf-8"))
    assert verdict["ruling"]["decision"] == "promote"


@pytest.mark.parametrize("digest", NAMED, ids=skill_of)
def test_its_card_has_the_scores_and_the_skills_instructions_of_today(digest: str) -> None:
    card = (ADAPTERS / digest / CARD).read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip() for line in card.splitlines() if line.startswith("|")}
    assert {"base model alone", "**this adapter**"} <= rows
    skill = read_skill(PROJECT / "skills" / skill_of(digest))
    assert skill.spec.instructions.strip() in card, "the skill was changed since: train it again"


@pytest.mark.parametrize("digest", NAMED, ids=skill_of)
def test_the_documentation_has_its_scores(digest: str) -> None:
    rivals = json.loads((ADAPTERS / digest / VERDICT).read_text(encoding="utf-8"))["rivals"]
    base, nearest, own = (rivals[name]["score"]["mean"] for name in ("base", "retrieval", "candidate"))
    (row,) = (line for line in SKILLS.read_text().splitlines() if line.startswith(f"| `{skill_of(digest)}` |"))
    assert row.endswith(f"| {base:.2f}, {nearest:.2f}, **{own:.2f}** |")


def test_a_new_workspace_serves_every_one(tmp_path: Path, model_path: Path) -> None:
    assert run(["init", str(tmp_path / "new")]) == 0
    database = open_database(f"sqlite:///{tmp_path / 'new.db'}")
    skills = frozenset(path.name for path in (tmp_path / "new" / "skills").iterdir())
    adopt(database, tmp_path / "new" / "adapters", content_hash(model_path), DEFAULT_TEAM, skills, model_path)
    with database.connect() as connection:
        served = {(row.skill, f"{row.skill}@v{row.version}") for row in list_deployments(connection, DEFAULT_TEAM)}
    database.dispose()
    manifests = [read_manifest(ADAPTERS / digest) for digest in NAMED]
    assert served == {(manifest.skill, manifest.name) for manifest in manifests}


def test_a_wheel_brings_every_file_of_them() -> None:
    tables = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    brought = {path for patterns in tables.values() for pattern in patterns for path in PROJECT.glob(pattern)}
    named = {path for digest in NAMED for path in (ADAPTERS / digest).iterdir()}
    assert named | {ADAPTERS / SHIPPED} <= brought
