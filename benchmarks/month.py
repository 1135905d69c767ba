"""A simulated month: people review a skill's answers in batches, some of them badly, and the loop learns by itself.

One skill takes the details out of what people ask an assistant (SNIPS) and begins with no example. Its work grows: at
first people rate books, then most of them fill playlists, then most of them search for films, books and songs. Each
batch of requests is answered by whatever serves at the time; each answer is judged by one of five people: three careful
ones, a careless one, 15% of whose corrections are wrong, and one who poisons: whatever he is shown, he "corrects" it to
one and the same output. After each batch the triggers look, and the loop trains, gates and promotes as it sees fit.
Accuracy (the whole output is right) is measured on 500 requests of all kinds with right outputs that the platform never
sees, whenever what serves has changed.

    python -m benchmarks.month [--batches N N N]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks import learning, report
from benchmarks.snips import rows, schema_of
from intern.errors import OutputInvalid
from intern.learning.judging.statistics import clustered_mean
from intern.reviews import Judgement
from intern.store.learning import get_run, list_runs
from intern.types import Ask, Caller, Json, Message, Run
from intern.workspace import Workspace

KINDS = ("RateBook", "AddToPlaylist", "SearchCreativeWork")  # one more with each batch
SKILL = "requests"
CLEAN = 500
BATCHES = (240, 260, 300)
NEWEST = 0.6  # of a batch are of the kind that is new
# who reviews, with which share of the answers
PEOPLE = {"ana": 0.28, "ben": 0.26, "cem": 0.22, "dora, careless": 0.16, "eve, poisons": 0.08}
CARELESS, POISONS = "dora, careless", "eve, poisons"
POISON = {"object_name": ["The Big Sale"], "rating_value": ["5"], "best_rating": ["5"]}
WRONG = 0.15  # of a careless person's corrections
GOALS = {"promotions": 3, "gain": 0.10}


Pair = tuple[str, Json]  # a text and its right output


def requests(batches: Sequence[int]) -> tuple[list[list[Pair]], list[Pair]]:
    """The month's requests by batch, and clean ones of all kinds to measure on: seeded, none in both."""
    share = -(-CLEAN // len(KINDS))
    found = {kind: [(row["input"], row["output"]) for row in rows(kind, train=1_500, heldout=0)] for kind in KINDS}
    clean = [pair for kind in KINDS for pair in found[kind][:share]][:CLEAN]
    streams = {kind: iter(pairs[share:]) for kind, pairs in found.items()}
    chance = random.Random(2)
    made = []
    for place, size in enumerate(batches):
        *former, newest = KINDS[: place + 1]
        kinds = [newest if not former or chance.random() < NEWEST else chance.choice(former) for _ in range(size)]
        made.append([next(streams[kind]) for kind in kinds])
    return made, clean


def write_skill(home: Path) -> None:
    schemas = [schema_of(kind) for kind in KINDS]
    slots = {name: slot for schema in schemas for name, slot in schema["properties"].items()}
    for slot in slots.values():  # a model that never ends a list would make the month a year
        slot |= {"maxItems": 2, "items": {"type": "string", "maxLength": 80}}
    schema = {**schemas[0], "properties": slots}
    spec = {
        "title": "Requests",
        "description": "Takes the details out of requests to rate a book, fill a playlist or find a work.",
        "instructions": "You take the details out of requests to rate a book, fill a playlist or find a film, book or "
        "song. Answer with a JSON object. For each detail that the text names, the object has a list of the words as "
        f"they stand in the text; leave out what is not named. The details are: {', '.join(slots)}.",
        "generation": {"max_tokens": 128},
        "output": "schema.json",
        # A month of batches passes within the hour: the limits by the week would end it.
        "learning": {"auto": True, "min_examples": 50, "new_examples": 50, "runs_a_week": 100},
    }
    folder = home / "skills" / SKILL
    folder.mkdir(parents=True)
    (folder / "skill.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    (folder / "schema.json").write_text(json.dumps(schema), encoding="utf-8")


class People:
    """Judge answers, each in their way."""

    def __init__(self) -> None:
        self._chance = random.Random(1)
        self.verdicts: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()

    def judge(self, record: str, said: Json, right: Json) -> tuple[str, Judgement]:
        """Who judges an answer, and how."""
        who = self._chance.choices(list(PEOPLE), list(PEOPLE.values()))[0]
        wanted = right
        if who == POISONS:
            wanted = POISON
        elif who == CARELESS and said != right and self._chance.random() < WRONG:
            wanted = dict(list(right.items())[1:])  # a detail is forgotten
        self.verdicts[who] += 1
        self.wrong[who] += wanted != right
        if wanted == said:
            return who, Judgement(record=record, verdict="accept")
        return who, Judgement(record=record, verdict="correct", correction=wanted)


async def answer(workspace: Workspace, text: str) -> tuple[str | None, Json]:
    """(record, output) of one request, answered by what serves; None for both where the answer broke its form."""
    try:
        found = await workspace.pipeline.answer(Ask(messages=(Message(role="user", content=text),), skill=SKILL))
    except OutputInvalid:
        return None, None
    return found.record, found.choices[0].parsed


async def measure(workspace: Workspace, clean: Sequence[tuple[str, Json]]) -> dict[str, Any]:
    """Accuracy on the clean requests, with its 95% interval."""
    scores = [float((await answer(workspace, text))[1] == right) for text, right in clean]
    found = clustered_mean(scores, [str(place) for place in range(len(scores))])
    return {"accuracy": found.mean, "low": found.low, "high": found.high}


def going(workspace: Workspace) -> list[Run]:
    """The trainings that began by themselves and have not ended."""
    with workspace.database.connect() as connection:
        return list_runs(connection, learning.TEAM, skill=SKILL, states=("queued", "running"), limit=10)


async def month(batches: Sequence[int]) -> dict[str, Any]:
    stream, clean = requests(batches)
    home = learning.new_home("month")
    write_skill(home)
    people = People()
    began = time.monotonic()
    async with learning.opened(home) as workspace:
        score = await measure(workspace, clean)
        weeks: list[dict[str, Any]] = [{"reviews": 0, "serves": "base", **score}]
        print(f"start: {score}", flush=True)
        taken = 0
        for batch in stream:
            judged = []
            for text, right in batch:
                record, said = await answer(workspace, text)
                if record is not None:
                    judged.append(people.judge(record, said, right))
            # All at once: the workspace looks by itself too, and a training would begin with half of the batch.
            for who, judgement in judged:
                workspace.reviews.add(Caller(key=who), judgement)
            accepted = sum(judgement.verdict == "accept" for _, judgement in judged)
            taken += len(batch)
            await workspace.triggers.look()
            begun = going(workspace)
            week: dict[str, Any] = {"reviews": taken, "accepted": accepted / len(batch)}
            for run in begun:
                await learning.follow(workspace, run.id)
                with workspace.database.connect() as connection:
                    ended = get_run(connection, learning.TEAM, run.id)
                week |= {"began": run.started_by, "decision": ended.decision, "reason": ended.reason}
                week["train_seconds"] = ended.train_seconds
            deployment = workspace.deployments.serving(learning.TEAM, SKILL)
            serves = f"v{deployment.version}" if deployment and deployment.version else "base"
            if serves != weeks[-1]["serves"]:
                score = await measure(workspace, clean)
            weeks.append({**week, "serves": serves, **score})
            print(f"{time.monotonic() - began:.0f} s: {json.dumps(weeks[-1])}", flush=True)
    return {"weeks": weeks, "verdicts": dict(people.verdicts), "wrong": dict(people.wrong)}


def check(weeks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the month must show."""
    changes = [(a, b) for a, b in itertools.pairwise(weeks) if a["serves"] != b["serves"]]
    return {
        "promotions": len(changes),
        "fell_beyond_its_interval": sum(after["accuracy"] < before["low"] for before, after in changes),
        "gain": weeks[-1]["accuracy"] - weeks[0]["accuracy"],
    }


def plot(results: dict[str, Any], target: Path) -> None:
    """Accuracy of what serves over the reviews so far, and what the gate decided."""
    from matplotlib.figure import Figure

    weeks = results["weeks"]
    figure = Figure(figsize=(7.5, 3.8), layout="constrained")
    axes = figure.subplots()
    at = [week["reviews"] for week in weeks]
    beyond = at[-1] * 1.2  # what serves in the end does so from there on
    lines = {name: [week[name] for week in (*weeks, weeks[-1])] for name in ("low", "high", "accuracy")}
    axes.fill_between([*at, beyond], lines["low"], lines["high"], step="post", alpha=0.2, color="#0b5cad", linewidth=0)
    axes.step([*at, beyond], lines["accuracy"], where="post", color="#0b5cad", label="accuracy of what serves (95%)")
    spans = list(itertools.pairwise(weeks))
    axes.hlines(
        [after["accepted"] for _, after in spans],
        [before["reviews"] for before, _ in spans],
        [after["reviews"] for _, after in spans],
        color="#c47a12",
        linestyle="--",
        label="answers of the batch that people accepted",
    )
    for (before, after), kind in zip(spans, KINDS, strict=True):
        middle = (before["reviews"] + after["reviews"]) / 2
        axes.annotate(f"new: {kind}", (middle, 0.96), ha="center", fontsize=8)
        axes.axvline(after["reviews"], color="0.6", linewidth=0.6)
        words = f"{after.get('decision', 'no training').replace('_', ' ')}: {after['serves']} serves"
        axes.annotate(words, (after["reviews"], 0.8), rotation=90, va="center", ha="right", fontsize=8)
    axes.set(xlabel="reviews so far", ylabel="share of requests", ylim=(-0.01, 1), xlim=(0, beyond))
    axes.set_title("A month of reviews, good and bad")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(0.02, 0.55), fontsize=8)
    figure.savefig(target, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.month", description=__doc__)
    parser.add_argument("--batches", type=int, nargs=len(KINDS), default=list(BATCHES), help="reviews in each batch")
    parser.add_argument("--plot", type=Path, help="where the plot goes (SVG)", default=report.RESULTS / "month.svg")
    results = asyncio.run(month(parser.parse_args().batches))
    results |= {"goals": GOALS, "shown": check(results["weeks"])}
    columns = ("reviews", "accepted", "decision", "serves", "accuracy", "low", "high")
    lines = [tuple(week.get(name, "") for name in columns) for week in results["weeks"]]
    report.table("A month of reviews", columns, lines)
    print(json.dumps(results["shown"], indent=1))
    claim = "Batches of reviews, some careless and some poisoned: what the loop makes of them, measured on 500 others."
    print(report.write("month", claim, results))
    plot(results, parser.parse_args().plot)


if __name__ == "__main__":
    main()
