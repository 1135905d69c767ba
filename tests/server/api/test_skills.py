"""Skills over HTTP: made, asked at once, listed with their problems, and removed with everything brought for them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ABOUT = {"title": "Weather", "description": "Labels the weather.", "instructions": "Say sun or rain."}
SCHEMA = {"type": "object", "properties": {"sky": {"enum": ["sun", "rain"]}}, "required": ["sky"]}
ROWS = [
    {"input": "bright sky", "output": {"sky": "sun"}},
    {"input": [{"role": "user", "content": "wet sky"}], "output": {"sky": "rain"}, "split": "heldout"},
]
WHOLE = {"name": "weather", **ABOUT, "schema": SCHEMA, "examples": ROWS, "utterances": ["umbrella or not"]}


@pytest.fixture
def weather(server: Any) -> Iterator[dict[str, Any]]:
    answer = server.http().post("/api/skills", json=WHOLE)
    assert answer.status_code == 201, answer.text
    yield answer.json()
    server.http().delete("/api/skills/weather")


def names(server: Any, key: str = "user") -> list[str]:
    return [skill["name"] for skill in server.http(key).get("/api/skills").json()["data"]]


def test_a_skill_serves_and_is_routed_to_as_soon_as_it_is_made(server: Any, weather: dict[str, Any]) -> None:
    server.says('{"sky": "rain"}')
    answer = server.http("user").post("/api/ask", json={"input": "umbrella today"}).json()
    assert (answer["skill"], answer["output"], answer["valid"]) == ("weather", {"sky": "rain"}, True)
    assert "intern/weather" in [m["id"] for m in server.http("user").get("/v1/models").json()["data"]]


def test_a_skill_is_shown_with_its_counts(weather: dict[str, Any]) -> None:
    counts = ("examples", "heldout", "utterances", "documents")
    assert {name: weather[name] for name in counts} == {"examples": 2, "heldout": 1, "utterances": 1, "documents": 0}
    assert (weather["title"], weather["schema"], weather["retrieval"], weather["problems"]) == (
        "Weather",
        SCHEMA,
        False,
        [],
    )
    assert weather["instructions"].strip() == "Say sun or rain."
    assert weather["spec"]["generation"]["max_tokens"] == 256
    assert weather["metrics"] == {"sky": "exact"}


def test_all_that_a_folder_may_say_can_be_said(server: Any) -> None:
    said: dict[str, dict[str, Any]] = {
        "retrieval": {"enabled": False, "passages": 2},
        "prompting": {"examples": "nearest"},
        "generation": {"max_tokens": 64},
        "review": {"mode": "always"},
        "learning": {"min_examples": 12},
        "evaluation": {
            "repeats": 2,
            "attributes": [{"name": "sky", "field": "sky", "patterns": {}, "reference": {"sun": 1.0, "rain": 1.0}}],
            "identity": [{"question": "Who are you?", "facts": [["sun", "rain"]], "never": []}],
        },
    }
    answer = server.http().post("/api/skills", json={**WHOLE, **said})
    try:
        assert answer.status_code == 201, answer.text
        spec = answer.json()["spec"]
        for section, values in said.items():
            assert {key: spec[section][key] for key in values} == values
    finally:
        server.http().delete("/api/skills/weather")


def test_the_list_has_what_the_contract_names(server: Any) -> None:
    (chat,) = [s for s in server.http("user").get("/api/skills").json()["data"] if s["name"] == "chat"]
    assert chat.keys() == {
        *("name", "title", "description", "schema", "retrieval", "examples", "heldout", "utterances"),
        *("documents", "problems"),
    }
    assert (chat["schema"], chat["utterances"]) == (None, 2)


def test_a_name_is_taken_once(server: Any, weather: dict[str, Any]) -> None:
    assert server.http().post("/api/skills", json=WHOLE).status_code == 409


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": "Bad Name"}, "invalid_skill"),
        ({"name": "../x"}, "invalid_skill"),
        ({"name": "auto"}, "invalid_skill"),
        ({"title": ""}, "invalid_skill"),
        ({"examples": [{"input": "x", "output": "no object"}]}, "invalid_skill"),
        ({"metrics": {"nothing": "exact"}}, "invalid_skill"),
        ({"retrieval": {"enabled": "perhaps"}}, "invalid_input"),
        ({"generation": {"temperature": 9}}, "invalid_input"),
        ({"evaluation": {"attributes": [{"name": "wind", "field": "wind"}]}}, "invalid_skill"),
        ({"instructons": "typo"}, "invalid_input"),
    ],
)
def test_a_bad_skill_is_refused_and_leaves_nothing(server: Any, change: dict[str, Any], code: str) -> None:
    before = names(server)
    answer = server.http().post("/api/skills", json={**WHOLE, **change})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert names(server) == before
    left = [p.name for p in server.workspace.settings.skills.iterdir() if p.name.startswith(".new")]
    assert left == []


def test_a_removed_skill_takes_along_what_was_brought_and_learned_for_it(server: Any) -> None:
    http = server.http()
    assert http.post("/api/skills", json=WHOLE).status_code == 201
    assert http.post("/api/skills/weather/documents", files={"file": ("a.md", b"# Clouds\n\nA cloud.")}).is_success
    more = {"skill": "weather", "examples": [{"input": "hail", "output": {"sky": "rain"}}]}
    assert http.post("/api/examples", json=more).status_code == 201
    assert http.delete("/api/skills/weather").status_code == 204
    assert "weather" not in names(server)
    assert http.get("/api/skills/weather").status_code == 404
    assert http.delete("/api/skills/weather").status_code == 404
    assert http.post("/api/route", json={"input": "umbrella"}).json()["skill"] is None
    trash = list((server.workspace.settings.data / "trash").glob("default-weather-*"))
    assert (trash[-1] / "skill.yaml").exists()
    # A new skill of the same name starts with nothing.
    assert http.post("/api/skills", json={"name": "weather", **ABOUT, "schema": SCHEMA}).status_code == 201
    again = http.get("/api/skills/weather").json()
    assert (again["examples"], again["documents"], again["utterances"]) == (0, 0, 0)
    assert http.delete("/api/skills/weather").status_code == 204


@pytest.fixture
def trash_elsewhere(server: Any) -> Iterator[Path]:
    """The trash, on another volume than the skills."""
    trash = server.workspace.settings.data / "trash"
    kept = trash.with_name("kept")
    if trash.exists():
        trash.rename(kept)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as volume:
        trash.symlink_to(volume)
        assert trash.stat().st_dev != server.workspace.settings.skills.stat().st_dev
        yield trash
        trash.unlink()
    if kept.exists():
        kept.rename(trash)


def test_a_skill_is_deleted_when_the_trash_is_on_another_volume(server: Any, trash_elsewhere: Path) -> None:
    skills = server.workspace.settings.skills
    assert server.http().post("/api/skills", json=WHOLE).status_code == 201
    files = {p.name: p.read_bytes() for p in (skills / "weather").iterdir()}
    assert server.http().delete("/api/skills/weather").status_code == 204
    (moved,) = trash_elsewhere.glob("default-weather-*")
    assert {p.name: p.read_bytes() for p in moved.iterdir()} == files
    assert "weather" not in names(server)
    assert not list(skills.glob("*weather*"))


def test_a_skill_that_cannot_be_moved_stays_whole(server: Any, trash_elsewhere: Path, weather: dict[str, Any]) -> None:
    folder = server.workspace.settings.skills / "weather"
    os.mkfifo(folder / "pipe")  # cannot be copied
    before = sorted(p.name for p in folder.iterdir())
    answer = server.http().delete("/api/skills/weather")
    (folder / "pipe").unlink()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_failure")
    assert sorted((*(p.name for p in folder.iterdir()), "pipe")) == before
    assert not list(trash_elsewhere.iterdir())
    assert not list(folder.parent.glob(".*weather*"))
    assert server.http().get("/api/skills/weather").json()["examples"] == weather["examples"]


def test_a_folder_that_cannot_be_read_is_listed_with_its_problems(server: Any) -> None:
    folder = server.workspace.settings.skills / "broken"
    folder.mkdir()
    (folder / "skill.yaml").write_text("title: X\n")
    server.workspace.refresh()
    http = server.http()
    shown = http.get("/api/skills/broken").json()
    assert any("description" in problem for problem in shown["problems"])
    assert "broken" in names(server)
    answer = http.post("/api/ask", json={"input": "x", "skill": "broken"})
    assert answer.json()["error"]["code"] == "invalid_skill"
    ready = server.http(None).get("/readyz").json()
    assert ready["ready"]
    assert http.delete("/api/skills/broken").status_code == 204
    assert "broken" not in names(server)


def test_a_folder_that_is_removed_by_hand_gets_nothing_more(server: Any) -> None:
    http = server.http()
    assert http.post("/api/skills", json=WHOLE).status_code == 201
    folder = server.workspace.settings.skills / "weather"
    folder.rename(server.workspace.settings.data / "gone-weather")
    server.workspace.library.refresh()  # the router still knows the skill
    assert http.post("/api/ask", json={"input": "umbrella"}).json()["skill"] is None
    server.workspace.documents.forget("default", "weather")
