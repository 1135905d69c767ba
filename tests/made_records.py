"""A record, as one answer of a skill that labels texts leaves it."""

from __future__ import annotations

from intern.types import Choice, Message, Record, Route, Sampling, new_id, now


def record(team: str = "default", skill: str | None = "label", **more: object) -> Record:
    fields: dict[str, object] = {
        "id": new_id("rec"),
        "team": team,
        "created": now(),
        "skill": skill,
        "adapter": None,
        "model": "m",
        "config": "c",
        "asked": (Message(role="user", content="is this a?"),),
        "prompt": (),
        "sampling": Sampling(),
        "route": Route(skill=skill, confidence=0.5),
        "choices": (Choice(text='{"label": "a"}', parsed={"label": "a"}),),
    }
    return Record.model_validate(fields | more)
