"""Runs over HTTP: begun by admins, followed by anyone of the team from any point, ended, reported on."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from made_learning import Script

from intern.errors import TrainingFailed
from intern.learning.examples.items import key_of
from intern.types import Example
from server.api import runs

ROW = {"input": "x", "output": {"mood": "good"}}


def begin(server: Any, skill: str = "mood", **body: Any) -> dict[str, Any]:
    answer = server.http().post("/api/runs", json={"skill": skill, **body})
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def frames(text: str) -> list[tuple[int | None, Any]]:
    """(id, data) of every event of a stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
        if "data" in fields:
            data = fields["data"] if fields["data"] == "[DONE]" else json.loads(fields["data"])
            found.append((int(fields["id"]) if "id" in fields else None, data))
    return found


def in_training(server: Any, run: dict[str, Any]) -> None:
    """Wait until the first step was told."""
    with server.http("user").stream("GET", f"/api/runs/{run['id']}/events") as answer:
        assert any('"kind":"step"' in line for line in answer.iter_lines())


def followed(server: Any, run: dict[str, Any], **how: Any) -> list[tuple[int | None, Any]]:
    return frames(server.http("user").get(f"/api/runs/{run['id']}/events", **how).text)


def ended(server: Any, run: dict[str, Any]) -> dict[str, Any]:
    followed(server, run)
    return dict(server.http("user").get(f"/api/runs/{run['id']}").json())


def test_a_run_goes_from_queued_to_a_verdict_and_its_adapter_serves(server: Any, learning: Script) -> None:
    run = begin(server)
    assert (run["state"], run["kind"], run["skill"], run["started_by"]) == (
        "queued",
        "learn",
        "mood",
        server.ids["admin"],
    )
    done = ended(server, run)
    assert (done["state"], done["decision"], done["reason"]) == ("done", "promote", learning.reason)
    assert done["verdict"]["rivals"]["candidate"]["score"]["mean"] == 0.84
    assert done["verdict"]["ruling"]["decision"] == "promote"
    server.says('{"mood": "good"}')
    answer = server.http("user").post("/api/ask", json={"input": "what a day", "skill": "mood"}).json()
    assert answer["adapter"] == done["adapter"]
    assert done["serves"]


def test_events_come_in_order_with_ids_and_an_end(server: Any, learning: Script) -> None:
    seen = followed(server, begin(server))
    assert seen[-1] == (None, "[DONE]")
    kept = [data for ident, data in seen if ident is not None]
    assert [data["id"] for data in kept] == list(range(len(kept)))
    kinds = [data["kind"] for data in kept]
    assert kinds[:2] == ["stage", "dataset"]
    assert [data["loss"] for data in kept if data["kind"] == "step"] == [2.0, 1.4, 1.1, 0.9]
    assert kinds[-3:] == ["stage", "promoted", "done"]


def test_what_only_passes_by_has_no_id(server: Any, learning: Script, until: Any) -> None:
    learning.hold = True
    run = begin(server)
    with server.http("user").stream("GET", f"/api/runs/{run['id']}/events") as answer:
        lines = answer.iter_lines()
        while '"kind":"step"' not in next(lines):
            pass
        learning.go_on()
        seen = frames("\n".join(lines))
    passing = [data for ident, data in seen if ident is None and data != "[DONE]"]
    assert {data["kind"] for data in passing} <= {"answers"}
    assert all("id" not in data for data in passing)


