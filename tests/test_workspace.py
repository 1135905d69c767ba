"""A workspace opens its costly parts once, at first use, and keeps them in step with the folders."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from intern.engines.fake import FakeEngine
from intern.errors import StoreFailure, WorkspaceBusy
from intern.knowledge import Upload
from intern.models.embedder import Vectors
from intern.models.fake import HashEmbedder
from intern.ownership import is_owned
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


PATIENCE = 20.0


class SlowEmbedder(HashEmbedder):
    """Texts that name a glacier wait until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()
        self.entered = 0

    def embed(self, texts: Sequence[str]) -> Vectors:
        if any("glacier" in text for text in texts) and not self.go.is_set():
            self.entered += 1
            self.begun.release()
            assert self.go.wait(PATIENCE)
        return super().embed(texts)


def write_documents(skills: Path, name: str, *texts: str) -> None:
    skill = write_skill(skills, name, SPEC | {"retrieval": {"enabled": True}})
    skill.docs.mkdir()
    for number, text in enumerate(texts):
        (skill.docs / f"{number}.md").write_text(f"# Leave\n\n{text}\n")


def test_a_folder_that_is_read_for_the_first_time_keeps_only_its_own_requests_waiting(tmp_path: Path) -> None:
    write_documents(tmp_path / "skills", "slow", "The glacier moves an inch a year.")
    write_documents(tmp_path / "teams" / "blue" / "skills", "quick", "Thirty days of holidays.")

    async def scenario() -> None:
        embedder = SlowEmbedder()
        workspace = Workspace(Settings(home=tmp_path), engine=FakeEngine(), embedder=embedder)
        workspace.threads.lend()
        waiting = [asyncio.ensure_future(workspace.documents.ready("default", "slow")) for _ in range(40)]
        try:
            assert await asyncio.to_thread(embedder.begun.acquire, timeout=PATIENCE)
            for job in waiting[1:]:  # their callers leave, or their time is up
                job.cancel()
            await asyncio.gather(*waiting[1:], return_exceptions=True)
            async with asyncio.timeout(PATIENCE / 2):
                await workspace.documents.ready("blue", "quick")
                found = await asyncio.to_thread(workspace.documents.retrieve, "blue", "quick", "holidays", limit=3)
            assert [passage.document for passage in found] == ["0.md"]
            assert not waiting[0].done()
        finally:
            embedder.go.set()
        await waiting[0]
        found = await asyncio.to_thread(workspace.documents.retrieve, "default", "slow", "glacier", limit=3)
        assert [passage.document for passage in found] == ["0.md"]
        assert embedder.entered == 1, "it was read once for all who waited"
        await workspace.close()

    asyncio.run(scenario())


def test_a_team_whose_router_is_being_fitted_keeps_only_its_own_requests_waiting(tmp_path: Path) -> None:
    write_skill(tmp_path / "skills", "slow", SPEC, utterances=["the glacier moves"])
    write_skill(tmp_path / "teams" / "blue" / "skills", "quick", SPEC, utterances=["days of holidays"])

    async def scenario() -> None:
        embedder = SlowEmbedder()
        workspace = Workspace(Settings(home=tmp_path), engine=FakeEngine(), embedder=embedder)
        await workspace.routes.ready("blue")
        waiting = [asyncio.ensure_future(workspace.routes.ready("default")) for _ in range(40)]
        try:
            assert await asyncio.to_thread(embedder.begun.acquire, timeout=PATIENCE)
            async with asyncio.timeout(PATIENCE / 2):
                route = await asyncio.to_thread(workspace.routes.route, "blue", "days of holidays")
            assert route.nearest == "days of holidays"
        finally:
            embedder.go.set()
        await asyncio.gather(*waiting)
        assert workspace.routes.known("default") == {"slow"}
        await workspace.close()

    asyncio.run(scenario())


