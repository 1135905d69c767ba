"""Hostile and broken input over HTTP: an honest 400, at once, and a server that goes on."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from pydantic import ValidationError

from intern.errors import InvalidInput
from server import body
from server.api.ask import AskBody
from server.api.documents import Prune, name_problem
from server.api.skills import NewSkill
from server.openai.requests import ChatRequest, EmbeddingsRequest

JSON = {"content-type": "application/json"}
PATHS = ["/v1/chat/completions", "/api/ask"]


def nested(depth: int, inner: str = "1") -> str:
    return "[" * depth + inner + "]" * depth


BROKEN = {
    "half": b'{"model": "intern/chat", ',
    "empty": b"",
    "latin-1": '{"input": "caf\u00e9"}'.encode("latin-1"),
    "utf-16": '{"input": "x"}'.encode("utf-16"),
    "deep": f'{{"input": {nested(50_000)}}}'.encode()[:99_000],
    "deep and closed": f'{{"metadata": {nested(200)}}}'.encode(),
    "nan": b'{"input": NaN}',
    "infinite": b'{"temperature": 1e999}',
    "huge integer": b'{"seed": ' + b"9" * 5_000 + b"}",
    "nul": b'{"input": "a\\u0000b", "model": "intern/chat", "messages": [{"role": "user", "content": "\\u0000"}]}',
    "surrogate": b'{"input": "\\ud800", "model": "intern/chat", "messages": [{"role": "user", "content": "\\udfff"}]}',
    "surrogate in a key": b'{"\\ud800": 1}',
    "a list": b"[]",
    "a text": b'"hello"',
    "null": b"null",
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_body_is_a_400(server: Any, path: str, name: str) -> None:
    answer = server.http("user").post(path, content=BROKEN[name], headers=JSON)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert server.engine.requests == []


def test_pairs_of_surrogates_and_every_other_character_are_text(server: Any) -> None:
    text = "hello \U0001f600 \u202e \ufeff \u0001 \ue000"
    answer = server.http("user").post("/api/ask", content=json.dumps({"input": text, "skill": "chat"}), headers=JSON)
    assert answer.status_code == 200
    assert server.engine.requests[0].messages[-1].content == text
    assert answer.json()["input"] == text


@pytest.mark.parametrize("text", ['"\\\\ud800"', '"\\\\u0000"', "1e308", nested(60), '{"a": 1, "a": 2}'])
def test_what_only_looks_bad_is_read(text: str) -> None:
    assert body.parse(text.encode()) == json.loads(text)


@pytest.mark.parametrize("depth", [66, 990, 5_000])
def test_depth_is_bounded_for_lists_and_objects(depth: int) -> None:
    for text in (nested(depth), '{"a":' * depth + "1" + "}" * depth):
        with pytest.raises(InvalidInput, match="deeper"):
            body.parse(text.encode())


MANY = {
    "objects": "[" + ",".join(["{}"] * (body.MAX_VALUES + 1)) + "]",
    "numbers": '{"a": [' + ",".join(["1"] * body.MAX_VALUES) + "]}",
    "in small lists": "[" + ",".join(["[1,2,3]"] * (body.MAX_VALUES // 4 + 1)) + "]",
}


@pytest.mark.parametrize("name", MANY)
def test_the_number_of_values_is_bounded(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"more than {body.MAX_VALUES} values"):
        body.parse(MANY[name].encode())


def test_an_object_has_a_bounded_number_of_keys() -> None:
    keys = {f"k{i}": 1 for i in range(body.MAX_KEYS + 1)}
    with pytest.raises(InvalidInput, match=f"{body.MAX_KEYS + 1} keys; at most {body.MAX_KEYS}"):
        body.parse(json.dumps({"a": [keys]}).encode())


def test_large_bodies_of_real_use_are_read() -> None:
    row = {"input": "text, [with] {every} mark", "output": {f"field {i}": i for i in range(10)}}
    for value in ({"examples": [row] * 10_000}, {"keep": ["name"] * 100_000}, {"input": ",[{" * 1_000_000}):
        assert body.parse(json.dumps(value).encode()) == value


ABOUT = {"name": "x", "title": "T", "description": "D", "instructions": "I"}
TOO_MANY: dict[str, tuple[str, Any, str]] = {
    "messages": ("/v1/chat/completions", {"messages": [{}] * 1_001}, "messages"),
    "parts": ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{}] * 1_001}]}, "messages.0.content"),
    "calls": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "tool_calls": [{}] * 257}]},
        "messages.0.tool_calls",
    ),
    "tools": ("/v1/chat/completions", {"tools": [1] * 257}, "tools"),
    "stops": ("/v1/chat/completions", {"stop": [1] * 5}, "stop"),
    "modalities": ("/v1/chat/completions", {"modalities": ["text"] * 9}, "modalities"),
    "metadata": ("/v1/chat/completions", {"metadata": {f"k{i}": 1 for i in range(17)}}, "metadata"),
    "texts": ("/v1/embeddings", {"model": "intern-embeddings", "input": ["a"] * 2_049}, "input"),
    "turns": ("/api/ask", {"input": [{}] * 1_001}, "input"),
    "turns to try": ("/api/skills/chat/try", {"input": [{}] * 1_001}, "input"),
    "utterances": ("/api/skills", {**ABOUT, "utterances": [1] * 10_001}, "utterances"),
}


@pytest.mark.parametrize("name", TOO_MANY)
def test_a_list_that_is_too_long_is_refused_by_name_with_the_limit(server: Any, name: str) -> None:
    path, change, param = TOO_MANY[name]
    request = {"model": "intern/chat", "messages": [{"role": "user", "content": "hello"}]} if "chat/" in path else {}
    answer = server.http().post(path, json={**request, **change})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert "at most" in error["message"]


def bodies_of_errors() -> dict[str, Any]:
    say = {"model": "intern/chat", "messages": [{"role": "user", "content": "hello"}]}
    return {
        "messages": (ChatRequest, {**say, "messages": [{}] * 1_000}),
        "parts": (ChatRequest, {**say, "messages": [{"role": "user", "content": [{}] * 1_000}] * 200}),
        "calls": (ChatRequest, {**say, "messages": [{"role": "user", "tool_calls": [{}] * 256}] * 200}),
        "tools": (ChatRequest, {**say, "tools": [{}] * 256}),
        "texts": (EmbeddingsRequest, {"model": "intern-embeddings", "input": [{}] * 100_000}),
        "turns": (AskBody, {"input": [{f"k{i}": 1 for i in range(200)}] * 1_000}),
        "names": (Prune, {"source": "s", "keep": [1] * 100_000}),
        "examples": (NewSkill, {"examples": [1] * 10_000}),
        "utterances": (NewSkill, {"utterances": [1] * 10_000}),
    }


@pytest.mark.parametrize("name", bodies_of_errors())
def test_a_body_of_a_hundred_thousand_mistakes_is_left_at_the_first_few(name: str) -> None:
    kind, value = bodies_of_errors()[name]
    found = 0
    try:
        kind.model_validate(value)
    except ValidationError as error:
        found = error.error_count()
    assert found < 500


DEEP: dict[str, Any] = {"type": "string"}
for _ in range(28):
    DEEP = {"type": "object", "properties": {"a": DEEP}}


HOSTILE = {
    "deep": DEEP,
    "endless recursion": {"$ref": "#"},
    "required recursion": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "huge enum": {"enum": [f"value {i}" for i in range(5_000)]},
    "bad pattern": {"type": "string", "pattern": "(a"},
    "backtracking pattern": {"type": "string", "pattern": "(a+)+$" * 200},
    "repeats": {"type": "string", "pattern": "(a{1000}){1000}"},
    "remote reference by a detour": {"$ref": "#/x", "x": {"$ref": "https://example.com/schema.json"}},
    "a list that is a number": {"anyOf": 5},
    "types in types": {"type": [["string"]]},
    "required lists": {"type": "object", "properties": {"a": {}}, "required": [["a"]]},
    "a size that is a word": {"type": "array", "minItems": "a"},
    "remote reference": {"$ref": "https://example.com/schema.json"},
    "file reference": {"$ref": "file:///etc/passwd"},
    "huge array": {"type": "array", "items": {"type": "integer"}, "minItems": 10_000_000},
    "no schema": {"type": "potato"},
    "many parts": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(3_000)}},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_is_refused_at_once(server: Any, name: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": HOSTILE[name]}}
    request = {"model": "intern/chat", "messages": [{"role": "user", "content": "hello"}], "response_format": form}
    started = time.monotonic()
    answer = server.http("user").post("/v1/chat/completions", json=request)
    assert time.monotonic() - started < 3
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "response_format")
    assert server.engine.requests == []


@pytest.mark.parametrize("name", HOSTILE)
def test_a_skill_with_a_hostile_schema_is_refused_whole(server: Any, name: str) -> None:
    about = {"name": "hostile", "title": "T", "description": "D", "instructions": "I", "schema": HOSTILE[name]}
    answer = server.http().post("/api/skills", json=about)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_skill")
    assert server.http().get("/api/skills/hostile").status_code == 404


NAMES = ["../evil.txt", "a/../../evil.txt", "/etc/passwd", "..", "a\\b.txt", "a//b.txt", "./a.txt", "a/"]


@pytest.mark.parametrize("name", NAMES)
def test_a_document_cannot_be_named_like_a_way_out(server: Any, name: str) -> None:
    answer = server.http().post("/api/skills/chat/documents", files={"file": (name, b"some text")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_document"), answer.text
    assert server.http().get("/api/skills/chat/documents").json()["data"] == []


@pytest.mark.parametrize("name", [*NAMES, "", "a\x01.txt", "a\x00.txt", "a\x7f", "\ud800.txt", "n" * 501])
def test_a_document_needs_a_plain_name(name: str) -> None:
    assert name_problem(name)


@pytest.mark.parametrize("name", ["a.txt", "a/b c/d.md", "..a.txt", "a..b/...", "Überblick (2).pdf", "n" * 500])
def test_plain_names_are_plain(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.txt", b""),
        ("blank.md", b"  \n "),
        ("binary.txt", bytes(range(256)) * 40),
        ("fake.pdf", b"this is no PDF"),
        ("fake.docx", b"PK\x03\x04 nothing"),
        ("program.exe", b"MZ\x90\x00" + b"\x00" * 500),
        ("n" * 600 + ".txt", b"text"),
    ],
)
def test_a_document_that_cannot_be_read_is_refused_with_the_reason(server: Any, name: str, data: bytes) -> None:
    answer = server.http().post("/api/skills/chat/documents", files={"file": (name, data)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_document"), answer.text
    assert answer.json()["error"]["message"]


def test_an_upload_without_a_file_names_the_part(server: Any) -> None:
    http = server.http()
    for send in ({"files": {"other": ("a.txt", b"x")}}, {"data": {"file": "text"}}, {"json": {"file": "text"}}):
        answer = http.post("/api/skills/chat/documents", **send)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "file"


def test_a_broken_form_is_a_400(server: Any) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = server.http().post("/api/skills/chat/documents", content=b"--y\r\nnonsense", headers=headers)
    assert answer.status_code == 400


def test_names_in_the_address_reach_no_file(server: Any) -> None:
    http = server.http()
    for name in ("..%2f..%2fdata", "%2e%2e", "chat%00", "CHAT", ".new-x"):
        assert http.delete(f"/api/skills/{name}").status_code in (400, 404)
        assert http.get(f"/api/skills/{name}").status_code in (400, 404)
    assert http.get("/api/skills/chat/documents/..%2f..%2fskill.yaml").status_code == 404
    assert http.get("/api/skills/chat").status_code == 200