def test_a_run_is_followed_while_it_goes_on(server: Any, learning: Script) -> None:
    learning.hold = True
    run = begin(server)
    kinds = []
    with server.http("user").stream("GET", f"/api/runs/{run['id']}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            kinds.append(json.loads(line.removeprefix("data: "))["kind"])
            if kinds.count("step") == 1 and learning.hold:
                assert server.http("user").get(f"/api/runs/{run['id']}").json()["state"] == "running"
                learning.go_on()
    assert kinds[-1] == "done"


def test_who_comes_back_gets_what_was_missed_and_nothing_twice(server: Any, learning: Script) -> None:
    run = begin(server)
    whole = [data for ident, data in followed(server, run) if ident is not None]
    later = [data for ident, data in followed(server, run, params={"after": 3}) if ident is not None]
    again = [data for ident, data in followed(server, run, headers={"last-event-id": "3"}) if ident is not None]
    assert later == again == whole[4:]
    assert followed(server, run, params={"after": 10_000}) == [(None, "[DONE]")]


@pytest.mark.parametrize("sent", ["x", "-1", "1e3", "9" * 30, "²"])
def test_a_place_that_is_none_is_refused(server: Any, learning: Script, sent: str) -> None:
    run = begin(server)
    answer = server.http("user").get(f"/api/runs/{run['id']}/events", headers={"last-event-id": sent.encode()})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Last-Event-ID")
    assert server.http("user").get(f"/api/runs/{run['id']}/events?after={10**30}").status_code == 400


def test_while_nothing_happens_the_connection_is_kept(
    server: Any, learning: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "KEEP_ALIVE_SECONDS", 0.02)
    learning.hold = True
    run = begin(server)
    with server.http("user").stream("GET", f"/api/runs/{run['id']}/events") as answer:
        lines = answer.iter_lines()
        while next(lines) != ": nothing new":
            pass
        learning.go_on()
        assert frames("\n".join(lines))[-1] == (None, "[DONE]"), "what comes between is not lost"


def test_a_follower_that_leaves_leaves_nothing_behind(server: Any, learning: Script, until: Any) -> None:
    def busy() -> int:
        tasks = asyncio.all_tasks(server.loop)
        return sum("_next" in repr(task) or "_gone" in repr(task) for task in tasks)

    learning.hold = True
    run = begin(server)
    before = server.on_loop(busy)
    for _ in range(3):
        with server.http("user").stream("GET", f"/api/runs/{run['id']}/events") as answer:
            lines = answer.iter_lines()
            while '"kind":"step"' not in next(lines):
                pass
            assert server.on_loop(busy) > before
        until(lambda: server.on_loop(busy) == before)
    learning.go_on()
    assert ended(server, run)["state"] == "done"


def test_a_run_that_fails_says_why(server: Any, learning: Script) -> None:
    learning.failure = TrainingFailed("The memory is full: use a smaller batch.")
    run = begin(server)
    seen = followed(server, run)
    assert (seen[-2][1]["kind"], seen[-2][1]["text"]) == ("failed", "The memory is full: use a smaller batch.")
    done = ended(server, run)
    assert (done["state"], done["reason"], done["verdict"]) == (
        "failed",
        "The memory is full: use a smaller batch.",
        None,
    )


def test_a_run_can_be_ended_once(server: Any, learning: Script) -> None:
    learning.hold = True
    run = begin(server)
    second = server.http().post("/api/runs", json={"skill": "mood"})
    assert second.status_code == 409
    assert run["id"] in second.json()["error"]["message"]
    in_training(server, run)
    answer = server.http().post(f"/api/runs/{run['id']}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert followed(server, run)[-1] == (None, "[DONE]")
    assert server.http().post(f"/api/runs/{run['id']}/cancel").status_code == 400


def test_a_run_that_was_left_stands_in_the_way_of_another_and_goes_on(server: Any, learning: Script) -> None:
    """Also where nothing has carried out runs before, as in a workspace that a command opened for itself."""
    left = asyncio.run_coroutine_threadsafe(server.workspace.learner.submit("default", "mood"), server.loop).result(10)
    answer = server.http().post("/api/runs", json={"skill": "mood"})
    assert answer.status_code == 409
    assert left.id in answer.text
    assert ended(server, left.model_dump(mode="json"))["state"] == "done"


def late(server: Any, learning: Script) -> dict[str, Any]:
    """A run that failed after its training."""
    learning.late = TrainingFailed("The disk is full.")
    run = ended(server, begin(server))
    learning.late = None
    assert (run["state"], run["reason"]) == ("failed", "The disk is full.")
    return run


def test_a_training_that_failed_is_resumed_and_its_events_go_on(server: Any, learning: Script) -> None:
    run = late(server, learning)
    assert run["resumable"]
    listed = server.http("user").get("/api/runs?skill=mood").json()["data"]
    assert [other["id"] for other in listed if other["resumable"]] == [run["id"]]
    before = [data for ident, data in followed(server, run) if ident is not None]
    answer = server.http().post(f"/api/runs/{run['id']}/resume")
    assert (answer.status_code, answer.json()["state"], answer.json()["reason"]) == (202, "queued", None)
    after = [data for ident, data in followed(server, run, params={"after": before[-1]["id"]}) if ident is not None]
    assert [data["id"] for data in after] == list(range(len(before), len(before) + len(after)))
    assert (before[-1]["kind"], after[0]["kind"], after[-1]["kind"]) == ("failed", "note", "done")
    done = ended(server, run)
    assert (done["state"], done["decision"], done["resumable"]) == ("done", "promote", False)
    again = server.http().post(f"/api/runs/{run['id']}/resume")
    assert (again.status_code, again.json()["error"]["message"]) == (
        400,
        f"The run {run['id']} did not fail: it is done.",
    )


def test_what_left_nothing_to_go_on_with_is_begun_anew(server: Any, learning: Script) -> None:
    learning.failure = TrainingFailed("No.")
    run = ended(server, begin(server))
    assert not run["resumable"]
    answer = server.http().post(f"/api/runs/{run['id']}/resume")
    assert answer.status_code == 400
    assert "Begin anew: intern learn mood." in answer.json()["error"]["message"]


def test_a_failed_run_that_is_given_up_is_resumed_no_more(server: Any, learning: Script) -> None:
    run = late(server, learning)
    cancelled = server.http().post(f"/api/runs/{run['id']}/cancel").json()
    assert (cancelled["state"], cancelled["reason"]) == ("cancelled", "The disk is full.")
    assert server.http().post(f"/api/runs/{run['id']}/resume").status_code == 400
    assert not ended(server, run)["resumable"]


def test_a_skill_that_has_a_former_ones_name_goes_on_with_none_of_its_runs(server: Any, learning: Script) -> None:
    http = server.http()
    new = {"name": "fresh", "title": "T", "description": "D", "instructions": "I"}
    assert http.post("/api/skills", json=new).status_code == 201
    learning.late = TrainingFailed("The disk is full.")
    run = ended(server, begin(server, "fresh"))
    learning.late = None
    assert run["resumable"]
    assert http.delete("/api/skills/fresh").status_code == 204
    assert http.post("/api/skills", json=new).status_code == 201
    assert http.post(f"/api/runs/{run['id']}/resume").status_code == 400
    assert http.delete("/api/skills/fresh").status_code == 204


@pytest.mark.parametrize(
    ("recipe", "made"),
    [
        (None, {"name": "lora", "rank": 16}),
        ("dpo", {"name": "dpo", "rank": 16}),
        ({"name": "completion-then-sft", "rank": 8, "epochs": 0.5}, {"name": "completion-then-sft", "rank": 8}),
        ({"learning_rate": 1e-4}, {"name": "lora", "learning_rate": 1e-4}),
    ],
)
def test_a_recipe_is_a_name_or_a_name_with_numbers(
    server: Any, learning: Script, recipe: Any, made: dict[str, Any]
) -> None:
    run = begin(
        server, **({} if recipe is None else {"recipe": recipe}), force=True, promote=False, variant="augmented"
    )
    assert run["recipe"].items() >= made.items()
    assert ended(server, run)["serves"] is False
    assert learning.recipes[-1].model_dump().items() >= made.items()
    assert (learning.forced[-1], learning.runs[-1].variant) == (True, "augmented")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"recipe": "magic"}, "recipe"),
        ({"recipe": {"name": "lora", "rank": 0}}, "recipe.rank"),
        ({"recipe": {"name": "lora", "rang": 8}}, "recipe.rang"),
        ({"kind": "synthesise"}, "kind"),
        ({"variant": "other"}, "variant"),
        ({"forced": True}, "forced"),
        ({"examples": [{"input": "x", "output": {"mood": "good"}}]}, "examples"),
        ({"count": 5}, "count"),
        ({"adapter": "mood@v1"}, "adapter"),
        ({"kind": "synthesize", "count": -1}, "count"),
        ({"kind": "evaluate", "examples": []}, "examples"),
        ({"kind": "evaluate", "examples": [{"input": "x", "output": {"mood": "purple"}}]}, "examples.0"),
        ({"kind": "evaluate", "examples": [{"input": "x"}]}, "examples.0"),
        ({"kind": "evaluate", "outside": {"other": ["x"]}}, "outside"),
        ({"kind": "evaluate", "outside": {"other": [{"input": "x"}]}}, "outside"),
        ({"kind": "evaluate", "outside": {"base": [ROW]}}, "outside"),
        ({"outside": {"other": [ROW]}}, "outside"),
        ({"kind": "evaluate", "examples": [ROW], "outside": {"other": []}}, "outside"),
        ({"kind": "evaluate", "examples": [ROW], "outside": {"candidate": [None]}}, "outside"),
        ({"kind": "evaluate", "examples": [ROW], "outside": {"../other": [None]}}, "outside"),
        ({"kind": "evaluate", "examples": [ROW], "outside": {"": [None]}}, "outside"),
    ],
)
def test_what_cannot_be_run_is_named(server: Any, learning: Script, change: dict[str, Any], param: str) -> None:
    answer = server.http().post("/api/runs", json={"skill": "mood", **change})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert learning.runs == []