def test_the_workspace_is_given_back_only_when_its_last_writer_is_done(tmp_path: Path) -> None:
    write_documents(tmp_path / "skills", "leave", "Thirty days of holidays.")

    async def scenario() -> None:
        embedder = SlowEmbedder()
        workspace = Workspace(Settings(home=tmp_path), engine=FakeEngine(), embedder=embedder)
        await workspace.warm()
        workspace.start()
        (tmp_path / "skills" / "leave" / "docs" / "new.md").write_text("# Ice\n\nThe glacier moves an inch a year.\n")
        assert await asyncio.to_thread(embedder.begun.acquire, timeout=PATIENCE)
        closing = asyncio.ensure_future(workspace.close())
        await asyncio.wait({closing}, timeout=0.5)
        assert not closing.done()
        assert is_owned(workspace.settings.data)
        embedder.go.set()
        await closing
        assert not is_owned(workspace.settings.data)

    asyncio.run(scenario())
    workspace = opened(tmp_path)
    try:
        assert [d.name for d in workspace.knowledge.documents("default", "leave")] == ["0.md", "new.md"]
    finally:
        closed(workspace)


def test_a_folder_that_is_being_read_at_the_end_is_read_on_at_the_next_start(tmp_path: Path) -> None:
    count = 40
    write_documents(tmp_path / "skills", "ice", *(f"The glacier number {n} moves." for n in range(count)))
    (tmp_path / "skills" / "ice" / "docs" / "-first.md").write_text("glacier " * 30_000)  # a whole batch

    def stored(workspace: Workspace) -> int:
        return len(workspace.knowledge.documents("default", "ice"))

    async def stopped() -> None:
        embedder = SlowEmbedder()
        workspace = Workspace(Settings(home=tmp_path), engine=FakeEngine(), embedder=embedder)
        reading = asyncio.ensure_future(workspace.documents.ready("default", "ice"))
        assert await asyncio.to_thread(embedder.begun.acquire, timeout=PATIENCE)
        closing = asyncio.ensure_future(workspace.close())
        await asyncio.wait({closing}, timeout=0.2)
        embedder.go.set()
        await closing
        with suppress(StoreFailure):
            await reading

    asyncio.run(stopped())
    workspace = opened(tmp_path)
    try:
        assert stored(workspace) < count + 1
        workspace.documents.ensure("default", "ice")
        assert stored(workspace) == count + 1
    finally:
        closed(workspace)


def test_what_a_killed_export_left_is_cleared_after_a_day(tmp_path: Path) -> None:
    exports = tmp_path / "data" / "exports" / "default"
    for name, age in (("leaving-old", 90_000), ("leaving-new", 60), ("kept", 900_000)):
        (exports / name).mkdir(parents=True)
        (exports / name / "model.gguf").write_bytes(b"x")
        os.utime(exports / name, (time.time() - age,) * 2)
    workspace = opened(tmp_path)

    async def serve() -> None:
        workspace.start()
        while (exports / "leaving-old").exists():  # noqa: ASYNC110 - a thread of the workspace clears it
            await asyncio.sleep(0.01)
        await workspace.close()

    asyncio.run(asyncio.wait_for(serve(), 30))
    assert sorted(folder.name for folder in exports.iterdir()) == ["kept", "leaving-new"]


def test_a_workspace_looks_at_what_others_put_in_service_where_there_can_be_others(
    tmp_path: Path, database_url: str
) -> None:
    async def watches() -> bool:
        workspace = Workspace(
            Settings(home=tmp_path, database_url=database_url), engine=FakeEngine(), embedder=HashEmbedder()
        )
        await workspace.warm()
        names = {getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()}
        await workspace.close()
        return "Deployments.watch" in names

    assert asyncio.run(watches()) is (not database_url.startswith("sqlite"))


def test_an_adapter_is_tried_with_the_prompt_and_schema_of_its_skill(tmp_path: Path) -> None:
    schema = {"type": "object", "required": ["days"], "properties": {"days": {"type": "integer"}}}
    write_skill(tmp_path / "skills", "leave", {**SPEC, "instructions": "Count the days."}, schema=schema)
    workspace = opened(tmp_path)
    try:
        found = asyncio.run(workspace._trial("default", "leave"))
        assert [message.role for message in found.messages] == ["system", "user"]
        assert found.messages[0].content == "Count the days."
        assert found.schema_ == schema
        gone = asyncio.run(workspace._trial("default", "gone"))
        assert ([message.role for message in gone.messages], gone.schema_) == (["user"], None)
    finally:
        closed(workspace)
