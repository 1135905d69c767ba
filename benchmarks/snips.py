"""The learning loop on SNIPS: seven extraction skills, 400 training examples each, 200 other rows to judge by.

Each intent of the corpus is a skill: its slots are the fields of the schema, each a list of strings. Slot F1 is over
all slots of all rows (a predicted value counts when the same slot of the row has it, letter by letter); exact match is
a row without any difference. Intervals: 95%, bootstrap over rows. "Before" is the base model under the same schema.

    python -m benchmarks.snips [SKILL...]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import learning, report
from intern.learning.judging.outcomes import Outcome

GOALS = {"mean_slot_f1": 0.80, "train_seconds": 300.0}
TRAIN, HELDOUT = 400, 200
DRAWS = 2_000
WORDS = {
    "AddToPlaylist": "requests to add music to a playlist",
    "BookRestaurant": "requests to book a table",
    "GetWeather": "questions about the weather",
    "PlayMusic": "requests to play music",
    "RateBook": "ratings of books",
    "SearchCreativeWork": "searches for a film, book, song, show or game",
    "SearchScreeningEvent": "searches for film times and cinemas",
}


def rows(intent: str, *, train: int = TRAIN, heldout: int = HELDOUT) -> list[dict[str, Any]]:
    lines = (report.DATA / "snips" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    found = {row["text"]: row for row in map(json.loads, lines) if row["intent"] == intent}  # each text once
    chosen = list(found.values())
    random.Random(0).shuffle(chosen)
    made = []
    for place, row in enumerate(chosen[: train + heldout]):
        made.append(
            {"input": row["text"], "output": row["slots"], "split": "train" if place < train else "heldout"}
        )  # fmt: skip
    return made


def schema_of(intent: str) -> dict[str, Any]:
    """The slots of an intent as a JSON Schema: each a list of strings, none required."""
    derived = json.loads((report.DATA / "snips" / "schemas_derived.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = derived[intent]["properties"]["slots"]
    return found


def spec_of(intent: str, slots: Sequence[str]) -> dict[str, Any]:
    return {
        "title": intent,
        "description": f"Takes the details out of {WORDS[intent]}.",
        "instructions": f"You take the details out of {WORDS[intent]}. Answer with a JSON object. For each detail that "
        "the text names, the object has a list of the words as they stand in the text; leave out what is not named. "
        f"The details are: {', '.join(slots)}.",
        "generation": {"max_tokens": 128},
    }


def counts(outcome: Outcome) -> tuple[int, int, int]:
    """(right, predicted, expected) slot values of one row."""

    def values(slots: Any) -> Counter[tuple[str, str]]:
        if not isinstance(slots, dict):
            return Counter()
        return Counter((slot, str(value)) for slot, found in slots.items() for value in found or ())

    predicted, expected = values(outcome.output), values(outcome.expected)
    return sum((predicted & expected).values()), predicted.total(), expected.total()


def scores(outcomes: Sequence[Outcome]) -> dict[str, list[float]]:
    """Slot F1 and exact match, each as [value, low, high]."""
    table = np.array([counts(outcome) for outcome in outcomes], dtype=float)
    exact = np.array([right == predicted == expected for right, predicted, expected in table], dtype=float)
    draws = np.random.default_rng(0).integers(len(table), size=(DRAWS, len(table)))
    sums = table[draws].sum(axis=1)
    f1s = 2 * sums[:, 0] / np.maximum(sums[:, 1] + sums[:, 2], 1)
    right, predicted, expected = table.sum(axis=0)
    return {
        "slot_f1": [2 * right / max(predicted + expected, 1), *np.percentile(f1s, [2.5, 97.5])],
        "exact": [exact.mean(), *np.percentile(exact[draws].mean(axis=1), [2.5, 97.5])],
    }


async def one(intent: str) -> dict[str, Any]:
    schema = schema_of(intent)
    name = "".join(f"-{c.lower()}" if c.isupper() else c for c in intent).strip("-")
    home = learning.new_home("snips")
    learning.write_skill(home, name, spec_of(intent, list(schema["properties"])), schema, rows(intent))
    async with learning.opened(home) as workspace:
        found = await learning.learn(workspace, name)
    return {
        **{rival: scores(outcomes) for rival, outcomes in found.outcomes.items()},
        "cpu": report.hardware()["cpu"],  # a skill at a time can be measured, on another day
        "decision": found.run.decision,
        "reason": found.run.reason,
        "train_seconds": found.run.train_seconds,
        "peak_bytes": found.peak_bytes,
        "heldout_loss": [found.heldout_loss[0], found.heldout_loss[-1]],
    }


async def main(intents: Sequence[str]) -> None:
    target = report.RESULTS / "snips.json"
    known = json.loads(target.read_text(encoding="utf-8"))["results"]["skills"] if target.exists() else {}
    for intent in intents:
        print(f"-- {intent}", flush=True)
        known[intent] = await one(intent)
        rivals = [rival for rival in known[intent] if isinstance(known[intent][rival], dict)]
        columns = ("rival", "slot F1", "low", "high", "exact match", "low", "high")
        lines = [(r, *known[intent][r]["slot_f1"], *known[intent][r]["exact"]) for r in rivals]
        report.table(f"{intent}: {known[intent]['train_seconds']:.0f} s of training", columns, lines)
        mean = {
            rival: float(np.mean([skill[rival]["slot_f1"][0] for skill in known.values()]))
            for rival in ("base", "few-shot", "retrieval", "candidate")
        }
        claim = "Seven extraction skills of 400 examples: slot F1 and exact match on 200 other rows, before and after."
        report.write("snips", claim, {"goals": GOALS, "mean_slot_f1": mean, "skills": dict(sorted(known.items()))})
    print(json.dumps(mean, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.snips", description=__doc__)
    parser.add_argument("skill", nargs="*", choices=[*WORDS, []], help="which; otherwise all seven")
    asyncio.run(main(parser.parse_args().skill or list(WORDS)))
