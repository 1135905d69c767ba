"""Documents over HTTP: brought, listed, read, replaced, pruned and removed, by those who may."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

PATH = "/api/skills/chat/documents"
TEXT = b"# Tea\n\nTea is served at four.\n"


@pytest.fixture(autouse=True)
def _clean(server: Any) -> Iterator[None]:
    yield
    http = server.http()
    for document in http.get(PATH).json()["data"]:
        assert http.delete(f"{PATH}/{document['name']}").status_code == 204


def bring(server: Any, *files: tuple[str, bytes], key: str = "user", **fields: str) -> Any:
    return server.http(key).post(PATH, files=[("file", pair) for pair in files], data=fields)


def names(server: Any) -> list[str]:
    return [document["name"] for document in server.http("user").get(PATH).json()["data"]]


def test_documents_are_brought_and_read_back(server: Any) -> None:
    data = bring(server, ("house/tea.md", TEXT), ("coffee.txt", b"Coffee is served at ten.")).json()["data"]
    assert [(d["name"], d["status"], d["passages"], d["problem"]) for d in data] == [
        ("house/tea.md", "added", 1, None),
        ("coffee.txt", "added", 1, None),
    ]
    (_, tea) = server.http("user").get(PATH).json()["data"]
    assert tea.keys() == {"name", "source", "sha256", "media_type", "characters", "passages", "created"}
    assert (tea["name"], tea["source"], tea["passages"]) == ("house/tea.md", "upload", 1)
    read = server.http("user").get(f"{PATH}/house/tea.md").json()
    assert "Tea is served at four." in read["text"]
    assert server.http("user").get("/api/skills/chat").json()["documents"] == 2


def test_the_same_bytes_change_nothing_and_other_bytes_replace(server: Any) -> None:
    bring(server, ("tea.md", TEXT))
    assert bring(server, ("tea.md", TEXT)).json()["data"][0]["status"] == "unchanged"
    assert bring(server, ("tea.md", TEXT + b"\nOr at five.\n")).json()["data"][0]["status"] == "replaced"
    found = server.http("user").post("/api/skills/chat/retrieve", json={"input": "five"}).json()["passages"]
    assert "at five" in " ".join(p["text"] for p in found)


def test_one_bad_file_does_not_keep_the_others_out(server: Any) -> None:
    answer = bring(server, ("../up.md", TEXT), ("empty.txt", b""), ("tea.md", TEXT))
    assert answer.status_code == 200
    assert [d["status"] for d in answer.json()["data"]] == ["refused", "refused", "added"]
    assert all(d["problem"] for d in answer.json()["data"][:2])
    assert names(server) == ["tea.md"]


def test_pruning_removes_what_left_its_source_only(server: Any) -> None:
    bring(server, ("a.md", TEXT), ("b.md", TEXT + b"b"), source="folder")
    bring(server, ("c.md", TEXT + b"c"))
    removed = server.http("user").post(f"{PATH}/prune", json={"source": "folder", "keep": ["a.md"]}).json()
    assert removed == {"removed": ["b.md"]}
    assert names(server) == ["a.md", "c.md"]


def test_only_an_admin_or_who_brought_it_removes_a_document(server: Any) -> None:
    bring(server, ("admins.md", TEXT), key="admin", source="folder")
    http = server.http("user")
    assert http.delete(f"{PATH}/admins.md").status_code == 403
    assert http.post(f"{PATH}/prune", json={"source": "folder", "keep": []}).status_code == 403
    assert names(server) == ["admins.md"]
    bring(server, ("mine.md", TEXT + b"m"))
    assert http.delete(f"{PATH}/mine.md").status_code == 204
    assert server.http("admin").delete(f"{PATH}/admins.md").status_code == 204
    assert http.delete(f"{PATH}/admins.md").status_code == 404


def test_the_folders_own_documents_are_changed_in_the_folder(server: Any) -> None:
    http = server.http()
    path = "/api/skills/docs/documents"
    assert http.delete(f"{path}/leave.md").status_code == 409
    assert http.post(path, files={"file": ("leave.md", TEXT)}).status_code == 400
    for answer in (
        http.post(path, files={"file": ("x.md", TEXT)}, data={"source": "docs"}),
        http.post(f"{path}/prune", json={"source": "docs", "keep": []}),
    ):
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "source")
    assert [d["name"] for d in http.get(path).json()["data"]] == ["leave.md"]


def test_a_skill_that_does_not_exist_has_no_documents(server: Any) -> None:
    http = server.http()
    path = "/api/skills/nothing/documents"
    assert http.get(path).status_code == 404
    assert http.post(path, files={"file": ("x.md", TEXT)}).status_code == 404
    assert http.post(f"{path}/prune", json={"source": "upload", "keep": []}).status_code == 404
    assert http.get(f"{path}/x.md").status_code == 404
    assert http.delete(f"{path}/x.md").status_code == 404
