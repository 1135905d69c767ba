"""The commands, through the API of the process that owns the workspace."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cli.owning import Outcome, Owner, make_home, owning

from intern.cli import run
from intern.cli.connection import Api
from intern.cli.upload import Upload, find_sources
from intern.errors import EngineFailure, NotAuthenticated, Overloaded

Intern = Callable[..., Outcome]


def rows(tmp_path: Path, *values: Any) -> str:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f"{value if isinstance(value, str) else json.dumps(value)}\n" for value in values))
    return str(file)


# --- ask, route, retrieve --------------------------------------------------------------------------------


def test_ask_routes_and_answers_in_the_contract_s_fields(intern: Intern) -> None:
    done = intern("ask", "please give me a week of leave")
    assert done.code == 0
    assert done.json["record"].startswith("rec_")
    assert {**done.json, "record": ""} == {
        "input": "please give me a week of leave",
        "output": {"kind": "paid"},
        "skill": "leave",
        "adapter": None,
        "valid": True,
        "citations": [],
        "record": "",
    }


def test_ask_with_a_skill_does_not_route(intern: Intern) -> None:
    for skill in ("rules", "rules@base"):
        answer = intern("ask", "please give me a week of leave", "--skill", skill).json
        assert (answer["skill"], answer["output"]) == ("rules", "The rules say: be kind.")


def test_what_fits_no_skill_is_declined_and_is_no_failure(intern: Intern) -> None:
    done = intern("ask", "qwertz uiop asdf")
    assert done.code == 0
    assert (done.json["skill"], done.json["output"], done.json["valid"]) == (None, None, False)
    assert done.json["refusal"]


def test_rows_are_answered_in_order_with_the_failed_ones_among_them(intern: Intern, tmp_path: Path) -> None:
    conversation = [{"role": "user", "content": "leave on friday please"}]
    file = rows(
        tmp_path,
        {"input": "a week of leave please"},
        "no json",
        {"input": "break leave please"},
        {"input": conversation},
    )
    done = intern("ask", "--file", file, "--skill", "leave", "--parallel", "2")
    assert done.code == 1
    first, bad, broken, last = done.rows
    assert (first["output"], first["valid"]) == ({"kind": "paid"}, True)
    assert bad["error"].startswith("line 2: not valid JSON")
    assert (broken["output"], broken["valid"]) == (None, False)
    assert "not valid JSON" in broken["error"]
    assert (last["input"], last["output"]) == (conversation, {"kind": "paid"})
    fields = {"input", "output", "skill", "adapter", "valid", "citations", "record"}
    assert [set(row) - {"error"} for row in done.rows] == [fields] * 4


def test_an_overloaded_server_costs_time_and_no_rows(intern: Intern, owner: Owner, tmp_path: Path) -> None:
    owner.engine.replies[:] = [Overloaded("full", retry_after=1), "The rules say: wait."]
    done = intern("ask", "--file", rows(tmp_path, {"input": "which rules hold for travel"}), "--skill", "rules")
    assert done.code == 0
    assert done.rows[0]["output"] == "The rules say: wait."


def test_route_says_skill_confidence_candidates_and_reason(intern: Intern, tmp_path: Path) -> None:
    single = intern("route", "what do the rules say")
    assert single.code == 0
    assert list(single.json) == ["input", "skill", "confidence", "candidates", "reason"]
    assert single.json["skill"] == "rules"
    assert {candidate["skill"] for candidate in single.json["candidates"]} == {"leave", "rules"}
    assert 0 <= single.json["confidence"] <= 1
    many = intern(
        "route", "--file", rows(tmp_path, {"input": "what do the rules say"}, {"input": "i want leave in may"})
    )
    assert many.code == 0
    assert [row["skill"] for row in many.rows] == ["rules", "leave"]
    assert many.rows[0] == single.json


def test_retrieve_shows_passages_as_many_as_asked(intern: Intern, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for topic in ("travel", "laptops", "parking"):
        (tmp_path / "docs" / f"{topic}.md").write_text(f"# Rules\n\nThe rules for {topic} are kind ones.\n")
    assert intern("ingest", "rules", str(tmp_path / "docs")).code == 0
    done = intern("retrieve", "rules", "rules for laptops", "--limit", "2")
    assert done.code == 0
    assert list(done.json) == ["input", "passages"]
    assert len(done.json["passages"]) == 2
    best = done.json["passages"][0]
    assert set(best) == {"document", "heading", "start", "end", "score", "text"}
    assert best["document"] == "laptops.md"
    many = intern("retrieve", "rules", "--file", rows(tmp_path, {"input": "rules for laptops"}), "--limit", "2")
    assert many.rows == [done.json]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["ask", "x", "--skill", "nobody"], "nobody"),
        (["retrieve", "nobody", "x"], "nobody"),
        (["ingest", "nobody", __file__], "nobody"),
        (["keys", "revoke", "key_none"], "key_none"),
        (["ask", "--file", "/no/such/file"], "/no/such/file"),
    ],
)
def test_a_refusal_is_one_line_and_exit_code_1(intern: Intern, arguments: list[str], reason: str) -> None:
    done = intern(*arguments)
    assert (done.code, done.out) == (1, "")
    assert len(done.err.splitlines()) == 1
    assert reason in done.err


def test_a_failing_engine_is_said_and_not_answered(intern: Intern, owner: Owner) -> None:
    owner.engine.replies[:] = [EngineFailure("the engine broke")]
    done = intern("ask", "what do the rules say", "--skill", "rules")
    assert (done.code, done.out) == (1, "")
    assert "the engine broke" in done.err


# --- ingest ----------------------------------------------------------------------------------------------


def test_ingest_brings_what_is_new_or_changed_and_removes_what_is_gone(intern: Intern, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    (docs / "sub").mkdir(parents=True)
    for name in ("a.md", "sub/b.md", "c.md"):
        (docs / name).write_text(f"# {name}\n\nSome rules about {name}.\n")
    nothing = {"skill": "rules", "added": 0, "replaced": 0, "unchanged": 0, "removed": [], "refused": []}

    assert intern("ingest", "rules", str(docs)).json == {**nothing, "added": 3}
    assert intern("ingest", "rules", str(docs)).json == {**nothing, "unchanged": 3}
    (docs / "a.md").write_text("# a\n\nOther rules.\n")
    (docs / "c.md").unlink()
    assert intern("ingest", "rules", str(docs)).json == {**nothing, "replaced": 1, "unchanged": 1, "removed": ["c.md"]}
    (docs / "a.md").unlink()
    assert intern("ingest", "rules", str(docs), "--no-prune").json == {**nothing, "unchanged": 1}
    # A single file stands for itself alone.
    assert intern("ingest", "rules", str(docs / "sub" / "b.md")).json["removed"] == []


def test_a_refused_file_is_named_and_the_others_are_taken(intern: Intern, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "good.md").write_text("# Rules\n\nGood rules.\n")
    (docs / "broken.pdf").write_bytes(b"%PDF-1.7 and then nothing")
    (docs / "empty.md").write_bytes(b"")
    done = intern("ingest", "rules", str(docs))
    assert done.code == 1
    assert done.json["added"] == 1
    assert sorted(refused["name"] for refused in done.json["refused"]) == ["broken.pdf", "empty.md"]
    assert all(r["problem"] and not r["problem"].startswith(r["name"]) for r in done.json["refused"])
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("intern: 2 refused: ")


def test_a_single_refused_file_is_reported_the_same_way(intern: Intern, tmp_path: Path) -> None:
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 and then nothing")
    done = intern("ingest", "rules", str(tmp_path / "broken.pdf"))
    assert done.code == 1
    assert done.json["refused"][0]["name"] == "broken.pdf"
    assert not done.json["refused"][0]["problem"].startswith("broken.pdf")


def test_a_file_over_the_server_s_limit_keeps_no_other_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "good.md").write_text("# Rules\n\nGood rules.\n")
    (docs / "huge.md").write_text("# Rules\n\nMany rules.\n" * 100_000)
    with owning(make_home(tmp_path / "home"), upload_bytes=500_000) as found:
        assert run(["ingest", "rules", str(docs), "--home", str(found.home)]) == 1
    summary = json.loads(capsys.readouterr().out)
    assert summary["added"] == 1
    assert [refused["name"] for refused in summary["refused"]] == ["huge.md"]


def test_unchanged_files_are_not_sent(owner: Owner, tmp_path: Path) -> None:
    sent: list[str] = []

    class Recording(Api):
        def upload(self, path: str, files: Any, fields: Any) -> Any:
            sent.extend(name for name, _ in files)
            return super().upload(path, files, fields)

    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(40):
        (docs / f"{number:02}.md").write_text(f"# Rule {number}\n\nRule number {number}.\n")

    def bring() -> list[str]:
        sent.clear()
        with closing(Recording(owner.url, owner.workspace.ownership.token, local=True)) as api:
            Upload(api, "rules").send(find_sources([docs])[0], lambda: None)
        return sent

    assert len(bring()) == 40
    assert bring() == []
    (docs / "07.md").write_text("# Rule 7\n\nAnother rule.\n")
    assert bring() == ["07.md"]


def test_the_index_is_rebuilt_to_the_same_results(intern: Intern, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Rules\n\nThe rules for travel.\n\n# More\n\nThe rules for laptops.\n")
    assert intern("ingest", "rules", str(tmp_path / "a.md")).code == 0
    before = intern("retrieve", "rules", "rules for laptops").json
    rebuilt = intern("ingest", "--rebuild")
    assert rebuilt.code == 0
    assert rebuilt.json["passages"] >= 1
    assert intern("retrieve", "rules", "rules for laptops").json == before


# --- skills, examples, keys ------------------------------------------------------------------------------


def test_a_new_skill_serves_at_once(intern: Intern, tmp_path: Path) -> None:
    spec = {
        "name": "travel",
        "title": "Travel",
        "description": "Books journeys.",
        "instructions": "TRAVEL",
        "utterances": ["book a train to rome", "a flight to oslo", "train tickets", "book a flight"],
    }
    (tmp_path / "travel.json").write_text(json.dumps(spec))
    assert intern("skills", "new", "--file", str(tmp_path / "travel.json")).json["name"] == "travel"
    assert intern("route", "book a train to rome").json["skill"] == "travel"
    again = intern("skills", "new", "--file", str(tmp_path / "travel.json"))
    assert (again.code, "exists already" in again.err) == (1, True)


def test_a_new_skill_from_options(intern: Intern, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "object", "properties": {"a": {"type": "string"}}}')
    (tmp_path / "examples.jsonl").write_text('{"input": "x", "output": {"a": "b"}}\n')
    (tmp_path / "utterances.txt").write_text("one\n\n two \n")
    files = {name: str(tmp_path / name) for name in ("schema.json", "examples.jsonl", "utterances.txt")}
    done = intern(
        *("skills", "new", "made", "--title", "T", "--description", "D", "--instructions", "I", "--retrieval"),
        *(
            "--schema",
            files["schema.json"],
            "--examples",
            files["examples.jsonl"],
            "--utterances",
            files["utterances.txt"],
        ),
    )
    assert done.code == 0
    made = next(skill for skill in intern("skills", "list").json["data"] if skill["name"] == "made")
    assert made["schema"]["properties"] == {"a": {"type": "string"}}
    assert (made["retrieval"], made["examples"], made["utterances"], made["problems"]) == (True, 1, 2, [])


def test_examples_are_imported_all_or_none(intern: Intern, tmp_path: Path) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text(
        '{"input": "one more day", "output": {"kind": "paid"}}\n{"input": "x", "output": {"kind": "ill"}}\n'
    )
    refused = intern("examples", "import", "leave", str(file))
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("intern: line 2: key 'output' breaks the schema")
    before = next(s for s in intern("skills", "list").json["data"] if s["name"] == "leave")["examples"]
    file.write_text('{"input": "one more day", "output": {"kind": "paid"}}\n')
    assert intern("examples", "import", "leave", str(file)).json == {"skill": "leave", "added": 1}
    after = next(s for s in intern("skills", "list").json["data"] if s["name"] == "leave")["examples"]
    assert after == before + 1


def test_a_key_works_until_it_is_revoked(intern: Intern, owner: Owner) -> None:
    made = intern("keys", "create", "ticket system").json
    assert made["role"] == "user"
    with closing(Api(owner.url, made["secret"], local=True)) as api:
        assert {skill["name"] for skill in api.get("/api/skills")["data"]} == {"leave", "rules"}
        assert intern("keys", "revoke", made["id"]).code == 0
        with pytest.raises(NotAuthenticated):
            api.get("/api/skills")
    listed = intern("keys", "list").json["data"]
    assert [(key["name"], key["revoked"] is not None) for key in listed if key["id"] == made["id"]] == [
        ("ticket system", True)
    ]
    assert all("secret" not in key and "hash" not in key for key in listed)


# --- elsewhere -------------------------------------------------------------------------------------------


def test_another_server_is_reached_with_its_url_and_a_key(
    owner: Owner, intern: Intern, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = intern("keys", "create", "remote", "--role", "admin").json["secret"]
    monkeypatch.chdir(tmp_path)
    elsewhere = ["skills", "list", "--url", f"{owner.url}/"]
    assert run([*elsewhere, "--key", secret]) == 0
    assert run([*elsewhere, "--key", "sk-intern-wrong"]) == 1
    assert run(elsewhere) == 1
    monkeypatch.setenv("INTERN_API_KEY", secret)
    assert run(elsewhere) == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "127.0.0.1:9", "http://"])
def test_a_server_that_is_not_there_is_named(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["skills", "list", "--url", url]) == 1
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert url in said


def test_doctor_shows_every_choice_and_fails_when_one_is_bad(intern: Intern, owner: Owner) -> None:
    done = intern("doctor")
    assert done.code == 0
    parts = {finding["part"] for finding in done.json["data"]}
    assert {"engine", "model", "embedder", "database", "index", "keys", "python", "packages", "disk"} <= parts
    assert all(finding["choice"] and finding["reason"] for finding in done.json["data"])
    folder = owner.home / "skills" / "broken"
    folder.mkdir()
    (folder / "skill.yaml").write_text("title: only\n")
    owner.workspace.refresh()
    done = intern("doctor")
    assert done.code == 1
    assert [finding["part"] for finding in done.json["data"] if finding["state"] == "bad"] == ["skill broken (default)"]
    assert done.err.startswith("intern: 1 bad: skill broken (default): skill.yaml")
