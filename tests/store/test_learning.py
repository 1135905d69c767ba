"""A dataset is taken again only where deletion would find in it what it must, and counts stay readable."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from made_adapters import keep_adapter
from sqlalchemy.engine import Engine as Database

from intern.store import learning as store
from intern.store import records
from intern.store.engine import open_database
from intern.types import Adapter, Dataset, Example, now

TEAM = "default"
DIGEST = "d" * 64


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    engine = open_database(database_url)
    yield engine
    engine.dispose()


def item(id: str = "ex_1", *, person: str | None = "eve", record: str | None = None, **more: Any) -> store.Item:
    example = Example(id=id, input="where is my parcel", output="fine", provenance="review", record=record)
    return store.Item(**{"example": example, "key": "k", "split": "train", "person": person, **more})


def keep(database: Database, id: str, *items: store.Item, **more: Any) -> Dataset:
    """What the store answers to a dataset of this id; all of them hold the same words, and so have one digest."""
    fields = {"id": id, "team": TEAM, "skill": "sort", "digest": DIGEST, "created": now(), "train": 1, "heldout": 0}
    with database.begin() as connection:
        return store.add_dataset(connection, Dataset.model_validate({**fields, **more}), items)


def erase(database: Database, **whose: str) -> store.Reached:
    with database.begin() as connection:
        return store.erase(connection, TEAM, store.Whose(**whose))


def datasets(database: Database) -> list[Dataset]:
    with database.connect() as connection:
        return store.list_datasets(connection, TEAM)


def test_a_dataset_that_is_the_same_in_every_respect_is_kept_once(database: Database) -> None:
    first = keep(database, "ds_1", item())
    assert keep(database, "ds_2", item()) == first
    assert [dataset.id for dataset in datasets(database)] == ["ds_1"]


@pytest.mark.parametrize(
    "other",
    [
        item("ex_2"),
        item(person="bob"),
        item(person=None),
        item(record="rec_1"),
        item(split="heldout"),
        item(key="l"),
        item(origin="o"),
    ],
)
def test_the_same_words_of_somebody_else_are_another_dataset(database: Database, other: store.Item) -> None:
    keep(database, "ds_1", item())
    again = keep(database, "ds_2", other)
    assert (again.id, again.digest) == ("ds_2", DIGEST)
    with database.connect() as connection:
        assert store.dataset_examples(connection, TEAM, "ds_2", other.split) == [other.example]


def test_what_is_judged_together_otherwise_is_another_dataset(database: Database) -> None:
    held = item(split="heldout")
    keep(database, "ds_1", held)
    joined = held.model_copy(update={"example": held.example.model_copy(update={"group": "ex_0"})})
    assert keep(database, "ds_2", joined).id == "ds_2"
    with database.connect() as connection:
        assert store.dataset_examples(connection, TEAM, "ds_2", "heldout") == [joined.example]


def test_another_variant_is_another_dataset(database: Database) -> None:
    keep(database, "ds_1", item())
    assert keep(database, "ds_2", item(), variant="augmented").id == "ds_2"


def test_a_dataset_of_which_something_was_erased_is_never_taken_again(database: Database) -> None:
    keep(database, "ds_1", item())
    assert erase(database, person="eve").datasets == ("ds_1",)
    for id in ("ds_2", "ds_3"):  # of a run that had read the examples before they went
        assert keep(database, id, item()).id == "ds_2"
    assert {dataset.id: dataset.erased for dataset in datasets(database)} == {"ds_1": 1, "ds_2": 0}


def test_who_deletes_finds_the_dataset_and_the_adapter_of_each_run_with_the_same_words(database: Database) -> None:
    keep(database, "ds_1", item())
    keep(database, "ds_2", item("ex_2", person="bob"))
    with database.begin() as connection:
        for dataset in ("ds_1", "ds_2"):
            adapter = Adapter(team=TEAM, skill="sort", version=0, digest="d", base="b", dataset=dataset, created=now())
            keep_adapter(connection, adapter)
    assert erase(database, person="eve") == store.Reached(datasets=("ds_1",), adapters=("sort@v1",))
    assert erase(database, person="bob") == store.Reached(datasets=("ds_2",), adapters=("sort@v2",))


def test_a_dataset_kept_by_an_older_version_stands_beside_new_ones_of_its_digest(database: Database) -> None:
    keep(database, "ds_1", item())
    with database.begin() as connection:  # which kept the digest where the hash of all that counts is now
        connection.execute(sa.text("update datasets set digest = :digest"), {"digest": DIGEST})
    assert keep(database, "ds_2", item("ex_2")).id == "ds_2"
    assert [dataset.id for dataset in datasets(database)] == ["ds_2", "ds_1"]
    assert erase(database, person="eve").datasets == ("ds_1", "ds_2")


def test_a_person_is_named_in_datasets_of_the_skill_that_hold_the_example_as_nobodys(database: Database) -> None:
    keep(database, "ds_1", item(person=None), item("ex_2", key="l", person=None))
    keep(database, "ds_2", item())
    with database.begin() as connection:
        records.name_persons(connection, "other", "sort", {"ex_1": "ann"})
        records.name_persons(connection, TEAM, "other", {"ex_1": "ann"})
    assert erase(database, person="ann").datasets == ()
    with database.begin() as connection:
        records.name_persons(connection, TEAM, "sort", {"ex_1": "ann"})
    assert erase(database, person="ann").datasets == ("ds_1",)
    assert erase(database, person="eve").datasets == ("ds_2",)
    with database.connect() as connection:
        assert [one.id for one in store.dataset_examples(connection, TEAM, "ds_1", "train")] == ["ex_2"]


def test_what_was_trained_on_is_remembered_when_the_person_is_erased(database: Database) -> None:
    keep(database, "ds_1", item(), item("ex_2", key="l", split="heldout"))
    erase(database, person="eve")
    keep(database, "ds_2", item("ex_3", person="bob"), item("ex_4", key="m", person="bob"))
    with database.connect() as connection:
        assert store.trained_keys(connection, TEAM, "sort") == {"k", "m"}
        assert store.trained_keys(connection, TEAM, "other") == store.trained_keys(connection, "other", "sort") == set()


def test_a_skills_lot_is_made_once_and_is_its_own(database: Database) -> None:
    def secret(team: str, skill: str) -> str:
        with database.begin() as connection:
            return store.split_secret(connection, team, skill)

    first = secret(TEAM, "sort")
    assert len(first) == 64
    assert secret(TEAM, "sort") == first
    assert len({first, secret(TEAM, "other"), secret("other", "sort")}) == 3


def test_of_many_that_ask_for_a_new_skills_lot_at_once_all_get_the_same(database: Database) -> None:
    together = threading.Barrier(4)

    def secret(_: int) -> str:
        together.wait()
        with database.begin() as connection:
            return store.split_secret(connection, TEAM, "sort")

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(secret, range(4)))) == 1
