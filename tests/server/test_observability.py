"""What operators see: request ids, one log line a request, counts, readiness, spans; and never a request's words."""

from __future__ import annotations

import functools
import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from intern.errors import EngineFailure, InvalidInput
from server.logs import set_up_logging
from server.tracing import Tracing, open_tracing

GOOD = {"model": "intern-auto", "messages": [{"role": "user", "content": "hello there swordfish"}]}


def samples(server: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = server.http("user").get("/metrics").text
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


def change(before: Any, after: Any, name: str, **labels: str) -> float:
    key = (name, tuple(sorted(labels.items())))
    return float(after.get(key, 0) - before.get(key, 0))


def test_requests_answers_and_tokens_are_counted(server: Any) -> None:
    http = server.http("user")
    before = samples(server)
    server.says("one two three")
    assert http.post("/v1/chat/completions", json=GOOD).status_code == 200
    assert http.post("/v1/chat/completions", json={**GOOD, "stream": True}).status_code == 200
    assert http.post("/api/ask", json={"input": "zebra"}).status_code == 200
    assert http.get("/api/skills/nothing").status_code == 404
    assert http.get("/some/path").status_code == 404
    after = samples(server)
    chat = {"method": "POST", "route": "/v1/chat/completions"}
    assert change(before, after, "intern_requests_total", status="200", **chat) == 2
    assert change(before, after, "intern_request_seconds_count", **chat) == 2
    lost = {"method": "GET", "status": "404"}
    assert change(before, after, "intern_requests_total", route="/api/skills/{skill}", **lost) == 1
    assert change(before, after, "intern_requests_total", route="(none)", **lost) == 1
    mine = {"team": "default", "skill": "chat"}
    assert change(before, after, "intern_answers_total", outcome="valid", **mine) == 2
    assert change(before, after, "intern_tokens_total", kind="completion", **mine) == 6
    refused = {"team": "default", "skill": "", "outcome": "refused"}
    assert change(before, after, "intern_answers_total", **refused) == 1
    assert change(before, after, "intern_stage_seconds_count", stage="generate") == 2
    assert ("intern_records_waiting", ()) in after


def test_what_waits_is_measured(server: Any, until: Any) -> None:
    server.hold()
    http = server.http("user")
    send = functools.partial(http.post, "/v1/chat/completions", json={**GOOD, "stream": True})
    threads = [threading.Thread(target=send) for _ in range(5)]
    for thread in threads:
        thread.start()
    until(lambda: server.engine.load == (4, 1))
    found = samples(server)
    assert (found[("intern_engine_running", ())], found[("intern_engine_waiting", ())]) == (4, 1)
    server.go_on()
    for thread in threads:
        thread.join(10)


def test_every_answer_has_an_id_of_its_own_whatever_the_caller_sends(server: Any) -> None:
    http = server.http("user")
    answers = [http.get("/v1/models", headers={"x-intern-request-id": "mine"}) for _ in range(3)]
    ids = [answer.headers["x-intern-request-id"] for answer in answers]
    assert len(set(ids)) == 3
    assert sorted(ids) == ids, "they are in order of time"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """The log as JSON lines, set up as a process would, and put back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    set_up_logging("debug", stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def entries(lines: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_a_request_leaves_one_line_with_its_id_and_no_words(server: Any, lines: io.StringIO, until: Any) -> None:
    answer = server.http("user").post("/v1/chat/completions", json={**GOOD, "user": "eve"})
    ident = answer.headers["x-intern-request-id"]
    (line,) = until(lambda: [e for e in entries(lines) if e.get("request_id") == ident and e["event"] == "request"])
    assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/chat/completions", 200)
    assert 0 < line["seconds"] < 10
    assert line["level"] == "info"
    server.http("user").get("/api/records/rec_swordfish?skill=swordfish")
    assert "swordfish" not in lines.getvalue()
    assert "eve" not in lines.getvalue().replace("event", "").replace("level", "")


def test_what_goes_wrong_is_logged_under_the_requests_id(server: Any, lines: io.StringIO) -> None:
    server.says(EngineFailure("it broke"))
    answer = server.http("user").post("/v1/chat/completions", json=GOOD)
    ident = answer.headers["x-intern-request-id"]
    assert any("it broke" in e["event"] for e in entries(lines) if e.get("request_id") == ident)


def test_the_log_is_json_unless_a_person_reads_it() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        for stream, as_json, is_json in (
            (io.StringIO(), False, True),
            (Terminal(), False, False),
            (Terminal(), True, True),
        ):
            set_up_logging("info", as_json=as_json, stream=stream)
            with structlog.contextvars.bound_contextvars(request_id="req_1"):
                logging.getLogger("some.part").info("it happened", extra={"count": 3})
            logging.getLogger("some.part").debug("too fine")
            text = stream.getvalue()
            assert "it happened" in text
            assert "too fine" not in text
            assert text.startswith("{") is is_json
            if is_json:
                line = json.loads(text)
                assert (line["count"], line["request_id"], line["logger"]) == (3, "req_1", "some.part")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def test_ready_says_what_each_part_says(server: Any) -> None:
    answer = server.http(None).get("/readyz")
    assert answer.status_code == 200
    body = answer.json()
    assert body["ready"] is True
    assert body["parts"].keys() == {"engine", "store", "index", "skills"}
    assert body["parts"]["store"].startswith("SQLite 3.")
    assert not {"mood", "secret", "blue"} & set(body["parts"]["skills"].split())


def test_an_engine_that_is_down_makes_it_unready(server: Any) -> None:
    readiness = server.app.state.readiness
    server.engine.down = "the engine is gone"
    readiness.forget()
    try:
        answer = server.http(None).get("/readyz")
    finally:
        server.engine.down = None
        readiness.forget()
    assert answer.status_code == 503
    assert (answer.json()["ready"], answer.json()["parts"]["engine"]) == (False, "the engine is gone")
    assert server.http(None).get("/healthz").json() == {"status": "ok"}


def test_doctor_tells_every_choice_with_its_reason(server: Any) -> None:
    found = server.http().get("/api/doctor").json()["data"]
    assert all(f.keys() == {"part", "choice", "reason", "state", "advice"} for f in found)
    assert {"engine", "embedder", "database", "workspace"} <= {f["part"] for f in found}
    assert all(f["state"] in ("ok", "warn", "bad") for f in found)


def test_the_index_is_made_again_from_the_database(server: Any) -> None:
    http = server.http()
    before = http.post("/api/skills/docs/retrieve", json={"input": "days of leave"}).json()
    counts = http.post("/api/index/rebuild").json()
    assert counts["passages"] >= 1
    assert http.post("/api/skills/docs/retrieve", json={"input": "days of leave"}).json() == before


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, launch: Any) -> Iterator[tuple[Any, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    server, stop = launch(tmp_path_factory.mktemp("traced"), tracing=Tracing(provider))
    yield server, exporter
    stop()


def finished(exporter: InMemorySpanExporter) -> dict[str, Any]:
    return {span.name: span for span in exporter.get_finished_spans()}


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_a_span_with_a_span_a_stage(traced: Any, stream: bool, until: Any) -> None:
    server, exporter = traced
    exporter.clear()
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = server.http("user").post(
        "/v1/chat/completions", json={**GOOD, "stream": stream}, headers={"traceparent": parent}
    )
    assert answer.status_code == 200
    spans = until(lambda: finished(exporter) if "POST /v1/chat/completions" in finished(exporter) else None)
    request = spans["POST /v1/chat/completions"]
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["intern.request_id"] == answer.headers["x-intern-request-id"]
    assert f"{request.context.trace_id:032x}" == parent.split("-")[1]
    for stage in ("route", "prompt", "generate"):
        assert spans[stage].parent.span_id == request.context.span_id
    assert "swordfish" not in str([span.to_json() for span in spans.values()])


def test_a_collector_without_the_exporter_installed_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(InvalidInput, match=r"llama-intern\[tracing\]"):
        open_tracing("http://127.0.0.1:4318")
