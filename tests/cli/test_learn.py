"""`intern learn` and `intern eval`: what programs get, what people see, and what Ctrl-C does."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from cli.owning import Outcome, Owner
from cli.test_terminal import on_a_terminal, start
from made_learning import Script, script

from intern.cli.learn import carry_out, learn
from intern.cli.progress import BLOCKS, Course, duration, sparkline
from intern.errors import Conflict, InvalidInput
from intern.learning.examples.items import key_of
from intern.learning.train.recipe import ABOUT, Precision, Recipe, RecipeName
from intern.store import learning as store
from intern.store import records
from intern.types import Example, Run

Intern = Callable[..., Outcome]

FIELDS = ["rivals", "verdict", "reason", "train_seconds", "adapter"]


@pytest.fixture
def learning(owner: Owner, tmp_path: Path) -> Script:
    return script(owner.workspace, tmp_path / "scratch")


def runs(owner: Owner) -> list[Run]:
    with owner.workspace.database.connect() as connection:
        return store.list_runs(connection, "default")


# --- for programs ----------------------------------------------------------------------------------------------


def test_learn_prints_exactly_the_contract_s_object(intern: Intern, learning: Script) -> None:
    done = intern("learn", "leave", "--json")
    assert (done.code, done.err) == (0, "")
    assert list(done.json) == FIELDS
    assert list(done.json["rivals"]) == ["base", "few-shot", "retrieval", "candidate"]
    interval = {"mean": 0.84, "low": 0.75, "high": 0.93}
    assert done.json["rivals"]["candidate"] == {"n": 40, "valid": 1.0, "score": interval, "metrics": {"kind": interval}}
    assert {**done.json, "rivals": None} == {
        "rivals": None,
        "verdict": "promote",
        "reason": learning.reason,
        "train_seconds": 12.5,
        "adapter": "leave@v1",
    }


def test_a_pipe_gets_the_object_too_and_the_progress_as_lines(intern: Intern, learning: Script) -> None:
    done = intern("learn", "leave")
    assert list(done.json) == FIELDS
    kinds = [json.loads(line)["kind"] for line in done.err.splitlines()]
    assert kinds[0] == "stage"
    assert kinds[-1] == "done"
    assert kinds.count("step") == 4


@pytest.mark.parametrize("decision", ["reject", "inconclusive", "prompting_is_enough"])
def test_every_verdict_is_a_good_end(intern: Intern, learning: Script, decision: str) -> None:
    learning.decision = decision
    done = intern("learn", "leave", "--json")
    assert (done.code, done.json["verdict"], done.json["adapter"]) == (0, decision, "leave@v1")
    assert intern("adapters", "list").json["data"][0]["serves"] is False


def test_the_adapter_in_service_is_a_rival(intern: Intern, learning: Script) -> None:
    assert "serving" not in intern("learn", "leave", "--json").json["rivals"]
    assert intern("learn", "leave", "--json").json["rivals"]["serving"]["score"]["mean"] == 0.7


def test_what_is_missing_is_one_line_and_exit_code_1(intern: Intern, learning: Script) -> None:
    learning.failure = InvalidInput("12 examples, 50 needed.")
    done = intern("learn", "leave", "--json")
    assert (done.code, done.out, done.err) == (1, "", "intern: 12 examples, 50 needed.\n")
    piped = intern("learn", "leave")
    assert (piped.code, piped.out) == (1, "")
    assert piped.err.splitlines()[-1] == "intern: 12 examples, 50 needed."


def test_options_reach_the_training(intern: Intern, learning: Script) -> None:
    numbers = [
        "--rank",
        "8",
        "--learning-rate",
        "1e-4",
        "--epochs",
        "0.5",
        "--batch",
        "4",
        "--seed",
        "7",
        "--alpha",
        "9",
    ]
    numbers += ["--dropout", "0.1", "--precision", "float32", "--chunk-tokens", "128", "--beta", "0.3"]
    chosen = ["--seed", "7", "--alpha", "9", "--recipe", "dpo", "--variant", "augmented", "--force", "--no-promote"]
    assert intern("learn", "leave", *numbers, *chosen, "--json").code == 0
    recipe = learning.recipes[0]
    assert (recipe.name, recipe.rank, recipe.learning_rate, recipe.epochs) == ("dpo", 8, 1e-4, 0.5)
    assert (recipe.batch, recipe.seed, recipe.alpha) == (4, 7, 9)
    assert (recipe.dropout, recipe.precision, recipe.chunk_tokens, recipe.beta) == (0.1, "float32", 128, 0.3)
    assert (learning.runs[0].variant, learning.forced) == ("augmented", [True])
    assert intern("adapters", "list").json["data"][0]["serves"] is False


def test_a_number_out_of_range_is_named(intern: Intern, learning: Script) -> None:
    done = intern("learn", "leave", "--rank", "0", "--json")
    assert done.code == 1
    assert "recipe.rank" in done.err
    assert intern("learn", "leave", "--recipe", "magic").code == 2


def test_the_command_knows_every_recipe() -> None:
    assert get_args(get_type_hints(learn)["recipe"]) == get_args(RecipeName)
    assert get_args(get_args(get_type_hints(learn)["precision"])[0]) == get_args(Precision)


def help_of(command: Callable[..., None], option: str) -> str:
    """What `--help` says of an option."""
    (found,) = get_type_hints(command, include_extras=True)[option].__metadata__
    return str(found.help)


def test_every_recipe_is_explained() -> None:
    explained = " ".join((learn.__doc__ or "").split())
    for name, about in ABOUT.items():
        assert f"- {name}: {about}" in explained


@pytest.mark.parametrize(
    "option", ["rank", "alpha", "batch", "dropout", "precision", "chunk_tokens", "beta", "seed", "learning_rate"]
)
def test_every_number_of_a_training_is_told_with_its_default(option: str) -> None:
    default = getattr(Recipe().fitted(rows=300, width=576), option)  # the default base model's width
    value = default if isinstance(default, str) else f"{default:g}"
    assert re.search(rf"(; |by default |: ){re.escape(value)}[.: ]", f"{help_of(learn, option)} ")


def test_a_skill_learns_once_at_a_time(intern: Intern, learning: Script) -> None:
    learning.hold = True
    begun = intern("learn", "leave", "--detach", "--json")
    assert (begun.code, begun.json["skill"]) == (0, "leave")
    second = intern("learn", "leave", "--json")
    assert second.code == 1
    assert begun.json["id"] in second.err
    assert "intern runs list --skill leave" in second.err


def test_a_detached_run_can_be_followed_to_its_end(intern: Intern, learning: Script) -> None:
    run = intern("learn", "leave", "--detach").json["id"]
    followed = intern("runs", "follow", run)
    assert followed.code == 0
    assert [row["kind"] for row in followed.rows][-1] == "done"
    assert intern("runs", "show", run).json["decision"] == "promote"


def test_two_trainings_are_compared(intern: Intern, learning: Script, owner: Owner) -> None:
    for _ in range(2):
        assert intern("learn", "leave", "--json").code == 0
    first, second = (run.id for run in runs(owner))
    assert intern("runs", "compare", first, second, "--json").json["n"] == 40
    code, said = on_a_terminal(owner, "runs", "compare", first, second)
    assert code == 0
    assert "40 examples" in said
    assert "kind" in said
    assert "left out" not in said
    outcomes = owner.workspace.parts.runs_folder / first / "outcomes-candidate.jsonl"
    rows = [json.loads(line) for line in outcomes.read_text().splitlines()]
    for row, change in zip(
        rows, [{"expected": {"kind": "corrected"}}, {"failed": True}, {"failed": True}], strict=False
    ):
        row |= change
    outcomes.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, said = on_a_terminal(owner, "runs", "compare", first, second)
    for part in (
        "37 examples",
        "1 examples are left out: request or right answer",
        "2 examples are left out: the engine",
    ):
        assert part in " ".join(said.split()), part


def test_examples_are_written_from_documents_and_counted(intern: Intern, learning: Script, owner: Owner) -> None:
    done = intern("examples", "write", "leave", "--count", "4", "--json")
    assert (done.code, done.err) == (0, "")
    assert done.json["reason"] == "4 examples were written from 3 passages; 1 were refused."
    with owner.workspace.database.connect() as connection:
        assert [e.provenance for e in records.list_examples(connection, "default", "leave")] == ["synthesis"] * 4
    (run,) = runs(owner)
    assert (run.kind, run.state) == ("synthesize", "done")
    assert intern("examples", "write", "leave", "--count", "-1").code == 2


# --- eval ------------------------------------------------------------------------------------------------------


def test_eval_prints_the_same_object_without_a_verdict(intern: Intern, learning: Script) -> None:
    done = intern("eval", "leave", "--json")
    assert (done.code, done.err) == (0, "")
    assert list(done.json) == FIELDS
    assert list(done.json["rivals"]) == ["base", "few-shot", "retrieval"]
    assert [done.json[name] for name in FIELDS[1:]] == [None, None, None, None]


def test_eval_takes_a_file_and_names_a_bad_row(intern: Intern, learning: Script, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    row = '{{"input": "{}", "output": {{"kind": "{}"}}}}\n'.format
    file.write_text(row("a day", "paid") + row("a week", "unpaid"))
    assert intern("eval", "leave", "--file", str(file), "--json").code == 0
    assert [example.output for example in learning.examples[0]] == [{"kind": "paid"}, {"kind": "unpaid"}]
    file.write_text(row("a day", "paid") + row("a week", "sick"))
    bad = intern("eval", "leave", "--file", str(file), "--json")
    assert (bad.code, bad.out) == (1, "")
    assert bad.err.startswith("intern: line 2")
    assert intern("eval", "leave", "--file", str(tmp_path / "none.jsonl")).code == 1


def test_eval_takes_other_systems_answers_a_line_for_an_example(
    intern: Intern, learning: Script, tmp_path: Path
) -> None:
    rows, answers = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
    rows.write_text('{"input": "a day", "output": {"kind": "paid"}, "id": "a"}\n' * 2)
    answers.write_text('{"kind": "paid"}\n"paid, I think\u2028"\n', encoding="utf-8")
    given = ("eval", "leave", "--file", str(rows), "--outside", f"other={answers}")
    assert intern(*given, "--json").code == 0
    assert list(learning.outside["other"].values()) == [{"kind": "paid"}, "paid, I think\u2028"]
    answers.write_text('{"kind": "paid"}\npaid\n')
    for bad, said in (
        (given, f"{answers}:2: "),
        ((*given[:-1], "other"), "NAME=FILE"),
        (("eval", "leave", "--outside", f"other={rows}.none"), "rows.jsonl.none"),
    ):
        refused = intern(*bad)
        assert (refused.code, said in refused.err) == (1, True), refused.err


def test_other_systems_are_compared_on_held_out_examples_by_their_inputs(
    intern: Intern, learning: Script, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"input": "A  day", "output": {"kind": "paid"}}\n{"input": "a week", "output": null}\n')
    assert intern("eval", "leave", "--outside", f"other={answers}", "--json").code == 0
    asked = key_of(Example(id="e", input="a day", output=None))
    assert learning.outside == {"other": {asked: {"kind": "paid"}}}
    assert learning.examples == [()]
    answers.write_text('{"kind": "paid"}\n')
    refused = intern("eval", "leave", "--outside", f"other={answers}")
    assert (refused.code, "'other', row 1 is no object with input" in refused.err) == (1, True)


# --- for people ------------------------------------------------------------------------------------------------


def test_people_see_stages_rivals_the_verdict_and_what_to_do_next(owner: Owner, learning: Script) -> None:
    code, said = on_a_terminal(owner, "learn", "leave")
    assert code == 0
    assert "60 examples to train on, 40 held out" in said
    assert "trained in 12 s; loss on held-out examples 2.310 → 0.580" in said
    assert "0.75 to 0.93" in said
    assert "Better: the new adapter beats everything" in said
    assert learning.reason in said
    assert "intern adapters rollback leave" in said
    assert '"rivals"' not in said


@pytest.mark.parametrize(
    ("decision", "advice"),
    [
        ("reject", "Correct or add examples of leave"),
        ("inconclusive", "about 50 more examples"),
        ("prompting_is_enough", "nothing: the base model"),
    ],
)
def test_each_verdict_comes_with_advice(owner: Owner, learning: Script, decision: str, advice: str) -> None:
    learning.decision = decision
    code, said = on_a_terminal(owner, "learn", "leave")
    assert code == 0
    assert advice in said
    assert f"intern runs report {runs(owner)[0].id}" in said


def test_an_adapter_that_waits_for_approval_says_how_to_approve_it(owner: Owner, learning: Script) -> None:
    _, said = on_a_terminal(owner, "learn", "leave", "--no-promote")
    assert "intern adapters promote leave@v1" in said


def test_what_an_event_says_cannot_steer_the_terminal(owner: Owner, learning: Script) -> None:
    learning.reason = "worse \x1b]0;title\x07 than \x1b[2J before"
    learning.decision = "reject"
    _, said = on_a_terminal(owner, "learn", "leave")
    assert "before" in said
    assert "\x1b[2J" not in said
    assert "\x1b]0;" not in said


# --- Ctrl-C ----------------------------------------------------------------------------------------------------


def interrupted(owner: Owner, learning: Script, answer: str) -> tuple[int, str]:
    """Ctrl-C in the middle of a training, on a terminal, and the answer to what is asked then."""
    learning.hold = True
    ours, theirs = pty.openpty()
    process = start(owner, "learn", "leave", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    signalled = answered = False
    try:
        while piece := os.read(ours, 4096):
            said += piece
            if not signalled and b"loss 2.000" in said:
                process.send_signal(signal.SIGINT)
                signalled = True
            if not answered and b"[c/L]" in said:
                os.write(ours, f"{answer}\n".encode())
                answered = True
    except OSError:  # the other side is closed
        pass
    os.close(ours)
    return process.wait(30), said.decode()


def test_an_interrupt_asks_and_cancels_the_run(owner: Owner, learning: Script) -> None:
    code, said = interrupted(owner, learning, "c")
    (run,) = runs(owner)
    assert (code, run.state) == (1, "cancelled")
    assert f"intern: The run {run.id} was cancelled." in said
    assert "Traceback" not in said


@pytest.mark.parametrize("answer", ["", "l", "what"])
def test_an_interrupt_leaves_the_run_unless_told_otherwise(
    owner: Owner, learning: Script, intern: Intern, answer: str
) -> None:
    code, said = interrupted(owner, learning, answer)
    (run,) = runs(owner)
    assert (code, run.state) == (130, "running")
    assert f"intern runs follow {run.id}" in said
    learning.go_on()
    assert intern("runs", "follow", run.id).code == 0


def test_who_cannot_be_asked_leaves_the_run(owner: Owner, learning: Script) -> None:
    learning.hold = True
    process = start(owner, "learn", "leave", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    while b'"step"' not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, b"")
    assert b"goes on" in errors
    assert b"Traceback" not in errors
    assert runs(owner)[0].state == "running"


# --- what was left in the middle -------------------------------------------------------------------------------


class Occupied:
    """An API with runs of the skill that have not ended."""

    def __init__(self, *listed: dict[str, Any], private: bool = True) -> None:
        self.private = private
        self.listed = listed

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        raise Conflict("The run run_2 of this skill is running; wait for it, or cancel it.")

    def get(self, path: str, **query: str) -> dict[str, Any]:
        return {"data": self.listed}


def held(ident: str, kind: str, state: str, *, asked: bool = False) -> dict[str, Any]:
    return {"id": ident, "kind": kind, "state": state, "skill": "leave", "recipe": {"asked": True} if asked else {}}


LEARN: dict[str, Any] = {"skill": "leave"}
EVAL: dict[str, Any] = {"skill": "leave", "kind": "evaluate"}
WRITE: dict[str, Any] = {"skill": "leave", "kind": "synthesize", "count": 4}
BROUGHT: dict[str, Any] = {"examples": [{"input": "a day", "output": {"kind": "paid"}}]}


@pytest.mark.parametrize(
    ("left", "body"),
    [
        (held("run_2", "learn", "running"), LEARN),
        (held("run_2", "evaluate", "running"), EVAL),
        (held("run_2", "synthesize", "queued", asked=True), WRITE),
    ],
    ids=["learn", "eval", "write"],
)
def test_a_run_that_was_interrupted_goes_on_when_the_same_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], left: dict[str, Any], body: dict[str, Any]
) -> None:
    attended: list[str] = []
    monkeypatch.setattr("intern.cli.learn.attend", lambda api, run, **_: attended.append(run["id"]))
    api: Any = Occupied(held("run_3", left["kind"], "failed"), left)
    carry_out(api, body, detach=False, as_json=True)
    assert attended == ["run_2"]
    assert "run_2 of this skill has not ended; it goes on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("left", "body"),
    [
        (held("run_2", "evaluate", "running"), LEARN),
        (held("run_2", "learn", "running"), EVAL),
        (held("run_2", "evaluate", "running", asked=True), EVAL),
        (held("run_2", "evaluate", "running"), EVAL | BROUGHT),
        (held("run_2", "evaluate", "running", asked=True), EVAL | BROUGHT),
    ],
    ids=["an evaluation", "a training", "on a file", "not on a file", "on a file, perhaps another"],
)
def test_what_is_not_the_same_is_not_taken_for_it_and_one_hears_what_to_do(
    left: dict[str, Any], body: dict[str, Any]
) -> None:
    api: Any = Occupied(left)
    with pytest.raises(Conflict, match=r"`intern up` goes on with it; `intern runs cancel run_2` gives it up") as said:
        carry_out(api, body, detach=False, as_json=True)
    assert "wait for it" not in said.value.message, "nothing works on it"


def test_a_run_of_somebody_else_s_server_is_waited_for() -> None:
    api: Any = Occupied(held("run_2", "learn", "running"), private=False)
    with pytest.raises(Conflict, match=r"run_2 .*wait for it.* `intern runs list --skill leave` shows it"):
        carry_out(api, LEARN, detach=False, as_json=True)


# --- what is drawn ---------------------------------------------------------------------------------------------


def step(number: int, seconds: float, loss: float = 1.0, steps: int = 10) -> dict[str, Any]:
    return {"kind": "step", "step": number, "steps": steps, "loss": loss, "seconds": seconds}


def training() -> Course:
    course = Course()
    course.take({"kind": "stage", "stage": "train", "text": "rendering"}, 0)
    course.take({"kind": "phase", "stage": "examples", "step": 0, "steps": 10}, 0)
    return course


def test_the_time_that_is_left_follows_the_pace() -> None:
    course = training()
    assert course.remaining(0) is None
    course.take(step(1, 100), 50)
    assert course.remaining(50) is None, "one step is no pace"
    course.take(step(3, 104), 51)
    assert course.remaining(51) == pytest.approx(14)
    assert course.remaining(55) == pytest.approx(10), "it runs down between steps"
    assert course.remaining(500) == 0


def test_events_that_are_told_again_at_once_give_the_same_pace() -> None:
    course = training()
    for number in range(1, 6):
        course.take(step(number, 10.0 * number), 0)
    assert course.remaining(0) == pytest.approx(50)


def test_a_training_that_was_started_again_begins_its_pace_anew() -> None:
    course = training()
    course.take(step(1, 1000), 0)
    course.take(step(2, 1100), 0)
    said = course.take({"kind": "phase", "stage": "examples", "step": 2, "steps": 10}, 0)
    assert said == ["          goes on at step 2 of 10"]
    course.take(step(3, 5), 0)
    assert course.remaining(0) is None
    course.take(step(4, 6), 0)
    assert course.remaining(0) == pytest.approx(6)
    assert len(course.losses) == 4, "the curve goes on"


def test_each_part_of_a_training_has_curves_of_its_own() -> None:
    course = training()
    course.take(step(1, 1, loss=3.0), 0)
    said = course.take({"kind": "phase", "stage": "preferences", "step": 0, "steps": 4}, 0)
    assert (said, course.losses, course.steps) == (["          now on preferences"], [], 4)


def test_an_answer_that_is_no_loss_is_left_out_of_the_curve() -> None:
    course = training()
    for loss in (2.0, None, float("nan"), 1.0):
        course.take({**step(1, 1), "loss": loss}, 0)
    assert sparkline(course.losses) == "█▁"
    assert "loss 1.000" in course.curves()


def test_events_of_kinds_to_come_do_no_harm() -> None:
    assert Course().take({"kind": "something new", "text": "hello", "numbers": {}}, 0) == []


def test_a_sparkline_goes_from_the_lowest_to_the_highest() -> None:
    assert sparkline([]) == ""
    assert sparkline([1.0]) == sparkline([float("inf"), 5.0]) == BLOCKS[0]
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == BLOCKS
    long = sparkline([float(n) for n in range(1_000)], width=24)
    assert (len(long), long[0], long[-1]) == (24, BLOCKS[0], BLOCKS[-1])


@pytest.mark.parametrize(("seconds", "said"), [(8.4, "8 s"), (60, "1:00 min"), (125, "2:05 min"), (3725, "1:02 h")])
def test_durations_are_for_people(seconds: float, said: str) -> None:
    assert duration(seconds) == said