def test_an_evaluation_is_of_the_examples_that_are_given(server: Any, learning: Script) -> None:
    rows = [{"input": "x", "output": {"mood": "good"}}, {"input": "x", "output": {"mood": "bad"}, "id": "mine"}]
    done = ended(server, begin(server, kind="evaluate", examples=rows))
    assert (done["state"], done["decision"], done["adapter"]) == ("done", None, None)
    assert set(done["verdict"]["rivals"]) == {"base", "few-shot", "retrieval"}
    (given,) = learning.examples
    assert [(e.input, e.output) for e in given] == [("x", {"mood": "good"}), ("x", {"mood": "bad"})]
    assert given[1].id == "mine"
    ended(server, begin(server, kind="evaluate"))
    assert learning.examples[-1] == ()


def test_an_adapter_that_does_not_serve_can_be_measured(server: Any, learning: Script) -> None:
    waits, of_another = (learning.adapter("default", skill).name for skill in ("mood", "chat"))
    done = ended(server, begin(server, kind="evaluate", adapter=waits, outside={"other": [ROW]}))
    assert set(done["verdict"]["rivals"]) == {"base", "few-shot", "retrieval", "candidate"}
    assert (done["state"], done["decision"], done["adapter"]) == ("done", None, None)
    http = server.http()
    asked = {"skill": "mood", "kind": "evaluate"}
    answer = http.post("/api/runs", json={**asked, "adapter": of_another})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "adapter")
    for unknown in ("mood@v99999", "mood"):
        assert http.post("/api/runs", json={**asked, "adapter": unknown}).status_code == 404


