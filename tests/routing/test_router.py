"""The router sends requests to the right skill, abstains with a reason, learns at once and survives a restart."""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intern.models.embedder import Embedder, Vectors
from intern.routing.router import Router, SkillTexts
from intern.routing.texts import standing
from intern.types import Route

IT = SkillTexts(
    skill="it-help",
    title="IT help",
    description="Solves problems with computers, printers and accounts.",
    utterances=(
        "the printer is jammed",
        "my laptop does not start",
        "i cannot log in to the vpn",
        "outlook keeps crashing",
        "please reset my password",
        "the wifi is slow on the second floor",
        "my monitor stays black",
        "i need access to the shared drive",
        "the scanner does not send mails",
        "my keyboard types wrong letters",
        "how do i connect a second screen",
        "the video call has no sound",
    ),
)
LEAVE = SkillTexts(
    skill="leave",
    title="Leave",
    description="Answers questions about leave and working hours.",
    utterances=(
        "how many days of leave do i have",
        "can i carry leave over to next year",
        "who approves my holiday",
        "do i get paid sick leave",
        "when do i hand in a doctor's note",
        "is friday before easter a public holiday",
        "can i take half a day off",
        "how long is parental leave",
        "may i work from home on mondays",
        "how is overtime paid",
        "what are the core working hours",
        "can i take unpaid leave for three months",
    ),
)
INVOICES = SkillTexts(
    skill="invoices",
    title="Invoices",
    description="Reads vendor, line items and totals from the text of an invoice.",
)
SKILLS = (IT, LEAVE, INVOICES)
ELSEWHERE = ("what is the capital of france", "write a poem about the sea", "asdf qwer", "who won the football match")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder) -> Path:
    """A cache in which the three skills are trained."""
    cache = tmp_path_factory.mktemp("routing")
    Router(embedder, cache=cache).fit("default", SKILLS)
    return cache


@pytest.fixture(scope="module")
def router(embedder: Embedder, trained: Path) -> Router:
    """Fitted to three skills; tests that change it take a fresh one."""
    made = Router(embedder, cache=trained)
    made.fit("default", SKILLS)
    return made


@pytest.fixture
def fresh(embedder: Embedder, trained: Path, tmp_path: Path) -> Router:
    made = Router(embedder, cache=shutil.copytree(trained, tmp_path / "cache"))
    made.fit("default", SKILLS)
    return made


@pytest.mark.parametrize(
    ("text", "skill"),
    [
        ("printer jam", "it-help"),
        ("my screen is dark", "it-help"),
        ("how much vacation is left for me?", "leave"),
        ("Can my holiday be moved to next January?", "leave"),
        ("Please read the line items and the total from this invoice: 3 chairs at 40 euro", "invoices"),
    ],
)
def test_requests_reach_their_skill_also_one_that_has_only_a_description(router: Router, text: str, skill: str) -> None:
    route = router.route("default", text)
    assert route.skill == skill
    assert route.confidence > 0.5
    assert route.candidates[0].skill == skill
    assert route.runner_up == route.candidates[1].skill != skill


@pytest.mark.parametrize("text", ELSEWHERE)
def test_what_fits_nowhere_is_declined_with_the_nearest_example_as_reason(router: Router, text: str) -> None:
    route = router.route("default", text)
    assert route.skill is None
    assert route.confidence < 0.5
    assert route.nearest
    assert route.nearest in route.reason
    assert route.reason.startswith("No skill fits")


def test_the_reason_names_the_nearest_example(router: Router) -> None:
    route = router.route("default", "the printer is jammed again")
    assert route.nearest == "the printer is jammed"
    assert route.reason.startswith("Closest to 'the printer is jammed' (it-help, similarity 0.")


@pytest.mark.parametrize("text", ["", "   ", "\n\t\u00a0"])
def test_an_empty_request_is_declined(router: Router, text: str) -> None:
    route = router.route("default", text)
    assert (route.skill, route.confidence, route.reason) == (None, 0.0, "The request is empty.")


def test_no_skills_and_unknown_teams_are_declined(router: Router, embedder: Embedder) -> None:
    assert "no skill" in router.route("another team", "the printer is jammed").reason
    empty = Router(embedder, cache=None)
    empty.fit("default", [])
    assert empty.route("default", "the printer is jammed").skill is None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(), max_size=300))
