"""What examples and documents may keep in training is what the skill's owners wrote, whoever else brought what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from made_lora import base_folder

from intern.engines.fake import FakeEngine
from intern.knowledge import Upload
from intern.learning.loop.contracts import BaseModel, Work
from intern.learning.loop.making import Making
from intern.learning.privacy.redact import MAX_VALUES
from intern.learning.train import job as jobs
from intern.learning.train.job import Event
from intern.learning.train.recipe import Recipe
from intern.models.fake import HashEmbedder
from intern.settings import Settings
from intern.skill import write_skill
from intern.store.keys import Scope, create_key
from intern.types import Example, Run, now
from intern.workspace import Workspace

TEAM, SKILL = "default", "handbook"
ADDRESSES = ("told@larkmoor.example", "folder@larkmoor.example", "admin@larkmoor.example", "eve@example.com")


pytestmark = pytest.mark.anyio


@pytest.fixture
async def workspace(tmp_path: Path) -> AsyncIterator[Workspace]:
    """A skill with an address in its instructions, its folder, a document of an admin and one of a user."""
    told, folder, admin, user = ADDRESSES
    spec = {"title": "T", "description": "D", "instructions": f"Name {told}."}
    docs = write_skill(tmp_path / "skills", SKILL, spec).folder / "docs"
    docs.mkdir()
    (docs / "folder.md").write_text(f"Write to {folder}.")
    workspace = Workspace(Settings(home=tmp_path), engine=FakeEngine(), embedder=HashEmbedder())
    workspace.library.refresh()
    addresses: dict[Scope, str] = {"admin": admin, "user": user}
    for role, address in addresses.items():
        with workspace.database.begin() as connection:
            key, _ = create_key(connection, name=role, role=role)
        upload = Upload(name=f"{role}.md", data=f"Write to {address}.".encode())
        workspace.knowledge.ingest(TEAM, SKILL, [upload], source="upload", contributor=key.id)
    yield workspace
    await workspace.close()


async def test_examples_keep_what_owners_state_and_nothing_that_a_user_uploaded(workspace: Workspace) -> None:
    redact = workspace.parts.redacts(TEAM, workspace.library.get(TEAM, SKILL))
    freed, problem = redact(Example(id="e", input=" ".join(ADDRESSES), output="", provenance="review"))
    assert problem is None
    assert freed.text.split() == [*ADDRESSES[:3], "<EMAIL_1>"]


async def test_documents_that_are_trained_on_are_freed_of_everything_else(workspace: Workspace) -> None:
    texts, left_out = workspace.parts.texts(TEAM, workspace.library.get(TEAM, SKILL))
    assert texts == [
        f"admin.md\nWrite to {ADDRESSES[2]}.",
        f"folder.md\nWrite to {ADDRESSES[1]}.",
        "user.md\nWrite to <EMAIL_1>.",
    ]
    assert left_out == 0


async def test_a_document_that_a_user_replaced_is_no_longer_its_owners(workspace: Workspace) -> None:
    skill = workspace.library.get(TEAM, SKILL)
    with workspace.database.begin() as connection:
        key, _ = create_key(connection, name="another", role="user")
    upload = Upload(name="admin.md", data=f"Write to {ADDRESSES[2]} or mallory@example.com.".encode())
    workspace.knowledge.ingest(TEAM, SKILL, [upload], source="upload", contributor=key.id)
    assert workspace.parts.texts(TEAM, skill)[0][0] == "admin.md\nWrite to <EMAIL_1> or <EMAIL_2>."


async def test_what_is_written_for_training_is_freed_and_what_cannot_be_is_left_out_and_said(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = " ".join(f"person{number}@example.com" for number in range(MAX_VALUES + 1))
    upload = Upload(name="people.txt", data=people.encode())
    workspace.knowledge.ingest(TEAM, SKILL, [upload], source="upload", contributor="key_of_a_user")
    monkeypatch.setattr(workspace.parts, "open_engine", lambda adapters: FakeEngine())
    told: list[Event] = []

    async def tell(event: Event) -> None:
        told.append(event)

    run = Run(id="run_1", team=TEAM, skill=SKILL, state="running", created=now())
    work = Work(workspace.parts, workspace.library.get(TEAM, SKILL), run, Recipe(name="completion-then-sft"), tell)
    base = BaseModel(path=str(base_folder(tmp_path / "base")), name="tiny", sha256="b" * 64)
    await Making(work)._write_job(work.folder, base, [Example(id="e", input="Hello?", output="Yes.")], ())
    written = (work.folder / jobs.TEXTS).read_text(encoding="utf-8")
    assert ADDRESSES[1] in written
    assert "@example.com" not in written
    assert [event.text for event in told] == ["1 documents are not read: they cannot be freed of personal data"]


async def test_a_skill_that_trains_by_itself_waits_until_enough_of_its_examples_are_held_out(tmp_path: Path) -> None:
    spec = {"title": "T", "description": "D", "instructions": "I", "learning": {"auto": True, "redact": "collected"}}
    rows = [{"input": f"question {n} about {n * 7}", "output": f"answer {n}", "split": "train"} for n in range(60)]
    held = [{**row, "input": f"held-out {row['input']}", "split": "heldout"} for row in rows[:30]]
    for name, examples in (("eager", rows + held), ("early", rows + held[1:])):
        write_skill(tmp_path / "skills", name, spec, examples=examples)
    workspace = Workspace(Settings(home=tmp_path), engine=FakeEngine(), embedder=HashEmbedder())
    try:
        assert [run.skill for run in await workspace.triggers.look()] == ["eager"]
    finally:
        await workspace.close()
