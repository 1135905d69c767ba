"""A simulated month: people review a skill's answers in batches, some of them badly, and the loop learns by itself.

One skill labels messages of CLINC150's banking intents and begins with no example. Each batch of messages is answered
by whatever serves at the time; each answer is judged by one of five people: three careful ones, a careless one, 15% of
whose corrections are wrong, and one who poisons: whatever he is shown, he "corrects" it to one label. After each batch
the triggers look, and the loop trains, gates and promotes as it sees fit. Accuracy is measured on 500 messages with
right labels that the platform never sees, whenever what serves has changed.

    python -m benchmarks.month [--batches N...]
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
from benchmarks.banking import instructions
from intern.learning.statistics import clustered_mean
from intern.reviews import Judgement
from intern.store.learning import get_run
from intern.types import Ask, Caller, Message
from intern.workspace import Workspace

SKILL = "bank-messages"
CLEAN = 500
BATCHES = (80, 120, 180, 260)
# who reviews, with which share of the answers
PEOPLE = {"ana": 0.28, "ben": 0.26, "cem": 0.22, "dora, careless": 0.16, "eve, poisons": 0.08}
CARELESS, POISONS, POISON = "dora, careless", "eve, poisons", "transfer"
WRONG = 0.15  # of a careless person's corrections
GOALS = {"promotions": 3, "gain": 0.10}


def messages() -> tuple[list[str], list[tuple[str, str]], list[tuple[str, str]]]:
    """The intents; messages of the month, and clean ones to measure on: (text, intent), seeded, none in both."""
    folder = report.DATA / "clinc150"
    intents = sorted(json.loads((folder / "domains.json").read_text(encoding="utf-8"))["banking"])
    found: dict[str, str] = {}
    for name in ("train.jsonl", "val.jsonl"):
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["intent"] in intents:
                found.setdefault(row["text"], row["intent"])
    pairs = list(found.items())
    random.Random(0).shuffle(pairs)
    return intents, pairs[CLEAN:], pairs[:CLEAN]


def write_skill(home: Path, intents: Sequence[str]) -> None:
    spec = {
        "title": "Bank customers' messages",
        "description": "Labels messages of a bank's customers with what they want.",
        "instructions": instructions(intents),
        "generation": {"max_tokens": 32},
        "output": "schema.json",
        # A month of batches passes within the hour: the limits by the week would end it.
        "learning": {"auto": True, "min_examples": 50, "new_examples": 50, "runs_a_week": 100, "redact": "all"},
    }
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["intent"],
        "properties": {"intent": {"enum": list(intents)}},
    }
    folder = home / "skills" / SKILL
    folder.mkdir(parents=True)
    (folder / "skill.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    (folder / "schema.json").write_text(json.dumps(schema), encoding="utf-8")


class People:
    """Judge answers, each in their way."""

    def __init__(self, intents: Sequence[str]) -> None:
        self._intents = intents
        self._chance = random.Random(1)
        self.verdicts: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()

    def judge(self, record: str, said: str | None, right: str) -> tuple[str, Judgement]:
        """Who judges an answer, and how."""
        who = self._chance.choices(list(PEOPLE), list(PEOPLE.values()))[0]
        label = right
        if who == POISONS:
            label = POISON
        elif who == CARELESS and said != right and self._chance.random() < WRONG:
            label = self._chance.choice([intent for intent in self._intents if intent != right])
        self.verdicts[who] += 1
        self.wrong[who] += label != right
        if label == said:
            return who, Judgement(record=record, verdict="accept")
        return who, Judgement(record=record, verdict="correct", correction={"intent": label})


async def answer(workspace: Workspace, text: str) -> tuple[str, str | None]:
    """(record, label) of one message, answered by what serves."""
    found = await workspace.pipeline.answer(Ask(messages=(Message(role="user", content=text),), skill=SKILL))
    parsed = found.choices[0].parsed
    return found.record, parsed.get("intent") if isinstance(parsed, dict) else None


async def measure(workspace: Workspace, clean: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Accuracy on the clean messages, with its 95% interval."""
    right = [float((await answer(workspace, text))[1] == intent) for text, intent in clean]
    found = clustered_mean(right, [str(place) for place in range(len(right))])
    return {"accuracy": found.mean, "low": found.low, "high": found.high}


async def month(batches: Sequence[int]) -> dict[str, Any]:
    intents, stream, clean = messages()
    home = learning.new_home("month")
    write_skill(home, intents)
    people = People(intents)
    began = time.monotonic()
    async with learning.opened(home) as workspace:
        score = await measure(workspace, clean)
        weeks: list[dict[str, Any]] = [{"reviews": 0, "serves": "base", **score}]
        print(f"start: {score}", flush=True)
        taken = 0
        for size in batches:
            accepted = 0
            for text, right in stream[taken : taken + size]:
                record, said = await answer(workspace, text)
                who, judgement = people.judge(record, said, right)
                workspace.reviews.add(Caller(key=who), judgement)
                accepted += judgement.verdict == "accept"
            taken += size
            begun = await workspace.triggers.look()
            week: dict[str, Any] = {"reviews": taken, "accepted": accepted / size}
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
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    at = [week["reviews"] for week in weeks]
    axes.fill_between(
        at, [w["low"] for w in weeks], [w["high"] for w in weeks], step="post", alpha=0.2, color="#0b5cad"
    )
    axes.step(at, [w["accuracy"] for w in weeks], where="post", color="#0b5cad", label="accuracy of what serves")
    accepted = [(w["reviews"], w["accepted"]) for w in weeks if "accepted" in w]
    axes.plot(*zip(*accepted, strict=True), "o--", color="#c47a12", label="answers that people accepted, by batch")
    for week in weeks[1:]:
        words = f"{week.get('decision', 'no training')}\n({week['serves']} serves)"
        axes.annotate(words.replace("_", " "), (week["reviews"], 0.03), ha="right", fontsize=7)
    axes.set(xlabel="reviews so far", ylabel="share of messages", ylim=(0, 1), title="A month of reviews, good and bad")
    axes.grid(alpha=0.3)
    axes.legend(loc="center right", fontsize=8)
    figure.savefig(target, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.month", description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES), help="reviews in each batch")
    parser.add_argument("--plot", type=Path, help="where the plot goes (SVG)", default=report.RESULTS / "month.svg")
    results = asyncio.run(month(parser.parse_args().batches))
    results |= {"goals": GOALS, "shown": check(results["weeks"])}
    columns = ("reviews", "accepted", "decision", "serves", "accuracy", "low", "high")
    lines = [tuple(week.get(name, "") for name in columns) for week in results["weeks"]]
    report.table("A month of reviews", columns, lines)
    print(json.dumps(results["shown"], indent=1))
    claim = (
        "Four batches of reviews, some careless and some poisoned: what the loop makes of them, measured on 500 others."
    )
    print(report.write("month", claim, results))
    plot(results, parser.parse_args().plot)


if __name__ == "__main__":
    main()