def test_other_systems_answers_are_compared_on_the_given_examples(server: Any, learning: Script) -> None:
    outside = {"Other 2.0": [{"mood": "bad"}, None], "third": ["not even JSON", {"mood": "good"}]}
    ended(server, begin(server, kind="evaluate", examples=[{**ROW, "id": "a"}, {**ROW, "id": "b"}], outside=outside))
    assert learning.outside == {
        "Other 2.0": {"a": {"mood": "bad"}},
        "third": {"a": "not even JSON", "b": {"mood": "good"}},
    }


def test_other_systems_answers_to_held_out_inputs_come_with_these(server: Any, learning: Script) -> None:
    turns = [{"role": "user", "content": "y"}]
    rows = [ROW, {"input": turns, "output": "not even JSON"}, {"input": "z", "output": None}]
    ended(server, begin(server, kind="evaluate", outside={"other": rows}))
    keys = [key_of(Example(id="e", input=asked, output=None)) for asked in ("x", turns)]
    assert learning.outside == {"other": {keys[0]: {"mood": "good"}, keys[1]: "not even JSON"}}


def test_rows_of_the_same_id_are_two_examples(server: Any, learning: Script) -> None:
    rows = [{"input": "x", "output": {"mood": mood}} for mood in ("good", "bad", "good")]
    ended(server, begin(server, kind="evaluate", examples=rows))
    assert len({example.id for example in learning.examples[-1]}) == 3


