"""What a teacher is asked about one passage, and how its answer is read.

In: a skill, a passage. Out: the request, with the form that the answer must have; from the answer's text the pairs.
Knows no engine, and not which pairs count.
"""

from __future__ import annotations

from collections.abc import Mapping

from intern.engines.base import EngineRequest
from intern.errors import EngineFailure
from intern.prompt import show
from intern.schema import OutputSchema, parse_json
from intern.skill import Skill
from intern.types import Json, Message, Passage, Sampling

PAIRS = 3  # asked of one passage
_TOKENS = 1_000
_OUTPUT = "/properties/examples/items/properties/output"  # where the skill's schema stands in the answer's
_VALUES = ("enum", "const", "default", "examples")  # keywords of a schema below which there are none
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")

_TASK = """You write training examples for an assistant. Its instructions:
---
{instructions}
---
Below is one passage of the documents that it answers from. Write {count} requests that different people could really
send and that this passage answers, each worded in its own way, without naming the passage. For each give the output
that the assistant must give, exactly in its form, and a quote: the words of the passage, copied letter by letter, that
the output rests on. Use nothing but the passage. Answer with JSON: {{"examples": [{{"input", "output", "quote"}}]}}."""


class Formless(EngineFailure):
    """An answer that is not in the form that was asked for."""


def request_for(skill: Skill, passage: Passage, *, seed: int) -> EngineRequest:
    """What the teacher is asked about a passage."""
    task = _TASK.format(instructions=skill.spec.instructions.strip(), count=PAIRS)
    return EngineRequest(
        messages=(Message(role="system", content=task), Message(role="user", content=show(passage))),
        sampling=Sampling(temperature=0.7, max_tokens=_TOKENS, seed=seed),
        schema_=answer_schema(skill.schema),
    )


def pairs_of(text: str) -> list[Mapping[str, Json]]:
    """The pairs of an answer: objects with `input`, `output`, `quote`, as far as the teacher kept to it. Raises
    Formless."""
    value, problems = parse_json(text)
    pairs = value.get("examples") if isinstance(value, dict) else None
    if problems or not isinstance(pairs, list):
        raise Formless("The teacher did not answer in the form that it was asked for.")
    return [pair for pair in pairs if isinstance(pair, dict)]


def answer_schema(schema: OutputSchema | None) -> dict[str, Json]:
    """The form of an answer: the skill's schema is that of each output, with references that lead where they did."""
    output: Json = {"type": "string"}
    if schema is not None:
        output = _moved({key: value for key, value in schema.schema.items() if key not in ("$schema", "$id")})
    pair = {
        "type": "object",
        "additionalProperties": False,
        "required": ["input", "quote", "output"],
        "properties": {"input": {"type": "string"}, "quote": {"type": "string"}, "output": output},
    }
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["examples"],
        "properties": {"examples": {"type": "array", "minItems": 1, "maxItems": PAIRS, "items": pair}},
    }


def _moved(node: Json, *, names: bool = False) -> Json:
    """A part of a schema as it must be below _OUTPUT. `names`: its keys are names of parts, not keywords."""
    if isinstance(node, list):
        return [_moved(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    moved: dict[str, Json] = {}
    for key, value in node.items():
        if names:
            moved[key] = _moved(value)
        elif key in ("$ref", "$dynamicRef") and isinstance(value, str) and (value == "#" or value.startswith("#/")):
            moved[key] = f"#{_OUTPUT}{value[1:]}"  # an anchor's name leads to it from anywhere
        elif key in _VALUES:
            moved[key] = value
        else:
            moved[key] = _moved(value, names=key in _NAMED)
    return moved