def test_any_text_gets_a_well_formed_route(router: Router, text: str) -> None:
    route = router.route("default", text)
    assert 0 <= route.confidence <= 1
    scores = [candidate.score for candidate in route.candidates]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert route.reason
    assert route.skill is None or route.skill == route.candidates[0].skill


def test_a_long_mail_is_routed_by_its_beginning(router: Router) -> None:
    mail = "Hello, my laptop does not start since this morning and I cannot work. " + "Kind regards, the team. " * 400
    assert router.route("default", mail).skill == "it-help"


def test_one_skill_alone_still_abstains(embedder: Embedder) -> None:
    for skill in (IT, IT.model_copy(update={"utterances": IT.utterances[:5]})):
        alone = Router(embedder, cache=None)
        alone.fit("default", [skill])
        assert alone.route("default", "the printer does not print").skill == "it-help"
        for text in ELSEWHERE:
            assert alone.route("default", text).skill is None, text


def test_a_request_is_embedded_once_for_routing_and_retrieval(router: Router) -> None:
    text = "my screen is dark"
    assert router.route("default", text, vector=router.embed(text)) == router.route("default", text)


def test_only_allowed_skills_are_candidates(router: Router) -> None:
    route = router.route("default", "the printer is jammed", among={"leave", "invoices"})
    assert route.skill is None
    assert {candidate.skill for candidate in route.candidates} == {"leave", "invoices"}
    assert router.route("default", "the printer is jammed", among={"it-help"}).skill == "it-help"
    assert router.route("default", "the printer is jammed", among=set()).skill is None


def test_rate_zero_never_abstains_for_lack_of_confidence(embedder: Embedder) -> None:
    eager = Router(embedder, cache=None, refuse_rate=0.0)
    eager.fit("default", SKILLS)
    assert all(eager.route("default", text).skill is not None for text in ELSEWHERE)
    assert eager.route("default", " ").skill is None


# --- learning ----------------------------------------------------------------------------------------------------


def test_a_learned_text_counts_from_the_next_request_on(fresh: Router) -> None:
    text = "can you book me a flight to rome"
    assert fresh.route("default", text).skill is None
    fresh.learn("default", text, skill="leave")
    for repeated in (text, text.upper() + "!", "could you book me a flight to rome"):
        assert fresh.route("default", repeated).skill == "leave", repeated
    assert fresh.route("default", text).nearest == text


def test_a_correction_wins_against_the_head(fresh: Router) -> None:
    text = "my laptop does not start"
    assert fresh.route("default", text).skill == "it-help"
    fresh.learn("default", text, skill="leave", not_skill="it-help")
    assert fresh.route("default", text).skill == "leave"
    assert fresh.route("default", "the printer is jammed").skill == "it-help", "nothing else changed"


def test_the_later_of_two_judgements_counts(fresh: Router) -> None:
    text = "the projector in room four is broken"
    fresh.learn("default", text, skill=None)
    assert fresh.route("default", text).skill is None
    assert "reviewer" in fresh.route("default", text).reason
    fresh.learn("default", text, skill="it-help")
    assert fresh.route("default", text).skill == "it-help"


def test_a_wrong_skill_is_barred_for_that_request_only(fresh: Router) -> None:
    fresh.learn("default", "printer jam", skill=None, not_skill="it-help")
    assert fresh.route("default", "printer jam").skill != "it-help"
    assert fresh.route("default", "the printer is jammed").skill == "it-help"


def test_teams_learn_apart(fresh: Router) -> None:
    fresh.fit("other", SKILLS)
    fresh.learn("other", "the printer is jammed", skill="leave")
    assert fresh.route("other", "the printer is jammed").skill == "leave"
    assert fresh.route("default", "the printer is jammed").skill == "it-help"


def test_what_was_learned_lasts_when_it_is_fitted_and_goes_when_it_is_not(fresh: Router) -> None:
    text = "can you book me a flight to rome"
    fresh.learn("default", text, skill="leave")
    taught = LEAVE.model_copy(update={"utterances": (*LEAVE.utterances, text)})
    fresh.fit("default", [IT, taught, INVOICES], out_of_scope=["sing a song"], wrong=[("printer jam", "it-help")])
    assert fresh.route("default", text).skill == "leave"
    assert fresh.route("default", "sing a song").skill is None
    assert "reviewer" in fresh.route("default", "Sing a song!").reason
    assert fresh.route("default", "printer jam").skill != "it-help"
    fresh.fit("default", SKILLS)
    assert fresh.route("default", text).skill is None, "a deleted text is forgotten"


