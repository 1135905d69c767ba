"""Going live: the old or the new adapter serves, never none, and a request ends on the one it began with."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from learning.adapters.killed_promotion import STEPS
from made_adapters import keep_adapter
from made_export import SKILL, make_home, open_workspace
from made_lora import base_shape, tensors, write_lora
from sqlalchemy.engine import Engine as Database

from intern.engines.base import EngineRequest
from intern.engines.fake import FakeEngine
from intern.errors import AdapterRefused, Conflict, EngineFailure, NotFound, Overloaded
from intern.learning.adapters.adapter import store_adapter
from intern.learning.adapters.deployments import SPARE, Deployments
from intern.learning.adapters.gguf_lora import convert
from intern.learning.adapters.lora import read_lora
from intern.learning.adapters.manifest import Base, Provenance
from intern.store import learning as store
from intern.store.engine import open_database
from intern.types import Adapter, Deployment, Lease, Message, now

pytestmark = pytest.mark.anyio

TEAM = "default"
BASE = "a" * 64


class WatchedEngine(FakeEngine):
    """Notes each change of its adapters, and refuses one when told to."""

    def __init__(self) -> None:
        super().__init__([lambda request: f"from {request.adapter}"])
        self.changes: list[tuple[str, ...]] = []
        self.refuses: set[str] = set()

    async def set_adapters(self, adapters: Mapping[str, str]) -> None:
        if self.refuses & adapters.keys():
            raise EngineFailure("llama.cpp cannot load it.")
        await asyncio.sleep(0)  # a real swap takes a while
        await super().set_adapters(adapters)
        self.changes.append(tuple(sorted(adapters)))


class House:
    def __init__(self, database: Database, root: Path) -> None:
        self.database = database
        self.root = root
        self.engine = WatchedEngine()

    def adapter(
        self, skill: str = "sorting", *, base: str = BASE, team: str = TEAM, wider: int = 0, strange: bool = False
    ) -> Adapter:
        """A stored adapter with files of its own; `wider` than the base model is, or with a `strange` GGUF file."""
        with self.database.begin() as connection:
            bare = Adapter(team=team, skill=skill, version=0, digest="", base=base, created=now())
            adapter = keep_adapter(connection, bare)
        shape = base_shape(self.root / "base")
        if wider:
            sizes = {module: (rows, columns + wider) for module, (rows, columns) in shape.modules.items()}
            shape = replace(shape, modules=sizes)
        folder = write_lora(self.root / f"{skill}-{adapter.version}", tensors(shape, seed=adapter.version))
        made = write_lora(self.root / "strange", tensors(shape, seed=999)) if strange else folder
        convert(read_lora(made, shape), shape, folder / "adapter.gguf")
        provenance = Provenance(
            team=team,
            skill=skill,
            name=adapter.name,
            base=Base(name="tiny", sha256=base),
            dataset="d",
            run="r",
            recipe={},
            created=adapter.created,
        )
        kept = adapter.model_copy(update={"digest": store_adapter(self.root / "adapters", folder, provenance).digest})
        with self.database.begin() as connection:
            store.update_adapter(connection, kept)
        return kept

    def deployments(self, base: str | None = BASE) -> Deployments:
        return Deployments(self.database, self.engine, self.root / "adapters", base, self.root / "base")

    def deploy(self, version: int, skill: str = "sorting", previous: int | None = None) -> None:
        """Put in service whatever it is, as another version of the platform could have done."""
        row = Deployment(team=TEAM, skill=skill, version=version, previous=previous, changed=now())
        with self.database.begin() as connection:
            store.deploy(connection, row)

    def stored(self, skill: str = "sorting") -> tuple[int | None, int | None]:
        with self.database.connect() as connection:
            found = store.get_deployment(connection, TEAM, skill)
        assert found is not None
        return found.version, found.previous

    async def said(self, lease: Lease) -> str:
        request = EngineRequest(messages=(), adapter=lease.engine_name)
        return "".join([token.text async for token in self.engine.generate(request)])


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    database = open_database(database_url)
    yield House(database, tmp_path)
    database.dispose()


async def test_without_a_deployment_the_base_model_serves(house: House) -> None:
    lease = await house.deployments().acquire(TEAM, "sorting", None)
    assert lease == Lease()


async def test_a_promoted_adapter_serves_from_then_on_and_after_a_restart(house: House) -> None:
    adapter = house.adapter()
    deployments = house.deployments()
    await deployments.promote(TEAM, "sorting", adapter.version, by="test", reason="better")
    lease = await deployments.acquire(TEAM, "sorting", None)
    assert lease.name == "sorting@v1"
    assert await house.said(lease) == "from default/sorting@v1"
    house.engine = WatchedEngine()
    again = house.deployments()
    await again.load()
    assert (await again.acquire(TEAM, "sorting", None)).name == "sorting@v1"
    assert house.engine.changes == [("default/sorting@v1",)]


async def test_a_promotion_that_was_cancelled_does_not_happen_later(house: House) -> None:
    adapter = house.adapter()
    deployments = house.deployments()
    (await deployments.acquire(TEAM, "sorting", "v1"))  # it is loaded, and answers at once
    async with deployments._changing:  # another adapter is being loaded
        promoting = asyncio.create_task(deployments.promote(TEAM, "sorting", adapter.version, by="test", reason=""))
        while not deployments._changing._waiters:  # noqa: ASYNC110
            await asyncio.sleep(0)
        promoting.cancel()
        await asyncio.gather(promoting, return_exceptions=True)
        assert promoting.cancelled()
    for _ in range(20):
        await asyncio.sleep(0)
    assert deployments.serving(TEAM, "sorting") is None
    with house.database.connect() as connection:
        assert store.get_deployment(connection, TEAM, "sorting") is None


async def test_an_adapter_is_tried_with_a_request_of_its_skill(house: House) -> None:
    seen: list[EngineRequest] = []

    def answer(request: EngineRequest) -> str:
        seen.append(request)
        return "fine"

    async def trial(team: str, skill: str) -> EngineRequest:
        return EngineRequest(messages=(Message(role="system", content=f"{team}: {skill}"),), schema_={"type": "object"})

    house.engine.replies = [answer]
    deployments = Deployments(house.database, house.engine, house.root / "adapters", BASE, house.root / "base", trial)
    adapter = house.adapter()
    for _ in range(2):
        await deployments.promote(TEAM, "sorting", adapter.version, by="test", reason="better")
    (tried,) = seen
    assert (tried.messages[0].content, tried.schema_) == ("default: sorting", {"type": "object"})
    assert (tried.adapter, tried.sampling.max_tokens) == ("default/sorting@v1", 4)


async def test_a_promotion_over_something_else_than_expected_changes_nothing(house: House) -> None:
    first, second = house.adapter(), house.adapter()
    deployments = house.deployments()
    await deployments.promote(TEAM, "sorting", first.version, by="test", reason="", former=None)
    with pytest.raises(Conflict, match="meanwhile"):
        await deployments.promote(TEAM, "sorting", second.version, by="test", reason="", former=None)
    assert house.stored() == (1, None)
    assert (await deployments.acquire(TEAM, "sorting", None)).name == "sorting@v1"
    await deployments.promote(TEAM, "sorting", second.version, by="test", reason="", former=1)
    assert house.stored() == (2, 1)


async def test_base_can_be_asked_for_by_name(house: House) -> None:
    deployments = house.deployments()
    await deployments.promote(TEAM, "sorting", house.adapter().version, by="test", reason="")
    assert await deployments.acquire(TEAM, "sorting", "base") == Lease()


async def test_a_version_that_does_not_serve_can_be_asked_for_by_name(house: House) -> None:
    deployments = house.deployments()
    house.adapter()
    second = house.adapter()
    await deployments.promote(TEAM, "sorting", second.version, by="test", reason="")
    assert (await deployments.acquire(TEAM, "sorting", "v1")).name == "sorting@v1"
    for version in ("v3", "v0", "v01x", "latest", "v99999999999"):
        with pytest.raises(NotFound, match="no adapter of this version"):
            await deployments.acquire(TEAM, "sorting", version)


async def test_another_teams_adapter_is_not_found(house: House) -> None:
    house.adapter(team="other")
    with pytest.raises(NotFound):
        await house.deployments().acquire(TEAM, "sorting", "v1")


async def test_a_request_ends_on_the_adapter_it_began_with(house: House) -> None:
    deployments = house.deployments()
    for _ in range(SPARE + 5):
        house.adapter()
    await deployments.promote(TEAM, "sorting", 1, by="test", reason="")
    lease = await deployments.acquire(TEAM, "sorting", None)
    for version in range(2, SPARE + 5):
        await deployments.promote(TEAM, "sorting", version, by="test", reason="")
        assert await house.said(lease) == "from default/sorting@v1"
    deployments.release(lease)
    await deployments.promote(TEAM, "sorting", SPARE + 5, by="test", reason="")
    assert len(await house.engine.adapters()) == SPARE + 3


async def test_rolling_back_is_the_same_flip_backwards_without_loading_anything(house: House) -> None:
    deployments = house.deployments()
    for _ in range(2):
        adapter = house.adapter()
        await deployments.promote(TEAM, "sorting", adapter.version, by="test", reason="")
    changes = len(house.engine.changes)
    await deployments.rollback(TEAM, "sorting", by="test")
    assert (await deployments.acquire(TEAM, "sorting", None)).name == "sorting@v1"
    assert len(house.engine.changes) == changes
    assert house.stored() == (1, 2)
    await deployments.rollback(TEAM, "sorting", by="test")
    assert house.stored() == (2, 1)


async def test_after_a_restart_too_rolling_back_loads_nothing_and_asks_the_engine_nothing(house: House) -> None:
    before = house.deployments()
    for _ in range(2):
        await before.promote(TEAM, "sorting", house.adapter().version, by="test", reason="")
    house.engine = WatchedEngine()
    again = house.deployments()
    await again.load()
    assert house.engine.changes == [("default/sorting@v1", "default/sorting@v2")]
    await again.rollback(TEAM, "sorting", by="test")
    assert (await again.acquire(TEAM, "sorting", None)).name == "sorting@v1"
    assert len(house.engine.changes) == 1
    assert house.engine.requests == []


async def test_what_served_before_stays_loaded_whatever_is_asked_for_by_name(house: House) -> None:
    deployments = house.deployments()
    for _ in range(2):
        await deployments.promote(TEAM, "sorting", house.adapter().version, by="test", reason="")
    for _ in range(SPARE + 2):
        version = house.adapter().version
        deployments.release(await deployments.acquire(TEAM, "sorting", f"v{version}"))
    assert {"default/sorting@v1", "default/sorting@v2"} < set(await house.engine.adapters())


async def test_rolling_back_waits_for_no_other_adapter_that_is_being_loaded(house: House) -> None:
    deployments = house.deployments()
    for _ in range(2):
        await deployments.promote(TEAM, "sorting", house.adapter().version, by="test", reason="")
    async with deployments._loading:
        await asyncio.wait_for(deployments.rollback(TEAM, "sorting", by="test"), 20)
    assert house.stored() == (1, 2)


async def test_a_full_queue_is_waited_for_by_a_promotion_but_not_for_ever(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intern.learning.adapters.deployments._FULL_SECONDS", 0.01)
    deployments, full = house.deployments(), Overloaded("Full.", retry_after=1.0)
    house.engine.replies = [full, full, "fine"]
    await deployments.promote(TEAM, "sorting", house.adapter().version, by="test", reason="")
    assert house.stored() == (1, None)
    house.engine.replies = [full]
    monkeypatch.setattr("intern.learning.adapters.deployments._PROBE_SECONDS", 0.1)
    with pytest.raises(Overloaded):
        await deployments.promote(TEAM, "sorting", house.adapter().version, by="test", reason="")
    assert house.stored() == (1, None)


async def test_rolling_back_does_not_undo_what_was_promoted_meanwhile(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployments = house.deployments()
    for _ in range(2):
        await deployments.promote(TEAM, "sorting", house.adapter().version, by="test", reason="")
    third, acquire = house.adapter().version, deployments.acquire

    async def promoted_meanwhile(team: str, skill: str, version: str | None) -> Lease:
        monkeypatch.setattr(deployments, "acquire", acquire)
        await deployments.promote(TEAM, "sorting", third, by="somebody else", reason="")
        return await acquire(team, skill, version)

    monkeypatch.setattr(deployments, "acquire", promoted_meanwhile)
    with pytest.raises(Conflict):
        await deployments.rollback(TEAM, "sorting", by="test")
    assert house.stored() == (3, 2)


async def test_an_adapter_that_the_engine_refuses_at_the_start_keeps_no_other_from_serving(house: House) -> None:
    before = house.deployments()
    for skill in ("sorting", "rules"):
        await before.promote(TEAM, skill, house.adapter(skill).version, by="test", reason="")
    house.engine.refuses = {"default/sorting@v1"}
    again = house.deployments()
    await again.load()
    assert (await again.acquire(TEAM, "sorting", None)).name is None
    assert again.problems == {(TEAM, "sorting"): "llama.cpp cannot load it."}
    lease = await again.acquire(TEAM, "rules", None)
    assert await house.said(lease) == "from default/rules@v1"


@pytest.mark.parametrize(
    ("odd", "words"), [({"wider": 4}, "made for a weight of 8 by 16"), ({"strange": True}, "other values")]
)
async def test_a_hostile_adapter_with_the_right_base_in_its_manifest_is_never_loaded(
    house: House, odd: dict[str, Any], words: str
) -> None:
    good, bad = house.adapter("rules"), house.adapter(**odd)
    house.deploy(good.version, "rules")
    deployments = house.deployments()
    with pytest.raises(AdapterRefused, match=words):
        await deployments.promote(TEAM, "sorting", bad.version, by="test", reason="")
    with pytest.raises(AdapterRefused, match=words):
        await deployments.acquire(TEAM, "sorting", f"v{bad.version}")
    house.deploy(bad.version)
    again = house.deployments()
    await again.load()
    assert words in again.problems[TEAM, "sorting"]
    assert (await again.acquire(TEAM, "sorting", None)).name is None
    assert house.engine.changes == [("default/rules@v1",)]


@pytest.mark.needs_model
async def test_a_workspace_holds_adapters_against_the_base_model_that_it_serves(
    model_path: Path, tmp_path: Path
) -> None:
    workspace = open_workspace(make_home(tmp_path, model_path))
    assert workspace.base is not None
    House(workspace.database, tmp_path).adapter(SKILL, base=workspace.base.sha256)
    with pytest.raises(AdapterRefused, match="in this base model it is"):
        await workspace.deployments.promote(TEAM, SKILL, 1, by="test", reason="")
    await workspace.close()


async def test_a_former_adapter_that_cannot_be_loaded_is_no_problem_of_the_one_that_serves(house: House) -> None:
    adapters = [house.adapter() for _ in range(2)]
    house.deploy(2, previous=1)
    (house.root / "adapters" / adapters[0].digest / "adapter.gguf").unlink()
    deployments = house.deployments()
    await deployments.load()
    assert deployments.problems == {}
    assert (await deployments.acquire(TEAM, "sorting", None)).name == "sorting@v2"
    with pytest.raises(AdapterRefused, match="missing"):
        await deployments.rollback(TEAM, "sorting", by="test")
    assert house.stored() == (2, 1)


async def test_what_nobody_foresaw_of_one_skill_keeps_no_other_from_serving(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for skill in ("one", "two", "three"):
        house.deploy(house.adapter(skill).version, skill)
    verified = Deployments._verified

    def fails(deployments: Deployments, team: str, skill: str, version: int) -> Any:
        if skill == "one":
            raise MemoryError
        return verified(deployments, team, skill, version)

    monkeypatch.setattr(Deployments, "_verified", fails)
    started, watching = house.deployments(), house.deployments()
    await started.load()
    await watching.refresh()
    for deployments in (started, watching):
        assert "MemoryError" in deployments.problems[TEAM, "one"]
        served = [(await deployments.acquire(TEAM, skill, None)).name for skill in ("one", "two", "three")]
        assert served == [None, "two@v1", "three@v1"]


async def test_the_first_adapter_rolls_back_to_the_base_model(house: House) -> None:
    deployments = house.deployments()
    await deployments.promote(TEAM, "sorting", house.adapter().version, by="test", reason="")
    await deployments.rollback(TEAM, "sorting", by="test")
    assert await deployments.acquire(TEAM, "sorting", None) == Lease()
    with pytest.raises(NotFound, match="never had an adapter"):
        await deployments.rollback(TEAM, "unknown", by="test")


async def test_promoting_what_serves_already_keeps_the_way_back(house: House) -> None:
    deployments = house.deployments()
    for _ in range(2):
        await deployments.promote(TEAM, "sorting", house.adapter().version, by="test", reason="")
    await deployments.promote(TEAM, "sorting", 2, by="test", reason="again, after a crash")
    assert house.stored() == (2, 1)


@pytest.mark.parametrize("fails", ["load", "answer", "files", "base"])
async def test_an_adapter_that_fails_on_its_way_changes_nothing(house: House, fails: str) -> None:
    deployments = house.deployments()
    await deployments.promote(TEAM, "sorting", house.adapter().version, by="test", reason="")
    second = house.adapter(base="b" * 64 if fails == "base" else BASE)
    if fails == "load":
        house.engine.refuses = {"default/sorting@v2"}
    if fails == "answer":
        house.engine.replies = [EngineFailure("It broke.")]
    if fails == "files":
        (house.root / "adapters" / second.digest / "adapter.gguf").write_bytes(b"GGUF")
    with pytest.raises((EngineFailure, AdapterRefused)):
        await deployments.promote(TEAM, "sorting", 2, by="test", reason="")
    assert house.stored() == (1, None)
    lease = await deployments.acquire(TEAM, "sorting", None)
    assert lease.name == "sorting@v1"
    house.engine.replies = ["fine"]
    assert await house.said(lease) == "fine"


async def test_a_damaged_adapter_or_one_of_another_base_leaves_the_base_model_serving_and_says_so(house: House) -> None:
    deployments = house.deployments()
    await deployments.promote(TEAM, "sorting", house.adapter().version, by="test", reason="")
    for base, words in ((BASE, "missing"), ("c" * 64, "another one")):
        if base == BASE:
            (house.root / "adapters" / house_digest(house) / "adapter.gguf").rename(house.root / "aside")
        else:
            (house.root / "aside").rename(house.root / "adapters" / house_digest(house) / "adapter.gguf")
        again = house.deployments(base)
        await again.load()
        lease = await again.acquire(TEAM, "sorting", None)
        assert lease.name is None
        assert words in str(lease.note)
        assert words in again.problems[TEAM, "sorting"]


# --- several processes -----------------------------------------------------------------------------------------


class Elsewhere(House):
    """Another process on the same database and the same adapters, with an engine of its own."""

    def __init__(self, house: House) -> None:
        super().__init__(house.database, house.root)


@pytest.mark.parametrize("damage", ["deleted", "replaced"])
async def test_what_serves_is_not_reloaded_from_a_file_that_nobody_verified(house: House, damage: str) -> None:
    """The engine opens the files of all its adapters anew when one more is loaded."""
    served, _, other = house.adapter(), house.adapter("other"), house.adapter("other")
    deployments = house.deployments()
    await deployments.promote(TEAM, "sorting", served.version, by="test", reason="better")
    file = house.root / "adapters" / served.digest / "adapter.gguf"
    kept = file.read_bytes()
    if damage == "deleted":
        file.unlink()
    else:
        file.write_bytes((house.root / "adapters" / other.digest / "adapter.gguf").read_bytes())
    with pytest.raises(AdapterRefused, match="beside sorting@v1, which serves") as refused:
        await deployments.promote(TEAM, "other", other.version, by="test", reason="better")
    assert house.engine.changes == [("default/sorting@v1",)]
    deployments.release(lease := await deployments.acquire(TEAM, "sorting", None))
    assert lease.name == "sorting@v1"
    assert "`intern adapters rollback sorting`" in refused.value.message
    if damage == "deleted":
        await deployments.rollback(TEAM, "sorting", by="test")
    else:
        file.write_bytes(kept)  # from a backup
    await deployments.promote(TEAM, "other", other.version, by="test", reason="better")
    stays = {"default/sorting@v1"} if damage == "replaced" else set()
    assert {*house.engine.changes[-1]} == {*stays, "default/other@v2"}


async def test_a_damaged_version_that_does_not_serve_leaves_the_engine(house: House) -> None:
    first, second, other = house.adapter(), house.adapter(), house.adapter("other")
    deployments = house.deployments()
    for adapter in (first, second):
        await deployments.promote(TEAM, "sorting", adapter.version, by="test", reason="better")
    (house.root / "adapters" / first.digest / "adapter.gguf").unlink()
    await deployments.promote(TEAM, "other", other.version, by="test", reason="better")
    assert {*house.engine.changes[-1]} == {"default/sorting@v2", "default/other@v1"}
    with pytest.raises(AdapterRefused, match="missing"):
        await deployments.rollback(TEAM, "sorting", by="test")
    assert house.stored() == (2, 1)


async def test_a_skill_that_is_deleted_while_its_adapter_is_tried_is_not_served_by_it(house: House) -> None:
    adapter = house.adapter()

    async def trial(team: str, skill: str) -> EngineRequest:
        await deployments.forget(TEAM, "sorting", by="test", reason="gone")
        with house.database.begin() as connection:
            store.forget_skill(connection, TEAM, "sorting")
        return EngineRequest(messages=())

    deployments = Deployments(house.database, house.engine, house.root / "adapters", BASE, house.root / "base", trial)
    with pytest.raises(NotFound):
        await deployments.promote(TEAM, "sorting", adapter.version, by="test", reason="better")
    assert await deployments.acquire(TEAM, "sorting", None) == Lease()
    with house.database.connect() as connection:
        assert store.get_deployment(connection, TEAM, "sorting") is None


async def test_a_skill_that_is_gone_leaves_nothing_to_go_back_to(house: House) -> None:
    for adapter in (house.adapter(), house.adapter()):
        await (deployments := house.deployments()).promote(TEAM, "sorting", adapter.version, by="test", reason="")
    await deployments.forget(TEAM, "sorting", by="test", reason="gone")
    assert house.stored() == (None, None)
    assert await deployments.acquire(TEAM, "sorting", None) == Lease()
    await deployments.forget(TEAM, "never there", by="test", reason="gone")
    assert deployments.serving(TEAM, "never there") is None


async def test_what_another_process_promotes_serves_here_soon_and_what_it_rolls_back(house: House) -> None:
    here, there = house.deployments(), Elsewhere(house).deployments()
    first, second = house.adapter(), house.adapter()
    await there.promote(TEAM, "sorting", first.version, by="test", reason="")
    await here.refresh()
    lease = await here.acquire(TEAM, "sorting", None)
    assert (lease.name, await house.said(lease)) == ("sorting@v1", "from default/sorting@v1")
    await there.promote(TEAM, "sorting", second.version, by="test", reason="")
    await here.refresh()
    assert (await here.acquire(TEAM, "sorting", None)).name == "sorting@v2"
    assert await house.said(lease) == "from default/sorting@v1"  # a request ends on what it began with
    await there.promote(TEAM, "sorting", None, by="test", reason="")
    await here.refresh()
    assert await here.acquire(TEAM, "sorting", None) == Lease()
    changes = list(house.engine.changes)
    await here.refresh()
    assert house.engine.changes == changes  # nothing is new


async def test_what_this_process_promoted_stays_as_it_is(house: House) -> None:
    deployments = house.deployments()
    mine = await deployments.promote(TEAM, "sorting", house.adapter().version, by="test", reason="")
    await deployments.refresh()
    assert deployments.serving(TEAM, "sorting") is mine


async def test_a_promotion_meanwhile_is_not_undone_by_what_was_read_before_it(house: House) -> None:
    here, there = house.deployments(), Elsewhere(house).deployments()
    for _ in range(2):
        house.adapter()
    await there.promote(TEAM, "sorting", 1, by="test", reason="")
    read = here._stored

    def slow() -> list[Deployment]:
        found = read()
        asyncio.run_coroutine_threadsafe(here.promote(TEAM, "sorting", 2, by="test", reason=""), loop).result(20)
        return found

    loop = asyncio.get_running_loop()
    here._stored = slow  # type: ignore[method-assign]
    await here.refresh()
    assert (await here.acquire(TEAM, "sorting", None)).name == "sorting@v2"
    assert house.stored() == (2, 1)


async def test_files_that_come_later_than_the_row_are_waited_for(house: House) -> None:
    here, there = house.deployments(), Elsewhere(house).deployments()
    adapter = house.adapter()
    await there.promote(TEAM, "sorting", adapter.version, by="test", reason="")
    folder = house.root / "adapters" / adapter.digest
    hidden = folder.rename(house.root / "on its way")
    await here.refresh()
    lease = await here.acquire(TEAM, "sorting", None)
    assert lease.name is None
    assert lease.note is not None
    assert (TEAM, "sorting") in here.problems
    hidden.rename(folder)
    await here.refresh()
    assert (await here.acquire(TEAM, "sorting", None)).name == "sorting@v1"
    assert here.problems == {}


async def test_files_that_never_come_are_not_looked_for_for_ever(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = house.deployments(), Elsewhere(house).deployments()
    adapter = house.adapter()
    await there.promote(TEAM, "sorting", adapter.version, by="test", reason="")
    (house.root / "adapters" / adapter.digest).rename(house.root / "gone")
    looked: list[str] = []
    verified = here._verified

    def verify(team: str, skill: str, version: int) -> Any:
        looked.append(skill)
        return verified(team, skill, version)

    monkeypatch.setattr(here, "_verified", verify)
    for _ in range(30):
        await here.refresh()
    assert len(looked) == 12


async def test_rolling_back_follows_what_another_process_promoted(house: House) -> None:
    here, there = house.deployments(), Elsewhere(house).deployments()
    for _ in range(3):
        house.adapter()
    await here.promote(TEAM, "sorting", 1, by="test", reason="")
    await there.promote(TEAM, "sorting", 2, by="test", reason="")
    await there.promote(TEAM, "sorting", 3, by="test", reason="")
    await here.rollback(TEAM, "sorting", by="test")
    assert house.stored() == (2, 3)


async def test_many_requests_while_adapters_change_never_miss_theirs(house: House) -> None:
    deployments = house.deployments()
    for _ in range(4):
        house.adapter()
    await deployments.promote(TEAM, "sorting", 1, by="test", reason="")
    wrong: list[str] = []
    stop = asyncio.Event()

    async def client() -> int:
        served = 0
        while not stop.is_set():
            lease = await deployments.acquire(TEAM, "sorting", None)
            said = await house.said(lease)
            if said != f"from {lease.engine_name}":
                wrong.append(said)
            deployments.release(lease)
            served += 1
            await asyncio.sleep(0.001)  # spinning, they would keep the interpreter from the threads that swap
        return served

    clients = [asyncio.create_task(client()) for _ in range(8)]
    for turn in range(40):
        await deployments.promote(TEAM, "sorting", 1 + turn % 4, by="test", reason="")
    stop.set()
    served = sum(await asyncio.gather(*clients))
    assert wrong == []
    assert served > 40


def house_digest(house: House) -> str:
    with house.database.connect() as connection:
        return store.get_adapter(connection, TEAM, "sorting", 1).digest


@pytest.mark.parametrize("step", STEPS)
async def test_a_server_that_is_killed_on_the_way_serves_the_old_or_the_new_adapter(tmp_path: Path, step: str) -> None:
    url = f"sqlite:///{tmp_path / 'intern.db'}"
    database = open_database(url)
    house = House(database, tmp_path)
    old, new = house.adapter(), house.adapter()
    await house.deployments().promote(TEAM, "sorting", old.version, by="test", reason="the first")
    database.dispose()
    script = Path(__file__).with_name("killed_promotion.py")
    killed = await asyncio.create_subprocess_exec(sys.executable, str(script), str(tmp_path), step)
    assert await killed.wait() == -signal.SIGKILL
    database = open_database(url)
    house = House(database, tmp_path)
    again = house.deployments()
    await again.load()
    assert again.problems == {}
    lease = await again.acquire(TEAM, "sorting", None)
    serves = new if step == "when the row has changed" else old
    assert lease.name == serves.name
    assert await house.said(lease) == f"from {lease.engine_name}"
    assert house.stored() == ((2, 1) if serves is new else (1, None))
    await again.promote(TEAM, "sorting", new.version, by="test", reason="tried again")
    assert (await again.acquire(TEAM, "sorting", None)).name == new.name
    database.dispose()
