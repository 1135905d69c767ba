"""Files of examples over HTTP: a preview that adds nothing, and an import that adds all rows or none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from made_learning import Script

from intern.learning.imports.mapping import make_mapping
from intern.store.learning import Item
from intern.types import Example

CSV = "body,verdict,by\nwhat a storm,bad,eve\nwhat a breeze,Good,bob\n"


@pytest.fixture(autouse=True)
def _clean(server: Any) -> Iterator[None]:
    yield
    for skill in ("chat", "mood"):
        for example in examples(server, skill):
            server.http().delete(f"/api/examples/{example['id']}?skill={skill}")


def examples(server: Any, skill: str = "mood") -> list[dict[str, Any]]:
    """Those that did not come from the folder."""
    found = server.http().get("/api/examples", params={"skill": skill}).json()["data"]
    return [example for example in found if example["provenance"] != "folder"]


def send(server: Any, path: str, file: Any, key: str = "user", name: str = "rows", **fields: Any) -> Any:
    data = {"skill": "mood", **{name: one if isinstance(one, str) else json.dumps(one) for name, one in fields.items()}}
    return server.http(key).post(f"/api/examples/{path}", files={"file": (name, file)}, data=data)


def preview(server: Any, file: Any, key: str = "user", **fields: Any) -> Any:
    answer = send(server, "preview", file, key, **fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_preview_shows_mapping_examples_and_problems_and_adds_nothing(server: Any) -> None:
    seen = preview(server, CSV + "what a day,mixed,eve\n", name="moods.csv")
    assert seen["mapping"] == {"layout": "columns", "input": "body", "output": {"mood": "verdict"}, "nulls": "keep"}
    assert make_mapping(seen["mapping"]).fields == {"mood": "verdict"}
    assert (seen["format"], seen["encoding"], seen["delimiter"]) == ("csv", "utf-8", ",")
    assert seen["columns"] == ["body", "verdict", "by"]
    assert (seen["rows"], seen["good"]) == (3, 2)
    assert seen["examples"][1] == {"line": 3, "input": "what a breeze", "output": {"mood": "good"}}
    (problem,) = seen["problems"]
    assert (problem["line"], problem["column"]) == (4, "verdict")
    assert "'mixed' is none of good, bad" in problem["message"]
    assert seen["notes"] == ["Columns not used: 'by'."]
    assert examples(server) == []


def test_where_nothing_can_be_guessed_the_columns_are_told_for_a_person_to_choose(server: Any) -> None:
    seen = preview(server, "a,b,c\n1,2,3\n", skill="chat")
    assert (seen["mapping"], seen["columns"], seen["rows"]) == (None, ["a", "b", "c"], 0)
    assert "which column holds the output cannot be told" in seen["problems"][0]["message"]
    chosen = preview(server, "a,b,c\n1,2,3\n", skill="chat", given={"output": "c", "input": "a"})
    assert chosen["examples"] == [{"line": 2, "input": "1", "output": "3"}]


def test_an_import_carries_its_provenance_and_who_brought_it_and_routes_at_once(server: Any) -> None:
    mapping = preview(server, CSV)["mapping"]
    answer = send(server, "import", CSV, "admin", mapping=mapping)
    assert answer.status_code == 201, answer.text
    assert answer.json() == {"skill": "mood", "added": 2, "same": 0, "skipped": 0, "problems": [], "notes": []}
    found = examples(server)
    assert [(e["input"], e["output"], e["provenance"], e["contributor"]) for e in found] == [
        ("what a storm", {"mood": "bad"}, "import", server.ids["admin"]),
        ("what a breeze", {"mood": "good"}, "import", server.ids["admin"]),
    ]
    assert server.http().post("/api/route", json={"input": "storm"}).json()["skill"] == "mood"
    again = send(server, "import", CSV, mapping=mapping).json()
    assert (again["added"], again["same"]) == (0, 2)
    assert len(examples(server)) == 2


def test_one_bad_row_keeps_all_out_unless_it_may_be_skipped(server: Any) -> None:
    bad = CSV + "what a day,mixed,eve\nno cell\n"
    mapping = preview(server, CSV)["mapping"]
    refused = send(server, "import", bad, mapping=mapping)
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith("line 4, column 'verdict': 'mixed' is none of good, bad")
    assert refused.json()["error"]["message"].endswith("(2 of 4 rows are bad). Nothing was added.")
    assert examples(server) == []
    skipped = send(server, "import", bad, mapping=mapping, skip_bad="true").json()
    assert (skipped["added"], skipped["skipped"]) == (2, 2)
    assert [problem["line"] for problem in skipped["problems"]] == [4, 5]
    only_bad = send(server, "import", "body,verdict\nx,mixed\n", mapping=mapping, skip_bad="true")
    assert only_bad.status_code == 400, "nothing is no success"


def test_only_the_own_layout_is_imported_without_a_mapping(server: Any) -> None:
    refused = send(server, "import", CSV)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "mapping")
    assert "POST /api/examples/preview" in refused.json()["error"]["message"]
    row = {"input": "sleet", "output": {"mood": "bad"}, "split": "heldout"}
    assert send(server, "import", json.dumps(row), "admin").json()["added"] == 1
    (found,) = examples(server)
    assert (found["split"], found["provenance"]) == ("heldout", "import")


def test_only_an_admin_speaks_for_other_contributors(server: Any) -> None:
    mapping = {"input": "body", "output": {"mood": "verdict"}, "contributor": "by"}
    refused = send(server, "import", CSV, mapping=mapping)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_allowed")
    assert send(server, "import", CSV, "admin", mapping=mapping).json()["added"] == 2
    assert {example["contributor"] for example in examples(server)} == {"eve", "bob"}
    annotated = "body,verdict,annotator\nwhat a storm,bad,eve\n"
    assert preview(server, annotated, "admin")["mapping"]["contributor"] == "annotator"
    assert "contributor" not in preview(server, annotated, "user")["mapping"]
    row = {"input": "x", "output": {"mood": "bad"}}
    body = {"skill": "mood", "examples": [row], "contributor": "eve"}
    assert server.http("user").post("/api/examples", json=body).status_code == 403
    assert server.http("user").post("/api/examples", json={**body, "contributor": server.ids["user"]}).is_success
    assert server.http().post("/api/examples", json={**body, "provenance": "folder"}).status_code == 400


CUSTOMERS = "body,verdict,customer\nwhat a storm,bad,ada\nwhat a breeze,good,bob\nwhat a storm,bad,zoe\n"


def test_an_import_says_whose_words_it_brings_and_deletion_finds_them(server: Any) -> None:
    mapping = preview(server, CUSTOMERS, "admin")["mapping"]
    assert mapping["person"] == "customer"
    assert preview(server, CUSTOMERS, "admin")["examples"][0]["person"] == "ada"
    assert send(server, "import", CUSTOMERS, "admin", mapping=mapping).json()["added"] == 3
    assert "ada" not in json.dumps(examples(server)), "nobody is shown whose words they are"
    assert send(server, "import", CUSTOMERS, "admin", mapping=mapping).json()["same"] == 3
    without = {name: column for name, column in mapping.items() if name != "person"}
    assert send(server, "import", CUSTOMERS, "admin", mapping=without).json()["same"] == 3
    gone = server.http().delete("/api/persons/ada").json()
    assert (gone["examples"], gone["folders"]) == (1, [])
    assert sorted(e["input"] for e in examples(server)) == ["what a breeze", "what a storm"], "zoe's words stay"
    assert server.http().delete("/api/persons/zoe").json()["examples"] == 1


def test_what_is_there_gets_a_person_once_one_is_named(server: Any) -> None:
    row = {"input": "what a storm", "output": {"mood": "bad"}}
    body: dict[str, Any] = {"skill": "mood", "examples": [row, {**row, "person": "ada"}, {**row, "person": "bob"}]}
    answer = server.http().post("/api/examples", json=body).json()
    assert answer["added"] == 2
    assert answer["data"][0] == answer["data"][1] != answer["data"][2]
    assert server.http().post("/api/examples", json=body).json()["data"] == answer["data"]
    first = {"input": "what a breeze", "output": {"mood": "good"}}
    for examples_ in ([first], [{**first, "person": "ada"}]):
        server.http().post("/api/examples", json={"skill": "mood", "examples": examples_})
    assert server.http().delete("/api/persons/ada").json()["examples"] == 2
    assert server.http().delete("/api/persons/bob").json()["examples"] == 1
    assert examples(server) == []


def test_a_person_named_after_a_training_is_deleted_from_its_dataset(server: Any, learning: Script) -> None:
    row = {"input": "what a storm", "output": {"mood": "bad"}}
    (brought,) = server.http().post("/api/examples", json={"skill": "mood", "examples": [row]}).json()["data"]
    learning.items = [Item(example=Example(id=brought["id"], **row), key="k", split="train")]
    dataset = learning.dataset("default", "mood")
    adapter = learning.adapter("default", "mood", dataset=dataset)
    named = json.dumps({**row, "person": "ann"})
    assert send(server, "import", named, "admin").json()["same"] == 1
    gone = server.http().delete("/api/persons/ann").json()
    assert (gone["examples"], gone["datasets"], gone["adapters"]) == (1, [dataset.id], [adapter.name])
    assert server.http().get(f"/api/datasets/{dataset.id}").json()["erased"] == 1


def test_a_person_of_what_stands_in_the_folder_without_one_is_said_not_to_be_found(server: Any) -> None:
    folder = server.http().get("/api/examples", params={"skill": "mood"}).json()["data"][0]
    row = {"input": folder["input"], "output": folder["output"]}
    new = {"input": "sleet", "output": {"mood": "bad"}, "person": "ann"}
    file = "\n".join(map(json.dumps, [{**row, "person": "ann"}, row, new]))
    seen = preview(server, file, "admin")["notes"]
    answer = send(server, "import", file, "admin").json()
    assert (answer["added"], answer["same"]) == (1, 2)
    (note,) = answer["notes"]
    assert seen == [note]
    assert note.startswith("1 of the examples name a person, but stand in the folder of mood without one.")
    body = {"skill": "mood", "examples": [{**row, "person": "ann"}]}
    assert server.http().post("/api/examples", json=body).json()["notes"] == [note]
    assert server.http().post("/api/examples", json={**body, "examples": [row, new]}).json()["notes"] == []


def test_only_an_admin_says_whose_words_examples_are(server: Any) -> None:
    guessed = preview(server, CUSTOMERS, "user")
    assert "person" not in guessed["mapping"]
    assert guessed["notes"] == ["Columns not used: 'customer'."]
    declared = {"input": "body", "output": {"mood": "verdict"}, "person": "customer"}
    own = json.dumps({"input": "sleet", "output": {"mood": "bad"}, "person": "ada"})
    for path in ("preview", "import"):
        for refused in (send(server, path, CUSTOMERS, mapping=declared), send(server, path, own)):
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_allowed"), path
            assert "person' out." in refused.json()["error"]["message"]
    body = {"skill": "mood", "examples": [json.loads(own)]}
    assert server.http("user").post("/api/examples", json=body).status_code == 403
    long = {"skill": "mood", "examples": [{**json.loads(own), "person": "x" * 201}]}
    refused = server.http().post("/api/examples", json=long)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "examples.0.person")
    assert examples(server) == []


def test_what_a_users_key_brought_is_an_import_once_an_admin_imports_it(server: Any) -> None:
    row = {"input": "what a storm", "output": {"mood": "bad"}}
    mine = {**row, "group": "mine"}
    assert send(server, "import", json.dumps([mine]), name="a.json").json()["added"] == 1
    (before,) = examples(server)
    file = json.dumps([{**row, "group": "letters", "split": "heldout"}])
    assert send(server, "import", file, "admin", name="a.json").json() == {
        "skill": "mood",
        "added": 0,
        "same": 1,
        "skipped": 0,
        "problems": [],
        "notes": [],
    }
    (found,) = examples(server)
    brought = {"provenance": "import", "contributor": server.ids["admin"], "group": "letters", "split": "heldout"}
    assert found == {**before, **brought}
    assert server.http("user").delete(f"/api/examples/{found['id']}?skill=mood").status_code == 403
    assert send(server, "import", json.dumps([mine]), name="a.json").json()["same"] == 1
    assert examples(server) == [found], "and a user's key takes nothing back"


def test_what_a_users_key_imports_counts_as_its_own_examples(server: Any) -> None:
    grouped = "body,verdict,thread\nwhat a storm,bad,t1\nwhat a breeze,good,\n"
    mapping = {"input": "body", "output": {"mood": "verdict"}, "group": "thread"}
    assert send(server, "import", grouped, "user", mapping=mapping).json()["added"] == 2
    user = server.ids["user"]
    assert [(e["provenance"], e["contributor"], e["group"]) for e in examples(server)] == [
        ("api", user, f"{user}:t1"),
        ("api", user, None),
    ]


def test_only_an_admin_imports_what_is_held_out(server: Any) -> None:
    split = "body,verdict,split\nwhat a storm,bad,test\nwhat a breeze,good,train\n"
    assert preview(server, split, "admin")["mapping"]["split"] == "split"
    guessed = preview(server, split, "user")
    assert "split" not in guessed["mapping"]
    assert guessed["notes"] == ["Columns not used: 'split'."]
    assert send(server, "import", split, "user", mapping=guessed["mapping"]).json()["added"] == 2
    assert [e["split"] for e in examples(server)] == [None, None]
    declared = {"input": "body", "output": {"mood": "verdict"}, "split": "split"}
    own = json.dumps({"input": "sleet", "output": {"mood": "bad"}, "split": "heldout"})
    for path in ("preview", "import"):
        for refused in (send(server, path, split, mapping=declared), send(server, path, own)):
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_allowed"), path
            assert "split' out." in refused.json()["error"]["message"]
    without = json.dumps({"input": "sleet", "output": {"mood": "bad"}})
    assert send(server, "import", without).json()["added"] == 1


@pytest.mark.parametrize(
    ("file", "fields", "param"),
    [
        (b"", {}, "file"),
        (bytes(range(256)) * 40, {}, "file"),
        ("text,label\ncafé,a\n".encode("utf-16-le"), {}, "file"),
        (b"a,a\n1,2\n", {}, "file"),
        (b"[" * 90_000, {}, "file"),
        (CSV, {"mapping": "["}, "mapping"),
        (CSV, {"mapping": {"input": "body"}}, "mapping"),
        (CSV, {"mapping": {"input": "body", "output": "nowhere"}}, "mapping"),
        (CSV, {"format": "xml"}, "format"),
        (CSV, {"format": "json"}, "file"),
    ],
)
def test_what_cannot_be_read_is_a_400_that_names_the_part(server: Any, file: Any, fields: Any, param: str) -> None:
    for path in ("preview", "import"):
        answer = send(server, path, file, **fields)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == param, answer.text
    assert examples(server) == []


def test_a_wrong_hint_for_the_guess_is_a_400(server: Any) -> None:
    for given in ("[", "[1]", '{"input": 5}', '{"inptu": "body"}', '{"nulls": "maybe"}', '{"output": {"mood": 1}}'):
        answer = send(server, "preview", CSV, given=given)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "mapping"), given


def test_an_upload_without_its_parts_names_the_one_that_is_missing(server: Any) -> None:
    http = server.http("user")
    for path in ("preview", "import"):
        without_file = http.post(f"/api/examples/{path}", data={"skill": "mood"})
        assert (without_file.status_code, without_file.json()["error"]["param"]) == (400, "file")
        without_skill = http.post(f"/api/examples/{path}", files={"file": ("x.csv", CSV)})
        assert (without_skill.status_code, without_skill.json()["error"]["param"]) == (400, "skill")


def test_an_upload_over_the_limit_is_refused(server: Any) -> None:
    for path in ("preview", "import"):
        answer = send(server, path, b"a,b\n" + b"1,2\n" * 100_000)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_another_teams_skill_does_not_exist(server: Any) -> None:
    for path in ("preview", "import"):
        assert send(server, path, CSV, skill="secret").status_code == 404
        assert send(server, path, CSV, "blue", skill="mood").status_code == 404
        assert server.http(None).post(f"/api/examples/{path}", files={"file": ("x", CSV)}).status_code == 401


def test_a_preview_names_at_most_a_thousand_problems_and_counts_all(server: Any) -> None:
    seen = preview(server, "text,label\na,good\n" + "b,x\n" * 1_500)
    assert (seen["rows"], seen["good"], len(seen["problems"])) == (1_501, 1, 1_000)
