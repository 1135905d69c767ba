"""A report says the decision first, shows what it rests on, and is safe to open whatever the answers hold."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from lxml import html as lxml_html

from intern.learning.judging.attributes import distribution, identity
from intern.learning.judging.gate import decide
from intern.learning.judging.growth import forecast
from intern.learning.judging.outcomes import CANDIDATE, Decision, Interval, Outcome
from intern.learning.judging.parity import Parity
from intern.learning.judging.probes import Probed, consistency
from intern.learning.judging.repetition import overused
from intern.learning.judging.summary import summarise
from intern.learning.loop.judging import Verdict
from intern.learning.reports.findings import enumerated_fields
from intern.learning.reports.kept import Kept, Service
from intern.learning.reports.report import HEADLINES, render_html, render_json
from intern.measures import Attribute, Question
from intern.types import Dataset, Dropped, Json, Run

Outcomes = Mapping[str, Sequence[Outcome]]

WHEN = datetime(2026, 11, 20, 9, 14, tzinfo=UTC)
CURVES = {"step_at": [1, 2, 3], "step_loss": [3.0, 2.0, 1.5], "heldout_at": [0, 3], "heldout_loss": [3.1, 1.7]}
HOSTILE = (
    "</title></style></svg><script>alert(1)</script><img src=x onerror=alert(2)> \"'`&amp;--> ]]> "
    "{{ 7*7 }} \u202eright \u0627\u0644 😀 $\\frac{1}{$ \x00\x1b\ud800 " + "W" * 3_000
)


def run(**more: Any) -> Run:
    values = {"id": "run_1", "team": "default", "skill": "triage", "state": "done", "adapter": "triage@v3"}
    return Run.model_validate({**values, "created": WHEN, "ended": WHEN, "train_seconds": 148.0, **more})


def rivals(shares: Mapping[str, float], n: int = 60, *, seed: int = 0) -> dict[str, list[Outcome]]:
    """Rivals that label a request right with these shares, and write a note beside the label."""
    random = np.random.default_rng(seed)
    found: dict[str, list[Outcome]] = {}
    for name, share in shares.items():
        found[name] = []
        for i in range(n):
            right = bool(random.random() < share)
            expected = {"intent": f"label {i % 5}", "note": f"Request number {i} is about label {i % 5}."}
            given = expected if right else {"note": "We are sorry to hear that.", "intent": f"label {(i + 1) % 5}"}
            fields = {"intent": float(right), "note": 1.0 if right else 0.25}
            found[name].append(
                outcome(i, fields, expected, given, request=f"request {i}", tokens=20, prompt_tokens=300, seconds=1.5)
            )
    return found


def outcome(i: int, fields: Mapping[str, float], expected: Json, output: Json, **more: Any) -> Outcome:
    score = sum(fields.values()) / len(fields)
    values = {"example": f"ex_{i}", "group": f"g{i}", "valid": True, "fields": fields, "score": score, "request": "?"}
    return Outcome.model_validate({**values, "expected": expected, "output": output, **more})


def verdict(outcomes: Outcomes, **more: Any) -> Verdict:
    answered = {name: some for name, some in outcomes.items() if some}
    ruling = decide(outcomes) if CANDIDATE in answered else None
    return Verdict(rivals={name: summarise(some) for name, some in answered.items()}, ruling=ruling, **more)


def render(outcomes: Outcomes, judged: Verdict | None = None, a_run: Run | None = None, **more: Any) -> str:
    return render_html(a_run or run(), judged or verdict(outcomes), kept(outcomes, **more))


def as_json(outcomes: Outcomes, judged: Verdict | None = None, a_run: Run | None = None, **more: Any) -> Any:
    found = render_json(a_run or run(), judged or verdict(outcomes), kept(outcomes, **more))
    return json.loads(json.dumps(found, allow_nan=False))


def kept(outcomes: Outcomes, **more: Any) -> Kept:
    return Kept(**{"skill_title": "Triage", "curves": CURVES, "outcomes": outcomes, **more})


class Page(HTMLParser):
    """What a page is made of; raises AssertionError where its elements are not closed in order."""

    VOID = ("meta", "br", "img", "hr", "input", "link")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tables = 0
        self.feed(page)
        self.close()
        assert self.opened == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.opened, tag
        self.handle_starttag(tag, attrs)
        self.opened.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag, self.getpos()

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


def text_of(page: str) -> str:
    """What a reader sees, with any run of whitespace as one space."""
    root = lxml_html.fromstring(page)
    for element in root.xpath("//head | //*[local-name()='svg']"):
        element.drop_tree()
    for cell in root.iter("td", "th", "dt", "dd"):
        cell.tail = f" {cell.tail or ''}"
    return " ".join(root.text_content().split())


def hostile(n: int = 40, *, text: bool = False) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    for name, share in {"candidate": 0.9, "base": 0.4, f"vendor {HOSTILE}": 0.5}.items():
        found[name] = []
        for i in range(n):
            right = i / n < share
            expected: Json = f"Dear {HOSTILE} {i % 3}" if text else {HOSTILE: f"{HOSTILE} {i % 3}"}
            output: Json = expected if right else f"Broken {HOSTILE}"
            fields = {"text" if text else HOSTILE: float(right)}
            more = {"request": HOSTILE, "example": f"{HOSTILE}{i}", "valid": right}
            found[name].append(outcome(i, fields, expected, output, **more))
    return found


FULL = rivals({"base": 0.1, "few-shot": 0.3, "retrieval": 0.5, "serving": 0.6, "candidate": 0.95, "vendor": 0.7})
HOSTILE_RUN = run(started_by=HOSTILE, recipe={"name": HOSTILE}, adapter=None)
HOSTILE_DATASET = Dataset(
    id="ds_1",
    team="default",
    skill="triage",
    digest="0" * 64,
    created=WHEN,
    train=1,
    heldout=1,
    dropped=(Dropped(example=HOSTILE, reason=HOSTILE, detail=HOSTILE),),
)
DECLARED = HOSTILE.replace("\ud800", "")[:150]
QUESTIONS = [Question(question=f"{name}?", facts=[name], never=["robot"]) for name in ("Who", "Where", DECLARED)]


def probed(intents: Mapping[str, int], answers: Sequence[str], agree: int, name: str = "intent") -> Probed:
    """How often it says which intent, its answers about itself, and how many of ten repeated requests agree."""
    outputs = [{"intent": intent} for intent, count in intents.items() for _ in range(count)]
    samples = [[("same", True), ("same" if n < agree else "other", True)] for n in range(10)]
    return Probed(
        attributes=(distribution(Attribute(name=name, field="intent"), outputs, {"card": 0.5, "pin": 0.5}),),
        identity=identity(QUESTIONS, answers),
        consistency=consistency(samples, [f"{n}" for n in range(10)], {"text": "exact"}, temperature=0.7),
    )


PROBES = {
    "candidate": probed({"card": 39, "fee": 1}, ["Who", "a robot", "nothing"], 5),
    "serving": probed({"card": 19, "pin": 21}, ["Who", "Where", "nothing"], 10),
}
GROWTH = forecast({size: Interval(mean=mean, low=mean - 0.04, high=mean + 0.04, n=60, groups=60)
                   for size, mean in ((75, 0.55), (150, 0.68), (300, 0.74))})  # fmt: skip
PARITY = Parity(prompts=20, same_prompts=20, answers=20, tokens=0.993, fields=0.985, moved=3.2)
PAGES = {
    "full": lambda: render({**FULL, "silent": []}, verdict(FULL, parity=PARITY, looks=3)),
    "growth": lambda: render(FULL, verdict(FULL, growth=GROWTH)),
    "probes": lambda: render(FULL, verdict(FULL, probes=PROBES)),
    "hostile probes": lambda: render(
        FULL, verdict(FULL, probes={"base": probed({DECLARED: 3}, [""] * 3, 0, DECLARED[:80])})
    ),
    "hostile": lambda: render(hostile(), None, HOSTILE_RUN, skill_title=HOSTILE, dataset=HOSTILE_DATASET),
    "hostile texts": lambda: render(hostile(text=True), curves={}),
    "one example": lambda: render(rivals({"base": 0.0, "candidate": 1.0}, n=1)),
    "no serving adapter": lambda: render({name: FULL[name] for name in ("base", "candidate")}),
    "no candidate": lambda: render({name: FULL[name] for name in ("base", "serving")}, curves={}),
    "nothing": lambda: render({}, Verdict(rivals={}), run(adapter=None, ended=None), curves={}),
    "no outcomes left": lambda: render({}, verdict(FULL)),
}


@pytest.fixture(scope="module", params=PAGES)
def page(request: pytest.FixtureRequest) -> str:
    return PAGES[request.param]()


# --- any page ----------------------------------------------------------------------------------------------------


def test_a_page_is_whole_and_stands_alone(page: str) -> None:
    assert page.startswith("<!doctype html>")
    page.encode()
    parsed = Page(page)
    assert parsed.tags.count("h1") == 1
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(parsed.tags)
    assert not [name for _, name, _ in parsed.attributes if name.startswith("on") or name in ("src", "srcset")]
    assert all(value.startswith("#") for value in parsed.values("href"))
    assert not re.findall(r"url\((?!#)", "".join(parsed.values("style")))
    policy = lxml_html.fromstring(page).xpath("string(//meta[@http-equiv='Content-Security-Policy']/@content)")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_a_page_can_be_read_aloud(page: str) -> None:
    parsed = Page(page)
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    assert {name for value in parsed.values("aria-labelledby") for name in value.split()} <= set(ids)
    assert parsed.tags.count("svg") == parsed.values("role").count("img")
    root = lxml_html.fromstring(page)
    for table in root.iter("table"):
        assert all(head.get("scope") in ("col", "row") for head in table.iter("th"))
        columns = len(table.xpath("./thead/tr/th"))
        assert {len(row) for row in table.xpath("./tbody/tr")} == {columns}
    levels = [int(tag[1]) for tag in parsed.tags if re.fullmatch("h[1-6]", tag)]
    assert all(below <= above + 1 for above, below in itertools.pairwise(levels))


def test_what_more_examples_would_bring_is_said_and_drawn() -> None:
    page = PAGES["growth"]()
    assert GROWTH.words in page
    assert "Learning curve" in page
    assert "Learning curve" not in PAGES["full"]()


def test_what_was_measured_beside_the_score_is_told_in_numbers_and_words() -> None:
    said = text_of(PAGES["probes"]())
    assert "Value Reference Candidate Adapter in service card 50.0% 98% (87% to 100%) 48%" in said
    assert "pin 50.0% 0% (0% to 9%) 52%" in said
    assert "fee 0% 2% (0% to 13%) 0% (0% to 9%)" in said, "also where one rival alone has a value"
    assert "Candidate: 50% of the answers would have to change to be like the reference, more than chance" in said
    assert "Adapter in service: no further from the reference than chance explains." in said
    assert "Candidate: 1 of 3 right. Adapter in service: 2 of 3 right." in said
    assert "Where? lacks Where; says robot right" in said
    assert "Who? lacks" not in said
    assert "10 held-out requests were answered 2 times each, at a temperature of 0.7." in said
    assert "Candidate 0.50" in said
    assert "Adapter in service 1.00" in said
    found = as_json(FULL, verdict(FULL, probes=PROBES))
    assert found["identity"]["right"] == {"candidate": 1, "serving": 2}
    assert found["attributes"][0]["reference"] == {"card": 0.5, "pin": 0.5, "fee": 0.0}


def test_what_was_not_measured_is_not_told() -> None:
    page = text_of(PAGES["full"]())
    assert "What else was measured" not in page
    only = {"candidate": Probed(identity=PROBES["candidate"].identity)}
    told = text_of(render(FULL, verdict(FULL, probes=only)))
    assert "Questions about itself" in told
    assert "Attribute" not in told
    assert "The same request again" not in told


def test_what_is_hostile_is_shown_as_it_is_and_does_nothing() -> None:
    page = PAGES["hostile"]()
    assert "<script>alert(1)</script><img src=x onerror=alert(2)>" in text_of(page)
    assert "{{ 7*7 }}" in text_of(page)
    assert "49" not in lxml_html.fromstring(page).xpath("string(//h1)")
    assert not {"\x00", "\x1b", "\ud800"} & set(page)
    found = as_json(hostile(), None, HOSTILE_RUN, skill_title=HOSTILE, dataset=HOSTILE_DATASET)
    assert "<script>alert(1)</script>" in found["skill_title"]
    json.dumps(found, ensure_ascii=False).encode()


def test_the_same_facts_make_the_same_page() -> None:
    assert PAGES["full"]() == PAGES["full"]()


# --- what it says ------------------------------------------------------------------------------------------------


def test_the_decision_and_its_numbers_come_before_everything_else() -> None:
    judged = verdict(FULL)
    assert judged.ruling is not None
    page = render(FULL, judged)
    assert judged.ruling.decision == "promote"
    assert page.index(judged.ruling.reason) < page.index("<svg") < page.index("<table")
    assert text_of(page).startswith(
        f"Report of an evaluation · 20 November 2026, 09:14 UTC Triage: is triage@v3 better? Promote "
        f"{HEADLINES['promote'][1]} {judged.ruling.reason}"
    )
    found = as_json(FULL, judged)
    assert (found["decision"], found["reason"]) == ("promote", judged.ruling.reason)


def test_every_rival_has_its_bar_and_its_row() -> None:
    said = text_of(PAGES["full"]())
    assert [rival["name"] for rival in as_json(FULL)["rivals"]] == [
        "candidate", "serving", "base", "few-shot", "retrieval", "vendor",
    ]  # fmt: skip
    summaries = verdict(FULL).rivals
    for name, called in {
        "candidate": "Candidate",
        "serving": "Adapter in service",
        "retrieval": "Nearest examples in the prompt",
        "vendor": "vendor (outside system)",
    }.items():
        score = summaries[name].score
        assert f"{called} {score.mean:.2f} ({score.low:.2f} to {score.high:.2f}) 60 100%" in said
    assert "silent (outside system) answered none of the held-out examples" in said
    assert "3 candidates have been judged on these examples" in said


def test_fields_of_candidate_adapter_in_service_and_best_prompt_are_compared() -> None:
    assert as_json(FULL)["side_by_side"] == ["candidate", "serving", "retrieval"]
    alone = {name: FULL[name] for name in ("base", "candidate")}
    assert as_json(alone)["side_by_side"] == ["candidate", "base"]
    assert "Adapter in service" not in text_of(render(alone))


def test_answers_stand_side_by_side_with_what_differs_marked() -> None:
    page = render(FULL)
    comparison = as_json(FULL)["comparison"]
    assert comparison["rival"] == "serving"
    changes = [a.score - b.score for a, b in zip(FULL["candidate"], FULL["serving"], strict=True)]
    counted = [sum(c > 0 for c in changes), sum(c < 0 for c in changes), sum(c == 0 for c in changes)]
    assert [comparison[name] for name in ("better", "worse", "same")] == counted
    assert min(counted) > 0
    assert len(comparison["gains"]) == 10
    assert all(case["after_score"] > case["before_score"] for case in comparison["gains"])
    assert all(case["after_score"] < case["before_score"] for case in comparison["regressions"])
    case = comparison["gains"][0]
    root = lxml_html.fromstring(page)
    (article,) = (a for a in root.xpath("//article") if case["example"] in a.xpath("string(.//bdi)"))
    expected, before, after = article.xpath(".//div[@class='answers']/div/div")
    assert expected.text_content() == case["expected"]
    assert "We are sorry to hear that" in before.xpath("string(mark[2])")
    assert after.text_content() == case["expected"]
    assert not after.xpath(".//mark | .//del")
    assert case["request"] in article.text_content()


def test_without_an_adapter_in_service_the_best_prompt_is_what_answers_are_compared_with() -> None:
    found = as_json({name: FULL[name] for name in ("base", "few-shot", "retrieval", "candidate")})
    assert found["comparison"]["rival"] == "retrieval"


def test_confusions_are_of_fields_that_choose_from_a_list() -> None:
    assert enumerated_fields(FULL["candidate"]) == ["intent"]
    (confusions,) = as_json(FULL)["confusions"]
    wrong = sum(o.fields["intent"] == 0 for o in FULL["candidate"])
    assert (confusions["right"], confusions["total"]) == (60 - wrong, 60)
    assert sum(mistake["count"] for mistake in confusions["mistakes"]) == wrong > 0
    assert "What the candidate confuses" in text_of(render(FULL))
    texts = [outcome(i, {"text": 1.0}, f"text {i % 3}", "text") for i in range(30)]
    assert enumerated_fields(texts) == []
    assert enumerated_fields([outcome(i, {"n": 1.0}, {"n": i % 3}, {"n": 1}) for i in range(30)]) == []
    assert enumerated_fields([outcome(i, {"a": 1.0}, {"a": f"{i}"}, {"a": ""}) for i in range(30)]) == []
    flags = [outcome(i, {"a": 1.0}, {"a": [True, False, None][i % 3]}, {"a": True}) for i in range(30)]
    assert enumerated_fields(flags) == ["a"]


def test_a_phrase_that_answers_wear_out_is_named() -> None:
    worn = rivals({"base": 0.1, "candidate": 0.5})
    found = tuple(overused([o.output for o in worn["candidate"]], [{"note": "Hello."}] * 80))
    judged = verdict(worn, phrases={"candidate": found})
    (phrase, *_) = as_json(worn, judged)["phrases"]
    assert phrase["text"] == "we are sorry to hear that"
    assert f"we are sorry to hear that {phrase['outputs']} of 60 0 of 80" in text_of(render(worn, judged))
    assert "Overused phrases" not in text_of(render(worn, verdict(worn)))


def test_guards_say_whether_they_were_kept() -> None:
    broken = [o.model_copy(update={"valid": i % 2 == 0}) for i, o in enumerate(FULL["candidate"])]
    outcomes = {"base": FULL["base"], "candidate": broken}
    said = text_of(render(outcomes))
    assert "schema ✗ broken Only 50% of the answers keep the schema; at least 90% must." in said
    assert "loops ✓ kept" in said
    assert "First mend what broke a guard: schema." in said


def test_the_dataset_says_what_was_left_out_and_why() -> None:
    copies = [Dropped(example=f"{i}", reason="near_duplicate", detail=f"91% the words of ex_{i}") for i in range(7)]
    dataset = HOSTILE_DATASET.model_copy(
        update={"train": 1812, "dropped": (*copies, Dropped(example="x", reason="other_reason", detail="why"))}
    )
    said = text_of(render(FULL, dataset=dataset))
    assert "To train on 1,812 examples" in said
    assert (
        "nearly the same as another one 7 "
        "91% the words of ex_0; 91% the words of ex_1; 91% the words of ex_2 other reason 1 why"
    ) in said
    left_out = as_json(FULL, dataset=dataset)["left_out"]
    assert [(some["reason"], some["count"]) for some in left_out] == [("near_duplicate", 7), ("other_reason", 1)]


def test_cost_training_and_parity_are_told() -> None:
    said = text_of(PAGES["full"]())
    assert "Candidate 300 20 1.5 s 1.5 s" in said
    assert "Training time 2 min 28 s" in said
    assert "Prompts alike in trainer and engine 20 of 20 Tokens on which they agree 99.3%, in 20 answers" in said
    wrong = PARITY.model_copy(update={"same_prompts": 3})
    assert str(wrong.problem) in text_of(render(FULL, verdict(FULL, parity=wrong)))


def test_what_is_missing_is_said_to_be() -> None:
    assert "No loss curves were kept." in text_of(PAGES["hostile texts"]())
    assert "The dataset is not known." in text_of(render(FULL))
    assert "No rival was evaluated." in text_of(PAGES["nothing"]())
    assert "Nothing was evaluated." in text_of(PAGES["nothing"]())
    told = text_of(PAGES["no candidate"]())
    assert "Compared No new adapter was judged. Adapter in service scores best: 0." in told
    assert as_json({}, verdict(FULL))["comparison"] is None


def test_numbers_that_are_none_are_null_for_machines() -> None:
    curves = {"step_at": [1, 2], "step_loss": [float("nan"), 1.0]}
    assert as_json(FULL, curves=curves)["curves"]["step_loss"] == [None, 1.0]


@pytest.mark.parametrize(
    ("shares", "decision", "step"),
    [
        ({"base": 0.1, "serving": 0.5, "candidate": 0.95}, "promote", "triage@v3 waits for somebody to approve it."),
        ({"base": 0.1, "serving": 0.95, "candidate": 0.3}, "reject", "What is in service stays in service."),
        ({"base": 0.6, "candidate": 0.62}, "inconclusive", "held-out examples, by reviews or by an import"),
        ({"base": 0.1, "few-shot": 1.0, "candidate": 1.0}, "prompting_is_enough", "triage@v3 is not needed."),
    ],
)
def test_every_decision_comes_with_what_to_do_next(shares: dict[str, float], decision: Decision, step: str) -> None:
    outcomes = rivals(shares)
    found = as_json(outcomes)
    assert found["decision"] == decision
    assert any(step in said for said in found["next_steps"])
    assert HEADLINES[decision][1] in text_of(render(outcomes))


@pytest.mark.parametrize(
    ("service", "said"),
    [
        (Service(state="serves"), "Nothing has to be done: triage@v3 serves."),
        (Service(state="served"), "triage@v3 has served, and does not serve any more"),
        (Service(state="going"), "The run has not ended"),
        (Service(state="waits"), "triage@v3 waits for somebody to approve it."),
        (Service(state="waits", why="The skill was changed."), "did not go into service: The skill was changed."),
    ],
)
def test_where_the_adapter_stands_now_is_what_is_said_of_it(service: Service, said: str) -> None:
    page = text_of(render(FULL, service=service))
    assert said in page
    assert ("Nothing has to be done" in page) == (service.state == "serves")
    waits = service.state in ("waits", "served")
    assert ("<code>intern adapters promote triage@v3</code>" in render(FULL, service=service)) == waits
    found = as_json(FULL, service=service)
    assert said in found["next_steps"][0]
    assert found["service"] == {"state": service.state, "why": service.why}


def test_how_many_examples_a_rival_was_shown_stands_beside_its_score() -> None:
    assert "Examples in the prompt Candidate" not in text_of(render(FULL))
    judged = verdict(FULL)
    shown = judged.rivals["few-shot"].model_copy(update={"shown": 11.26})
    page = text_of(render(FULL, judged.model_copy(update={"rivals": {**judged.rivals, "few-shot": shown}})))
    assert "Keep the schema Examples in the prompt Candidate" in page
    assert "100% 11.3 Nearest" in page