def test_runs_are_listed_newest_first_by_skill_and_state(server: Any, learning: Script) -> None:
    first, second = (begin(server, skill) for skill in ("chat", "mood"))
    for run in (first, second):
        ended(server, run)
    http = server.http("user")
    assert [r["id"] for r in http.get("/api/runs?limit=2").json()["data"]] == [second["id"], first["id"]]
    assert {r["skill"] for r in http.get("/api/runs?skill=chat").json()["data"]} == {"chat"}
    assert second["id"] in {r["id"] for r in http.get("/api/runs?state=done&skill=mood").json()["data"]}
    assert http.get("/api/runs?state=queued").json()["data"] == []
    assert http.get("/api/runs?state=odd").status_code == 400


def test_the_report_is_one_page_that_runs_nothing(server: Any, learning: Script) -> None:
    run = begin(server)
    ended(server, run)
    answer = server.http("user").get(f"/api/runs/{run['id']}/report")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert learning.reason in answer.text
    assert "request &lt;" in answer.text, "outcomes are quoted, and escaped"
    assert "0.58" in answer.text or "Loss" in answer.text or "loss" in answer.text, "the adapter's curves"


@pytest.mark.parametrize("asked", [{"params": {"format": "json"}}, {"headers": {"accept": "application/json"}}])
def test_the_report_has_the_same_facts_for_programs(server: Any, learning: Script, asked: dict[str, Any]) -> None:
    run = begin(server)
    ended(server, run)
    answer = server.http("user").get(f"/api/runs/{run['id']}/report", **asked)
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert (found["decision"], found["reason"], found["run"]["id"]) == ("promote", learning.reason, run["id"])
    assert found["rivals"][0]["name"] == "candidate"
    assert "mood" in found["rivals"][0]["summary"]["metrics"]
    assert {"regressions", "gains"} <= found["comparison"].keys()
    assert found["curves"]["heldout_loss"] == [2.31, 0.58]
    assert isinstance(found["confusions"], list)
    assert server.http("blue").get(f"/api/runs/{run['id']}/report", **asked).status_code == 404


def test_a_browser_gets_the_page_and_an_unknown_format_is_refused(server: Any, learning: Script) -> None:
    run = begin(server)
    ended(server, run)
    http = server.http("user")
    browser = {"accept": "text/html,application/xhtml+xml,application/json;q=0.9,*/*;q=0.8"}
    assert http.get(f"/api/runs/{run['id']}/report", headers=browser).text.startswith("<!doctype html>")
    assert http.get(f"/api/runs/{run['id']}/report?format=pdf").status_code == 400


def test_the_report_says_where_the_adapter_stands_now(server: Any, learning: Script) -> None:
    def said(run: dict[str, Any]) -> str:
        found = server.http("user").get(f"/api/runs/{run['id']}/report?format=json").json()
        assert found["decision"] == "promote"
        return str(found["next_steps"][0])

    def serve(adapter: str) -> None:
        answer = server.http().post("/api/deployments", json={"skill": "mood", "adapter": adapter})
        assert answer.status_code in (200, 201), answer.text

    learning.approve = True
    waiting = ended(server, begin(server))
    assert "waits for somebody to approve it" in said(waiting)
    serve(waiting["adapter"])
    assert "serves" in said(waiting)
    learning.approve = False
    promoted = ended(server, begin(server))
    assert "serves." in said(promoted)
    assert "does not serve any more" in said(waiting)
    serve("base")
    assert "does not serve any more" in said(promoted)


def test_a_run_says_where_its_adapter_stands_and_why_it_did_not_go_into_service(server: Any, learning: Script) -> None:
    def stands(run: dict[str, Any]) -> Any:
        return server.http("user").get(f"/api/runs/{run['id']}").json()["service"]

    def serve(adapter: str) -> None:
        answer = server.http().post("/api/deployments", json={"skill": "mood", "adapter": adapter})
        assert answer.status_code in (200, 201), answer.text

    learning.hold = True
    overtaken = begin(server)
    in_training(server, overtaken)
    assert stands(overtaken) is None, "there is no adapter yet"
    other = learning.adapter("default", "mood").name
    serve(other)
    learning.go_on()
    made = ended(server, overtaken)["adapter"]
    why = "Something else serves now than it was judged against. A person can promote it."
    assert stands(overtaken) == {"state": "waits", "why": why}
    serve(made)
    assert stands(overtaken) == {"state": "serves", "why": ""}
    serve(other)
    assert stands(overtaken) == {"state": "served", "why": ""}


