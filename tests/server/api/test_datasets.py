"""Datasets over HTTP, the look ahead at what a run would train on, and what a deletion reaches."""

from __future__ import annotations

from typing import Any

from made_learning import Script

from intern.store.learning import Item
from intern.types import Example


def ask(server: Any, text: str, person: str) -> str:
    """The record of one answer to a person."""
    server.says('{"mood": "good"}')
    body = {"model": "intern/mood", "messages": [{"role": "user", "content": text}], "user": person}
    return str(server.http().post("/v1/chat/completions", json=body).json()["intern"]["record"])


def item(text: str, *, person: str | None = None, record: str | None = None) -> Item:
    example = Example(id=f"ex_{text}", input=text, output={"mood": "good"}, record=record)
    return Item(example=example, key=text, split="train", person=person)


def test_datasets_are_listed_with_counts_and_shown_with_reasons(server: Any, learning: Script) -> None:
    dataset = learning.dataset("default", "mood")
    adapter = learning.adapter("default", "mood", dataset=dataset)
    http = server.http("user")
    listed = http.get("/api/datasets?skill=mood&limit=1").json()["data"][0]
    assert (listed["id"], listed["train"], listed["heldout"]) == (dataset.id, 60, 40)
    assert listed["reasons"] == {"duplicate": 2, "contradiction": 1}
    assert "dropped" not in listed
    one = http.get(f"/api/datasets/{dataset.id}").json()
    assert one["dropped"][1] == {"example": "ex_3", "reason": "contradiction", "detail": "outvoted by ex_4"}
    assert one["adapters"] == [adapter.name]


def test_another_teams_dataset_does_not_exist(server: Any, learning: Script) -> None:
    dataset = learning.dataset("default", "mood")
    http = server.http("blue")
    assert http.get(f"/api/datasets/{dataset.id}").status_code == 404
    assert http.get("/api/datasets").json()["data"] == []
    assert http.get("/api/skills/mood/readiness").status_code == 404


def test_readiness_says_what_is_missing_and_stores_nothing(server: Any, learning: Script) -> None:
    http = server.http("user")
    before = http.get("/api/datasets?skill=chat").json()
    found = http.get("/api/skills/chat/readiness").json()
    assert (found["skill"], found["ready"], found["train"]) == ("chat", False, 0)
    assert found["missing"][0] == "0 examples, 50 needed."
    rows = [{"input": f"talk about subject number {n}", "output": f"yes, {n}"} for n in range(90)]
    assert server.http().post("/api/examples", json={"skill": "chat", "examples": rows}).status_code == 201
    found = http.get("/api/skills/chat/readiness").json()
    assert found["train"] + found["heldout"] + sum(found["dropped"].values()) == 90
    assert http.get("/api/datasets?skill=chat").json() == before
    assert http.get("/api/skills/chat/readiness?variant=odd").status_code == 400


def test_readiness_says_why_nothing_can_be_trained_here(server: Any) -> None:
    found = server.http("user").get("/api/skills/chat/readiness").json()
    assert "INTERN_ENGINE=llamacpp" in found["unavailable"]


def test_deleting_a_person_says_which_datasets_and_adapters_were_reached(server: Any, learning: Script) -> None:
    learning.items = [item("a", person="ada"), item("b", person="bob"), item("c", person="ada")]
    dataset = learning.dataset("default", "mood")
    adapter = learning.adapter("default", "mood", dataset=dataset)
    learning.items = [item("d", person="bob")]
    untouched = learning.dataset("default", "mood")
    record = ask(server, "a lovely day", "ada")
    gone = server.http().delete("/api/persons/ada").json()
    assert (gone["records"], gone["datasets"], gone["adapters"]) == (1, [dataset.id], [adapter.name])
    http = server.http("user")
    assert http.get(f"/api/records/{record}").status_code == 404
    assert http.get(f"/api/datasets/{dataset.id}").json()["erased"] == 2
    assert http.get(f"/api/datasets/{untouched.id}").json()["erased"] == 0
    again = server.http().delete("/api/persons/ada").json()
    assert (again["datasets"], again["adapters"]) == ([], [])


def test_deleting_a_record_says_the_same(server: Any, learning: Script) -> None:
    record = ask(server, "a dark day", "eve")
    learning.items = [item("e", record=record), item("f")]
    dataset = learning.dataset("default", "mood")
    adapter = learning.adapter("default", "mood", dataset=dataset)
    assert server.http("blue").delete(f"/api/records/{record}").status_code == 404
    gone = server.http().delete(f"/api/records/{record}")
    assert (gone.status_code, gone.json()) == (
        200,
        {"datasets": [dataset.id], "adapters": [adapter.name], "cancelled": []},
    )
    assert server.http("user").get(f"/api/datasets/{dataset.id}").json()["erased"] == 1
    assert server.http().delete(f"/api/records/{record}").status_code == 404


def test_another_teams_person_of_the_same_name_is_another_person(server: Any, learning: Script) -> None:
    learning.items = [item("g", person="zoe")]
    dataset = learning.dataset("default", "mood")
    assert server.http("blue").delete("/api/persons/zoe").json()["datasets"] == []
    assert server.http("user").get(f"/api/datasets/{dataset.id}").json()["erased"] == 0
