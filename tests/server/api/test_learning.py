"""Examples, reviews and records over HTTP: what people teach is kept, checked and used, and goes when it must."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa


@pytest.fixture(autouse=True)
def _clean(server: Any) -> Iterator[None]:
    yield
    http = server.http()
    for skill in ("chat", "mood"):
        for example in http.get(f"/api/examples?skill={skill}").json()["data"]:
            if example["provenance"] != "folder":
                http.delete(f"/api/examples/{example['id']}?skill={skill}")


def examples(server: Any, skill: str = "mood") -> list[dict[str, Any]]:
    return list(server.http("user").get("/api/examples", params={"skill": skill}).json()["data"])


def add(server: Any, *rows: Any, key: str = "user", skill: str = "mood") -> Any:
    return server.http(key).post("/api/examples", json={"skill": skill, "examples": list(rows)})


def ask(server: Any, text: str, key: str = "user", **more: Any) -> dict[str, Any]:
    answer = server.http(key).post("/api/ask", json={"input": text, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_examples_are_added_with_their_provenance_and_routed_by_at_once(server: Any) -> None:
    answer = add(server, {"input": "gloomy clouds", "output": {"mood": "bad"}}, key="admin")
    assert (answer.status_code, answer.json()["added"]) == (201, 1)
    (new,) = [e for e in examples(server) if e["provenance"] == "api"]
    assert new["id"] == answer.json()["data"][0]["id"]
    assert (new["input"], new["contributor"], new["skill"]) == ("gloomy clouds", server.ids["admin"], "mood")
    assert server.http("user").post("/api/route", json={"input": "gloomy"}).json()["skill"] == "mood"
    counts = server.http("user").get("/api/skills/mood").json()
    assert (counts["examples"], counts["heldout"]) == (2, 1)


def test_a_held_out_example_is_no_utterance_to_route_by(server: Any) -> None:
    answer = add(server, {"input": "quaint zephyrs", "output": {"mood": "bad"}, "split": "heldout"}, key="admin")
    assert (answer.status_code, answer.json()["added"]) == (201, 1)
    assert server.http("user").post("/api/route", json={"input": "zephyrs"}).json()["skill"] is None
    counts = server.http("user").get("/api/skills/mood").json()
    assert (counts["examples"], counts["heldout"]) == (2, 2)


def test_the_same_example_is_not_added_twice(server: Any) -> None:
    row = {"input": "grey", "output": {"mood": "bad"}}
    first = add(server, row, row).json()
    again = add(server, row).json()
    assert (first["added"], again["added"]) == (1, 0)
    assert first["data"][0] == first["data"][1] == again["data"][0]
    lovely = {"input": "what a lovely day", "output": {"mood": "good"}}
    assert add(server, lovely).json()["added"] == 0, "it lies in the folder"


class Together:
    """Of two transactions that add examples, the first one that comes to add some waits until the other is on its way:
    it adds some, too, or waits for the first one to end."""

    def __init__(self, database: Any) -> None:
        self.database = database
        self.there: set[int] = set()
        self.changed = threading.Condition()

    def __enter__(self) -> None:
        sa.event.listen(self.database, "before_cursor_execute", self.meet)

    def __exit__(self, *_: Any) -> None:
        sa.event.remove(self.database, "before_cursor_execute", self.meet)

    def meet(self, connection: Any, cursor: Any, sent: str, *_: Any) -> None:
        adds = sent.startswith("INSERT INTO examples")
        if adds or sent == "BEGIN IMMEDIATE":
            with self.changed:
                self.there.add(threading.get_ident())
                self.changed.notify_all()
                if adds:
                    assert self.changed.wait_for(lambda: len(self.there) == 2, 20)


def test_the_same_example_is_not_added_twice_by_two_requests_at_once(server: Any) -> None:
    row = {"input": "murky", "output": {"mood": "bad"}}
    with Together(server.workspace.database), ThreadPoolExecutor(2) as pool:
        answers = [answer.json() for answer in pool.map(lambda key: add(server, row, key=key), ("admin", "user"))]
    assert sorted(answer["added"] for answer in answers) == [0, 1]
    assert answers[0]["data"] == answers[1]["data"]
    assert sum(example["input"] == "murky" for example in examples(server)) == 1


@pytest.mark.parametrize(
    ("bad", "param"),
    [
        ({"input": "x", "output": {"mood": "purple"}}, "examples.1.output"),
        ({"input": "x"}, "examples.1.output"),
        ({"input": "", "output": {"mood": "bad"}}, "examples.1.input"),
        ({"input": "x", "output": {"mood": "bad"}, "more": 1}, "examples.1.more"),
        ("x", "examples.1"),
    ],
)
def test_examples_are_added_all_or_none_and_the_bad_one_is_named(server: Any, bad: Any, param: str) -> None:
    before = examples(server)
    answer = add(server, {"input": "fine", "output": {"mood": "good"}}, bad)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert examples(server) == before


def test_only_an_admin_says_what_is_trusted_and_what_is_held_out(server: Any) -> None:
    def post(key: str, row: dict[str, Any], **more: Any) -> Any:
        return server.http(key).post("/api/examples", json={"skill": "mood", "examples": [row], **more})

    row = {"input": "hail", "output": {"mood": "bad"}, "group": "thread 7"}
    for split in ("heldout", "train"):
        refused = post("user", {**row, "split": split})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_allowed")
        assert "Only an admin key can say which examples are held out" in refused.json()["error"]["message"]
    refused = post("user", row, provenance="import")
    assert refused.status_code == 403
    assert "leave 'provenance' out" in refused.json()["error"]["message"]
    assert [e["provenance"] for e in examples(server)] == ["folder"], "nothing was added"
    assert post("admin", {**row, "split": "heldout"}, provenance="import").status_code == 201
    assert [(e["provenance"], e["split"], e["group"]) for e in examples(server)[1:]] == [
        ("import", "heldout", "thread 7")
    ]


def test_groups_of_a_users_key_are_its_own(server: Any) -> None:
    for number, group in enumerate(("thread 7", "thread 7", "thread 8", None)):
        row = {"input": f"hail {number}", "output": {"mood": "bad"}, **({"group": group} if group else {})}
        assert add(server, row).status_code == 201
    user = server.ids["user"]
    groups = [e["group"] for e in examples(server) if e["provenance"] == "api"]
    assert groups == [f"{user}:thread 7", f"{user}:thread 7", f"{user}:thread 8", None]


def test_an_example_is_deleted_by_an_admin_or_who_brought_it(server: Any) -> None:
    row = {"input": "by the admin", "output": {"mood": "good"}}
    ident = add(server, row, key="admin").json()["data"][0]["id"]
    path = f"/api/examples/{ident}?skill=mood"
    assert server.http("user").delete(path).status_code == 403
    assert server.http("admin").delete(path).status_code == 204
    assert server.http("admin").delete(path).status_code == 404
    ident = add(server, row).json()["data"][0]["id"]
    assert server.http("user").delete(f"/api/examples/{ident}?skill=mood").status_code == 204


def test_a_review_is_kept_makes_an_example_and_teaches_the_router(server: Any) -> None:
    server.says('{"mood": "good"}')
    record = ask(server, "a strange fog", skill="mood")["record"]
    verdict = {"record": record, "verdict": "correct", "correction": {"mood": "bad"}, "reason": "fog is bad"}
    answer = server.http("user").post("/api/reviews", json=verdict)
    assert answer.status_code == 201
    review = answer.json()
    assert (review["record"], review["verdict"], review["reviewer"]) == (record, "correct", server.ids["user"])
    (example,) = [e for e in examples(server) if e["provenance"] == "review"]
    assert (example["input"], example["output"], example["record"]) == ("a strange fog", {"mood": "bad"}, record)
    assert server.http("user").post("/api/route", json={"input": "strange fog"}).json()["skill"] == "mood"
    listed = server.http("user").get("/api/reviews", params={"record": record}).json()
    assert [r["id"] for r in listed["data"]] == [review["id"]]


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"verdict": "correct"}, 400, "correction"),
        ({"verdict": "correct", "correction": {"mood": "purple"}}, 400, "correction"),
        ({"verdict": "accept", "correction": {"mood": "good"}}, 400, "correction"),
        ({"verdict": "wrong_skill", "right_skill": "mood"}, 400, "right_skill"),
        ({"verdict": "wrong_skill", "right_skill": "nothing"}, 404, None),
        ({"verdict": "splendid"}, 400, "verdict"),
        ({"verdict": "accept", "record": "rec_nothing"}, 404, None),
    ],
)
def test_a_review_that_makes_no_sense_says_which_part(
    server: Any, change: dict[str, Any], status: int, param: str | None
) -> None:
    server.says('{"mood": "good"}')
    record = ask(server, "a day", skill="mood")["record"]
    answer = server.http("user").post("/api/reviews", json={"record": record, **change})
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


def test_records_are_paged_newest_first(server: Any) -> None:
    made = [ask(server, f"hello {n}", skill="chat")["record"] for n in range(5)]
    http = server.http("user")
    seen: list[str] = []
    cursor: str | None = None
    while len(seen) < 5:
        page = http.get("/api/records", params={"limit": 2, "skill": "chat", **({"before": cursor} if cursor else {})})
        seen += [record["id"] for record in page.json()["data"]]
        cursor = page.json()["next"]
    assert seen[:5] == made[::-1]
    assert {r["skill"] for r in http.get("/api/records?skill=chat").json()["data"]} == {"chat"}


def test_the_last_page_has_no_next(server: Any) -> None:
    assert server.http("user").get("/api/records?skill=nothing").json() == {"data": [], "next": None}


def test_a_deleted_record_takes_along_what_was_derived_from_it(server: Any) -> None:
    server.says('{"mood": "good"}')
    record = ask(server, "purple haze", skill="mood")["record"]
    http = server.http()
    assert http.post("/api/reviews", json={"record": record, "verdict": "accept"}).status_code == 201
    assert any(e["record"] == record for e in examples(server))
    assert http.delete(f"/api/records/{record}").json() == {"datasets": [], "adapters": [], "cancelled": []}
    assert http.get(f"/api/records/{record}").status_code == 404
    assert http.get("/api/reviews", params={"record": record}).json()["data"] == []
    assert not any(e["record"] == record for e in examples(server))


def test_a_persons_data_is_deleted_with_counts(server: Any) -> None:
    body = {"model": "intern/chat", "messages": [{"role": "user", "content": "hello"}], "user": "eve@example.com/1"}
    http = server.http()
    for _ in range(2):
        assert http.post("/v1/chat/completions", json=body).status_code == 200
    record = http.get("/api/records?limit=1").json()["data"][0]
    assert record["person"] == "eve@example.com/1"
    assert http.post("/api/reviews", json={"record": record["id"], "verdict": "accept"}).status_code == 201
    counts = http.delete("/api/persons/eve@example.com/1").json()
    assert (counts["records"], counts["reviews"], counts["examples"]) == (2, 1, 1)
    assert http.delete("/api/persons/eve@example.com/1").json()["records"] == 0
