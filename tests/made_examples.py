"""Examples of a small skill, and datasets made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from intern.learning.examples.dataset import build
from intern.learning.examples.items import Built, Gathered
from intern.schema import OutputSchema, check_schema
from intern.skill import Skill
from intern.types import Example, Message, Passage

SCHEMA = check_schema(
    {
        "type": "object",
        "required": ["topic"],
        "additionalProperties": False,
        "properties": {"topic": {"enum": ["order", "refund", "other"]}, "urgent": {"type": "boolean"}},
    }
)

NOUNS = ["invoice", "parcel", "ticket", "chair", "window", "engine", "garden", "planet", "river", "teacher", "violin"]
VERBS = ["arrived", "vanished", "broke", "melted", "doubled", "froze", "sang", "moved", "burned", "floated"]


def text(number: int) -> str:
    """A sentence that shares few words with any other one."""
    return f"{NOUNS[number % 11]} {number} {VERBS[number // 11 % 10]} near {NOUNS[(number * 7 + 3) % 11]}{number}"


def example(number: int, topic: str = "order", **more: Any) -> Example:
    return Example(**{"id": f"e{number}", "input": text(number), "output": {"topic": topic}, **more})


async def no_passages(skill: Skill, conversation: Sequence[Message]) -> Sequence[Passage]:
    """What is retrieved for a skill without documents."""
    return ()


def no_redaction(example: Example) -> tuple[Example, str | None]:
    return example, None


def made(rows: Sequence[Gathered | Example], schema: OutputSchema | None = SCHEMA, **options: Any) -> Built:
    gathered = [row if isinstance(row, Gathered) else Gathered(example=row) for row in rows]
    return build("skill", gathered, schema=schema, redact=no_redaction, **{"secret": "lot", **options})


def ids(rows: Any) -> list[str]:
    return [row.example.id for row in rows]


def reasons(built: Built) -> dict[str, str]:
    return {row.example: row.reason for row in built.dropped}