def test_a_report_whose_answers_could_not_be_written_has_all_but_the_examples(server: Any, learning: Script) -> None:
    run = begin(server)
    ended(server, run)
    for file in (server.workspace.parts.runs_folder / run["id"]).glob("outcomes-*.jsonl"):
        file.unlink()
    answer = server.http("user").get(f"/api/runs/{run['id']}/report")
    assert answer.status_code == 200
    assert learning.reason in answer.text
    assert "request &lt;" not in answer.text


def test_without_a_verdict_there_is_no_report(server: Any, learning: Script) -> None:
    learning.failure = TrainingFailed("No.")
    run = begin(server)
    ended(server, run)
    answer = server.http("user").get(f"/api/runs/{run['id']}/report")
    assert answer.status_code == 404
    assert "has no verdict" in answer.json()["error"]["message"]


def test_only_admins_begin_and_end_runs(server: Any, learning: Script) -> None:
    assert server.http("user").post("/api/runs", json={"skill": "mood"}).status_code == 403
    learning.hold = True
    run = begin(server)
    for what in ("cancel", "resume"):
        assert server.http("user").post(f"/api/runs/{run['id']}/{what}").status_code == 403


def test_another_teams_run_does_not_exist(server: Any, learning: Script) -> None:
    run = begin(server)
    ended(server, run)
    http = server.http("blue")
    for path in ("", "/events", "/report"):
        assert http.get(f"/api/runs/{run['id']}{path}").status_code == 404, path
    for what in ("cancel", "resume"):
        assert http.post(f"/api/runs/{run['id']}/{what}").status_code == 404
    assert http.post("/api/runs", json={"skill": "mood"}).status_code == 404
    assert run["id"] not in http.get("/api/runs").text


def test_two_candidates_are_compared_on_the_same_held_out_examples(server: Any, learning: Script) -> None:
    first, second = (ended(server, begin(server))["id"] for _ in range(2))
    http = server.http("user")
    found = http.get(f"/api/runs/{first}/against/{second}").json()
    assert (found["run"], found["other"], found["n"]) == (first, second, 40)
    assert found["difference"]["interval"]["mean"] == 0
    assert list(found["fields"]) == ["mood"]
    assert server.http("blue").get(f"/api/runs/{first}/against/{second}").status_code == 404
    assert http.get(f"/api/runs/{first}/against/run_unknown").status_code == 404


def test_only_trainings_of_one_skill_can_be_compared(server: Any, learning: Script) -> None:
    trained = ended(server, begin(server))["id"]
    measured = ended(server, begin(server, kind="evaluate"))["id"]
    other = ended(server, begin(server, skill="chat"))["id"]
    for second, said in ((measured, "no candidate's answers"), (other, "is of the skill")):
        refused = server.http("user").get(f"/api/runs/{trained}/against/{second}")
        assert (refused.status_code, said in refused.json()["error"]["message"]) == (400, True)


def test_examples_of_a_person_that_an_evaluation_was_given_go_with_them_and_its_report_stays(
    server: Any, learning: Script
) -> None:
    rows = [{**ROW, "id": "ex_0", "person": "eve"}, {**ROW, "id": "ex_1", "person": "bob"}]
    run = ended(server, begin(server, kind="evaluate", examples=rows))
    folder = server.workspace.settings.data / "runs" / run["id"]
    assert server.http().delete("/api/persons/eve").json()["examples"] == 0, "no table had them"
    kept = (folder / "outcomes-base.jsonl").read_text(encoding="utf-8")
    assert '"ex_0"' not in kept
    assert '"ex_1"' in kept
    for form in ("html", "json"):
        assert server.http().get(f"/api/runs/{run['id']}/report", params={"format": form}).status_code == 200
    for file in folder.glob("outcomes-*.jsonl"):
        file.write_text("")
    assert server.http().get(f"/api/runs/{run['id']}/report").status_code == 200, "they were all theirs"
