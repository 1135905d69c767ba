"""An adapter that came with a workspace serves from the first start on, and nothing else does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_lora import base_shape, tensors, write_lora
from sqlalchemy.engine import Engine as Database

from intern.engines.fake import FakeEngine
from intern.learning.adapters.adapter import store_adapter, write_verdict
from intern.learning.adapters.deployments import Deployments
from intern.learning.adapters.gguf_lora import convert
from intern.learning.adapters.lora import read_lora
from intern.learning.adapters.manifest import Base, Provenance
from intern.learning.adapters.shipped import adopt
from intern.store import learning as store
from intern.store.engine import open_database
from intern.types import Adapter, Deployment, now

pytestmark = pytest.mark.anyio

TEAM = "default"
BASE = "a" * 64
SKILLS = frozenset({"sorting", "writing"})


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = open_database(database_url)
    yield opened
    opened.dispose()


def ship(
    root: Path,
    *,
    skill: str = "sorting",
    version: int = 1,
    base: str = BASE,
    team: str = TEAM,
    named: bool = True,
    converted: bool = True,
    heads: int = 2,
) -> Path:
    """An adapter's folder as another workspace had made it, on a base of so many heads."""
    shape = replace(base_shape(root / "base"), heads=heads)
    made = write_lora(root / f"made-{skill}-{version}-{team}", tensors(shape, seed=version))
    if converted:
        convert(read_lora(made, shape), shape, made / "adapter.gguf")
    provenance = Provenance(
        team=team,
        skill=skill,
        name=f"{skill}@v{version}",
        base=Base(name="tiny", sha256=base),
        dataset="d",
        run="r",
        recipe={"name": "lora"},
        created=now(),
    )
    folder = store_adapter(root / "adapters", made, provenance).folder
    if named:
        file = root / "adapters" / "shipped.json"
        file.write_text(json.dumps([*(json.loads(file.read_text()) if file.exists() else ()), folder.name]))
    return folder


def adopted(database: Database, root: Path) -> list[str]:
    return [adapter.name for adapter in adopt(database, root / "adapters", BASE, TEAM, SKILLS, root / "base")]


async def test_it_serves_as_if_it_had_been_promoted_here_and_can_be_rolled_back(
    database: Database, tmp_path: Path
) -> None:
    folder = ship(tmp_path, version=3)
    assert adopted(database, tmp_path) == ["sorting@v3"]
    deployments = Deployments(database, FakeEngine(), tmp_path / "adapters", BASE)
    await deployments.load()
    assert (await deployments.acquire(TEAM, "sorting", None)).name == "sorting@v3"
    with database.begin() as connection:
        (kept,) = store.list_adapters(connection, TEAM)
        assert (kept.digest, kept.decision, kept.recipe) == (folder.name, "promote", "lora")
    await deployments.rollback(TEAM, "sorting", by="test")
    assert (await deployments.acquire(TEAM, "sorting", None)).name is None


def test_what_was_rolled_back_stays_so(database: Database, tmp_path: Path) -> None:
    ship(tmp_path)
    assert adopted(database, tmp_path) == ["sorting@v1"]
    assert adopted(database, tmp_path) == []
    with database.connect() as connection:
        assert len(store.list_deployments(connection, TEAM)) == 1


def test_of_several_versions_the_newest_that_is_named_serves(database: Database, tmp_path: Path) -> None:
    ship(tmp_path, version=1)
    ship(tmp_path, version=2)
    other = ship(tmp_path, version=3, named=False)
    write_verdict(other, {"ruling": {"decision": "promote"}})  # trained here, and perhaps rolled back
    assert adopted(database, tmp_path) == ["sorting@v2"]


@pytest.mark.parametrize(
    "odd",
    [{"base": "b" * 64}, {"team": "other"}, {"skill": "unknown"}, {"named": False}, {"converted": False}, {"heads": 1}],
)
def test_what_does_not_belong_here_is_left_where_it_lies(
    database: Database, tmp_path: Path, odd: dict[str, Any]
) -> None:
    folder = ship(tmp_path, **odd)
    assert adopted(database, tmp_path) == []
    assert folder.is_dir()


def test_a_damaged_adapter_is_not_used_and_another_skill_s_is(database: Database, tmp_path: Path) -> None:
    folder = ship(tmp_path)
    ship(tmp_path, skill="writing")
    (folder / "adapter.gguf").write_bytes(b"GGUF")
    assert adopted(database, tmp_path) == ["writing@v1"]


def trained(database: Database, version: int) -> None:
    """An adapter that was made here."""
    with database.begin() as connection:
        store.put_adapter(
            connection, Adapter(team=TEAM, skill="sorting", version=version, digest="d", base=BASE, created=now())
        )


@pytest.mark.parametrize(("here", "shipped", "name"), [(1, 1, "v2"), (4, 1, "v5"), (1, 3, "v3")])
def test_beside_one_that_was_trained_here_and_never_served_it_serves_under_a_free_name(
    database: Database, tmp_path: Path, here: int, shipped: int, name: str
) -> None:
    trained(database, here)
    folder = ship(tmp_path, version=shipped)
    assert adopted(database, tmp_path) == [f"sorting@{name}"]
    with database.connect() as connection:
        digests = {adapter.name: adapter.digest for adapter in store.list_adapters(connection, TEAM)}
        (serving,) = store.list_deployments(connection, TEAM)
    assert digests == {f"sorting@v{here}": "d", f"sorting@{name}": folder.name}
    assert f"v{serving.version}" == name


def test_a_skill_of_which_something_was_put_in_service_here_gets_none_from_outside(
    database: Database, tmp_path: Path
) -> None:
    trained(database, 1)
    with database.begin() as connection:
        store.deploy(connection, Deployment(team=TEAM, skill="sorting", version=1, changed=now(), by="run r"))
        # Of this one the base model was chosen, though nothing was ever trained.
        store.deploy(connection, Deployment(team=TEAM, skill="writing", version=None, changed=now(), by="admin"))
    ship(tmp_path, version=2)
    ship(tmp_path, skill="writing")
    assert adopted(database, tmp_path) == []


def test_two_processes_may_start_at_once(database: Database, tmp_path: Path) -> None:
    ship(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: adopted(database, tmp_path), range(4)))
    assert sorted(found, key=len) == [[], [], [], ["sorting@v1"]]


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[1]", '["../../etc"]', '"x"'])
def test_an_odd_list_ships_nothing(database: Database, tmp_path: Path, text: str) -> None:
    ship(tmp_path)
    (tmp_path / "adapters" / "shipped.json").write_text(text)
    assert adopted(database, tmp_path) == []
