"""Ask, route, retrieve and try-out over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

CITED = '{"answer": "thirty", "sources": ["leave.md"]}'


def test_an_answer_of_a_skill_with_a_schema_is_parsed(server: Any) -> None:
    server.says(CITED)
    answer = server.http("user").post("/api/ask", json={"input": "how many days of leave"}).json()
    assert answer.keys() == {
        *("input", "output", "skill", "adapter", "valid", "citations", "record", "refusal"),
    }
    assert answer["output"] == {"answer": "thirty", "sources": ["leave.md"]}
    assert (answer["skill"], answer["adapter"], answer["valid"], answer["refusal"]) == ("docs", None, True, None)
    assert answer["citations"][0].keys() == {"document", "heading", "start", "end", "score", "text"}


def test_an_answer_in_text_is_a_text_and_a_conversation_is_repeated_as_given(server: Any) -> None:
    server.says("Hi")
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello"}]
    answer = server.http("user").post("/api/ask", json={"input": turns, "skill": "chat", "version": "base"}).json()
    assert (answer["input"], answer["output"]) == (turns, "Hi")
    assert "Be kind." in server.engine.requests[0].messages[0].content


@pytest.mark.parametrize("script", [[], [{"text": '{"mood": "good"}'}]])
@pytest.mark.parametrize(("path", "more"), [("/api/ask", {"skill": "mood"}), ("/api/skills/mood/try", {})])
def test_an_answer_that_was_not_finished_is_a_failure(
    server: Any, talking: Any, path: str, more: dict[str, Any], script: Any
) -> None:
    talking.script = script
    answer = server.http("user").post(path, json={"input": "what a lovely day", **more})
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "engine_failure")


def test_what_fits_nothing_has_a_refusal_and_no_output(server: Any) -> None:
    answer = server.http("user").post("/api/ask", json={"input": "zebra"}).json()
    assert (answer["output"], answer["skill"], answer["valid"]) == (None, None, False)
    assert "I don't have a skill" in answer["refusal"]


@pytest.mark.parametrize("bad", ["", "  ", [], [{"role": "assistant", "content": "x"}], [{"role": "user"}], 5, None])
@pytest.mark.parametrize("path", ["/api/ask", "/api/route", "/api/skills/docs/retrieve", "/api/skills/docs/try"])
def test_an_input_without_a_request_names_the_input(server: Any, path: str, bad: Any) -> None:
    answer = server.http("user").post(path, json={"input": bad})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].split(".")[0] == "input"


def test_too_long_an_input_names_the_input(server: Any) -> None:
    answer = server.http("user").post("/api/ask", json={"input": "word " * 3_000, "skill": "chat"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input")


def test_a_route_alone_generates_nothing(server: Any) -> None:
    http = server.http("user")
    route = http.post("/api/route", json={"input": "please chat with me"}).json()
    assert route.keys() == {"input", "skill", "confidence", "candidates", "reason"}
    assert (route["skill"], route["candidates"][0]) == ("chat", {"skill": "chat", "score": 1.0})
    assert http.post("/api/route", json={"input": "zebra"}).json()["skill"] is None
    assert server.engine.requests == []


def test_a_short_follow_up_is_routed_by_its_conversation(server: Any) -> None:
    turns = [
        {"role": "user", "content": "how many days of leave"},
        {"role": "assistant", "content": "thirty"},
        {"role": "user", "content": "zebra?"},
    ]
    assert server.http("user").post("/api/route", json={"input": turns}).json()["skill"] == "docs"


def test_passages_point_into_their_document(server: Any) -> None:
    http = server.http("user")
    found = http.post("/api/skills/docs/retrieve", json={"input": "days of leave", "limit": 1}).json()
    (passage,) = found["passages"]
    text = http.get(f"/api/skills/docs/documents/{passage['document']}").json()["text"]
    assert text[passage["start"] : passage["end"]] == passage["text"]
    assert http.post("/api/skills/chat/retrieve", json={"input": "x"}).json()["passages"] == []
    assert http.post("/api/skills/nothing/retrieve", json={"input": "x"}).status_code == 404


def test_a_try_out_lays_everything_open(server: Any) -> None:
    server.says(CITED)
    shown = server.http("user").post("/api/skills/docs/try", json={"input": "hello days"}).json()
    assert shown["route"]["skill"] in ("chat", "docs")
    assert shown["passages"][0]["document"] == "leave.md"
    assert shown["prompt"][0]["role"] == "system"
    assert "leave.md" in shown["prompt"][-1]["content"]
    assert (shown["output"], shown["valid"], shown["problems"]) == (
        {"answer": "thirty", "sources": ["leave.md"]},
        True,
        [],
    )
    assert shown["citations"][0]["document"] == "leave.md"
    assert {"retrieve", "prompt", "generate", "total"} <= shown["timings"].keys()
    assert server.http("user").get(f"/api/records/{shown['record']}").json()["skill"] == "docs"


def test_a_try_out_shows_an_answer_that_breaks_the_schema_with_its_problems(server: Any) -> None:
    server.says("no json")
    answer = server.http("user").post("/api/skills/mood/try", json={"input": "a lovely day"})
    assert answer.status_code == 200
    shown = answer.json()
    assert (shown["output"], shown["valid"], shown["citations"]) == ("no json", False, [])
    assert "JSON" in shown["problems"][0]


def test_a_try_out_obeys_max_tokens(server: Any) -> None:
    server.says("one two three")
    shown = server.http("user").post("/api/skills/chat/try", json={"input": "hello", "max_tokens": 2}).json()
    assert shown["output"] == "one two"
