"""The learning loop on CLINC150's banking intents: 15 labels, 20 examples each.

300 messages make a labelling skill, its training is the default recipe's, and accuracy is measured on the corpus's own
validation messages before (the base model with its answer forced into the schema, and with examples in its prompt)
and after, all by the run itself.

    python -m benchmarks.banking [--heldout N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any

from benchmarks import learning, report
from intern.learning.judging.summary import summarise

GOALS = {"accuracy": 0.90, "train_seconds": 150.0, "peak_bytes": 4_000_000_000}
EXAMPLES = 20  # an intent


def rows(heldout: int) -> tuple[list[str], list[dict[str, Any]]]:
    """The intents; training and held-out rows, seeded."""
    folder = report.DATA / "clinc150"
    intents = sorted(json.loads((folder / "domains.json").read_text(encoding="utf-8"))["banking"])

    def read(name: str) -> list[tuple[str, str]]:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines]
        return [(row["text"], row["intent"]) for row in found if row["intent"] in intents]

    chance = random.Random(0)
    known = read("train.jsonl")
    train = [
        pair for intent in intents for pair in chance.sample([p for p in known if p[1] == intent], EXAMPLES)
    ]  # fmt: skip
    held = read("val.jsonl")
    chance.shuffle(train)
    chance.shuffle(held)
    made = [{"input": text, "output": {"intent": intent}, "split": "train"} for text, intent in train]
    made += [{"input": text, "output": {"intent": intent}, "split": "heldout"} for text, intent in held[:heldout]]
    return intents, made


def instructions(intents: Sequence[str]) -> str:
    return (
        "You label messages of a bank's customers with what they want. Answer with a JSON object that has the one key "
        f"intent. The intents are: {', '.join(intents)}."
    )


async def main(heldout: int) -> None:
    intents, made = rows(heldout)
    spec = {
        "title": "Bank customers' messages",
        "description": "Labels messages of a bank's customers with what they want.",
        "instructions": instructions(intents),
        "generation": {"max_tokens": 32},
    }
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["intent"],
        "properties": {"intent": {"enum": intents}},
    }
    home = learning.new_home("banking")
    learning.write_skill(home, "bank-messages", spec, schema, made)
    async with learning.opened(home) as workspace:
        found = await learning.learn(workspace, "bank-messages")
    rivals = {name: summarise(outcomes).score for name, outcomes in found.outcomes.items()}
    columns = ("rival", "accuracy", "low", "high", "messages")
    report.table("CLINC150, banking", columns, [(n, s.mean, s.low, s.high, s.n) for n, s in rivals.items()])
    results = {
        "goals": GOALS,
        "accuracy": {name: score.model_dump(mode="json") for name, score in rivals.items()},
        "decision": found.run.decision,
        "reason": found.run.reason,
        "train_seconds": found.run.train_seconds,
        "peak_bytes": found.peak_bytes,
        "heldout_loss": found.heldout_loss,
    }
    print(json.dumps({key: results[key] for key in ("decision", "reason", "train_seconds", "peak_bytes")}, indent=1))
    claim = "300 messages: the accuracy of a 15-way labelling skill before and after one run of the loop."
    print(report.write("banking", claim, results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.banking", description=__doc__)
    parser.add_argument("--heldout", type=int, default=200, help="validation messages (300 there are)")
    asyncio.run(main(parser.parse_args().heldout))
