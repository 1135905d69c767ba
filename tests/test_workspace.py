"""A workspace opens its costly parts once, at first use, and keeps them in step with the folders."""

from __future__ import annotations

import asyncio
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from intern.engines.fake import FakeEngine
from intern.errors import StoreFailure, WorkspaceBusy
from intern.knowledge import Upload
from intern.models.fake import HashEmbedder
from intern.settings import Settings
from intern.skill import write_skill
from intern.workspace import Workspace

THREADS = 8


def test_many_threads_that_ask_at_once_get_one_index(tmp_path: Path) -> None:
    workspace = Workspace(Settings(home=tmp_path), engine=FakeEngine(), embedder=HashEmbedder())
    assert not {"knowledge", "router", "embedder"} & workspace.__dict__.keys()
    together = Barrier(THREADS)

    def ask(_: int) -> tuple[int, int]:
        together.wait()
        return id(workspace.knowledge), id(workspace.router)

    with ThreadPoolExecutor(THREADS) as threads:
        assert len(set(threads.map(ask, range(THREADS)))) == 1
    workspace.knowledge.close()
    workspace.recorder.close()
    workspace.database.dispose()
    workspace.ownership.release()


def opened(home: Path) -> Workspace:
    return Workspace(Settings(home=home), engine=FakeEngine(), embedder=HashEmbedder())


def closed(workspace: Workspace) -> None:
    asyncio.run(workspace.close())


SPEC = {"title": "Leave", "description": "Questions about holidays.", "instructions": "I"}


def test_held_out_examples_do_not_teach_the_router(tmp_path: Path) -> None:
    rows = [
        {"input": "zebra crossing rules", "output": "x", "split": "train"},
        {"input": "quantum accordion", "output": "x", "split": "heldout"},
    ]
    write_skill(tmp_path / "skills", "leave", SPEC, examples=rows)
    workspace = opened(tmp_path)
    try:
        assert workspace.routes.route("default", "zebra crossing rules").nearest == "zebra crossing rules"
        assert workspace.routes.route("default", "quantum accordion").nearest != "quantum accordion"
    finally:
        closed(workspace)


def test_what_changes_in_a_folder_is_used_without_a_restart(tmp_path: Path) -> None:
    workspace = opened(tmp_path)
    try:
        assert workspace.routes.route("default", "holidays").skill is None
        skill = write_skill(tmp_path / "skills", "leave", SPEC | {"retrieval": {"enabled": True}})
        skill.docs.mkdir()
        (skill.docs / "leave.md").write_text("# Leave\n\nEveryone has thirty days of holidays a year.\n")
        workspace.refresh()
        workspace.routes.catch_up()
        assert [s.name for s in workspace.library.all("default")] == ["leave"]
        found = workspace.documents.retrieve("default", "leave", "holidays a year", limit=3)
        assert [p.document for p in found] == ["leave.md"]
        (skill.docs / "leave.md").write_text("# Leave\n\nEveryone has forty days of holidays a year.\n")
        workspace.refresh()
        workspace.documents.catch_up()
        (passage,) = workspace.documents.retrieve("default", "leave", "holidays a year", limit=3)
        assert "forty" in passage.text
        shutil.rmtree(skill.folder)
        workspace.refresh()
        assert workspace.library.all("default") == []
        assert workspace.routes.route("default", "holidays").skill is None
    finally:
        closed(workspace)


def test_a_second_process_cannot_open_the_workspace(tmp_path: Path) -> None:
    workspace = opened(tmp_path)
    try:
        with pytest.raises(WorkspaceBusy):
            opened(tmp_path)
    finally:
        closed(workspace)
    closed(opened(tmp_path))


def test_a_skill_whose_folder_is_gone_for_a_moment_keeps_what_was_uploaded(tmp_path: Path) -> None:
    write_skill(tmp_path / "skills", "leave", SPEC | {"retrieval": {"enabled": True}})
    workspace = opened(tmp_path)
    try:
        upload = Upload(name="sick.md", data=b"# Sick\n\nA certificate is due on the third day.\n")
        workspace.knowledge.ingest("default", "leave", [upload], source="api")
        (tmp_path / "skills").rename(tmp_path / "away")
        workspace.refresh()
        workspace.documents.catch_up()
        assert workspace.library.all("default") == []
        (tmp_path / "away").rename(tmp_path / "skills")
        workspace.refresh()
        found = workspace.documents.retrieve("default", "leave", "certificate", limit=3)
        assert [p.document for p in found] == ["sick.md"]
    finally:
        closed(workspace)


def test_a_refit_or_a_look_at_documents_that_failed_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skill = write_skill(tmp_path / "skills", "leave", SPEC | {"retrieval": {"enabled": True}})
    workspace = opened(tmp_path)
    try:
        assert workspace.documents.retrieve("default", "leave", "holidays", limit=3) == []
        workspace.routes.ensure("default")
        write_skill(tmp_path / "skills", "travel", SPEC | {"title": "Travel"})
        skill.docs.mkdir()
        (skill.docs / "leave.md").write_text("# Leave\n\nThirty days of holidays.\n")
        workspace.refresh()
        with monkeypatch.context() as broken:

            def fail(*_: Any, **__: Any) -> None:
                raise StoreFailure("the disk is full")

            broken.setattr(workspace.router, "fit", fail)
            broken.setattr(workspace.knowledge, "ingest", fail)
            with pytest.raises(StoreFailure):
                workspace.routes.catch_up()
            with pytest.raises(StoreFailure):
                workspace.documents.catch_up()
        workspace.routes.catch_up()
        workspace.documents.catch_up()
        assert workspace.routes.known("default") == {"leave", "travel"}
        assert [p.document for p in workspace.documents.retrieve("default", "leave", "holidays", limit=3)] == [
            "leave.md"
        ]
    finally:
        closed(workspace)


def test_a_file_that_cannot_be_read_is_a_problem_of_its_own_and_hidden_folders_are_left_alone(tmp_path: Path) -> None:
    skill = write_skill(tmp_path / "skills", "leave", SPEC | {"retrieval": {"enabled": True}})
    (skill.docs / ".git" / "logs" / "refs").mkdir(parents=True)
    (skill.docs / ".git" / "logs" / "refs" / "main").write_text("a commit about holidays")
    (skill.docs / "good.md").write_text("# Leave\n\nThirty days of holidays.\n")
    (skill.docs / "odd.md").write_text("# Odd\n\nHolidays in leap years.\n")
    workspace = opened(tmp_path)
    try:
        assert {p.document for p in workspace.documents.retrieve("default", "leave", "holidays", limit=9)} == {
            "good.md",
            "odd.md",
        }
        (skill.docs / "odd.md").unlink()
        (skill.docs / "odd.md").symlink_to("/proc/self/mem")  # a regular file that nobody can read, root included
        workspace.refresh()
        workspace.documents.catch_up()
        (problem,) = workspace.documents.problems["default", "leave"]
        assert problem.startswith("odd.md: it cannot be read")
        assert {p.document for p in workspace.documents.retrieve("default", "leave", "holidays", limit=9)} == {
            "good.md",
            "odd.md",
        }
    finally:
        closed(workspace)