def test_learning_before_any_fit_is_no_error(embedder: Embedder) -> None:
    early = Router(embedder, cache=None)
    early.learn("default", "the printer is jammed", skill="it-help")
    early.learn("default", "  ", skill="it-help")
    assert early.route("default", "the printer is jammed").skill is None
    early.fit("default", SKILLS)
    assert early.route("default", "the printer is jammed").skill == "it-help"


# --- restart and concurrency ---------------------------------------------------------------------------------------


class CountingEmbedder:
    """The embedder, and how many texts it was asked for."""

    def __init__(self, inner: Embedder) -> None:
        self._inner = inner
        self.embedded = 0
        self.id, self.dimension, self.max_tokens = inner.id, inner.dimension, inner.max_tokens

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.embedded += len(texts)
        return self._inner.embed(texts)

    def count_tokens(self, text: str) -> int:
        return self._inner.count_tokens(text)


def routes(router: Router) -> list[Route]:
    asked = ("printer jam", "how much vacation is left", "read this invoice", "my screen is dark", *ELSEWHERE)
    return [router.route("default", text) for text in asked]


def test_a_restart_gives_the_same_routes_and_embeds_nothing(embedder: Embedder, tmp_path: Path) -> None:
    first = Router(embedder, cache=tmp_path)
    first.fit("default", SKILLS, out_of_scope=["sing a song"])
    counting = CountingEmbedder(embedder)
    second = Router(counting, cache=tmp_path)
    # The order in which skills and texts are given does not matter.
    shuffled = [s.model_copy(update={"utterances": s.utterances[::-1]}) for s in SKILLS[::-1]]
    second.fit("default", shuffled, out_of_scope=["sing a song"])
    assert counting.embedded == 0
    assert routes(first) == routes(second)


def test_a_small_change_embeds_only_what_is_new(embedder: Embedder) -> None:
    counting = CountingEmbedder(embedder)
    router = Router(counting, cache=None)
    router.fit("default", SKILLS)
    before = counting.embedded
    router.fit("default", [IT.model_copy(update={"utterances": (*IT.utterances, "a new text")}), LEAVE, INVOICES])
    assert counting.embedded == before + 1


def test_the_cache_keeps_no_text_and_forgets_what_was_deleted(embedder: Embedder, tmp_path: Path) -> None:
    router = Router(embedder, cache=tmp_path)
    router.fit("default", SKILLS)
    (vectors,) = [path for path in tmp_path.rglob("vectors-*.npz") if len(np.load(path)["hashes"]) < 100]
    assert len(np.load(vectors)["hashes"]) == len(IT.utterances) + len(LEAVE.utterances) + len(SKILLS)
    assert all(b"printer" not in path.read_bytes() for path in tmp_path.rglob("*.npz"))
    router.fit("default", [INVOICES])
    assert len(np.load(vectors)["hashes"]) == 1


def test_a_damaged_cache_is_made_again(embedder: Embedder, tmp_path: Path) -> None:
    Router(embedder, cache=tmp_path).fit("default", SKILLS)
    for path in tmp_path.rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    again = Router(embedder, cache=tmp_path)
    again.fit("default", SKILLS)
    assert again.route("default", "printer jam").skill == "it-help"


def test_another_team_needs_no_other_cache(embedder: Embedder, tmp_path: Path) -> None:
    router = Router(embedder, cache=tmp_path)
    router.fit("default", SKILLS)
    router.fit("../other", [LEAVE])
    assert all(path.is_relative_to(tmp_path) for path in tmp_path.rglob("*"))
    assert router.route("../other", "the printer is jammed").skill is None


def test_requests_see_whole_states_while_the_router_is_fitted(embedder: Embedder) -> None:
    """Two sets of skills with other names: no route may mix them, and none may fail."""
    router = Router(embedder, cache=None)
    renamed = [skill.model_copy(update={"skill": f"new-{skill.skill}"}) for skill in SKILLS]
    router.fit("default", SKILLS)
    vector = router.embed("printer jam")
    seen: set[frozenset[str]] = set()
    answers: set[str | None] = set()
    failures: list[Exception] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                route = router.route("default", "printer jam", vector=vector)
            except Exception as error:
                failures.append(error)
                return
            seen.add(frozenset(candidate.skill for candidate in route.candidates))
            answers.add(route.skill)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for skills in (renamed, SKILLS, renamed):
        router.fit("default", skills)
    done.set()
    for thread in threads:
        thread.join()
    assert not failures
    names = {frozenset(s.skill for s in SKILLS), frozenset(s.skill for s in renamed)}
    assert seen <= names
    assert answers <= {"it-help", "new-it-help"}


def test_what_is_learned_during_a_fit_is_kept(embedder: Embedder) -> None:
    text = "can you book me a flight to rome"

    class Interrupting(CountingEmbedder):
        """Learns a text in the middle of a fit, as a review may arrive."""

        def embed(self, texts: Sequence[str]) -> Vectors:
            vectors = super().embed(texts)
            if "a text that is new" in texts:
                learner.learn("default", text, skill="leave")
            return vectors

    learner = Router(Interrupting(embedder), cache=None)
    learner.fit("default", SKILLS)
    learner.fit("default", [*SKILLS[:2], INVOICES.model_copy(update={"utterances": ("a text that is new",)})])
    assert learner.route("default", text).skill == "leave"


def test_what_is_learned_while_the_caller_gathers_its_texts_is_kept(embedder: Embedder) -> None:
    learner = Router(embedder, cache=None)
    learner.fit("default", SKILLS)
    learner.learn("default", "zebra crossing rules", skill="leave")
    known = learner.learned("default")
    learner.learn("default", "can you book me a flight to rome", skill="leave")
    learner.fit("default", SKILLS, known=known)
    assert learner.learned("default") == 1
    assert learner.route("default", "can you book me a flight to rome").skill == "leave"


def test_a_later_judgement_overrules_an_earlier_one_on_the_same_text() -> None:
    nowhere, here, not_there = (
        (None, None, "Book a flight!"),
        ("it", None, "book a flight"),
        (None, "it", "book a flight"),
    )
    other = ("hr", None, "sick leave")
    assert standing([nowhere, other, here]) == [other, here]
    assert standing([here, other, nowhere]) == [other, nowhere]
    assert standing([here, not_there]) == [not_there]
    assert standing([nowhere, not_there]) == [nowhere, not_there]
    assert standing([not_there, here]) == [here]
    assert standing([(None, "hr", "book a flight"), here]) == [(None, "hr", "book a flight"), here]
    assert standing([]) == []


def test_the_same_skill_twice_is_refused(embedder: Embedder) -> None:
    with pytest.raises(ValueError, match="twice"):
        Router(embedder, cache=None).fit("default", [IT, IT])


# --- a public corpus -----------------------------------------------------------------------------------------------

CORPUS = Path(__file__).parents[3] / "shared" / "data" / "clinc150"


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus CLINC150 is not there")
def test_domains_of_clinc150_are_told_apart_and_strangers_declined(embedder: Embedder) -> None:
    """A tenth of the benchmark's texts; benchmarks/routing.py has the whole."""

    def read(name: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (CORPUS / name).read_text(encoding="utf-8").splitlines()]

    train, val, outside = read("train.jsonl")[::10], read("val.jsonl"), read("oos_train.jsonl")
    val = random.Random(0).sample(val, 400)
    router = Router(embedder, cache=None)
    domains = sorted({row["domain"] for row in train})
    router.fit(
        "default",
        [SkillTexts(skill=d, utterances=tuple(r["text"] for r in train if r["domain"] == d)) for d in domains],
    )
    found = [router.route("default", row["text"]) for row in val]
    right = [route.candidates[0].skill == row["domain"] for route, row in zip(found, val, strict=True)]
    assert np.mean(right) > 0.9
    assert np.mean([route.skill is None for route in found]) < 0.12
    assert np.mean([router.route("default", row["text"]).skill is None for row in outside]) > 0.7
    assert abs(np.mean([route.confidence for route in found]) - np.mean(right)) < 0.06
